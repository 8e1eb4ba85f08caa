from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.noise._base import Noise
from noiseproof.noise._grid import Grid, Per, Rounding


@dataclass(frozen=True)
class Quantisation(Noise):
    """Rounding to b bits: w' = Δ·round(w/Δ), Δ = max|w|/(2^(b−1) − 1), the maximum taken per tensor or output channel.

    Symmetric, so that zero is exact. One bit is the sign: w' = sign(w)·mean|w|, and a weight of exactly 0 (no connection) stays 0.
    Nothing is random but stochastic rounding, floor(w/Δ + u) with u ~ U[0, 1), which is right on average. The gradient goes
    straight through. Source: Stutz et al., MLSys 2021, arXiv:2006.13977, eq. (1); one bit: Rastegari et al. 2016, arXiv:1603.05279.

    Raises `NoiseproofError` for bits that are not 1 … 16, an unknown choice, or one bit with stochastic rounding.

    Example:
        >>> import torch
        >>> chip = Quantisation(bits=3)({"w": torch.tensor([[-0.9, 0.0, 0.25, 0.4]])}, torch.Generator())
        >>> [round(w, 3) for w in chip["w"].flatten().tolist()]
        [-0.9, 0.0, 0.3, 0.3]
    """

    # bits a weight, 1 to 16
    bits: int = 8
    # what the largest weight is taken of: the tensor, or each output channel
    per: Per = "tensor"
    # nearest | toward-zero | stochastic
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        self.grid  # noqa: B018 (checks the settings)

    @property
    def grid(self) -> Grid:
        """The numbers that there are."""
        return Grid(self.bits, self.per, "symmetric", self.rounding)

    @property
    def deterministic(self) -> bool:
        return self.rounding != "stochastic"

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        codes, stored = self.grid.encode(theta, stream)
        return stored.decode(codes, theta)


noise = Quantisation
