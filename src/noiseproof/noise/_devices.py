from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require_number
from noiseproof.noise._base import Noise
from noiseproof.parameters import Params
from noiseproof.randomness import children

if TYPE_CHECKING:
    from noiseproof.noise.read import Read

LONGEST = 1e10  # s, three centuries: the model of drift was measured for less than a year, and is a power law beyond
BLOCK = 65536  # weights at a time: few calls, and their intermediate results stay in the processor's caches


@dataclass(frozen=True)
class Devices:
    """The pairs of devices that hold one parameter of two or more dimensions, as a matrix [out, in]: in → rows, out → columns.

    `programmed` and `exponent` are [2, out, in], of G+ first and of G− then; `largest` [out, tiles along in] is the weight that a
    device at G_max stands for, by output and tile.
    """

    # conductance after programming G_P, in µS
    programmed: Tensor
    # how fast it drifts: ν in G_P·(T/t_0)^−ν
    exponent: Tensor
    # |w| at G_max, in the unit of the weight
    largest: Tensor
    # which are stuck, [2, out, in]; None: none
    frozen: Tensor | None = None

    def stuck(self, where: Tensor, conductance: Tensor | float) -> Devices:
        """Return the same devices, those at `where` (bool, [2, out, in]) at `conductance` (µS) for ever: they do not drift either.

        Raises `NoiseproofError` for a conductance below 0.
        """
        value = torch.as_tensor(conductance, dtype=self.programmed.dtype, device=self.programmed.device)
        require_number("conductance", float(value.min()), 0)
        return replace(
            self,
            programmed=torch.where(where, value, self.programmed),
            exponent=torch.where(where, 0.0, self.exponent).to(value.dtype),
            frozen=where if self.frozen is None else where | self.frozen,
        )


@dataclass(frozen=True)
class Chip:
    """One chip of memory devices: what `Program` makes of parameters, and `Read` turns back into parameters.

    It is a value: drift, stuck devices and reading leave it as it is and return another. The same chip is followed through time
    by `at`; the devices and how they drift are drawn once, when it is programmed, read noise anew for every time.

    Example:
        >>> from noiseproof.noise import PCM
        >>> from noiseproof.randomness import chip_generator
        >>> chip = PCM().program({"weight": torch.eye(3), "bias": torch.ones(3)}, chip_generator(seed=0, chip=0))
        >>> day, year = chip.at(86400.0), chip.at(3.15e7)
        >>> year["weight"].shape, bool((year["bias"] == 1).all())
        (torch.Size([3, 3]), True)
    """

    # pairs of devices by name of the parameter
    devices: dict[str, Devices]
    # all parameters as they were before: in digital memory, and what the gradient passes to
    nominal: Params
    # highest conductance that a device is programmed to, in µS
    g_max: float
    # devices along the inputs and along the outputs of a tile
    rows: int
    columns: int
    # seed of the read noise
    seed: int
    # where random numbers are drawn, as for the generator that programmed the chip
    drawn_on: str
    # seconds since programming
    time: float = 0.0

    def at(self, time: float, read: Read | None = None) -> Params:
        """Return the chip's parameters `time` seconds after programming; `read`: how they are read, by default with GDC.

        Raises `NoiseproofError` for a time out of [0, 1e10], or before the chip's own.
        """
        from noiseproof.noise.read import Read

        return (read or Read()).read(self.after(time))

    def after(self, time: float) -> Chip:
        """Return the same chip `time` seconds after programming.

        Raises `NoiseproofError` for a time out of [0, 1e10], or before the chip's own.
        """
        require_number("time", time, 0, LONGEST)
        if time < self.time:
            raise NoiseproofError(f"time is {time:g}: the chip is {self.time:g} s old already; times count from programming and grow")
        return replace(self, time=float(time))

    def change(self, change: Callable[[Devices, torch.Generator], Devices], generator: torch.Generator) -> Chip:
        """Return the chip with other devices: `change(devices, stream)` for each parameter, whose stream is its own."""
        streams = children(generator, list(self.devices))
        return replace(self, devices={name: change(held, streams[name]) for name, held in self.devices.items()})


class Reading(Params):
    """The parameters that a chip gives when it is read, and what its converters need; `seed` is that of the noise at their outputs.

    `units` [out, tiles along in]: the weight, as it is read, that a device at G_max stands for: the largest weight of the tile
    (or column) times its drift compensation α.
    """

    def __init__(self, params: Params, units: dict[str, Tensor], rows: int, columns: int, seed: int) -> None:
        super().__init__(params)
        self.units, self.rows, self.columns, self.seed = units, rows, columns, seed


class DeviceStep(Noise):
    """A noise that begins, changes or ends a `Chip`: part of a composition, nothing by itself."""

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        raise NoiseproofError(f"{type(self).__name__} acts on all devices of a chip together")

    def __call__(self, params: Params, generator: torch.Generator) -> Params:
        name = type(self).__name__.lower()
        raise NoiseproofError(f"noise is {name!r}: it is one step of a chip of devices; compose program > drift > read, or take pcm")


class PartOfChip(DeviceStep):
    """A step on all devices of a chip, whichever parameters were programmed."""

    def __post_init__(self) -> None:
        if self.parameters != "weights":
            raise NoiseproofError(f"parameters is {self.parameters!r}: which parameters become devices is for program to say")

    def describe(self) -> dict[str, object]:
        described = super().describe()
        del described["parameters"]
        return described


def spread(values: Tensor, rows: int, width: int) -> Tensor:
    """Return one number a tile along the last dimension, [out, tiles], as one a weight, [out, width]."""
    return values.repeat_interleave(rows, -1)[..., :width]


def sum_along_in(matrix: Tensor, rows: int) -> Tensor:
    """Return Σ|m| by tile along the last dimension: [out, in] → [out, tiles]."""
    whole = matrix.shape[-1] // rows * rows
    parts = []
    if whole:
        parts.append(torch.linalg.vector_norm(matrix[..., :whole].unflatten(-1, (-1, rows)), 1, -1))
    if whole < matrix.shape[-1]:
        parts.append(torch.linalg.vector_norm(matrix[..., whole:], 1, -1, keepdim=True))
    return torch.cat(parts, -1)


def max_along_in(matrix: Tensor, rows: int) -> Tensor:
    """Return max|m| by tile along the last dimension: [out, in] → [out, tiles]."""
    return torch.stack([torch.maximum(part.amax(-1), -part.amin(-1)) for part in matrix.split(rows, -1)], -1)


def over_columns(values: Tensor, columns: int, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `reduce` over the outputs of each tile, [out, tiles], with the result for each of them."""
    return torch.cat([reduce(part).expand_as(part) for part in values.split(columns, 0)])


def blocks(matrix: Tensor) -> list[slice]:
    """Return slices of the outputs of [out, in] that hold about `BLOCK` weights each; one for everything on a GPU."""
    out, width = matrix.shape
    step = out if matrix.is_cuda else max(1, BLOCK // max(1, width))
    return [slice(i, min(i + step, out)) for i in range(0, out, step)]
