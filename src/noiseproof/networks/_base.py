from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.data import Task
from noiseproof.errors import NoiseproofError, require
from noiseproof.networks._run import KINDS, Run
from noiseproof.parameters import Params, functional_call


class Normalise(nn.Module):
    """(x − mean)/std per channel: inside the network, so that attacks and users work in the data's own units."""

    mean: Tensor
    std: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        # images [C, H, W] and frames [T, C, H, W] have one number a channel, sequences [T, F] one a feature, vectors one in all
        per_channel = (-1, 1, 1) if len(task.shape) >= 3 else (-1,)
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
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # under vmap too, where a memory format cannot be named


class Network(nn.Sequential):
    """A stateless network: x [B, *shape] in the data's own units → logits [B, classes]; `bounds` is the valid range of x.

    Raises `NoiseproofError` for inputs of another shape.
    """

    def __init__(self, task: Task, layers: OrderedDict[str, nn.Module]) -> None:
        super().__init__(OrderedDict(normalise=Normalise(task), **layers))
        self.shape, self.classes, self.bounds = task.shape, task.classes, task.bounds

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        return super().forward(input)

    def run(
        self,
        x: Tensor,
        *,
        params: Params | None = None,
        steps: int | None = None,
        state: Mapping[str, Any] | None = None,
        generator: torch.Generator | None = None,
        surrogate: Any = None,
        expected: bool = False,
        record: Sequence[str] = (),
    ) -> Run:
        """Return the logits of a network without spikes, at `params` if they are given.

        Raises `NoiseproofError` for what only a spiking network has: steps, state, a surrogate, coding, traces.
        """
        given = {"steps": steps, "state": state, "surrogate": surrogate, "expected": expected or None, "record": record or None}
        for name, value in given.items():
            require(value is None, name, value, "this network has no spiking neurons; leave it out")
        return Run(self(x) if params is None else functional_call(self, params, (x,)))

    def _check(self, x: Tensor) -> None:
        if tuple(x.shape[1:]) == tuple(self.shape):
            return
        takes = f"this network takes [batch, {', '.join(map(str, self.shape))}]"
        if x.ndim >= 3 and (len(x), *x.shape[2:]) == tuple(self.shape):
            takes += ", and this looks like [time, batch, …]: x.transpose(0, 1)"
        raise NoiseproofError(f"x is of shape {tuple(x.shape)}: {takes}")


def check_kinds(record: Sequence[str]) -> None:
    """Raise `NoiseproofError` unless all kinds of traces exist."""
    for kind in record:
        require(kind in KINDS, "record", kind, f"give {', '.join(KINDS)}")


@dataclass(frozen=True)
class Architecture(ABC):
    """The hyper-parameters of a network; `build` makes the network for a task."""

    @property
    def spiking(self) -> bool:
        """Whether the hidden units are spiking neurons."""
        return False

    @abstractmethod
    def layers(self, task: Task) -> OrderedDict[str, nn.Module]:
        """Return the layers after the normalisation, by name."""

    def make(self, task: Task) -> Network:
        """Return the network with whatever weights."""
        return Network(task, self.layers(task))

    def build(self, task: Task, generator: torch.Generator) -> Network:
        """Return the network with Glorot-normal weights and zero biases drawn from `generator`.

        Raises `NoiseproofError` when the task's data does not fit the architecture.
        """
        network = self.make(task)
        for name, parameter in network.named_parameters():
            if parameter.ndim >= 2:
                nn.init.xavier_normal_(parameter, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        return network
