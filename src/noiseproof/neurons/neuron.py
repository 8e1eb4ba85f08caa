"""Layers of spiking neurons. Their thresholds, leaks and time constants are parameters like all others: noise and attacks reach them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.neurons.equation import Constants, Emitted, Form, State
from noiseproof.neurons.kernels import integrate
from noiseproof.neurons.surrogates import Surrogate

Per = Literal["layer", "channel", "neuron"]
SMALLEST_THRESHOLD = 1e-6
SHORTEST_TAU = 0.05  # exp(-20) is nothing, and the gradient is still a number


@wrap_torch_function(lambda spikes: (spikes,))
def hidden_units(spikes: Tensor) -> Tensor:
    """Return the spikes [T, B, …] as they are; a torch function, so that a method such as dropout can find the hidden units."""
    return spikes


class Neuron(nn.Module, ABC):
    """A layer of spiking neurons: current [T, B, …] → spikes [T, B, …], by the equation of `noiseproof.neurons.equation`.

    `per`: one parameter for the whole layer, one a channel (the dimension after the batch) or one a neuron; the last two need
    `shape`, the shape of one sample's neurons. Parameters have at most one dimension, so that `parameters="weights"` means
    matrices and kernels alone. Those not named in `trainable` are fixed in training, and still reached by noise and attacks.

    A threshold that noise brings to zero or below counts as 1e-6 (it fires at any positive potential), a leak outside [0, 1] as
    the nearest end; gradients pass through these limits unchanged, so that training is not caught behind them.

    Raises `NoiseproofError` for a parameter out of its range, an unknown name in `trainable`, or a missing shape.
    """

    def __init__(self, form: Form, *, trainable: Sequence[str] = (), per: Per = "layer", shape: Sequence[int] = ()) -> None:
        super().__init__()
        require(per in ("layer", "channel", "neuron"), "per", per, "give layer, channel or neuron")
        require(per == "layer" or len(shape) > 0, "shape", tuple(shape), f"per {per} needs the shape of one sample's neurons")
        self.form, self.shape, self.trainable = form, tuple(shape), tuple(trainable)
        self.per: Per = per

    def _add(self, name: str, value: float) -> None:
        """Register a parameter of the layer, trainable where `trainable` names it."""
        sizes = {"layer": (), "channel": self.shape[:1], "neuron": (math.prod(self.shape),)}[self.per]
        self.register_parameter(name, nn.Parameter(torch.full(sizes, float(value)), requires_grad=name in self.trainable))

    def _complete(self) -> None:
        """Check, once all parameters are there, that `trainable` names nothing else."""
        known = [name for name, _ in self.named_parameters()]
        for name in self.trainable:
            require(name in known, "trainable", name, f"these neurons have {', '.join(known)}")

    @abstractmethod
    def constants(self, steps: int, spread: _Spread) -> Constants:
        """Return the numbers of the equation for `steps` steps; `spread` brings a parameter to the dimensions of the current."""

    def forward(
        self,
        current: Tensor,
        *,
        steps: int | None = None,
        state: State | None = None,
        surrogate: Surrogate | None = None,
        recurrent: Tensor | None = None,
        membrane: bool = False,
    ) -> Emitted:
        """Return spikes [T, B, …], final state and, where asked for, potentials.

        `current` [T, B, …], or [1, B, …] with `steps` where it stays the same; `surrogate` another than the layer's own.

        Raises `NoiseproofError` for shapes that do not fit.
        """
        form = self.form if surrogate is None else replace(self.form, surrogate=surrogate)
        steps = len(current) if steps is None else steps
        spread = _Spread(self.per, current)
        out = integrate(current, self.constants(steps, spread), form, steps=steps, state=state, recurrent=recurrent, membrane=membrane)
        return out._replace(spikes=hidden_units(out.spikes))

    def extra_repr(self) -> str:
        return f"{self.form}, per={self.per!r}, trainable={self.trainable}"


class _Spread:
    """Brings the parameters of a layer to the dimensions of its current [T, B, …]."""

    def __init__(self, per: Per, current: Tensor) -> None:
        self.per, self.current = per, current

    def __call__(self, parameter: Tensor) -> Tensor:
        shape = self.current.shape
        wanted = {"layer": 1, "channel": shape[2] if len(shape) > 2 else 1, "neuron": math.prod(shape[2:])}[self.per]
        if parameter.numel() != wanted:
            raise NoiseproofError(
                f"neurons have {parameter.numel()} parameters per {self.per}: a current of shape {tuple(shape)} [T, B, …] needs {wanted}"
            )
        if self.per == "neuron":
            return parameter.reshape(1, 1, *shape[2:])
        return parameter.reshape([1, 1, -1] + [1] * (len(shape) - 3) if len(shape) > 2 else [1] * len(shape))

    def in_time(self, values: Tensor) -> Tensor:
        """Return one number a step, [T], as [T, 1, …]."""
        return values.reshape([-1] + [1] * (self.current.ndim - 1))


def within(value: Tensor, low: float, high: float = math.inf) -> Tensor:
    """Return the value limited to [low, high]; the gradient is that of the value itself."""
    fixed = value.detach()
    return fixed.clamp(low, high) + (value - fixed)  # exact, as the last part is zero


def leak_of(tau: Tensor, decay: Literal["exponential", "euler"]) -> Tensor:
    """Return λ = exp(−1/τ), or 1 − 1/τ, for a time constant τ in steps.

    Below 0.05 steps (exponential) or one step (euler) nothing is kept: λ is zero, and τ counts as that limit in the gradient too.
    """
    return torch.exp(-1 / within(tau, SHORTEST_TAU)) if decay == "exponential" else 1 - 1 / within(tau, 1.0)


def check_threshold(threshold: float) -> None:
    """Raise `NoiseproofError` unless the threshold is positive."""
    require_number("threshold", threshold, 0, open_low=True)
