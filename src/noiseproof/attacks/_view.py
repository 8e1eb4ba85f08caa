"""The network as an attacker sees it: fixed weights, predictions, gradients to inputs, and a count of all that it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from noiseproof.errors import NoiseproofError
from noiseproof.neurons.surrogates import Surrogate
from noiseproof.parameters import inference_mode
from noiseproof.randomness import stochastic

Values = Callable[[Tensor], Tensor]  # logits [B, C] → what the attacker makes large, [B]


@dataclass(frozen=True)
class Budget:
    """What an attack asked of the network, each summed over samples (and over draws of a stochastic network).

    `gradient_evaluations`: passes forward and backward; `queries`: forward passes; `zero_gradients`: of the former, those
    whose gradient was zero in every entry, from which an attacker learns nothing.
    """

    gradient_evaluations: int = 0
    queries: int = 0
    zero_gradients: int = 0

    def __add__(self, other: Budget) -> Budget:
        return Budget(
            self.gradient_evaluations + other.gradient_evaluations, self.queries + other.queries, self.zero_gradients + other.zero_gradients
        )


class Slope(NamedTuple):
    """One evaluation of the gradient: it [B, …], and the logits [B, C] and values [B] at the same inputs."""

    gradient: Tensor
    logits: Tensor
    values: Tensor


class View:
    """What can be asked of a network at fixed weights. `call`: x [B, …] → logits [B, C]; `bounds`: the valid range of x.

    Of a stochastic network every question has draws of its own, `eot` of them: gradients are means over the draws
    (expectation over transformation), predictions those of the mean probabilities.
    Source: Athalye et al., arXiv:1707.07397.
    """

    def __init__(self, call: Callable[[Tensor], Tensor], bounds: tuple[float, float], *, eot: int = 1, seed: int = 0) -> None:
        self.call, self.bounds, self.eot, self.seed = call, bounds, eot, seed
        self._gradients = self._queries = self._asked = 0
        self._zeros: Tensor | int = 0

    @property
    def spent(self) -> Budget:
        """What was asked up to now."""
        return Budget(self._gradients, self._queries, int(self._zeros))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, C]: the network's own, or the log of its mean probabilities over `eot` draws."""
        self._queries += len(x) * self.eot
        return self._mean([self._drawn(x) for _ in range(self.eot)])

    def predictions(self, x: Tensor) -> Tensor:
        """Return the predicted classes [B]."""
        return self.logits(x).argmax(-1)

    def gradient(self, x: Tensor, values: Values) -> Slope:
        """Return ∂(Σ values)/∂x, one gradient a sample; the sum, because a mean underflows in short floating-point numbers.

        Raises `NoiseproofError` when the network passes no gradient to its input.
        """
        self._gradients += len(x) * self.eot
        slopes = [self._slope(x, values) for _ in range(self.eot)]
        if self.eot == 1:
            found = slopes[0]
        else:
            gradient, worth = (torch.stack([s[i] for s in slopes]).mean(0) for i in (0, 2))
            found = Slope(gradient, self._mean([s.logits for s in slopes]), worth)
        self._zeros = self._zeros + self.eot * (~found.gradient.flatten(1).any(1)).sum()
        return found

    def _slope(self, x: Tensor, values: Values) -> Slope:
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._drawn(point)
            worth = values(logits)
            gradient = torch.autograd.grad(worth.sum(), point, allow_unused=True)[0] if worth.requires_grad else None
        if gradient is None:
            raise NoiseproofError(
                "the network passes no gradient to its input, so an attack by gradients says nothing about it: attack it by queries "
                "(square) or from another network (transfer), or let its encoder pass a gradient"
            )
        return Slope(gradient, logits.detach(), worth.detach())

    def _drawn(self, x: Tensor) -> Tensor:
        with stochastic(self.seed, self._asked):
            self._asked += 1
            logits = self.call(x)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def _mean(self, draws: list[Tensor]) -> Tensor:
        return draws[0] if len(draws) == 1 else torch.stack(draws).softmax(-1).mean(0).log()


@contextlib.contextmanager
def viewed(network: nn.Module, *, surrogate: Surrogate | None = None, eot: int = 1, seed: int = 0) -> Iterator[View]:
    """Let an attacker see `network` in inference; its mode, buffers and parameters are afterwards what they were.

    With `surrogate` the gradients of its spikes are others than those that it was trained with.
    """
    params = {name: p.detach() for name, p in network.named_parameters()}
    buffers = {name: b.clone() for name, b in network.named_buffers()}

    def call(x: Tensor) -> Tensor:
        if surrogate is None:
            return functional_call(network, (params, buffers), (x,))
        return network.run(x, params=params, surrogate=surrogate).logits  # type: ignore[operator]  (all networks of ours have `run`)

    with inference_mode(network):
        yield View(call, network.bounds, eot=eot, seed=seed)  # type: ignore[arg-type]  (and `bounds`)
