from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.noise._base import Stage
from noiseproof.noise._devices import Chip, Devices, DeviceStep, blocks, max_along_in, over_columns, spread
from noiseproof.parameters import Params
from noiseproof.randomness import children

PROGRAMMING = (0.26348, 1.9650, -1.1731)  # σ_P in µS: constant, linear and quadratic in r
SMALLEST_R = 1e-7  # the drift of devices with a smaller target is that of this one


@dataclass(frozen=True)
class Program(DeviceStep):
    """Programming of weights into pairs of phase-change memory devices, with its noise, and the drift exponents they come out with.

    On tiles of `rows` inputs × `columns` outputs, each weight is a pair G+, G− of targets G_T± = clamp(±w·G_max/max|w|, 0, G_max),
    r = G_T/G_max, the maximum taken per tile or per output column of a tile. All devices are programmed, those of target 0 too:

        σ_P = 0.26348 + 1.9650·r − 1.1731·r² (µS);   G_P = max(0, G_T + σ_P·ξ1)
        μ_ν = clip(−0.0155·ln r + 0.0244, 0.049, 0.1);   σ_ν = clip(−0.0125·ln r − 0.0059, 0.008, 0.045);   ν = |μ_ν + σ_ν·ξ2|

    with ξ ~ N(0, 1) per device. A parameter of more than two dimensions is the matrix [out, in·height·width]; vectors stay digital.
    Source: Nandakumar et al., ICECS 2019 (doi:10.1109/ICECS46596.2019.8964852); Joshi et al., Nature Communications 11:2473 (2020).

    Raises `NoiseproofError` for a number out of range, a tile larger than the memory, a network that needs more than that, and
    when no matrix is selected.
    """

    stage: ClassVar[Stage] = "program"

    # highest conductance that a device is programmed to, in µS
    g_max: float = 25.0
    # devices along the inputs of a tile
    rows: int = 256
    # pairs of devices along the outputs of a tile
    columns: int = 256
    # what the largest weight is mapped to g_max in: a whole tile, or one output column of it
    mapping: Literal["tile", "column"] = "tile"
    # devices that there are in all, two a weight and whole tiles only; 0: as many as are needed
    memory: int = 0

    def __post_init__(self) -> None:
        require_number("g_max", self.g_max, 0, 1000, open_low=True)
        require_number("rows", self.rows, 1, whole=True)
        require_number("columns", self.columns, 1, whole=True)
        require(self.mapping in ("tile", "column"), "mapping", self.mapping, "give tile or column")
        require_number("memory", self.memory, 0, whole=True)
        size = 2 * self.rows * self.columns
        too_large = f"one tile of {self.rows} × {self.columns} pairs has {size} devices; give smaller tiles or more memory"
        require(not self.memory or size <= self.memory, "memory", self.memory, too_large)

    def program(self, params: Params, generator: torch.Generator) -> Chip:
        """Return the chip on which the selected matrices of `params` are devices.

        Raises `NoiseproofError` when no matrix is selected, or the memory is too small.
        """
        chosen = self.selected(params)
        self._check_memory(chosen)
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        streams = children(generator, list(chosen))
        devices = {name: self._devices(p.detach(), streams[name]) for name, p in chosen.items()}
        return Chip(devices, dict(params), self.g_max, self.rows, self.columns, seed, str(generator.device))

    def selected(self, params: Params) -> Params:
        chosen = {name: p for name, p in super().selected(params).items() if p.ndim >= 2 and p.numel()}
        if not chosen:
            raise NoiseproofError(f"parameters is {self.parameters!r}: it selects no matrix, and only matrices are held by devices")
        return chosen

    def _check_memory(self, chosen: Params) -> None:
        tiles = sum(math.ceil(p.shape[0] / self.columns) * math.ceil(p.numel() / p.shape[0] / self.rows) for p in chosen.values())
        needed = 2 * tiles * self.rows * self.columns
        if self.memory and needed > self.memory:
            raise NoiseproofError(
                f"memory is {self.memory}: the network needs {needed} devices, {tiles} tiles of {self.rows} × {self.columns} pairs; "
                "give more memory, other tiles, or fewer parameters"
            )

    @torch.no_grad()
    def _devices(self, theta: Tensor, stream: torch.Generator) -> Devices:
        w = theta.flatten(1).to(torch.promote_types(theta.dtype, torch.float32))
        largest = max_along_in(w, self.rows)
        if self.mapping == "tile":
            largest = over_columns(largest, self.columns, lambda part: part.amax(0))
        xi = [torch.randn(2, *w.shape, generator=stream, device=stream.device).to(w) for _ in range(2)]
        scale = torch.where(largest > 0, largest, 1)  # a tile of zeros has targets of zero
        for part in blocks(w):
            x = w[part] / spread(scale[part], self.rows, w.shape[1])
            _program(torch.stack((x, -x)).clamp_(0, 1), xi[0][:, part], xi[1][:, part], self.g_max)
        return Devices(xi[0], xi[1], largest)


def _program(r: Tensor, g: Tensor, nu: Tensor, g_max: float) -> None:
    """Turn ξ1 in `g` into G_P and ξ2 in `nu` into ν, in place, for targets r = G_T/G_max; r is used up."""
    constant, linear, quadratic = PROGRAMMING
    scratch = torch.mul(r, quadratic).add_(linear).mul_(r).add_(constant)  # σ_P
    g.mul_(scratch).add_(r, alpha=g_max).clamp_(min=0)
    r.clamp_(min=SMALLEST_R).log_()
    nu.mul_(torch.mul(r, -0.0125, out=scratch).sub_(0.0059).clamp_(0.008, 0.045))  # σ_ν
    nu.add_(r.mul_(-0.0155).add_(0.0244).clamp_(0.049, 0.1)).abs_()  # μ_ν


noise = Program
