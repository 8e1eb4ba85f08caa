"""What the methods share that train at perturbed inputs: the attack that a text spells, its cost, and a network that is run, not called."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks import Attack
from noiseproof.errors import require
from noiseproof.methods._base import Batch, Context, Method, Round
from noiseproof.networks import Run, SpikingNetwork
from noiseproof.networks.adapt import Adapted
from noiseproof.parameters import Params


class InputMethod(Method):
    """A method whose loss is taken at inputs x′ that it makes of x: `perturb`, then `loss_at`."""

    @abstractmethod
    def perturb(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        """Return x′ [B, …], constants to autograd."""

    @abstractmethod
    def loss_at(self, network: nn.Module, params: Params, batch: Batch, perturbed: Tensor) -> Tensor:
        """Return the scalar that is minimised, once x′ is known."""

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return self.loss_at(network, params, batch, self.perturb(network, params, batch, context))

    def rounds(self, network: nn.Module, params: Callable[[], Params], batch: Batch, context: Context) -> Iterator[Round]:
        at = params()
        perturbed = self.perturb(network, at, batch, context)
        yield Round(self.loss_at(network, at, batch, perturbed), perturbed)


def mixed(mix: float, clean: Tensor, perturbed: Tensor, y: Tensor) -> Tensor:
    """Return χ·CE(clean logits) + (1 − χ)·CE(perturbed logits). Source: Ding et al., ICML 2024, eq. (16)."""
    return mix * cross_entropy(clean, y) + (1 - mix) * cross_entropy(perturbed, y)


def within_bounds(network: nn.Module, x: Tensor) -> Tensor:
    """Return x clipped into the range of the network's inputs."""
    low, high = network.bounds  # pyright: ignore[reportGeneralTypeIssues]  (every network of noiseproof has it)
    return x.clamp(low, high)


def one_attack(text: str, field: str) -> Attack:
    """Return the attack, or noise on inputs, that `text` spells.

    Raises `NoiseproofError` when it spells none, or several.
    """
    from noiseproof.config import spelled_attacks  # it imports the methods

    found = spelled_attacks(text, field)
    require(len(found) == 1, field, text, "give one value a setting: a training cannot sweep")
    return found[0]


@functools.cache
def passes_of(text: str) -> int:
    """Return the gradient evaluations a sample of the attack that `text` spells: counted, on a network that nothing fools."""
    probe = _Probe()
    x, y = torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, dtype=torch.int64)
    one_attack(text, "attack").craft(probe, {}, x, y, torch.Generator().manual_seed(0))
    return probe.passes


class _Probe(nn.Module):
    """Counts the passes that keep a graph. Always sure of class 0, with a gradient to its input; takes any options of a run."""

    bounds = (0.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += torch.is_grad_enabled()
        total = x.flatten(1).sum(1, keepdim=True)
        return total * torch.tensor([0.01, 0.02, 0.03, 0.04, 0.05]) + torch.tensor([100.0, 0.0, 0.0, 0.0, 0.0])

    def run(self, x: Tensor, **_: Any) -> Run:
        return Run(self(x))


def run_at(
    network: nn.Module,
    params: Params,
    x: Tensor,
    *,
    steps: int | None = None,
    state: Any = None,
    record: Sequence[str] = (),
) -> Run:
    """Return a run of the network at `params`, in its present mode; batch norm in training follows it, as in `parameters.call`."""
    own = all(params[name] is p for name, p in network.named_parameters())
    # at its own parameters nothing is put in place: an outside network keeps the buffers of a run at others as they are
    return network.run(x, params=None if own else params, steps=steps, state=state, record=record)  # pyright: ignore[reportCallIssue]


def is_spiking(network: nn.Module) -> bool:
    """Return whether the network has spiking neurons, ours or those of a library."""
    return isinstance(network, SpikingNetwork) or (isinstance(network, Adapted) and network.spiking)
