"""Rounding errors of the network's own arithmetic, and of ours: a bound that forgot them would be broken by a tie at a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from noiseproof.errors import require

Arithmetic = Literal["float32", "float64", "exact"]
_UNITS = {"float32": 2.0**-24, "float64": 2.0**-53, "exact": 0.0}


@dataclass(frozen=True)
class Rounding:
    """What rounding may add, as a relative change of every product.

    A sum of n products computed in any order is Σ_i w_i a_i (1 + θ_i) with |θ_i| ≤ γ_n = n·u/(1 − n·u), u the unit roundoff; so
    rounding is one more relative change of every weight, and is added to z. Once for the arithmetic that the network is run in,
    and a few times for that in which the bounds are computed, whose errors must fall to the outside.
    Source: Higham, Accuracy and Stability of Numerical Algorithms (2002), (3.4).

    Raises `NoiseproofError` for an arithmetic that is not known.
    """

    # of the network: float32, float64; exact: real numbers, and the bounds are not rounded outwards
    arithmetic: Arithmetic = "float32"
    # of the bounds
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        require(self.arithmetic in _UNITS, "arithmetic", self.arithmetic, f"give {', '.join(_UNITS)}")

    @property
    def own(self) -> float:
        """Unit roundoff of the arithmetic that the bounds are computed in; 0 where nothing is rounded outwards."""
        return 0.0 if self.arithmetic == "exact" else torch.finfo(self.dtype).eps / 2

    def of_sum(self, terms: int) -> float:
        """Return the relative change of every product in a sum of so many."""
        n = terms + 8  # the few operations around a sum: its bias, a product with one more factor
        return _gamma(n, _UNITS[self.arithmetic]) + 4 * _gamma(n, self.own)

    @property
    def of_step(self) -> float:
        """The relative error of one update of a membrane: λ·v + g·I − q, over the sum of the three magnitudes."""
        return self.of_sum(0)


def _gamma(n: int, unit: float) -> float:
    return n * unit / (1 - n * unit)
