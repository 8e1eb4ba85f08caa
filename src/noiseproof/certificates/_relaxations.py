"""Straight lines below and above what is not linear, between two known ends: |a|, ReLU, the largest of a window.

Every line is made safe for its own rounding: the slope is what it is, and the offset is chosen for that slope, a little to the outside.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._graph import MaxPool
from noiseproof.certificates._interval import Interval


class Line(NamedTuple):
    """slope·a + offset, for every entry of a [B, …] by itself."""

    slope: Tensor
    offset: Tensor


class Sources(NamedTuple):
    """A line above and a line below the largest of a window, each in one member of it: a[`index`], flat in a row of the input."""

    below: Tensor
    above: Tensor
    line: Line  # above; below it is the member itself
    size: Tensor  # the largest |a| of the window


def chord(middle: Tensor, radius: Tensor, unit: float) -> Line:
    """Return the chord of |a| over [m − r, m + r], which lies above it: slope m/r and offset r − m²/r; ±1 and none where 0 is outside.

    The slope has no gradient; for any slope in [−1, 1] the offset is right up to roundings. `unit`: unit roundoff.
    """
    with torch.no_grad():
        slope = torch.where(radius > 0, middle / radius, middle.sign()).clamp(-1, 1)
    offset = (radius - middle * slope).relu()
    return Line(slope, offset + 8 * unit * (radius + middle.abs()) if unit else offset)


def above_relu(a: Interval, unit: float) -> Line:
    """Return the line through (l, 0) and (u, u), above max(a, 0) over [l, u]; max(a, 0) itself where its sign is known."""
    low, high = a
    unstable = crossing(a)
    slope = torch.where(unstable, high / torch.where(unstable, high - low, 1), (low >= 0).to(low)).clamp(max=1)
    offset = torch.maximum(-low * slope, high * (1 - slope)) * (1 + 8 * unit)
    return Line(slope, torch.where(unstable, offset, 0))


def below_relu(a: Interval) -> Tensor:
    """Return the slope of a line through zero below max(a, 0): 1 where u > −l, which leaves the smaller area, else 0.

    Every slope in [0, 1] is sound where l < 0 < u.
    """
    return (a.high > -a.low).to(a.low)


def crossing(a: Interval) -> Tensor:
    """Return where l < 0 < u."""
    return (a.low < 0) & (a.high > 0)


def of_windows(pool: MaxPool, a: Interval, unit: float) -> Sources:
    """Return lines for the largest of every window over a [B, …].

        below: the member i with the largest low;   above: s·a_j + t, j the member with the largest high,

    through (l_j, max(m, l_j)) and (u_j, u_j), m the largest high of the others: the maximum is at most max(a_j, m), which is
    convex in a_j. Where one member is above all others this is the member itself.
    """
    shape = a.low.shape[1:]
    places = torch.arange(shape.numel(), dtype=a.low.dtype, device=a.low.device).reshape(1, *shape)
    members = pool.windows(places).clamp(min=0).long()  # a padded place is −∞; it is never chosen below
    lows, highs = pool.windows(a.low), pool.windows(a.high)
    members = members.expand(highs.shape)
    low_at, (high, high_at) = lows.argmax(-1, keepdim=True), highs.max(-1, keepdim=True)
    low = lows.gather(-1, high_at)
    others = highs.scatter(-1, high_at, -torch.inf).amax(-1, keepdim=True)
    floor = torch.maximum(others, low)
    alone = others <= low
    slope = torch.where(alone, 1, (high - floor) / torch.where(alone, 1, high - low)).clamp(0, 1)
    size = torch.maximum(floor.abs(), torch.maximum(low.abs(), high.abs()))
    offset = torch.maximum(floor - slope * low, high - slope * high) + 8 * unit * size
    line = Line(slope.squeeze(-1), torch.where(alone, 0, offset).squeeze(-1))
    best = torch.maximum(size, lows.gather(-1, low_at).abs()).squeeze(-1)
    return Sources(members.gather(-1, low_at).squeeze(-1), members.gather(-1, high_at).squeeze(-1), line, best)
