from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from noiseproof.data import Task
from noiseproof.errors import NoiseproofError, require_number
from noiseproof.networks._architecture import Kind, Layers, NeuronArchitecture
from noiseproof.networks._residual import ImageMean, out_shape, pre_activated
from noiseproof.neurons.equation import Reset


@dataclass(frozen=True)
class WideResNet(NeuronArchitecture):
    """A wide residual network, WRN-16-4 as it stands: 2.7 M parameters for CIFAR-10; spiking or plain (`neuron="relu"`).

    conv 16; (depth − 4)/6 blocks each of 16·k, 32·k, 64·k channels, batch norm and activation before every convolution; batch
    norm, activation, mean over the image, classes. Source: Zagoruyko and Komodakis, arXiv:1605.07146; with DLIF neurons Ding et
    al., ICML 2024.

    Raises `NoiseproofError` for a depth that is not 6·n + 4, inputs that are no images, and settings out of their range.
    """

    neuron: Kind = "dlif"
    leak: float = 0.99
    reset: Reset = "hard"
    depth: int = 16
    # k: how many times as many channels as the plain residual network
    widen: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("widen", self.widen, 1, whole=True)
        if self.depth < 10 or (self.depth - 4) % 6:
            raise NoiseproofError(f"depth is {self.depth!r}: give 6·n + 4 with n of at least 1, such as 16")

    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        layers = Layers(self, task)
        layers.images()
        layers.conv(16)
        for channels in (16, 32, 64):
            for block in range((self.depth - 4) // 6):
                stride = 2 if channels > 16 and block == 0 else 1
                layers.made[layers.numbered("block")] = pre_activated(self, layers.shape, channels * self.widen, stride)
                layers.shape = out_shape(layers.shape, channels * self.widen, stride)
        layers.norm()
        layers.act()
        layers.made["mean"] = ImageMean()
        layers.shape = layers.shape[:1]
        return layers.out()


network = WideResNet
