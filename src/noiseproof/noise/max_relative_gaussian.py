from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.noise._base import Additive


@dataclass(frozen=True)
class MaxRelativeGaussian(Additive):
    """Noise relative to the largest weight: w' = w + η·max|w|·ξ, ξ ~ N(0, 1), the maximum taken per kernel, channel or tensor.

    A kernel is the weights from one input channel to one output channel, [:, :, height, width]; in a matrix it is a single
    weight, so there the maximum per kernel is taken over the row, as per channel. A vector is one kernel.
    Source: Joshi et al. 2020, as used by Büchel et al., arXiv:2106.05009, for phase-change memory.

    Raises `NoiseproofError` when η is negative or not finite, or `per` is not one of the three.
    """

    # standard deviation as a share of the largest weight
    eta: float = 0.05
    # what the maximum is taken over
    per: Literal["kernel", "channel", "tensor"] = "channel"

    def __post_init__(self) -> None:
        require_number("eta", self.eta, 0)
        require(self.per in ("kernel", "channel", "tensor"), "per", self.per, "give kernel, channel or tensor")

    def sigma(self, theta: Tensor) -> Tensor:
        if self.per == "tensor" or theta.ndim < 2:
            largest = theta.abs().amax()
        else:
            first = 2 if self.per == "kernel" and theta.ndim > 2 else 1
            largest = theta.abs().amax(dim=tuple(range(first, theta.ndim)), keepdim=True)
        return self.eta * largest


noise = MaxRelativeGaussian
