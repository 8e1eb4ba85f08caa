from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require
from noiseproof.networks._architecture import Layers, NeuronArchitecture
from noiseproof.networks._base import ChannelsLast


@dataclass(frozen=True)
class CNN(NeuronArchitecture):
    """The convolutional network of paper A for 28×28 grey images; 493,642 parameters with ten classes.

    conv 64@4×4 "same" → ReLU → maxpool 2 → conv 64@4×4 → ReLU → maxpool 2 → 1600 → 256 → 64 → classes.
    ReLU and maximum commute, so here the ReLU comes after the pooling, on a quarter of the values: the same function.
    With spiking neurons these stand right after the convolutions, and pooling takes the mean.
    Source: Büchel, Faber, Muir, arXiv:2106.05009, section 4 (with biases, Glorot normal); the spiking version is ours.

    Raises `NoiseproofError` for images of another size, or a setting of the neurons out of its range.
    """

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        require(tuple(task.shape) == (1, 28, 28), "images", task.shape, "network cnn takes [1, 28, 28]; resize them or use network mlp")
        layers = Layers(self, task)
        # "same" for an even kernel: one row before, two after
        layers.made.update(pad=nn.ZeroPad2d((1, 2, 1, 2)), layout=ChannelsLast())
        for side in (28, 11):
            layers.made[layers.numbered("conv")] = nn.Conv2d(1 if side == 28 else 64, 64, 4)
            layers.shape = (64, side, side)
            if self.spiking:
                layers.act()
                layers.pool()
            else:
                layers.made[layers.numbered("pool")] = nn.MaxPool2d(2)
                layers.act()
                layers.shape = (64, side // 2, side // 2)
        layers.flatten()
        for units in (256, 64):
            layers.linear(units)
            layers.act()
        return layers.out()


network = CNN
