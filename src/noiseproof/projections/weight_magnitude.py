from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.projections._base import Projection


@dataclass(frozen=True)
class WeightMagnitude(Projection):
    """Hold the mean magnitude m = mean|w| of every parameter in a range, by scaling it as a whole.

    Below `at_least` it grows by inverse weight decay, w ← w·(1 + rate) a step; above `at_most` it is scaled back, w ← w·at_most/m.
    Noise of constant size is easily withstood by large weights, relative noise is not: this shows it.
    Source: Büchel et al., arXiv:2106.05009, Fig. S4 (one network forced to grow to 2.0, another held at 0.2).

    Raises `NoiseproofError` for a number out of range, or `at_most` below `at_least`.

    Example:
        >>> import torch
        >>> w = torch.tensor([[0.5, -1.5]])
        >>> WeightMagnitude(at_most=0.5)({"w": w})
        >>> w
        tensor([[ 0.2500, -0.7500]])
    """

    # mean magnitude up to which the weights grow; 0: they need not
    at_least: float = 0.0
    # mean magnitude that they may have at most
    at_most: float = math.inf
    # growth a step below at_least
    rate: float = 1e-3

    def __post_init__(self) -> None:
        require_number("at_least", self.at_least, 0)
        require_number("rate", self.rate, 0, 1)
        require(self.at_most > 0, "at_most", self.at_most, "give a number above 0")
        require(self.at_most >= self.at_least, "at_most", self.at_most, f"it is below at_least, {self.at_least:g}")

    def project(self, theta: Tensor, stream: torch.Generator | None) -> Tensor:
        magnitude = float(theta.abs().mean())
        if magnitude > self.at_most:
            return theta * (self.at_most / magnitude)
        return theta * (1 + self.rate) if magnitude < self.at_least else theta


projection = WeightMagnitude
