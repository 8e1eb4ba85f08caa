from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.noise._base import Noise
from noiseproof.parameters import select
from noiseproof.randomness import draw_uniform

if TYPE_CHECKING:
    from noiseproof.noise._devices import Chip, Devices


@dataclass(frozen=True)
class Stuck(Noise):
    """Devices that no longer follow what is written: with probability p_0 one is stuck at zero (dead), with p_max at its largest value.

    On weights: w' = 0, or ±max|w| of the tensor, either sign with probability ½. On a chip of memory devices, between program and
    read, each device of a pair by itself: G = 0 or G_max, for ever; it does not drift. One u ~ U[0, 1) a device: stuck at zero
    where u < p_0, at the largest value where u ≥ 1 − p_max, so that on one chip the devices stuck at p stay stuck at every larger p.
    Source: Chen et al., IEEE Trans. Computers 64 (2015) 180 (stuck-at-0 and stuck-at-1 faults of resistive memory).

    Raises `NoiseproofError` when one is no probability, or the two together are more than 1.

    Example:
        >>> import torch
        >>> chip = Stuck(stuck_at_zero=0.3, stuck_at_max=0.2)({"w": torch.full((100, 100), 0.5)}, torch.Generator().manual_seed(0))
        >>> [round(float((chip["w"] == value).float().mean()), 1) for value in (0.0, -0.5)]
        [0.3, 0.1]
    """

    # probability that a device is stuck at zero (dead)
    stuck_at_zero: float = 0.01
    # probability that it is stuck at its largest value
    stuck_at_max: float = 0.0

    def __post_init__(self) -> None:
        require_number("stuck_at_zero", self.stuck_at_zero, 0, 1)
        require_number("stuck_at_max", self.stuck_at_max, 0, 1)
        together = self.stuck_at_zero + self.stuck_at_max
        require(together <= 1, "stuck_at_zero + stuck_at_max", together, "give probabilities that are at most 1 together")

    @property
    def deterministic(self) -> bool:
        return self.stuck_at_zero + self.stuck_at_max == 0

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        zero, most = self._where(theta, stream)
        if not self.stuck_at_max:
            return theta.masked_fill(zero, 0.0)
        sign = torch.where(draw_uniform(theta, stream) < 0.5, -1.0, 1.0).to(theta)
        return torch.where(most, sign * theta.abs().amax(), theta).masked_fill_(zero, 0.0)

    def on_devices(self, chip: Chip, generator: torch.Generator) -> Chip:
        """Return the chip with its devices stuck; those of parameters that are not selected stay as they are."""

        def stick(held: Devices, stream: torch.Generator) -> Devices:
            zero, most = self._where(held.programmed, stream)
            return held.stuck(zero, 0.0).stuck(most, chip.g_max)

        chosen = select({name: chip.nominal[name] for name in chip.devices}, self.parameters)
        stuck = chip.change(stick, generator).devices
        return replace(chip, devices={name: stuck[name] if name in chosen else held for name, held in chip.devices.items()})

    def _where(self, like: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return which devices are stuck at zero, and which at their largest value."""
        u = draw_uniform(like.float(), stream)
        return u < self.stuck_at_zero, u >= 1 - self.stuck_at_max


noise = Stuck
