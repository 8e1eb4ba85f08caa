"""Intervals, and the one equation of weight boxes: a relative box on the weights is a relative box on what they multiply."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._graph import Linear


class Interval(NamedTuple):
    """Lower and upper ends, of one shape; the ends belong to it."""

    low: Tensor
    high: Tensor

    def widened(self, relative: float) -> Interval:
        """Return the hull of a·(1 + δ), |δ| ≤ relative < 1."""
        if not relative:
            return self
        return Interval(torch.add(self.low, self.low.abs(), alpha=-relative), torch.add(self.high, self.high.abs(), alpha=relative))


def point(value: Tensor) -> Interval:
    """Return a value as an interval of no width; both ends are the same tensor, which saves work further on."""
    return Interval(value, value)


def mapped(a: Interval, function: Callable[[Tensor], Tensor]) -> Interval:
    """Return the bounds of a monotone function that does not round; evaluated once where both ends are the same tensor."""
    low = function(a.low)
    return point(low) if a.low is a.high else Interval(low, function(a.high))


def added(a: Interval, b: Interval) -> Interval:
    """Return the bounds of a sum."""
    return Interval(a.low + b.low, a.high + b.high)


def subtracted(a: Interval, b: Interval) -> Interval:
    """Return the bounds of a difference."""
    return Interval(a.low - b.high, a.high - b.low)


def multiplied(a: Interval, b: Interval) -> Interval:
    """Return the hull of the products, whatever their signs."""
    products = [a.low * b.low, a.low * b.high]
    if a.low is not a.high:
        products += [a.high * b.low, a.high * b.high]
    low, high = products[0], products[0]
    for product in products[1:]:
        low, high = torch.minimum(low, product), torch.maximum(high, product)
    return Interval(low, high)


def stack_of(values: list[Interval]) -> Interval:
    """Return intervals one behind the other, along a new first dimension."""
    return Interval(torch.stack([value.low for value in values]), torch.stack([value.high for value in values]))


def size_of(a: Interval) -> Tensor:
    """Return the largest magnitude in an interval."""
    return torch.maximum(a.low.abs(), a.high.abs())


def through(linear: Linear, a: Interval, ones: Tensor | float = 1.0) -> Interval:
    """Return the exact hull of W'a + b'·ones over W' in W(1 ± z), b' in b(1 ± z_b) and a in its interval, for a of any sign.

    W'_ij a_j = W_ij (a_j (1 + δ_ij)) with |δ_ij| ≤ z: so a is widened by z, to the centre c and the radius r, and

        W'a ∈ W c ± |W| r

    is exact, as every product has its own δ. Rounding changes a product by up to slack of its size, which adds slack·(|c| + r) to r;
    at an end of zero too, where W c − |W| r is a difference of equal numbers. `a` [R, …]; `ones`: what multiplies the bias, a number
    or one a row.
    """
    bias, spread = None, None
    if linear.bias is not None:
        bias = linear.bias * (ones.reshape(-1, *[1] * (linear.bias.ndim - 1)) if isinstance(ones, Tensor) else ones)
        spread = linear.bias_width * bias.abs() if linear.bias_width else None
    if linear.weight is None:
        return _shifted(_monotone(linear, a), bias, spread)
    middle, radius = _product(linear, linear.weight, a)
    middle = middle if bias is None else middle + bias
    if spread is not None:
        radius = spread if radius is None else radius + spread
    return point(middle) if radius is None else Interval(middle - radius, middle + radius)


def _monotone(linear: Linear, a: Interval) -> Interval:
    """Nothing in an operation without a weight is negative: lower ends go to lower ends."""
    wide = a.widened(linear.width)
    low = linear.apply(wide.low, None)
    return point(low) if wide.low is wide.high else Interval(low, linear.apply(wide.high, None))


def _product(linear: Linear, weight: Tensor, a: Interval) -> tuple[Tensor, Tensor | None]:
    """Return W c and |W| (r + slack·(|c| + r)); no radius where nothing moves.

    Halves of the weights spare the halves of the ends.
    """
    if a.low is a.high and not linear.width:
        return linear.apply(a.low, weight), None
    half, size = linear.halves
    if a.low is a.high:
        return linear.apply(a.low, weight), linear.apply(a.low.abs() * (2 * linear.width), size)
    wide = a.widened(linear.z)
    twice, across = wide.low + wide.high, wide.high - wide.low
    if linear.slack:
        across = torch.add(across, twice.abs(), alpha=linear.slack)
    return linear.apply(twice, half), linear.apply(across, size)


def _shifted(a: Interval, bias: Tensor | None, spread: Tensor | None) -> Interval:
    """Return a + b for every b within `spread` of the bias."""
    if bias is None:
        return a
    if spread is not None:
        return Interval(a.low + (bias - spread), a.high + (bias + spread))
    return point(a.low + bias) if a.low is a.high else Interval(a.low + bias, a.high + bias)


def margins(linear: Linear, a: Interval, y: Tensor, ones: float = 1.0) -> Tensor:
    """Return lower bounds [B, C] of z_y − z_c for z = W'a + b' with a dense W [C, N]; +∞ at c = y.

        min over the box = Σ_j min over a_j ∈ {low, high} of (W_y − W_c)_j a_j − z(|W_y| + |W_c|)_j |a_j|,

    exact, as that is concave in a_j. The difference of two separate bounds would count the change of a twice.
    """
    assert linear.weight is not None
    weight, width = linear.weight, linear.width
    size, own = weight.abs(), weight[y]
    found = []
    for c in range(len(weight)):
        p, q = own - weight[c], width * (size[y] + size[c])
        found.append(torch.minimum(p * a.low - q * a.low.abs(), p * a.high - q * a.high.abs()).sum(-1))
    margin = torch.stack(found, -1)
    if linear.bias is not None:
        bias = linear.bias.reshape(-1) * ones
        spread = linear.bias_width * bias.abs()
        margin = margin + (bias[y] - spread[y])[:, None] - (bias + spread)
    return margin.scatter(-1, y[:, None], torch.inf)


def rounding_of_mixed(linear: Linear, sizes: Tensor, y: Tensor) -> Tensor:
    """Return what rounding may take from the margins [B, C] of z = Σ_t W'a[t] beyond slack·|W|·|Σ_t a[t]|; `sizes` [B, N]: Σ_t |a[t]|.

    The two sums are rounded each by itself, in proportion to their terms. Where a[t] has one sign the terms add up to |Σ_t a[t]|.
    """
    assert linear.weight is not None
    each = torch.nn.functional.linear(sizes, linear.weight.abs())
    return linear.slack * (1 + linear.z) * (each + each.gather(1, y[:, None]))


def separate_margins(logits: Interval, y: Tensor) -> Tensor:
    """Return lower bounds [B, C] of z_y − z_c from bounds on each logit [B, C]; +∞ at c = y."""
    return (logits.low.gather(-1, y[:, None]) - logits.high).scatter(-1, y[:, None], torch.inf)
