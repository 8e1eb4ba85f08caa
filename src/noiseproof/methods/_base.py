from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from noiseproof.parameters import Params

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Context:
    """What a method may know about the moment: its generator, step and epoch (from 0), and its own state."""

    generator: torch.Generator
    step: int = 0
    epoch: int = 0
    epochs: int = 1
    state: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Method(ABC):
    """How a network is trained. A method is a dataclass with its hyper-parameters and `loss`, the equation of its paper."""

    def start(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the method's state at the beginning; it is saved with every checkpoint and may be changed in place."""
        return {}

    @abstractmethod
    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        """Return the scalar that is minimised. `batch`: x [B, …], y [B]; `params`: the network's own parameters."""

    def step(self, network: nn.Module, batch: Batch, context: Context, update: Callable[[Tensor], None]) -> None:
        """Take one step on one batch; `update(loss)` goes down the gradient once. A method may call it several times."""
        update(self.loss(network, dict(network.named_parameters()), batch, context))

    def after_step(self, params: Params) -> None:  # noqa: B027 (most methods need none)
        """Change the parameters in place after every step: projections, clipping."""
