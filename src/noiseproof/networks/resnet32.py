from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from noiseproof.data import Task
from noiseproof.networks._architecture import Layers, NeuronArchitecture
from noiseproof.networks._residual import ImageMean, out_shape, post_activated


@dataclass(frozen=True)
class ResNet32(NeuronArchitecture):
    """conv 16, five blocks each of 16, 32 and 64 channels, mean over the image, classes; 464,154 parameters for CIFAR-10.

    Batch norm, shortcuts without parameters. Source: He et al., arXiv:1512.03385, section 4.2; as in Büchel et al.,
    arXiv:2106.05009, for phase-change memory. With spiking neurons it is ours.

    Raises `NoiseproofError` for inputs that are no images, and for a setting out of its range.
    """

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        layers = Layers(self, task)
        layers.images()
        layers.conv(16, norm=True)
        layers.act()
        for channels in (16, 32, 64):
            for block in range(5):
                stride = 2 if channels > 16 and block == 0 else 1
                made = post_activated(self, layers.shape, channels, stride, norm=True, option_a=True)
                layers.made[layers.numbered("block")] = made
                layers.shape = out_shape(layers.shape, channels, stride)
        layers.made["mean"] = ImageMean()
        layers.shape = (64,)
        return layers.out()


network = ResNet32
