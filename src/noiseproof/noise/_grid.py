from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.randomness import draw_uniform

Per = Literal["tensor", "channel"]
Range = Literal["symmetric", "asymmetric"]
Rounding = Literal["nearest", "toward-zero", "stochastic"]
Encoding = Literal["signed", "unsigned"]


@dataclass(frozen=True)
class Grid:
    """The numbers that b bits can hold: w ≈ m + c·h/L, with whole codes c in −L … L, L = 2^(b−1) − 1.

    symmetric: m = 0 and h = max|w|, so that zero is exact. asymmetric: m and h are middle and half-width of [min w, max w].
    The range is that of a tensor, or of each output channel (a vector is one channel).
    One bit has two numbers, m ± h, the sign of w − m; symmetric with h = mean|w|, which makes the squared error least (Rastegari
    et al. 2016, arXiv:1603.05279, eq. (6)). There a weight of exactly 0 (no connection) stays 0.
    Source: Stutz et al., MLSys 2021, arXiv:2006.13977, eq. (1) and the text on asymmetric quantisation.

    Raises `NoiseproofError` for bits that are not 1 … 16, an unknown choice, or one bit with stochastic rounding.
    """

    bits: int
    per: Per = "tensor"
    range: Range = "symmetric"
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        require_number("bits", self.bits, 1, 16, whole=True)
        require(self.per in ("tensor", "channel"), "per", self.per, "give tensor or channel")
        require(self.range in ("symmetric", "asymmetric"), "range", self.range, "give symmetric or asymmetric")
        known = ("nearest", "toward-zero", "stochastic")
        require(self.rounding in known, "rounding", self.rounding, "give nearest, toward-zero or stochastic")
        require(self.bits > 1 or self.rounding != "stochastic", "rounding", self.rounding, "one bit is the sign; give 2 bits or more")

    @property
    def largest(self) -> int:
        """L, the largest code; 1 for one bit."""
        return max(1, 2 ** (self.bits - 1) - 1)

    def encode(self, theta: Tensor, stream: torch.Generator) -> tuple[Tensor, Stored]:
        """Return the codes (int32, as `theta`) and what turns them back; computed in float32, so that all precisions have one chip."""
        w = theta.float()
        stored = self._range(w)
        if self.bits == 1:
            return torch.sign(w - stored.middle).int(), stored
        # a range of no width holds one number, of code 0
        x = (w - stored.middle).div_(torch.where(stored.half > 0, stored.half, 1.0)).mul_(self.largest)
        if self.rounding == "stochastic":
            x = torch.floor(x + draw_uniform(x, stream))
        else:
            x = torch.round(x) if self.rounding == "nearest" else torch.trunc(x)
        return x.clamp_(-self.largest, self.largest).int(), stored

    def _range(self, w: Tensor) -> Stored:
        over = tuple(range(1 if self.per == "channel" and w.ndim > 1 else 0, w.ndim))
        if self.range == "symmetric":
            half = w.abs().mean(over, keepdim=True) if self.bits == 1 else w.abs().amax(over, keepdim=True)
            return Stored(torch.zeros_like(half), half, self.bits, self.largest)
        low, high = w.amin(over, keepdim=True), w.amax(over, keepdim=True)
        return Stored((high + low) / 2, (high - low) / 2, self.bits, self.largest)


@dataclass(frozen=True)
class Stored:
    """What turns codes back into numbers, and codes into words of b bits."""

    # middle and half-width of the range, broadcast to the codes
    middle: Tensor
    half: Tensor
    bits: int
    # L, the largest code
    largest: int

    def decode(self, codes: Tensor, like: Tensor) -> Tensor:
        """Return w = m + c·h/L in the type and memory layout of `like`; in a symmetric range the largest weight comes back exactly."""
        w = codes.float().div_(self.largest).mul_(self.half).add_(self.middle)
        return torch.empty_like(like).copy_(w)

    def flip(self, codes: Tensor, mask: Tensor, encoding: Encoding) -> Tensor:
        """Return the codes after the bits of `mask` (int32; bit i counts 2^i) were flipped where they are stored.

        signed: two's complement, so that the last bit flips between c and c ± 2^(b−1). unsigned: the word is c + L.
        One bit is a sign.
        """
        if self.bits == 1:
            return torch.where(mask > 0, -codes, codes)
        if encoding == "unsigned":
            return ((codes + self.largest) ^ mask) - self.largest
        word = (codes & (2**self.bits - 1)) ^ mask
        return torch.where(word >= 2 ** (self.bits - 1), word - 2**self.bits, word)
