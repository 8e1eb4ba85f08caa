from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch

from noiseproof.noise._base import Noise, Stage
from noiseproof.noise._compose import Compose
from noiseproof.noise._devices import Chip
from noiseproof.noise.drift import Drift
from noiseproof.noise.program import Program
from noiseproof.noise.read import Read
from noiseproof.parameters import Params


@dataclass(frozen=True)
class PCM(Read, Drift, Program):
    """Phase-change memory: programmed, drifted for `time` seconds and read, `program > drift > read` in one, the same chips.

    Their settings are its settings. The draws depend on seed and chip, those of the read noise on the time too, and on nothing
    else: the same chip is followed through time, and compared with and without compensation, converters or other tiles.
    Source: as the three; Büchel et al., arXiv:2106.05009, PCM noise model.

    Raises `NoiseproofError` as the three do.

    Example:
        >>> from noiseproof.randomness import chip_generator
        >>> layer = torch.nn.Linear(20, 10)
        >>> chip = PCM(time=3600, dac_bits=8, adc_bits=8)(dict(layer.named_parameters()), chip_generator(seed=0, chip=0))
        >>> chip["weight"].shape
        torch.Size([10, 20])
    """

    stage: ClassVar[Stage] = "parameters"
    on_devices = Noise.on_devices

    def __post_init__(self) -> None:
        self.steps()

    def steps(self) -> tuple[Program, Drift, Read]:
        """Return the three, with the settings of this one."""
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        program, drift, read = ({f.name: mine[f.name] for f in fields(kind) if f.name != "parameters"} for kind in (Program, Drift, Read))
        return Program(**program, parameters=self.parameters), Drift(**drift), Read(**read)

    def program(self, params: Params, generator: torch.Generator) -> Chip:
        """Return the chip, just programmed: what a call reads at `time`, `chip.at(time)` reads at any.

        Raises `NoiseproofError` when no matrix is selected, or the memory is too small.
        """
        composed = Compose(self.steps())
        return self.steps()[0].program(params, composed.streams(generator)[0])

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        return Compose(self.steps())(params, generator)

    def converters(self, params: Params) -> contextlib.AbstractContextManager[Any]:
        return self.steps()[2].converters(params)

    def describe(self) -> dict[str, Any]:
        return Noise.describe(self)


noise = PCM
