from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from noiseproof.errors import require_number
from noiseproof.noise._base import Stage
from noiseproof.noise._devices import LONGEST, Chip, PartOfChip

T0 = 20.0  # s, t_0: the drift exponents were measured relative to the conductance at this time after programming


@dataclass(frozen=True)
class Drift(PartOfChip):
    """Drift of phase-change memory devices: G_D = G_P·(T/t_0)^−ν, T = t + t_0, t_0 = 20 s, t seconds after programming.

    At t = 0 the devices are as they were programmed. The conductances themselves are computed when they are read. Times count from
    programming; a chip that is drifted twice, with stuck devices in between, is as old as the last one says.
    Source: Nandakumar et al., ICECS 2019; Büchel et al., arXiv:2106.05009, PCM noise model (there t_c is t_0).

    Raises `NoiseproofError` for a time out of [0, 1e10].
    """

    stage: ClassVar[Stage] = "devices"

    # seconds since the end of programming: 25, 3600 (an hour), 86400 (a day), 2592000 (30 days), 31536000 (a year)
    time: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("time", self.time, 0, LONGEST)

    def on_devices(self, chip: Chip, generator: torch.Generator) -> Chip:
        """Return the same chip, older."""
        return chip.after(self.time)


def drifted(g: Tensor, nu: Tensor, time: float) -> Tensor:
    """Return G_D in µS for G_P in µS, exponents ν and a time in seconds since programming."""
    return torch.mul(nu, -math.log((time + T0) / T0)).exp_().mul_(g)


noise = Drift
