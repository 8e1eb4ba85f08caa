from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noiseproof.data import Task
from noiseproof.errors import NoiseproofError


class Normalise(nn.Module):
    """(x − mean)/std per channel: inside the network, so that attacks and users work in the data's own units."""

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        # images [C, H, W] have one number a channel, sequences [T, F] one a feature, vectors one in all
        per_channel = (-1, 1, 1) if len(task.shape) == 3 else (-1,)
        self.register_buffer("mean", torch.tensor(task.mean).reshape(per_channel))
        self.register_buffer("std", torch.tensor(task.std).reshape(per_channel))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ChannelsLast(nn.Module):
    """Lays images [B, C, H, W] out channels last: convolutions on a CPU are then about twice as fast, with the same values.

    PyTorch takes the layout from the strides, which say nothing for one channel; so there the strides are made to say it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return x[:, 0, :, :, None].permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)


class Network(nn.Sequential):
    """A stateless network: x [B, *shape] in the data's own units → logits [B, classes]; `bounds` is the valid range of x.

    Raises `NoiseproofError` for inputs of another shape.
    """

    def __init__(self, task: Task, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__(OrderedDict(normalise=Normalise(task), **layers))
        self.shape, self.classes, self.bounds = task.shape, task.classes, task.bounds

    def forward(self, input: Tensor) -> Tensor:
        if tuple(input.shape[1:]) != tuple(self.shape):
            raise NoiseproofError(f"x is of shape {tuple(input.shape)}: this network takes [batch, {', '.join(map(str, self.shape))}]")
        return super().forward(input)


@dataclass(frozen=True)
class Architecture(ABC):
    """The hyper-parameters of a network; `build` makes the network for a task."""

    @abstractmethod
    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        """Return the layers after the normalisation, by name."""

    def build(self, task: Task, generator: torch.Generator) -> Network:
        """Return the network with Glorot-normal weights and zero biases drawn from `generator`.

        Raises `NoiseproofError` when the task's data does not fit the architecture.
        """
        network = Network(task, self.layers(task))
        for name, parameter in network.named_parameters():
            if parameter.ndim >= 2:
                nn.init.xavier_normal_(parameter, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        return network
