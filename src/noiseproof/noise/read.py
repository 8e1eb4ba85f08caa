from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.noise._base import Stage, straight_through
from noiseproof.noise._devices import Chip, Devices, PartOfChip, Reading, blocks, over_columns, spread, sum_along_in
from noiseproof.noise.drift import T0, drifted
from noiseproof.parameters import Params
from noiseproof.randomness import generator

T_READ = 250e-9  # s, t_r: how long a device is read


@dataclass(frozen=True)
class Read(PartOfChip):
    """Reading of phase-change memory: 1/f noise, drift compensation, and the converters around the tiles.

        Q = min(0.2, 0.0088/(G_P/G_max)^0.65);   σ_R = G_D·Q·sqrt(ln((T + t_r)/(2·t_r))), t_r = 250 ns
        G = max(0, G_D + σ_R·ξ3);   w~ = α·(G+ − G−)·max|w|/G_max

    with ξ3 ~ N(0, 1) per device and time, T = t + 20 s, the conductances G_P programmed and G_D drifted in µS. Global drift
    compensation: α = mean|y| as programmed / mean|y| now, by tile, y being the tile's outputs to each unit vector.
    With converters a product with a tile is: inputs / largest input of this vector in the tile → DAC → product → output noise → ADC →
    scaled back, and summed over the tiles in digital. b bits are 2^(b−1) − 1 steps on each side of 0; one bit is −1, 0 or 1.
    Source: Nandakumar et al., ICECS 2019; Joshi et al., Nature Communications 11:2473 (2020).

    Raises `NoiseproofError` for bits that are not 0 … 16, or a range that is not positive.
    """

    stage: ClassVar[Stage] = "read"

    # global drift compensation: every tile's output is scaled by what it has lost on average
    gdc: bool = True
    # what Q is computed from: the conductance programmed, or its target (as the text of arXiv:2106.05009 has it)
    noise_from: Literal["programmed", "target"] = "programmed"
    # bits of the converters before the tiles; 0: none
    dac_bits: int = 0
    # bits of the converters behind the tiles; 0: none
    adc_bits: int = 0
    # what these can take, in currents of one device at g_max whose input is full; more is cut off. Sums over the rows of a tile
    # grow like the root of their number: 12 is nearly four times that of 256 rows of weights and inputs around 0.2 of the largest
    adc_range: float = 12.0
    # noise of the tiles' outputs before these converters, one standard deviation in the same unit, drawn anew for every product
    output_noise: float = 0.0
    # what counts as full input, in the unit of a layer's inputs, more is cut off; 0: the largest of each vector in each tile
    input_range: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise_from in ("programmed", "target"), "noise_from", self.noise_from, "give programmed or target")
        for name in ("dac_bits", "adc_bits"):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            require(whole and 0 <= value <= 16, name, value, "give 1 to 16 bits, or 0 for no converter")
        require_number("adc_range", self.adc_range, 0, open_low=True)
        require_number("output_noise", self.output_noise, 0)
        require_number("input_range", self.input_range, 0)

    @property
    def converts(self) -> bool:
        """Whether there are converters, or noise, around the products."""
        return self.dac_bits > 0 or self.adc_bits > 0 or self.output_noise > 0

    def read(self, chip: Chip) -> Reading:
        """Return the parameters that the chip gives at its time; the gradient passes straight to those that were programmed."""
        params, units = dict(chip.nominal), {}
        for name, held in chip.devices.items():
            theta = chip.nominal[name]
            stream = generator(f"read {name} at {chip.time!r} s", chip.seed, device=chip.drawn_on)
            matrix, units[name] = self._weights(chip, held, theta.detach(), stream)
            # in the layout of the parameter: a convolution is twice as slow on weights of another one
            read = matrix.view(theta.shape) if theta.is_contiguous() else torch.empty_like(theta).copy_(matrix.view(theta.shape))
            params[name] = straight_through(theta, read.to(theta.dtype))
        return Reading(params, units, chip.rows, chip.columns, chip.seed)

    @torch.no_grad()
    def _weights(self, chip: Chip, held: Devices, theta: Tensor, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the weights as read [out, in], and what a device at G_max stands for by output and tile."""
        g, nu, rows = held.programmed, held.exponent, chip.rows
        xi = torch.randn(g.shape, generator=stream, device=stream.device).to(g)
        matrix = g.new_empty(g.shape[1:])
        # Σ|y| by output and tile, as programmed and now
        before, now = torch.empty_like(held.largest), torch.empty_like(held.largest)
        targets = theta.flatten(1) if self.noise_from == "target" else None
        for part in blocks(matrix):
            source = g[:, part] if targets is None else _targets(targets[part], held.largest[part], chip)
            if targets is not None and held.frozen is not None:  # a stuck device has no target
                source = torch.where(held.frozen[:, part], g[:, part], source)
            noisy = _read(g[:, part], nu[:, part], source, xi[:, part], chip.time, chip.g_max)
            torch.sub(noisy[0], noisy[1], out=matrix[part])
            if self.gdc:
                before[part] = sum_along_in(torch.sub(g[0, part], g[1, part], out=noisy[0]), rows)
                now[part] = sum_along_in(matrix[part], rows)
        unit = held.largest
        if self.gdc:
            before, now = (over_columns(value, chip.columns, lambda tile: tile.sum(0)) for value in (before, now))
            unit = unit * torch.where((before > 0) & (now > 0), before / now, 1)  # α
        for part in blocks(matrix):
            matrix[part] *= spread(unit[part] / chip.g_max, rows, matrix.shape[1])
        return matrix, unit

    def converters(self, params: Params) -> contextlib.AbstractContextManager[Any]:
        if not self.converts:
            return contextlib.nullcontext()
        if not isinstance(params, Reading):
            raise NoiseproofError(
                "converters need the parameters as they were read: let read or pcm be the last noise, or leave bits and output_noise out"
            )
        from noiseproof.noise._converters import converting

        return converting(params, self)


def _read(g: Tensor, nu: Tensor, source: Tensor, xi: Tensor, time: float, g_max: float) -> Tensor:
    """Return G in µS; `source` is the conductance in µS that Q is computed from."""
    root = math.sqrt(math.log((time + T0 + T_READ) / (2 * T_READ)))
    q = torch.pow(source, -0.65).mul_(0.0088 * g_max**0.65).clamp_(max=0.2)
    return q.mul_(root).mul_(xi).add_(1).mul_(drifted(g, nu, time)).clamp_(min=0)


def _targets(w: Tensor, largest: Tensor, chip: Chip) -> Tensor:
    """Return the targets G_T [2, out, in] in µS of weights [out, in]."""
    x = w * spread(chip.g_max / torch.where(largest > 0, largest, 1), chip.rows, w.shape[1])
    return torch.stack((x, -x)).clamp_(0, chip.g_max)


noise = Read
