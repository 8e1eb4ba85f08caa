from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.errors import require_number
from noiseproof.projections._base import Projection


@dataclass(frozen=True)
class Clip(Projection):
    """Clip the weights of every filter to ± k standard deviations: w ← clip(w, −k·σ, k·σ), σ the standard deviation of the filter.

    A filter is what leads to one output: a row of a matrix, [out, …] of a kernel; a vector is one filter. A range without
    outliers leaves more of a device's conductance to the other weights. Where all weights of a filter are one value, or it has only one,
    none is an outlier, and they stay.
    Source: Joshi et al. 2020; as used by Büchel et al., arXiv:2106.05009, for phase-change memory (k = 2, after each step).

    Raises `NoiseproofError` when k is not above 0.

    Example:
        >>> import torch
        >>> w = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 9.0, 0.0]])
        >>> Clip(k=2.0)({"w": w})
        >>> w[0, -2] < 9
        tensor(True)
    """

    # standard deviations
    k: float = 2.0

    def __post_init__(self) -> None:
        require_number("k", self.k, 0, open_low=True)

    def project(self, theta: Tensor, stream: torch.Generator | None) -> Tensor:
        filters = theta.reshape(len(theta), -1) if theta.ndim >= 2 else theta.reshape(1, -1)
        limit = self.k * filters.std(1, correction=0, keepdim=True)
        alike = filters.amin(1, keepdim=True) == filters.amax(1, keepdim=True)
        limit = limit.masked_fill(alike, math.inf)
        return filters.clamp(-limit, limit).view_as(theta)


projection = Clip
