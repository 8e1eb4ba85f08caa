from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.noise._base import Additive
from noiseproof.noise._devices import max_along_in, over_columns, spread


@dataclass(frozen=True)
class MaxRelativeGaussian(Additive):
    """Noise relative to the largest weight: w' = w + η·max|w|·ξ, ξ ~ N(0, 1), the maximum taken per kernel, channel, tile or tensor.

    A kernel is the weights from one input channel to one output channel, [:, :, height, width]; in a matrix it is a single
    weight, so there the maximum per kernel is taken over the row, as per channel. A tile holds `rows` inputs and `columns` outputs of
    the matrix [out, in·height·width], as a crossbar of that size does. A vector is one kernel and one tile.
    Source: Joshi et al. 2020, as used by Büchel et al., arXiv:2106.05009, for phase-change memory.

    Raises `NoiseproofError` when η is negative or not finite, `per` is not one of the four, or a tile has no rows or columns.
    """

    # standard deviation as a share of the largest weight
    eta: float = 0.05
    # what the maximum is taken over
    per: Literal["kernel", "channel", "tile", "tensor"] = "channel"
    # inputs of a tile
    rows: int = 256
    # outputs of a tile
    columns: int = 256

    def __post_init__(self) -> None:
        require_number("eta", self.eta, 0)
        require(self.per in ("kernel", "channel", "tile", "tensor"), "per", self.per, "give kernel, channel, tile or tensor")
        require_number("rows", self.rows, 1, whole=True)
        require_number("columns", self.columns, 1, whole=True)

    @property
    def deterministic(self) -> bool:
        return self.eta == 0

    def sigma(self, theta: Tensor) -> Tensor:
        if self.per == "tensor" or theta.ndim < 2:
            largest = theta.abs().amax()
        elif self.per == "tile":
            matrix = theta.flatten(1)
            by_tile = over_columns(max_along_in(matrix, self.rows), self.columns, lambda part: part.amax(0))
            largest = spread(by_tile, self.rows, matrix.shape[1]).reshape(theta.shape)
        else:
            first = 2 if self.per == "kernel" and theta.ndim > 2 else 1
            largest = theta.abs().amax(dim=tuple(range(first, theta.ndim)), keepdim=True)
        return self.eta * largest

    def describe(self) -> dict[str, Any]:
        """Return name and settings; those of tiles only where there are tiles."""
        described = super().describe()
        return described if self.per == "tile" else {k: v for k, v in described.items() if k not in ("rows", "columns")}


noise = MaxRelativeGaussian
