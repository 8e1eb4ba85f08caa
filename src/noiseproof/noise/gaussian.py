from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.errors import require_number
from noiseproof.noise._base import Additive


@dataclass(frozen=True)
class Gaussian(Additive):
    """Noise of one size for all parameters: θ' = θ + s·ξ, ξ ~ N(0, 1), s in the unit of the parameters.

    Source: the constant noise that Büchel et al., arXiv:2106.05009, Fig. S4, set beside the relative one.

    Raises `NoiseproofError` when s is negative or not finite.
    """

    # standard deviation, in the unit of the parameters
    std: float = 0.01

    def __post_init__(self) -> None:
        require_number("std", self.std, 0)

    @property
    def deterministic(self) -> bool:
        return self.std == 0

    def sigma(self, theta: Tensor) -> Tensor:
        return torch.full((), self.std, dtype=theta.dtype, device=theta.device)


noise = Gaussian
