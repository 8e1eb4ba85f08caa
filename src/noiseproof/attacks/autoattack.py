from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from noiseproof.attacks._base import Attack
from noiseproof.attacks._members import Members
from noiseproof.attacks.apgd import APGD
from noiseproof.attacks.fab import FAB
from noiseproof.attacks.square import Square
from noiseproof.errors import require, require_number


@dataclass(frozen=True)
class AutoAttack(Members):
    """The four attacks behind the figures of RobustBench, one after the other, each against the samples that the ones before left.

    "standard": APGD on cross-entropy, targeted APGD on the difference of logits ratio, targeted FAB, Square. "rand", for stochastic
    networks: APGD on both losses, gradients averaged over 20 draws. The settings are the official ones, the random numbers are not.
    For spiking networks `ensemble` is the stronger one: it changes the surrogate gradient too.
    Source: Croce and Hein 2020, arXiv:2003.01690, section 4 and appendix; the versions of its code.

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> [type(member).__name__ for member in AutoAttack(eps=8 / 255).members(nn.Identity())]
        ['APGD', 'APGD', 'FAB', 'Square']
    """

    # standard, or rand for stochastic networks (eot then is 20 unless another is given)
    version: Literal["standard", "rand"] = "standard"
    # gradient steps of APGD and FAB
    steps: int = 100
    # wrong classes that the targeted attacks approach
    targets: int = 9
    # forward passes of Square
    queries: int = 5000

    def __post_init__(self) -> None:
        require(self.version in ("standard", "rand"), "version", self.version, "give standard or rand")
        if self.version == "rand" and self.eot == 1:
            object.__setattr__(self, "eot", 20)  # the dataclass is frozen, and records must say what was done
        super().__post_init__()
        require_number("steps", self.steps, 1, whole=True)
        require_number("targets", self.targets, 1, whole=True)
        require_number("queries", self.queries, 1, whole=True)

    def members(self, network: nn.Module) -> tuple[Attack, ...]:
        first = APGD(**self.share, steps=self.steps)
        if self.version == "rand":
            return first, APGD(**self.share, steps=self.steps, loss="dlr")
        return (
            first,
            APGD(**self.share, steps=self.steps, loss="dlr", targets=self.targets),
            FAB(**self.share, steps=self.steps, targets=self.targets),
            Square(**self.share, queries=self.queries),
        )


attack = AutoAttack
