from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require
from noiseproof.networks._base import Architecture


@dataclass(frozen=True)
class MLP(Architecture):
    """A multi-layer perceptron with ReLU on the flattened input, of any shape.

    Raises `NoiseproofError` when a hidden layer has no units.
    """

    # units of the hidden layers
    hidden: tuple[int, ...] = (256, 64)

    def __post_init__(self) -> None:
        require(all(units >= 1 for units in self.hidden), "hidden", self.hidden, "give layers of at least one unit")

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        made: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        width = math.prod(task.shape)
        for number, units in enumerate(self.hidden, start=1):
            made[f"fc{number}"] = nn.Linear(width, units)
            made[f"relu{number}"] = nn.ReLU()
            width = units
        made["out"] = nn.Linear(width, task.classes)
        return made


network = MLP
