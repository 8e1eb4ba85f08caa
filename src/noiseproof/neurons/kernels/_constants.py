"""Parameters and neurons as a kernel without recurrence sees them: one row of n neurons in the order in which they lie in memory."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.neurons.kernels._inputs import memory_order


class Run(NamedTuple):
    """A parameter: neuron i at step t has data[t * step + (i // inner) % period]; step is 0 where it stays the same."""

    data: Tensor
    period: int
    inner: int
    step: int


class Row:
    """The neurons of a layer in a row, in the order of x in memory; only tensors that lie otherwise are copied."""

    def __init__(self, x: Tensor) -> None:
        self.order = memory_order(x)
        self.shape = torch.Size(x.shape[d] for d in self.order[1:])
        self.n = prod(self.shape)

    def sequence(self, value: Tensor) -> Tensor:
        """Return [T, B, …] with the neurons in a row."""
        return value.permute(self.order).contiguous()

    def state(self, value: Tensor | None) -> Tensor | None:
        """Return [B, …] with the neurons in a row."""
        return None if value is None else value.permute([d - 1 for d in self.order[1:]]).contiguous()

    def run(self, value: Tensor, dtype: torch.dtype) -> Run:
        """Describe a parameter. What is not one run of different numbers is written out, a number a neuron."""
        value = value.permute(self.order).to(dtype)
        varies = [d for d, (mine, full) in enumerate(zip(value.shape[1:], self.shape, strict=True)) if mine == full != 1]
        if varies:
            first, last = varies[0], varies[-1] + 1
            if any(value.shape[1 + d] != self.shape[d] for d in range(first, last)):
                value, first, last = value.expand(-1, *self.shape), 0, len(self.shape)
            period, inner = prod(self.shape[first:last]), prod(self.shape[last:])
        else:
            period, inner = 1, max(self.n, 1)
        return Run(value.contiguous(), period, inner, period if len(value) > 1 else 0)

    def room(self, run: Run, steps: int, blocks: int) -> Tensor:
        """Return memory for the gradient of a parameter: sums of blocks where it is one number, else a number a neuron."""
        return run.data.new_zeros(steps if run.step else 1, blocks if run.period == 1 else self.n)

    def gradient(self, sums: Tensor, run: Run, like: Tensor) -> Tensor:
        """Return the gradient in the shape of the parameter; the order of the additions is fixed."""
        if run.period == 1:
            return sums.sum(1).reshape(like.shape).to(like.dtype)
        back = [self.order.index(d) for d in range(len(self.order))]
        return sums.view(len(sums), *self.shape).permute(back).sum_to_size(like.shape).to(like.dtype)
