"""Rows over time: sums of a layer's values over the steps, which pass through everything that is linear as one more sample.

Between two layers of neurons the same weights act at every step. So Σ_t A[t] (W' a[t] + b') = W' F + b' Σ_t A[t] with the row
F = Σ_t A[t] a[t]: the sum over time is taken before the absolute value, and one chip keeps one weight,

    Σ_t A[t] (W' a[t])_i ∈ Σ_j W_ij F_j ± z |W_ij| |F_j|.

The rounding errors of the steps are not the same: they add up to slack·|W|·Σ_t |A[t]| |a[t]|, the `size` of a row.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._graph import Linear, Neurons, Readout
from noiseproof.certificates._interval import Interval


class Filter(NamedTuple):
    """F[t] = λ[t] F[t−1] + g[t] a[t] from F[−1] = 0: one row a step, or the last one alone. λ ≥ 0."""

    leak: tuple[float, ...]
    gain: tuple[float, ...]
    last: bool = False

    def matrix(self, like: Tensor) -> Tensor:
        """Return A [T, T], or [1, T], of F[t] = Σ_t' A[t, t'] a[t']."""
        return _matrix(self).to(like)

    @property
    def counts(self) -> bool:
        """Whether F is the number of spikes so far, times the gain."""
        return set(self.leak) == {1.0} and len(set(self.gain)) == 1

    @property
    def positive(self) -> bool:
        """Whether no gain is below zero."""
        return min(self.gain) >= 0

    def earlier(self) -> Filter:
        """Return the filter of which F[t] is what this one makes of a[t − 1], at step t + 1: that of recurrent spikes."""
        return Filter((*self.leak[1:], 1.0), (*self.gain[1:], 1.0))


def every_step(steps: int) -> Filter:
    """Return the filter whose rows are the steps themselves."""
    return Filter((0.0,) * steps, (1.0,) * steps)


def filter_of(op: Neurons, steps: int) -> Filter | None:
    """Return what the membrane makes of its input when it is never reset; None where leak or gain move or differ between neurons."""
    low, high = op.low, op.high
    if low.leak is not high.leak or low.gain is not high.gain:
        return None
    leak = _numbers(low.leak, steps)
    gain = (1.0,) * steps if low.gain is None else _numbers(low.gain, steps)
    return None if leak is None or gain is None or min(leak) < 0 else Filter(leak, gain)


def filter_of_readout(op: Readout, steps: int) -> Filter:
    """Return what the readout makes of the spikes before its weights; of "max" at every step."""
    leak = op.leak if op.how in ("last", "max") else 1.0
    gain = 1 / steps if op.how == "rate" else 1.0
    return Filter((leak,) * steps, (gain,) * steps, op.how != "max")


def through_rows(linear: Linear, rows: Interval, sizes: Tensor | None, A: Tensor) -> Interval:
    """Return the rows [M, B, …] of W' a + b' from those of a; `sizes` bound Σ_t |A[t]| |a[t]|, None where nothing is rounded."""
    batch = rows.low.shape[:2]
    low, high = rows.low.flatten(0, 1), rows.high.flatten(0, 1)
    error = linear.slack * sizes.flatten(0, 1) if sizes is not None and linear.slack else None
    if linear.weight is None:
        if error is not None:
            low, high = low - error, high + error
        low, high = linear.apply(low, None), linear.apply(high, None)
    else:
        wide = Interval(low, high).widened(linear.z)
        middle, radius = (wide.low + wide.high) / 2, (wide.high - wide.low) / 2
        radius = radius if error is None else radius + (1 + linear.z) * error
        middle, radius = linear.apply(middle, linear.weight), linear.apply(radius, linear.weight.abs())
        low, high = middle - radius, middle + radius
    low, high = low.unflatten(0, batch), high.unflatten(0, batch)
    if linear.bias is None:
        return Interval(low, high)
    ones, much = (total.reshape(-1, 1, *[1] * (low.ndim - 2)) for total in (A.sum(1), A.abs().sum(1)))
    bias, size = linear.bias * ones, linear.bias.abs() * much
    spread = linear.bias_z * bias.abs() + (0.0 if sizes is None else linear.slack * (1 + linear.bias_z) * size)
    return Interval(low + bias - spread, high + bias + spread)


@lru_cache(maxsize=64)
def _matrix(wanted: Filter) -> Tensor:
    steps = len(wanted.leak)
    row, rows = torch.zeros(steps, dtype=torch.float64), []
    for t, (leak, gain) in enumerate(zip(wanted.leak, wanted.gain, strict=True)):
        row = leak * row
        row[t] = gain
        rows.append(row)
    return torch.stack(rows[-1:] if wanted.last else rows)


def _numbers(values: Tensor, steps: int) -> tuple[float, ...] | None:
    """Return one number a step, where there is no more than that."""
    if values.numel() != len(values):
        return None
    numbers = values.detach().flatten().tolist()
    return tuple(numbers if len(numbers) == steps else numbers * steps)
