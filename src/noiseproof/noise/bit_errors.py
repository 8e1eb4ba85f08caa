from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.noise._base import Noise
from noiseproof.noise._grid import Encoding, Grid, Per, Range


@dataclass(frozen=True)
class BitErrors(Noise):
    """Random bit errors in weights that are stored as b bits each: every stored bit is flipped with probability p.

    Weights are quantised first: range [−max|w|, max|w|], or with `range` asymmetric [min w, max w], of a tensor or an output channel;
    codes in −L … L, L = 2^(b−1) − 1, stored in two's complement, or with `encoding` unsigned as c + L; in both a flip of the highest
    bit moves a weight by half the range. The paper's robust quantisation is asymmetric, unsigned, nearest; its normal one rounds
    toward zero. p = 0 is quantisation alone. On one chip the bits that are flipped at p are flipped at every larger p too: one u a
    bit, flipped where u < p. p counts in steps of 2^−31.
    Source: Stutz, Chandramoorthy, Hein, Schiele, MLSys 2021, arXiv:2006.13977, eq. (1) and the model of random bit errors.

    Raises `NoiseproofError` when p is no probability, for bits that are not 1 … 16, or an unknown choice.

    Example:
        >>> import torch
        >>> w = {"w": torch.linspace(-1, 1, 5)[None]}
        >>> [round(v, 2) for v in BitErrors(p=1.0, bits=4)(w, torch.Generator())["w"].flatten().tolist()]
        [0.86, 0.43, -0.14, -0.71, -1.14]
    """

    # probability that a stored bit is flipped
    p: float = 0.01
    # bits a weight, 1 to 16
    bits: int = 8
    # what the range is taken of: the tensor, or each output channel
    per: Per = "tensor"
    # symmetric: zero is exact; asymmetric: from the smallest to the largest weight
    range: Range = "symmetric"
    # signed: two's complement; unsigned: counted from the low end of the range
    encoding: Encoding = "signed"
    # nearest | toward-zero
    rounding: Literal["nearest", "toward-zero"] = "nearest"

    def __post_init__(self) -> None:
        require_number("p", self.p, 0, 1)
        require(self.encoding in ("signed", "unsigned"), "encoding", self.encoding, "give signed or unsigned")
        require(self.rounding in ("nearest", "toward-zero"), "rounding", self.rounding, "give nearest or toward-zero")
        self.grid  # noqa: B018 (checks the settings)

    @property
    def grid(self) -> Grid:
        """The numbers that there are."""
        return Grid(self.bits, self.per, self.range, self.rounding)

    @property
    def deterministic(self) -> bool:
        return self.p in (0, 1)

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        codes, stored = self.grid.encode(theta, stream)
        mask = flipped_bits(codes.shape, self.bits, self.p, stream).to(codes.device)
        return stored.decode(stored.flip(codes, mask, self.encoding), theta)


def flipped_bits(shape: torch.Size, bits: int, p: float, stream: torch.Generator) -> Tensor:
    """Return which bits are flipped, each with probability p, as int32 of `shape` on the stream's device; bit i counts 2^i.

    Whole random numbers instead of fractions: their 31 digits tell p = 1e-9 from 0.
    """
    last = round(p * 2**31) - 1  # u < p for u in steps of 2^−31
    mask = torch.zeros(shape, dtype=torch.int32, device=stream.device)
    u = torch.empty(shape, dtype=torch.int32, device=stream.device)
    for i in range(bits):
        mask.add_(u.random_(generator=stream) <= last, alpha=1 << i)
    return mask


noise = BitErrors
