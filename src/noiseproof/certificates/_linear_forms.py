"""A linear form of what one operation gives, followed back to the first layer that moves: what bounds from behind are made of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noiseproof.certificates._graph import Add, Graph, Linear, MaxPool, Node, Op, ReLU
from noiseproof.certificates._interval import Interval, size_of
from noiseproof.certificates._layers import dense
from noiseproof.certificates._relaxations import Line, Sources, above_relu, below_relu, chord, crossing, of_windows


class Backward:
    """One way back: from rows of coefficients at a node to lower bounds of the linear form, `values` [B, …] being known of each node."""

    def __init__(self, graph: Graph, values: list[Interval]) -> None:
        self.graph, self.values = graph, values
        # "exact" arithmetic builds graphs without slack: then nothing is rounded outwards here either
        rounded = any(node.op.slack for node in graph.nodes if isinstance(node.op, Linear | Add))
        self.unit = torch.finfo(graph.dtype).eps / 2 if rounded else 0.0
        # elementwise roundings of a coefficient on its way, at most
        self.few = 64 + 8 * len(graph.nodes)
        self.boxes = {0} | {at for at in separate(graph) if not shared(graph.nodes[at].op)}
        # by node, as every row needs them
        self.chords: dict[int, Line] = {}
        self.above: dict[int, Line] = {}
        self.windows: dict[int, Sources] = {}

    def lower(self, start: int, rows: Tensor, slopes: dict[int, Tensor] | None = None) -> Tensor:
        """Return lower bounds [B, S] of Σ rows·a over the box, a what node `start` gives; `rows` [B, S, *shape].

        `slopes`: other slopes in [0, 1] below the ReLUs than the usual ones, by node, [B, S, *shape].
        """
        found = _Sum(rows.new_zeros(rows.shape[:2]), self.unit, self.few)
        waiting = {start: rows}
        for index in range(start, -1, -1):
            if index not in waiting:
                continue
            rows = waiting.pop(index)
            if index in self.boxes:
                _end(rows, self.values[index], found)
                continue
            node = self.graph.nodes[index]
            for source, part in zip(node.inputs, self._step(node, index, rows, found, slopes or {}), strict=True):
                if source in waiting:
                    part = waiting[source] + part
                    found.round(part, size_of(self.values[source]), 1)
                waiting[source] = part
        return found.safe

    def _step(self, node: Node, index: int, rows: Tensor, found: _Sum, slopes: dict[int, Tensor]) -> list[Tensor]:
        """Return the coefficients of what the node takes; what is constant goes into `found`."""
        taken = [self.values[source] for source in node.inputs]
        if isinstance(node.op, Linear):
            return [self._linear(node.op, node.inputs[0], rows, found)]
        if isinstance(node.op, Add):
            return [self._sized(rows, node.op.slack * rows.abs(), source, found) if node.op.slack else rows for source in node.inputs]
        if isinstance(node.op, ReLU):
            return [self._relu(index, taken[0], rows, found, slopes.get(index))]
        assert isinstance(node.op, MaxPool)
        return [self._max(node.op, index, taken[0], rows, found)]

    def _linear(self, linear: Linear, source: int, rows: Tensor, found: _Sum) -> Tensor:
        shape, sizes = self.graph.nodes[source].shape, rows.abs()
        if linear.bias is not None:
            _add_bias(linear, linear.bias, rows, sizes, found)
        own = self._own(linear, rows.shape[2:].numel(), shape)
        if shared(linear):
            out, width = self._of_shared(linear, source, rows, sizes, found), (linear.slack + own) * (1 + linear.z)
        else:
            out, width = _transposed(linear, linear.weight, rows, shape), linear.width + own
        if not width:
            return out
        weight = None if linear.weight is None else linear.weight.abs()
        return self._sized(out, width * _transposed(linear, weight, sizes, shape), source, found)

    def _of_shared(self, linear: Linear, source: int, rows: Tensor, sizes: Tensor, found: _Sum) -> Tensor:
        """Return the coefficients where a weight is used at many places p, and is the same at all of them.

            min over δ_k of Σ_k W_k δ_k G_k = −z Σ_k |W_k||G_k|,   G_k = Σ_p A_p a_pk in the interval g ± r

        and |G_k| ≤ α_k G_k + β_k, its chord: so the form of a has the weights W − zα|W|, others for every row.
        """
        weight, a = linear.weight, self.values[source]
        assert weight is not None
        middle, radius = (a.low + a.high) / 2, (a.high - a.low) / 2
        terms = rows.shape[2:].numel() + self.few
        g = _products(linear, weight, rows, middle)
        r = _products(linear, weight, sizes, radius + _gamma(terms, 2 * self.unit) * (middle.abs() + radius))
        line = chord(g, r, self.unit)
        lost = _dot(linear.z * line.offset, weight.abs()[None])
        found.add(-lost, lost, weight.numel())
        return _transposed(linear, weight - linear.z * line.slope * weight.abs(), rows, self.graph.nodes[source].shape)

    def _sized(self, rows: Tensor, sizes: Tensor, source: int, found: _Sum) -> Tensor:
        """Return rows·a − sizes·|a| as one linear form of a below it."""
        a = self.values[source]
        if bool((a.low >= 0).all()):
            return rows - sizes
        if source not in self.chords:
            self.chords[source] = chord((a.low + a.high) / 2, (a.high - a.low) / 2, self.unit)
        line = self.chords[source]
        lost = _dot(sizes, line.offset)
        found.add(-lost, lost, line.offset[0].numel())
        return rows - sizes * line.slope[:, None]

    def _own(self, linear: Linear, outputs: int, shape: tuple[int, ...]) -> float:
        """Relative errors of our own two transposed products, which sum over the outputs that take an input; none in a mere copy."""
        weight = linear.weight
        if weight is not None and weight.ndim >= 2:
            # the outputs of dense layers and convolutions; of transposed convolutions
            outputs = max(weight[:, :1].numel(), weight[:1].numel())
        elif weight is None and not linear.slack and outputs <= math.prod(shape):
            return 0.0
        return 2 * _gamma(outputs + self.few, self.unit)

    def _relu(self, index: int, a: Interval, rows: Tensor, found: _Sum, slopes: Tensor | None) -> Tensor:
        if index not in self.above:
            self.above[index] = above_relu(a, self.unit)
        above = self.above[index]
        below = below_relu(a)[:, None] if slopes is None else torch.where(crossing(a)[:, None], slopes, below_relu(a)[:, None])
        up = rows.clamp(min=0)
        down = rows - up
        lost = _dot(down, above.offset)
        found.add(lost, -lost, above.offset[0].numel())
        return up * below + down * above.slope[:, None]

    def _max(self, pool: MaxPool, index: int, a: Interval, rows: Tensor, found: _Sum) -> Tensor:
        if index not in self.windows:
            self.windows[index] = of_windows(pool, a, self.unit)
        at = self.windows[index]
        up = rows.clamp(min=0)
        down = rows - up
        size = down.abs()
        found.add(_dot(down, at.line.offset), _dot(size, at.line.offset.abs()), at.size[0].numel())
        # several windows may share a member, whose coefficients are then summed
        found.round(rows, at.size, at.size[0].numel())
        out = rows.new_zeros(*rows.shape[:2], a.low[0].numel())
        for index_of, part in ((at.below, up), (at.above, down * at.line.slope[:, None])):
            out = out.scatter_add(2, index_of.flatten(1)[:, None].expand(-1, rows.shape[1], -1), part.flatten(2))
        return out.reshape(*rows.shape[:2], *a.low.shape[1:])


class _Sum:
    """The constant part of a bound [B, S], and what its roundings may amount to."""

    def __init__(self, zero: Tensor, unit: float, few: int) -> None:
        self.value, self.error, self.unit, self.few = zero, zero, unit, few

    def add(self, value: Tensor, size: Tensor, terms: int) -> None:
        """Add a sum of so many terms; `size`: the sum of their magnitudes."""
        self.value = self.value + value
        if self.unit:
            self.error = self.error + _gamma(terms + self.few, self.unit) * size

    def round(self, rows: Tensor, size: Tensor, terms: int) -> None:
        """Allow for coefficients that are off by the roundings of so many sums; `size` [B, …] of what they multiply."""
        if self.unit:
            self.error = self.error + _gamma(terms + self.few, self.unit) * _dot(rows.abs(), size)

    @property
    def safe(self) -> Tensor:
        """The sum less its roundings."""
        return self.value - self.error


def separate(graph: Graph) -> set[int]:
    """Return the first layers that move when the input does not: there every value has its own weights, so that its interval is exact.

    Where no weight is used twice, any choice of values in these intervals is a chip of the box: a linear form of them is least at the
    ends, and need not be followed further.
    """
    if graph.eps:
        return set()
    fixed, found = {0}, set()
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Linear) and node.inputs[0] in fixed:
            (found if node.op.z or node.op.bias_z else fixed).add(index)
    return found


# --- small parts


def _end(rows: Tensor, a: Interval, found: _Sum) -> None:
    """Add the least value of rows·a over the box l ≤ a ≤ u: at the ends."""
    if a.low is a.high:
        value = _dot(rows, a.low)
    else:
        up = rows.clamp(min=0)
        value = _dot(up, a.low) + _dot(rows - up, a.high)
    found.add(value, value.new_zeros(()), 0)
    found.round(rows, size_of(a), a.low[0].numel())


def _dot(rows: Tensor, a: Tensor) -> Tensor:
    """Return Σ rows [B, S, …]·a [B or 1, …], of dimensions [B, S]."""
    return (rows.flatten(2) @ a.flatten(1)[:, :, None].to(rows.dtype)).squeeze(-1)


def shared(op: Op | None) -> bool:
    """Return whether a weight that moves is used more than once in a row."""
    return isinstance(op, Linear) and op.z > 0 and op.weight is not None and op.apply is not dense


def _add_bias(linear: Linear, bias: Tensor, rows: Tensor, sizes: Tensor, found: _Sum) -> None:
    """Add the least value of rows·b'; a bias that is used at many places is the same at all of them, its rounding is not."""
    bias = bias.reshape(1, *[1] * (rows.ndim - 1 - bias.ndim), *bias.shape[1:])
    alike = [at + 1 for at, length in enumerate(bias.shape) if at and length == 1]
    once = rows.sum(alike, keepdim=True) if alike else rows
    size = _dot(sizes.sum(alike, keepdim=True) if alike else sizes, bias.abs())
    value = _dot(once, bias) - linear.bias_z * _dot(once.abs(), bias.abs()) - (1 + linear.bias_z) * linear.slack * size
    found.add(value, size, rows.shape[2:].numel())


