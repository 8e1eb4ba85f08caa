from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.noise._base import Noise
from noiseproof.randomness import draw_normal


@dataclass(frozen=True)
class Temperature(Noise):
    """Gain that goes with temperature: θ' = θ·(1 + (α + s·ξ)·ΔT), ξ ~ N(0, 1), ΔT in kelvin from the temperature of calibration.

    α is what all devices have in common, s how much their coefficients differ. The default of α, 1/300 per kelvin, is that of a
    gain proportional to the thermal voltage kT/q at 300 K; resistors and memories have their own. A chip is followed through
    temperature: ξ does not depend on ΔT. Source: the first-order temperature coefficient, as in data sheets.

    Raises `NoiseproofError` when a number is out of its range, or the common gain would be negative.

    Example:
        >>> import torch
        >>> chip = Temperature(kelvin=30)({"w": torch.ones(2, 2)}, torch.Generator().manual_seed(0))
        >>> round(float(chip["w"][0, 0]), 3)
        1.1
    """

    # ΔT: kelvin above (below: negative) the temperature of calibration
    kelvin: float = 30.0
    # α: relative change of all parameters, per kelvin
    per_kelvin: float = 1 / 300
    # s: standard deviation of this coefficient between devices, per kelvin
    spread: float = 0.0

    def __post_init__(self) -> None:
        require_number("kelvin", self.kelvin, -1000, 1000)
        require_number("per_kelvin", self.per_kelvin, -1, 1)
        require_number("spread", self.spread, 0, 1)
        gain = 1 + self.per_kelvin * self.kelvin
        require(gain >= 0, "kelvin", self.kelvin, f"at {self.per_kelvin:g} per kelvin the gain would be {gain:g}; give less")

    @property
    def deterministic(self) -> bool:
        return self.spread == 0 or self.kelvin == 0

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        coefficient = draw_normal(theta, stream).mul_(self.spread).add_(self.per_kelvin)
        return coefficient.mul_(self.kelvin).add_(1).mul_(theta)


noise = Temperature
