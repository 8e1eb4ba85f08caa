from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks._base import check_size
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.methods._base import Batch, Context, Method, Round
from noiseproof.methods._carried import carried, climb, shown
from noiseproof.methods._perturbing import is_spiking, run_at
from noiseproof.networks import SpikingNetwork
from noiseproof.neurons import DLIF
from noiseproof.parameters import Params
from noiseproof.randomness import draw_normal


@dataclass(frozen=True)
class HIRE(Method):
    """HIRE-SNN: the T steps of a batch are cut into 𝒩 periods; each shows x + κ, updates all parameters, and crafts the next κ.

        L = CE(f(x + κ; T/𝒩 steps), y),   κ ← clip(κ + ε_s·sign(∇_x L), −ε_t, ε_t),   θ ← the optimiser's step on ∇_θ L

    θ: weights, and the thresholds and leaks that are trained. One backward pass gives both gradients, so that a batch costs the passes
    of T steps, and 𝒩 steps of the optimiser; the graph is 1/𝒩 as large. κ begins a batch as the last one's left it. `loss` is that of
    the next period. With a recipe's penalty on rates ∇_x is that of the sum. The paper leaves open what the membranes do between
    periods (its public code lets them restart) and lets x + κ leave the range of the data.
    Source: Kundu et al., ICCV 2021, Algorithm 1 and eq. (6) (𝒩 2; ε_s = ε_t: 0.013 for VGG5, 0.025 for VGG11, 0.008, 0.015 for ResNet12).

    Raises `NoiseproofError` when a setting is out of its range; at the start of a training, for T not divisible by 𝒩, a network without
    spikes, inputs that have a time of their own, and neurons that run for T steps only.

    Example:
        >>> HIRE(periods=2, eps_step=0.013).bound
        0.013
    """

    # ε_s: size of the step of κ, in the unit of the data
    eps_step: float = 0.013
    # ε_t: largest entry of κ, in the unit of the data; 0: eps_step
    eps: float = 0.0
    # 𝒩: periods of a batch, each with one update
    periods: int = 2
    # between the periods of a batch: from rest again, or go on (values only: no gradient flows back into the period before)
    membranes: Literal["restart", "carry"] = "restart"
    # clip x + κ into the range of the network's inputs
    clip_inputs: bool = True
    # κ: crafted from the gradient, or Gaussian noise of standard deviation eps_step, drawn anew for every period
    noise: Literal["crafted", "gaussian"] = "crafted"
    # κ goes on from batch to batch; otherwise each begins with 0
    carry: bool = True

    def __post_init__(self) -> None:
        require_number("eps_step", self.eps_step, 0, open_low=True)
        require_number("eps", self.eps, 0)
        require_number("periods", self.periods, 1, whole=True)
        require(self.membranes in ("restart", "carry"), "membranes", self.membranes, "give restart or carry")
        require(self.noise in ("crafted", "gaussian"), "noise", self.noise, "give crafted or gaussian")

    @property
    def bound(self) -> float:
        """ε_t."""
        return self.eps or self.eps_step

    @property
    def gradient_evaluations(self) -> float:
        return 1  # 𝒩 passes of T/𝒩 steps

    @property
    def updates(self) -> int:
        return self.periods

    def start(self, network: nn.Module) -> dict[str, Tensor]:
        self.steps_of_a_period(network)
        for name, value in (("eps_step", self.eps_step), ("eps", self.bound)):
            check_size(name, value, network.bounds, ())  # pyright: ignore[reportArgumentType]  (every network of noiseproof has it)
        return {}

    def steps_of_a_period(self, network: nn.Module) -> int:
        """Return T/𝒩.

        Raises `NoiseproofError` when this network's steps cannot be so divided.
        """
        if not is_spiking(network):
            raise NoiseproofError("method is 'hire': the network has no spiking neurons, so it has no steps to divide; take free")
        ours = isinstance(network, SpikingNetwork)
        time: Any = network if ours else network.time
        if time.sequence or time.steps is None:
            raise NoiseproofError(
                "method is 'hire': the inputs have a time of their own, and it divides the steps of still ones; take free"
            )
        steps: int = time.steps
        require(steps % self.periods == 0, "periods", self.periods, f"the network has {steps} steps, which these do not divide")
        if self.periods > 1 and any(isinstance(layer, DLIF) for layer in network.modules()):
            raise NoiseproofError(
                f"periods is {self.periods}: dlif neurons have a[t] for {steps} steps and run for no other number; take lif"
            )
        require(ours or self.membranes == "restart", "membranes", self.membranes, "an adapted network has its own state; give restart")
        return steps // self.periods

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return next(self.rounds(network, lambda: params, batch, context)).loss

    def rounds(self, network: nn.Module, params: Callable[[], Params], batch: Batch, context: Context) -> Iterator[Round]:
        x, y = batch
        steps, state = self.steps_of_a_period(network), None
        kappa = carried(context.state, "kappa", x) if self.carry and self.noise == "crafted" else torch.zeros_like(x)
        for _ in range(self.periods):
            if self.noise == "gaussian":
                kappa = self.eps_step * draw_normal(x, context.generator)
            point = shown(network, x, kappa, clip=self.clip_inputs)
            run = run_at(network, params(), point, steps=steps, state=state)
            yield Round(cross_entropy(run.logits, y), point.detach())
            if self.noise == "crafted":
                climb(network, kappa, point, self.eps_step, self.bound)
            state = _detached(run.state) if self.membranes == "carry" else None


def _detached(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of all layers as constants: the graph of the period before is gone."""
    return {name: type(s)(*(None if part is None else part.detach() for part in s)) for name, s in state.items()}


method = HIRE
