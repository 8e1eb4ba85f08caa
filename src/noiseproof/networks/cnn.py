from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import require
from noiseproof.networks._base import Architecture, ChannelsLast


@dataclass(frozen=True)
class CNN(Architecture):
    """The convolutional network of paper A for 28×28 grey images; 493,642 parameters with ten classes.

    conv 64@4×4 "same" → ReLU → maxpool 2 → conv 64@4×4 → ReLU → maxpool 2 → 1600 → 256 → 64 → classes.
    ReLU and maximum commute, so here the ReLU comes after the pooling, on a quarter of the values: the same function.
    Source: Büchel, Faber, Muir, arXiv:2106.05009, section 4 (with biases, Glorot normal).

    Raises `NoiseproofError` for images of another size.
    """

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        require(tuple(task.shape) == (1, 28, 28), "images", task.shape, "network cnn takes [1, 28, 28]; resize them or use network mlp")
        return OrderedDict(
            # "same" for an even kernel: one row before, two after
            pad=nn.ZeroPad2d((1, 2, 1, 2)),
            layout=ChannelsLast(),
            conv1=nn.Conv2d(1, 64, 4),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(64, 64, 4),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(1600, 256),
            relu3=nn.ReLU(),
            fc2=nn.Linear(256, 64),
            relu4=nn.ReLU(),
            out=nn.Linear(64, task.classes),
        )


network = CNN
