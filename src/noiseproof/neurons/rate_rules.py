"""Gradients through firing rates: what stands for the derivative of a layer's spikes where time is left out.

A layer keeps its exact spikes; in backward all its steps have the gradient of r = f(ī), its rate as a function of the mean current
ī = mean_t(g·I[t])/B, in units of the threshold. What changes in time enters by its mean: the leak of DLIF, the threshold of ALIF at
the rate that was seen (B = θ + β·r), the recurrent current W·r, which passes no gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.errors import require_number, unknown
from noiseproof.neurons.equation import Emitted, State
from noiseproof.neurons.neuron import Neuron, _Spread
from noiseproof.neurons.recurrent import Recurrent


@dataclass(frozen=True)
class RateRule(ABC):
    """f, the rate of a neuron from its mean current, whose autograd derivative backward uses."""

    @abstractmethod
    def rate(self, drive: Tensor, leak: Tensor, seen: Tensor, highest: float) -> Tensor:
        """Return f(ī) [1, B, …] of `drive` ī [1, B, …]; `leak` λ, `seen` the rate that the neuron has, `highest` the most it can have."""


@dataclass(frozen=True)
class RGA(RateRule):
    """Rate gradient approximation: a line from the origin to the rheobase 1 − λ, another from there to the highest rate.

        f(ī) = γ·ī for 0 ≤ ī ≤ 1 − λ;   γ·(1 − λ) + (r_max − γ·(1 − λ))/(λ + e)·(ī − (1 − λ)) up to ī = 1 + e;   constant outside

    r_max is 1 spike a step, or 1/(1 + dead steps). Source: Bu et al., CVPR 2023, with γ and e as public implementations have them.

    Raises `NoiseproofError` for γ outside [0, 1] or a negative e.
    """

    # γ: slope below the rheobase, where the neuron is silent
    gamma: float = 0.2
    # e: how far above the threshold the mean current still counts, in units of the threshold
    extension: float = 1.0

    def __post_init__(self) -> None:
        require_number("gamma", self.gamma, 0, 1)
        require_number("extension", self.extension, 0)

    def rate(self, drive: Tensor, leak: Tensor, seen: Tensor, highest: float) -> Tensor:
        rheobase, most = 1 - leak, 1 + self.extension
        slope = (highest - self.gamma * rheobase) / (most - rheobase)
        above = torch.minimum(torch.maximum(drive, rheobase), torch.full_like(rheobase, most)) - rheobase
        return self.gamma * torch.minimum(drive.clamp_min(0), rheobase) + slope * above


@dataclass(frozen=True)
class BPTR(RateRule):
    """Backward pass through rate: straight through, f(ī) = ī, for neurons that spiked at all. Source: Ding et al., NeurIPS 2022."""

    def rate(self, drive: Tensor, leak: Tensor, seen: Tensor, highest: float) -> Tensor:
        return drive * (seen > 0)


RATE_RULES: dict[str, type[RateRule]] = {"rga": RGA, "bptr": BPTR}


def rate_rule(name: str) -> RateRule:
    """Return the rule of a name.

    Raises `NoiseproofError` for an unknown name.
    """
    if name not in RATE_RULES:
        raise unknown("rule", name, RATE_RULES)
    return RATE_RULES[name]()


def through_rates(
    layer: Neuron | Recurrent, current: Tensor, rule: RateRule, *, steps: int, state: State | None = None, membrane: bool = False
) -> Emitted:
    """Return what `layer` makes of `current` [T, B, …] or [1, B, …], exactly, with the gradient of `rule`."""
    with torch.no_grad():
        out = layer(current, steps=steps, state=state, membrane=membrane)
    seen = out.spikes.mean(0, keepdim=True)
    neuron = layer.neuron if isinstance(layer, Recurrent) else layer
    leak, threshold, gain, beta, _ = neuron.constants(steps, _Spread(neuron.per, current))
    total = current + seen @ (layer.weight * layer.mask).mT if isinstance(layer, Recurrent) else current
    mean_current = (total if gain is None else gain * total).mean(0, keepdim=True)
    drive = mean_current / (threshold if beta is None else threshold + beta * seen)
    soft = rule.rate(drive, leak.mean(0, keepdim=True), seen, 1 / (1 + neuron.form.refractory))
    return out._replace(spikes=out.spikes + (soft - soft.detach()))
