from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require_number
from noiseproof.networks._architecture import Kind, Layers, NeuronArchitecture, widened
from noiseproof.networks._spiking import How
from noiseproof.neurons.equation import Reset

POOL = 0  # in a list of channels


@dataclass(frozen=True)
class VGG(NeuronArchitecture):
    """3×3 convolutions, average pooling, two dense layers, spiking or plain (`neuron="relu"`).

    As it stands it is that of Kundu et al., ICCV 2021: no batch norm, no biases, dropout 0.2 with one mask a sequence, soft reset
    at the next step, logits accumulated. With `batch_norm` the convolutions have biases and batch norm, and the neurons of Ding et
    al., ICML 2024, are `neuron="dlif", leak=0.99, reset="hard", surrogate_settings=(1.0,), dropout=0, readout="rate"`.

    Raises `NoiseproofError` for inputs that are no images or too small, and for a setting out of its range.
    """

    channels: ClassVar[Sequence[int]] = ()
    triangle: ClassVar = (0.3,)

    neuron: Kind = "lif"
    leak: float = 1.0
    reset: Reset = "soft-next"
    readout: How = "sum"
    # batch norm after every convolution, which then has a bias
    batch_norm: bool = False
    # probability that a hidden unit is silent in training
    dropout: float = 0.2
    # multiplies the channels of every convolution; below 1 for a small budget
    width: float = 1.0
    # units of each of the two dense layers
    dense: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("dropout", self.dropout, 0, 0.99)
        require_number("width", self.width, 0, open_low=True)
        require_number("dense", self.dense, 1, whole=True)

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        layers = Layers(self, task)
        layers.images()
        for position, channels in enumerate(self.channels):
            if channels == POOL:
                layers.pool()
                continue
            layers.conv(widened(channels, self.width), bias=self.batch_norm, norm=self.batch_norm)
            layers.act()
            if POOL not in self.channels[position + 1 : position + 2]:  # pooling follows no dropout
                layers.dropout(self.dropout)
        layers.flatten()
        for _ in range(2):
            layers.linear(self.dense, bias=self.batch_norm)
            layers.act()
            layers.dropout(self.dropout)
        return layers.out(bias=self.batch_norm)