def _products(linear: Linear, weight: Tensor, rows: Tensor, a: Tensor) -> Tensor:
    """Return what every weight is multiplied with in rows·(W a): [B, S, *weight] of rows [B, S, *out] and a [B, *shape]."""

    def product(row: Tensor, own: Tensor) -> Tensor:
        return torch.func.vjp(lambda w: linear.apply(own[None], w), weight)[1](row[None])[0]

    return torch.func.vmap(torch.func.vmap(product, (0, None)))(rows, a)


def _transposed(linear: Linear, weight: Tensor | None, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return rows [B, S, *out]·apply as coefficients of a: [B, S, *shape]; `weight` one for all rows, or [B, S, *weight]."""
    zeros, flat = rows.new_zeros(1, *shape), rows.flatten(0, 1)
    if weight is not None and linear.weight is not None and weight.ndim > linear.weight.ndim:
        each = torch.func.vmap(lambda row, w: torch.func.vjp(lambda a: linear.apply(a, w), zeros)[1](row[None])[0][0])
        out = each(flat, weight.flatten(0, 1))
    else:
        pull = torch.func.vjp(lambda a: linear.apply(a, weight), zeros)[1]
        out = torch.func.vmap(lambda row: pull(row[None])[0][0])(flat)
    return out.reshape(*rows.shape[:2], *shape)


def _gamma(terms: int, unit: float) -> float:
    return terms * unit / (1 - terms * unit)
