from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.noise._base import Noise
from noiseproof.randomness import draw_normal


@dataclass(frozen=True)
class LogNormal(Noise):
    """Log-normal mismatch, which keeps the sign of a parameter: θ' = θ·exp(σ·ξ), or θ·exp(σ·ξ − σ²/2), ξ ~ N(0, 1).

    So vary currents of transistors below threshold, exponential in a threshold voltage that is normal: there the nominal value is
    the median, the default. With `nominal` mean the average over chips is θ, as for Gaussian mismatch. The relative standard
    deviation is √(exp(σ²) − 1) of the mean, near σ where σ is small.
    Source: Pelgrom et al. 1989 (normal thresholds); Büchel et al., arXiv:2106.05009, eq. (1), in the logarithm.

    Raises `NoiseproofError` when σ is not within 0 … 10, or `nominal` is neither of the two.

    Example:
        >>> import torch
        >>> chip = LogNormal(sigma=0.5)({"w": torch.full((200, 200), -2.0)}, torch.Generator().manual_seed(0))
        >>> bool((chip["w"] < 0).all()), round(float(chip["w"].median()), 1)
        (True, -2.0)
    """

    # standard deviation of the logarithm
    sigma: float = 0.3
    # what the nominal value is of the distribution: median or mean
    nominal: Literal["median", "mean"] = "median"

    def __post_init__(self) -> None:
        require_number("sigma", self.sigma, 0, 10)
        require(self.nominal in ("median", "mean"), "nominal", self.nominal, "give median or mean")

    @property
    def deterministic(self) -> bool:
        return self.sigma == 0

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        shift = self.sigma**2 / 2 if self.nominal == "mean" else 0.0
        return draw_normal(theta, stream).mul_(self.sigma).sub_(shift).exp_().mul_(theta)


noise = LogNormal
