from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.errors import require_number
from noiseproof.noise._base import Noise
from noiseproof.randomness import draw_uniform


@dataclass(frozen=True)
class Uniform(Noise):
    """Mismatch of bounded size: θ' = θ·(1 + √3·ζ·u), u ~ U(−1, 1).

    ζ is **one standard deviation**, as for Gaussian mismatch; the largest deviation is √3·ζ = 1.73·ζ.
    Source: the uniform variant of Büchel et al., arXiv:2106.05009, eq. (1).

    Raises `NoiseproofError` when ζ is negative or not finite.

    Example:
        >>> import torch
        >>> chip = Uniform(zeta=0.1)({"w": torch.ones(100, 100)}, torch.Generator().manual_seed(0))
        >>> bool((chip["w"] - 1).abs().max() <= 0.1733), round(float(chip["w"].std()), 3)
        (True, 0.1)
    """

    # one standard deviation of relative mismatch; the largest is 1.73 times this
    zeta: float = 0.3

    def __post_init__(self) -> None:
        require_number("zeta", self.zeta, 0)

    @property
    def deterministic(self) -> bool:
        return self.zeta == 0

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        u = draw_uniform(theta, stream).mul_(2).sub_(1)
        return u.mul_(math.sqrt(3) * self.zeta).add_(1).mul_(theta)


noise = Uniform
