from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require
from noiseproof.networks._architecture import Layers, NeuronArchitecture


@dataclass(frozen=True)
class MLP(NeuronArchitecture):
    """A multi-layer perceptron on the flattened input, of any shape; with ReLU, or with spiking neurons.

    Raises `NoiseproofError` when a hidden layer has no units, or a setting of the neurons is out of its range.
    """

    # units of the hidden layers
    hidden: tuple[int, ...] = (256, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(all(units >= 1 for units in self.hidden), "hidden", self.hidden, "give layers of at least one unit")

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        layers = Layers(self, task)
        layers.flatten()
        for units in self.hidden:
            layers.linear(units)
            layers.act()
        return layers.out()


network = MLP
