"""The network as an attacker sees it: fixed weights, predictions, gradients to inputs, and a count of all that it was asked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from noiseproof.errors import NoGradientError, NoiseproofError, UnfitError
from noiseproof.networks import Network
from noiseproof.networks._base import ChannelsLast
from noiseproof.networks.adapt import Adapted
from noiseproof.neurons.rate_rules import RateRule
from noiseproof.neurons.surrogates import Surrogate
from noiseproof.parameters import functional_call, inference_mode
from noiseproof.randomness import stochastic

if TYPE_CHECKING:
    from noiseproof.attacks._base import Member

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

    @property
    def all_zero(self) -> bool:
        """Whether gradients were asked for and none said anything."""
        return 0 < self.gradient_evaluations == self.zero_gradients

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

    def __init__(
        self,
        call: Callable[[Tensor], Tensor],
        bounds: tuple[float, float],
        *,
        eot: int = 1,
        seed: int = 0,
        network: nn.Module | None = None,
        smooth: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.call, self.bounds, self.eot, self.seed = call, bounds, eot, seed
        # what gradients are taken of, where that is not the network itself
        self.smooth = smooth or call
        # for attacks of several: the network itself, which each sees in its own way, and what each did
        self.network = network
        self.members: list[Member] = []
        # whether two draws differ: then one that is fooled is no reason to leave a sample alone (see `fooled`)
        self.stochastic = False
        self._gradients = self._queries = self._asked = 0
        self._zeros: Tensor | int = 0

    @property
    def spent(self) -> Budget:
        """What was asked up to now."""
        return Budget(self._gradients, self._queries, int(self._zeros))

    def charge(self, budget: Budget) -> None:
        """Count what was asked through another view of the same network."""
        self._gradients += budget.gradient_evaluations
        self._queries += budget.queries
        self._zeros = self._zeros + budget.zero_gradients

    @torch.no_grad()
    def is_stochastic(self, x: Tensor) -> bool:
        """Return whether two draws differ; asked about two samples, and not counted, nor taken from the draws of the search."""
        if not len(x):
            return False
        first, second = (self._drawn(x[:2], draw=draw) for draw in (-1, -2))
        # what sums in no fixed order may differ in the last digits
        return not torch.allclose(first, second, rtol=1e-4, atol=1e-5 * float(first.abs().max()), equal_nan=True)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Return logits [B, C]: the network's own, or the log of its mean probabilities over `eot` draws."""
        self._queries += len(x) * self.eot
        return self._mean([self._drawn(x) for _ in range(self.eot)])

    def predictions(self, x: Tensor) -> Tensor:
        """Return the predicted classes [B]."""
        return self.logits(x).argmax(-1)

    def fooled(self, x: Tensor, y: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return whether the network gives other classes than y [B]; a stochastic one twice, with new draws, as one time may be luck.

        `logits`: what it said of x, where it was asked already.
        """
        wrong = (self.logits(x) if logits is None else logits).argmax(-1) != y
        return wrong & (self.predictions(x) != y) if self.stochastic else wrong

    def gradient(self, x: Tensor, values: Values) -> Slope:
        """Return ∂(Σ values)/∂x, one gradient a sample; the sum, because a mean underflows in short floating-point numbers.

        Raises `NoiseproofError` when the network passes no gradient to its input.
        """
        slopes = [self._slope(x, values) for _ in range(self.eot)]
        # after them: an evaluation that the network refuses is none
        self._gradients += len(x) * self.eot
        if self.eot == 1:
            found = slopes[0]
        else:
            gradient, worth = (torch.stack([s[i] for s in slopes]).mean(0) for i in (0, 2))
            found = Slope(gradient, self._mean([s.logits for s in slopes]), worth)
        self._zeros = self._zeros + self.eot * (found.gradient.flatten(1).abs().amax(1) == 0).sum()
        return found

    def _slope(self, x: Tensor, values: Values) -> Slope:
        point = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._drawn(point, self.smooth)
            worth = values(logits)
            gradient = torch.autograd.grad(worth.sum(), point, allow_unused=True)[0] if worth.requires_grad else None
        if gradient is None:
            raise NoGradientError(
                "the network passes no gradient to its input, so an attack by gradients says nothing about it: attack it by queries "
                "(square) or from another network (transfer), or let its encoder pass a gradient"
            )
        # one that is not finite leads nowhere, as one of zero
        return Slope(gradient.nan_to_num(0.0, 0.0, 0.0), logits.detach(), worth.detach())

    def _drawn(self, x: Tensor, call: Callable[[Tensor], Tensor] | None = None, draw: int | None = None) -> Tensor:
        if draw is None:
            draw, self._asked = self._asked, self._asked + 1
        with stochastic(self.seed, draw):
            logits = (call or self.call)(x)
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits

    def _mean(self, draws: list[Tensor]) -> Tensor:
        # the logarithm of a mean of probabilities, which may underflow
        return draws[0] if len(draws) == 1 else torch.stack(draws).log_softmax(-1).logsumexp(0) - math.log(len(draws))


class _ChannelsLast:
    """Calls an outside network with images laid out channels last, in which convolutions on a CPU are faster; as they are where it cannot.

    A network that takes a `view` of what a convolution gives cannot; ours lay out their images themselves.
    """

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        self.call, self.layout = call, ChannelsLast()

    def __call__(self, x: Tensor) -> Tensor:
        if self.layout is None or x.ndim != 4 or x.device.type != "cpu":
            return self.call(x)
        try:
            return self.call(self.layout(x))
        except RuntimeError:
            self.layout = None
            return self.call(x)


@contextlib.contextmanager
def viewed(
    network: nn.Module, *, surrogate: Surrogate | RateRule | None = None, expected: bool = False, eot: int = 1, seed: int = 0
) -> Iterator[View]:
    """Let an attacker see `network` in inference; its mode, buffers and parameters are afterwards what they were.

    With `surrogate` the gradients of its spikes are others than those that it was trained with, or go through firing rates; with
    `expected` they are those of the network that gets the expected input in place of Poisson spikes.
    """
    params = {name: p.detach() for name, p in network.named_parameters()}
    buffers = {name: b.clone() for name, b in network.named_buffers()}

    def call(x: Tensor) -> Tensor:
        if surrogate is not None:
            return run(x)
        # only inputs are differentiated, so parameters get no gradients; buffers of a module of somebody else might be written
        return network(x) if isinstance(network, Network) or not buffers else functional_call(network, (params, buffers), (x,))

    def run(x: Tensor, **options: bool) -> Tensor:
        try:
            # all networks of ours have `run`, and `bounds`
            return network.run(x, params=params, surrogate=surrogate, **options).logits  # type: ignore[operator]
        except NoiseproofError as refused:
            # without these options it was asked before
            raise UnfitError(str(refused)) from None

    own = _ChannelsLast(call) if isinstance(network, Adapted) and network.time is None else call
    with inference_mode(network):
        bounds: tuple[float, float] = network.bounds  # type: ignore[assignment]
        yield View(own, bounds, eot=eot, seed=seed, network=network, smooth=partial(run, expected=True) if expected else None)
