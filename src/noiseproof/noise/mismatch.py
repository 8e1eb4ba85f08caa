from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from noiseproof.errors import require_number
from noiseproof.noise._base import Additive


@dataclass(frozen=True)
class Mismatch(Additive):
    """Device mismatch, proportional to each parameter: θ' = θ·(1 + ζ·ξ), ξ ~ N(0, 1).

    ζ is **one standard deviation** (a tool that quotes three of them calls ζ = 0.1 "0.30 mismatch").
    Source: Büchel, Faber, Muir, arXiv:2106.05009, eq. (1); its diag(ζ|Θ|) is the standard deviation, not the variance.

    Raises `NoiseproofError` when ζ is negative or not finite.

    Example:
        >>> import torch
        >>> from noiseproof.randomness import chip_generator
        >>> chip = Mismatch(zeta=0.3)({"w": torch.ones(2, 2)}, chip_generator(seed=0, chip=0))
        >>> chip["w"].shape
        torch.Size([2, 2])
    """

    # one standard deviation of relative mismatch
    zeta: float = 0.3

    def __post_init__(self) -> None:
        require_number("zeta", self.zeta, 0)

    @property
    def deterministic(self) -> bool:
        return self.zeta == 0

    def sigma(self, theta: Tensor) -> Tensor:
        return self.zeta * theta.abs()  # A eq. (1)


noise = Mismatch
