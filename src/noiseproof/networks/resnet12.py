from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require_number
from noiseproof.networks._architecture import Kind, Layers, NeuronArchitecture, widened
from noiseproof.networks._residual import out_shape, post_activated
from noiseproof.networks._spiking import How
from noiseproof.neurons.equation import Reset

BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (512, 2))  # channels and stride


@dataclass(frozen=True)
class ResNet12(NeuronArchitecture):
    """A residual network of 12 layers without batch norm and biases, spiking or plain (`neuron="relu"`).

    conv 64; five blocks of two 3×3 convolutions with 64, 128, 128, 256, 512 channels, halving the image at the second, fourth
    and fifth, with 1×1 shortcuts there; mean over 2×2; classes. 1 + 10 + 1 layers. Kundu et al., ICCV 2021, name a ResNet12
    and define it nowhere: this is one of that depth with the settings of their other networks, not theirs.

    Raises `NoiseproofError` for inputs that are no images or too small, and for a setting out of its range.
    """

    triangle: ClassVar = (0.3,)

    neuron: Kind = "lif"
    leak: float = 1.0
    reset: Reset = "soft-next"
    readout: How = "sum"
    # probability that a hidden unit is silent in training
    dropout: float = 0.2
    # multiplies the channels of every convolution; below 1 for a small budget
    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("dropout", self.dropout, 0, 0.99)
        require_number("width", self.width, 0, open_low=True)

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        layers = Layers(self, task)
        layers.images()
        layers.conv(widened(64, self.width))
        layers.act()
        for published, stride in BLOCKS:
            channels = widened(published, self.width)
            made = post_activated(self, layers.shape, channels, stride, norm=False, option_a=False, dropout=self.dropout)
            layers.made[layers.numbered("block")] = made
            layers.shape = out_shape(layers.shape, channels, stride)
        layers.pool()
        layers.flatten()
        return layers.out(bias=False)


network = ResNet12
