from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from noiseproof._names import name_of
from noiseproof.errors import require
from noiseproof.parameters import Params
from noiseproof.randomness import drawn_anew

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Context:
    """What a method may know about the moment: its generator, step and epoch (from 0), and its own state."""

    generator: torch.Generator
    step: int = 0
    epoch: int = 0
    epochs: int = 1
    state: dict[str, Tensor] = field(default_factory=dict)
    # what the recipe adds to the loss of the pass just made (penalty on rates); `update(loss)` adds it itself, a method that
    # takes a gradient itself, to pass it on, adds this
    penalty: Callable[[], Tensor | float] = float

    def risen(self, epochs: int) -> float:
        """Return the share reached of what rises linearly over `epochs` epochs and then stays: (epoch + 1)/(epochs + 1), at most 1."""
        return min(1.0, (self.epoch + 1) / (epochs + 1))


class Update(Protocol):
    """What takes one step of the optimiser."""

    def __call__(self, loss: Tensor, gradient: Params | None = None, free: Params | None = None) -> None:
        """Go down the gradient of `loss` once.

        `gradient`: go down this instead, by name of the parameter; `loss` is then only told. `free`: by name, True where an
        entry may change; the others keep their value and their moments in the optimiser.
        """
        ...


class Round(NamedTuple):
    """What one update of the parameters goes down: the loss, and the inputs [B, …] at which the method trains the network."""

    loss: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Method(ABC):
    """How a network is trained. A method is a dataclass with its hyper-parameters and `loss`, the equation of its paper."""

    def start(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the method's state at the beginning; it is saved with every checkpoint and may be changed in place."""
        return {}

    @abstractmethod
    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        """Return the scalar that is minimised. `batch`: x [B, …], y [B]; `params`: the network's own parameters."""

    @property
    def gradient_evaluations(self) -> float:
        """Passes forward and backward that one batch costs: what an equal budget counts."""
        return 1

    def gradient_evaluations_on(self, network: nn.Module) -> float:
        """Return `gradient_evaluations` where the layers of the network count too; it is the same for most methods."""
        return self.gradient_evaluations

    @property
    def updates(self) -> int:
        """Steps of the optimiser that one batch makes."""
        return 1

    @property
    def risen_after(self) -> int:
        """Epochs after which all that rises (ramps, warm-ups) has its full size: only then is a network trained as the settings say."""
        return 0

    def check_epochs(self, epochs: int) -> None:
        """Raise `NoiseproofError` unless everything has its full size in the last of so many epochs."""
        rises = f"the ramp or warm-up of {name_of('methods', type(self))} takes {self.risen_after} of them, and none of these counts"
        require(self.risen_after < epochs, "epochs", epochs, f"{rises}; give more epochs or a shorter ramp")

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer | None:
        """Return an optimiser that belongs to the method; None, the rule: the one that the recipe names."""
        return None

    def rounds(self, network: nn.Module, params: Callable[[], Params], batch: Batch, context: Context) -> Iterator[Round]:
        """Give the loss of every update of one batch in turn; when the next one is asked for, the optimiser has gone down the last.

        `params()`: the parameters as they now are. A method that makes several updates a batch overrides this.
        """
        yield Round(self.loss(network, params(), batch, context), batch[0])

    def step(self, network: nn.Module, batch: Batch, context: Context, update: Update) -> None:
        """Take one step on one batch; `update(loss)` goes down the gradient once for every one of `rounds`.

        Networks with Poisson coding draw anew for every round; within one all passes draw the same spikes.
        """
        rounds = self.rounds(network, lambda: dict(network.named_parameters()), batch, context)
        for number in itertools.count():
            with drawn_anew(number):
                made = next(rounds, None)
            if made is None:
                return
            update(made.loss)

    def after_step(self, params: Params) -> None:  # noqa: B027 (most methods need none)
        """Change the parameters in place after every step: projections, clipping."""
