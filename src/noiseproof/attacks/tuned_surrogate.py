from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import Attack
from noiseproof.attacks._view import View, viewed
from noiseproof.attacks.apgd import APGD
from noiseproof.attacks.objectives import margin_values
from noiseproof.attacks.pgd import PGD
from noiseproof.errors import NoGradientError, NoiseproofError, UnfitError, require, require_number
from noiseproof.neurons.rate_rules import RateRule, rate_rule
from noiseproof.neurons.surrogates import SURROGATES, Atan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Triangle
from noiseproof.parameters import Params

Gradient = Surrogate | RateRule | None  # what stands for the derivative of spikes; None: the surrogate of the training


@dataclass(frozen=True)
class TunedSurrogate(Attack):
    """APGD on a spiking network with the surrogate gradient that serves each sample best, found by short runs of PGD with every one.

    The candidates: the surrogate of the training, every shape at every sharpness, every rate rule. A sample that survives the short
    runs, which climb its margin max_{i≠y} z_i − z_y, goes on by APGD on cross-entropy with the `tries` candidates that raised it most,
    then on the targeted difference of logits ratio with the best of them. Sharpness k: the surrogate falls to half its height at a
    distance of 1/(2k) thresholds. Candidates that the network refuses are passed over.

    Raises `NoiseproofError` when a setting is out of its range, and when the network refuses all candidates.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif").build(data.task, torch.Generator().manual_seed(0))
        >>> attack = TunedSurrogate(eps=0.1, shapes=("atan",), steps=5, screening=2, tries=1)
        >>> attack(network, data.test.x, data.test.y, torch.Generator().manual_seed(0)).success.shape
        torch.Size([20])
    """

    # shapes of surrogates
    shapes: tuple[str, ...] = ("triangle", "atan", "sigmoid", "fast-sigmoid", "rectangle")
    # k: how sharp each shape is, 1 / its full width at half height in thresholds
    sharpness: tuple[float, ...] = (1.0, 2.0, 4.0)
    # gradients through firing rates: rga, bptr
    rules: tuple[str, ...] = ("rga", "bptr")
    # gradient steps of a short run, one a candidate
    screening: int = 5
    # gradient steps of every long run
    steps: int = 20
    # candidates that a sample goes on with, the best first
    tries: int = 3
    # wrong classes that are then approached with the best, the most likely first
    targets: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for k in self.sharpness:
            require_number("sharpness", k, 0, open_low=True)
        for name in ("screening", "steps", "tries"):
            require_number(name, getattr(self, name), 1, whole=True)
        require_number("targets", self.targets, 0, whole=True)
        _ = self.candidates

    @property
    def candidates(self) -> tuple[Gradient, ...]:
        """What is tried for every sample."""
        return None, *(sharp(shape, k) for shape in self.shapes for k in self.sharpness), *map(rate_rule, self.rules)

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found, left, margins = self._screen(view, x, y, ball, generator)
        order, best = margins.argsort(0, descending=True), margins.amax(0)
        long = APGD(self.eps, self.norm, steps=self.steps)
        runs = [(rank, long) for rank in range(min(self.tries, len(order)))]
        if self.targets:
            runs.append((0, replace(long, loss="dlr", targets=self.targets)))
        for rank, attack in runs:
            survives = torch.ones(len(left), dtype=torch.bool, device=x.device)
            for place in order[rank, left].unique().tolist():
                # a candidate that the network refuses has no margin
                at = ((order[rank, left] == place) & margins[place, left].isfinite()).nonzero().squeeze(1)
                rows = left[at]
                if not len(rows):
                    continue
                with self._seen(view, self.candidates[place]) as own:
                    moved = attack.search(own, x[rows], y[rows], ball[rows], generator)
                    logits = own.logits(moved)
                    fooled, reached = own.fooled(moved, y[rows], logits), margin_values(logits, y[rows]).to(best)
                better = fooled | (reached > best[rows])
                found[rows[better]], best[rows[better]], survives[at] = moved[better], reached[better], ~fooled
            left = left[survives]
        return found

    def _screen(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best inputs of the short runs, the places of the samples that survive, and the margins [candidates, B] reached."""
        found, left, refused = x.clone(), torch.arange(len(x), device=x.device), list[NoiseproofError]()
        margins = torch.full((len(self.candidates), len(x)), -torch.inf, device=x.device)
        short = PGD(self.eps, self.norm, loss="margin", steps=self.screening)
        for place, candidate in enumerate(self.candidates):
            if not len(left):
                break
            try:
                with self._seen(view, candidate) as own:
                    moved = short.search(own, x[left], y[left], ball[left], generator)
                    logits = own.logits(moved)
                    fooled = own.fooled(moved, y[left], logits)
            except (NoGradientError, UnfitError) as error:
                refused.append(error)
                continue
            reached = margin_values(logits, y[left]).to(margins)
            better = fooled | (reached > margins[:, left].amax(0))
            found[left[better]], margins[place, left] = moved[better], reached
            left = left[~fooled]
        if len(refused) == len(self.candidates):
            raise refused[0]
        return found, left, margins

    def craft(self, network: nn.Module, params: Params, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        raise NoiseproofError("tuned-surrogate looks for samples that are fooled, not for a perturbation of every input: give pgd or apgd")

    @contextlib.contextmanager
    def _seen(self, view: View, candidate: Gradient) -> Iterator[View]:
        assert view.network is not None
        with viewed(view.network, surrogate=candidate, eot=self.eot, seed=view.seed) as own:
            own.stochastic = view.stochastic
            try:
                yield own
            finally:
                view.charge(own.spent)


def sharp(shape: str, k: float) -> Surrogate:
    """Return the surrogate of a shape that falls to half its height at z = ±1/(2k).

    Raises `NoiseproofError` for an unknown shape.

    Example:
        >>> surrogate = sharp("atan", 2.0)
        >>> z = torch.tensor([0.0, 0.25])
        >>> float(surrogate.derivative(z)[1] / surrogate.derivative(z)[0])
        0.5
    """
    require(shape in SURROGATES, "shapes", shape, f"give {', '.join(SURROGATES)}")
    match shape:
        case "triangle":
            return Triangle(gamma=k, omega=1 / k)
        case "atan":
            return Atan(4 * k / math.pi)
        case "sigmoid":
            # σ' is half its height where cosh(α·z/2)² = 2
            return Sigmoid(4 * k * math.acosh(math.sqrt(2)))
        case "fast-sigmoid":
            return FastSigmoid(2 * k * (math.sqrt(2) - 1))
        case _:
            return Rectangle(1 / k)


attack = TunedSurrogate
