from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.parameters import select


@dataclass(frozen=True)
class Box:
    """All chips whose parameters lie within z of the nominal ones, |θ' − θ| ≤ z|θ|, and all inputs within ε of x, x itself among them.

    The box of `noiseproof.attacks.WeightAttack(zeta=z)`. Intervals let every use of a parameter move by itself; backward bounds know
    that a convolution has one weight for all places. A relative box on weights is the same before and after batch norm is folded
    into them (the scale of a channel multiplies both ends); the biases and scales of batch norm move only where `parameters` names
    them, as they stand in the network.

    Raises `NoiseproofError` for z outside [0, 1), as a weight could change its sign, and for a negative ε.

    Example:
        >>> Box(z=0.01, parameters="all").describe()["z"]
        0.01
    """

    # relative half-width of every parameter
    z: float = 0.01
    # which move: weights | all | patterns of names
    parameters: str = "weights"
    # largest change of an input in the unit of the data; inputs stay within the data's own bounds, or go no farther out than x
    eps: float = 0.0

    def __post_init__(self) -> None:
        require_number("z", self.z, 0)
        require(self.z < 1, "z", self.z, "give a half-width below 1: from there on a weight may change its sign")
        require_number("eps", self.eps, 0)

    def half_widths(self, params: Mapping[str, Tensor]) -> dict[str, float]:
        """Return z for every parameter that moves, by name.

        Raises `NoiseproofError` when nothing is selected.
        """
        return dict.fromkeys(select(params, self.parameters), self.z)

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": "box", **asdict(self)}
