"""What a certificate reads of a network: its operations in order, each with its parameters and how far they may move.

Everything between two non-linear operations is `Linear`: convolutions, dense layers, batch norm, pooling, padding, the mean over an
image. So a bound needs to know few kinds of operations: `Linear`, `ReLU`, `MaxPool`, `Add`, `Neurons`, `Readout`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from noiseproof.networks._spiking import How
from noiseproof.neurons.equation import Constants, Form

Apply = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Linear:
    """a ↦ apply(a, W) + b for rows a [R, …] (samples, or steps × samples); `apply` is linear in a and in W.

    Without a weight nothing in `apply` is negative (pooling, padding, flattening), so that lower ends go to lower ends.
    """

    apply: Apply
    weight: Tensor | None = None
    bias: Tensor | None = None  # [1, …], broadcast to a row of the output
    # relative half-widths of the box, of the weight and of the bias
    z: float = 0.0
    bias_z: float = 0.0
    # relative change of every product and of the bias that rounding may add (`Rounding.of_sum`)
    slack: float = 0.0

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """W/2 and (1 + slack)·|W|/2: what multiplies twice a centre and twice a radius. Kept where no gradient goes through them."""
        assert self.weight is not None
        kept = not (torch.is_grad_enabled() and self.weight.requires_grad)
        return self._kept_halves if kept else _halves(self.weight, self.slack)

    @cached_property
    def _kept_halves(self) -> tuple[Tensor, Tensor]:
        assert self.weight is not None
        return _halves(self.weight.detach(), self.slack)

    @property
    def width(self) -> float:
        """The relative half-width of every product: (1 + z)(1 + slack) − 1."""
        return self.z + self.slack + self.z * self.slack

    @property
    def bias_width(self) -> float:
        """The same of the bias."""
        return self.bias_z + self.slack + self.bias_z * self.slack


def _halves(weight: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    half = weight / 2
    return half, half.abs() * (1 + slack)


@dataclass(frozen=True)
class ReLU:
    """max(a, 0)."""


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window; `apply` [R, …] → [R, …]. `windows` [R, …] → [R, …, K], the members of each window, −∞ where padded."""

    apply: Callable[[Tensor], Tensor]
    windows: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Add:
    """a + b, of two inputs."""

    slack: float = 0.0  # relative, over |a| + |b|


@dataclass(frozen=True)
class Neurons:
    """A layer of spiking neurons: the equation of `noiseproof.neurons.equation`, with every constant in its interval.

    `low` and `high`: the ends of the constants over the box, of dimensions [T or 1, 1, …], as the equation takes them; where they
    are the same tensor the constant does not move. `recurrent`: W of its own spikes of the step before, [N, N], diagonal zero.
    """

    form: Form
    low: Constants
    high: Constants
    recurrent: Linear | None = None
    slack: float = 0.0  # relative error of one update, over |λ·v| + |g·I| + |q| (`Rounding.of_step`)


@dataclass(frozen=True)
class Readout:
    """Spikes → logits, as `noiseproof.networks`' Readout: rate, sum, last or max; `leak` of the last two, 0: each step alone."""

    linear: Linear
    how: How
    leak: float = 1.0


Op = Linear | ReLU | MaxPool | Add | Neurons | Readout


@dataclass(frozen=True)
class Node:
    """One operation: its name in the network, what it is, the nodes that it takes, and the shape of one row of what it gives."""

    name: str
    op: Op | None  # None: the input
    inputs: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A network as its operations; node 0 is the input, the last one gives the logits.

    A plain network takes rows [B, …]. A spiking one, `steps` T, takes [1, B, …] where the input stays the same and [T, B, …]
    where it changes in time; `encode` brings x [B, …] to that. Tensors have the dtype of the bounds.
    """

    nodes: tuple[Node, ...]
    encode: Callable[[Tensor], Tensor]
    bounds: tuple[float, float]
    eps: float
    dtype: torch.dtype
    steps: int | None = None  # None: there are no spiking neurons

    @property
    def spiking(self) -> bool:
        return self.steps is not None

    @property
    def last(self) -> Op | None:
        return self.nodes[-1].op

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of all inputs within ε of x [B, …], within the data's bounds, as the first operation takes them.

        x itself is among them where it lies outside the bounds, as in the attacks.
        """
        x = x.to(self.dtype)
        if not self.eps:
            return self.encode(x), self.encode(x)
        least, largest = x.clamp_max(self.bounds[0]), x.clamp_min(self.bounds[1])
        low, high = (torch.clamp(x + change, least, largest) for change in (-self.eps, self.eps))
        return self.encode(low), self.encode(high)

    def consumers(self, index: int) -> list[int]:
        """Return the nodes that take what node `index` gives."""
        return [i for i, node in enumerate(self.nodes) if index in node.inputs]
