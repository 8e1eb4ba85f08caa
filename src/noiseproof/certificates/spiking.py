"""Bounds of spiking networks that use what plain intervals forget: weights do not change in time, and resets follow from spikes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from noiseproof.certificates._counts import count_domain
from noiseproof.certificates._first_layer import Trains, still, trains
from noiseproof.certificates._graph import Add, Graph, Linear, MaxPool, Neurons, Readout, ReLU
from noiseproof.certificates._interval import Interval, added, mapped, margins, rounding_of_mixed, separate_margins, size_of
from noiseproof.certificates._rows import Filter, every_step, filter_of, filter_of_readout, through_rows
from noiseproof.certificates._spikes import SpikeBounds
from noiseproof.certificates.intervals import input_ends, interval_logits, interval_margins, operation_bounds
from noiseproof.errors import NoiseproofError


@torch.no_grad()
def spiking_layers(graph: Graph, x: Tensor, *, most_bytes: int = 2**28) -> dict[int, SpikeBounds]:
    """Return what is known of every layer of neurons over the box, by the index of its node.

    Rows over time (`_rows`), one state for each number of spikes (`_counts`), and in the first layer, where the input stays the
    same and no constant moves, every spike train one by one (`_first_layer`). `x` [B, *shape] in the data's own units.
    `most_bytes`: about the memory of the states; the samples are taken in blocks that keep to it.

    Raises `NoiseproofError` for a network without spiking neurons and for inputs of another shape.
    """
    found = [Walk(graph, block).bounds for block in _blocks(graph, x, most_bytes)]
    return {at: SpikeBounds(*(_joined([one[at][k] for one in found], int(k < 3)) for k in range(4))) for at in found[0]}


@torch.no_grad()
def spiking_logits(graph: Graph, x: Tensor, *, most_bytes: int = 2**28) -> Interval:
    """Return the least and largest value of every logit [B, C] over the box. Arguments and errors as for `spiking_layers`."""
    ours = _joined([Walk(graph, block).logits() for block in _blocks(graph, x, most_bytes)], 0)
    if not is_rounded(graph):
        return ours
    plain = interval_logits(graph, x)  # may be tighter by what is rounded
    return Interval(torch.maximum(ours.low, plain.low), torch.minimum(ours.high, plain.high))


@torch.no_grad()
def spiking_margins(graph: Graph, x: Tensor, y: Tensor, *, most_bytes: int = 2**28) -> Tensor:
    """Return lower bounds [B, C] on z_y − z_c over the box, +∞ at c = y: where all are above zero, no chip of the box is wrong.

    The readout and the difference are one linear form of one row over time; with readout "max" the logits are bounded apart.
    Arguments and errors as for `spiking_layers`; `y` [B].

    Raises `NoiseproofError` for labels that are not classes.

    Example:
        >>> import noiseproof as npf
        >>> from noiseproof.certificates._box import Box
        >>> from noiseproof.certificates._build import graph_of
        >>> data = npf.data.load("digits", limit_test=4)
        >>> network = npf.networks.MLP(hidden=(8,), neuron="lif", steps=3).build(data.task, torch.Generator().manual_seed(0))
        >>> spiking_margins(graph_of(network, Box(z=0.01)), data.test.x, data.test.y).shape
        torch.Size([4, 10])
    """
    classes = graph.nodes[-1].shape[-1]
    if len(y) != len(x) or not bool(((y >= 0) & (y < classes)).all()):
        raise NoiseproofError(f"y is of shape {tuple(y.shape)} for {len(x)} samples: give one class of 0 to {classes - 1} a sample")
    blocks = _blocks(graph, x, most_bytes)
    ours = torch.cat([Walk(graph, block).margins(labels) for block, labels in zip(blocks, y.split(len(blocks[0])), strict=True)])
    return torch.maximum(ours, interval_margins(graph, x, y)) if is_rounded(graph) else ours


class _Source(Protocol):
    """Something that changes in time: it gives rows [M, B, …] of its values."""

    def rows(self, wanted: Filter) -> Interval: ...


class _Given(NamedTuple):
    """Values of which every step is known by itself, [T, B, …]."""

    steps: Interval
    rounded: bool

    def rows(self, wanted: Filter) -> Interval:
        A = wanted.matrix(self.steps.low)
        value = _filtered(A, self.steps)
        if not self.rounded or wanted == every_step(len(self.steps.low)):
            return value
        tiny = 4 * len(A.mT) * torch.finfo(A.dtype).eps * torch.tensordot(A.abs(), size_of(self.steps), 1)
        return Interval(value.low - tiny, value.high + tiny)


class ExactLayer(NamedTuple):
    """The first layer, train by train."""

    trains: Trains
    rounded: bool

    def rows(self, wanted: Filter) -> Interval:
        A = wanted.matrix(self.trains.potential.low)
        value = self.trains.rows(A)
        if not self.rounded or wanted == every_step(len(A.mT)):
            return value
        tiny = 4 * len(A.mT) * torch.finfo(A.dtype).eps * A.abs().sum(1).reshape(-1, *[1] * (value.low.ndim - 1))
        return Interval(value.low - tiny, value.high + tiny)


class _Counted(NamedTuple):
    """A layer in the count domain: the rows that it has kept."""

    kept: dict[Filter, Interval]
    spikes: Interval
    rounded: bool

    def rows(self, wanted: Filter) -> Interval:
        whole = wanted._replace(last=False)
        value = self.kept[whole] if whole in self.kept else _Given(self.spikes, self.rounded).rows(whole)
        return mapped(value, lambda ends: ends[-1:]) if wanted.last else value


class Walk:
    """One pass through a graph: the bounds of every layer of neurons, each from those before it."""

    def __init__(self, graph: Graph, x: Tensor) -> None:
        if graph.steps is None:
            raise NoiseproofError("the network has no spiking neurons: use `backward_margins`, or `interval_margins`")
        self.graph, self.steps = graph, graph.steps
        self.rounded = is_rounded(graph)
        self.still: dict[int, Interval] = {}  # what stays the same in time, [1, B, …]
        self.sources: dict[int, _Source] = {}
        self.steps_of: dict[int, Interval] = {}
        self.bounds: dict[int, SpikeBounds] = {}
        for at, node in enumerate(graph.nodes):
            if node.op is None:
                given = input_ends(graph, x)
                if len(given.low) == 1:
                    self.still[at] = given
                else:
                    self.sources[at] = _Given(given, self.rounded)
            elif isinstance(node.op, Neurons):
                self._neurons(at, node.op, node.inputs[0])
            elif not isinstance(node.op, Readout) and all(source in self.still for source in node.inputs):
                self.still[at] = operation_bounds(node, [self.still[source] for source in node.inputs], True)

    def logits(self) -> Interval:
        """Return bounds on the logits."""
        op, source = self._readout()
        wanted = filter_of_readout(op, self.steps)
        F = self._rows(source, wanted)
        read = through_rows(op.linear, F, self._sizes(source, wanted, F), wanted.matrix(F.low))
        return mapped(read, lambda value: value.amax(0))

    def margins(self, y: Tensor) -> Tensor:
        """Return lower bounds on the margins."""
        op, source = self._readout()
        apart = separate_margins(self.logits(), y)
        if op.how == "max":
            return apart
        wanted = filter_of_readout(op, self.steps)
        rows = self._rows(source, wanted)
        sizes, F = self._sizes(source, wanted, rows), mapped(rows, lambda value: value[0])
        fused = margins(op.linear, F, y, float(wanted.matrix(F.low).sum()))
        if sizes is not None and bool((mixed := (self._steps(source).low < 0).any(0)).any()):
            fused = fused - rounding_of_mixed(op.linear, sizes[0] * mixed, y)
        return torch.maximum(apart, fused)

    def _readout(self) -> tuple[Readout, int]:
        last = self.graph.nodes[-1]
        if not isinstance(last.op, Readout):
            raise NoiseproofError(f"the last operation is {type(last.op).__name__}: spiking bounds are known for networks with a readout")
        return last.op, last.inputs[0]

    def _neurons(self, at: int, op: Neurons, source: int) -> None:
        if source in self.still and still(op):
            found = trains(op, mapped(self.still[source], lambda value: value[0]), self.steps)
            if found is not None:
                self.bounds[at] = found.bounds()
                self.sources[at] = ExactLayer(found, self.rounded)
                return
        current = self._steps(source)
        own = filter_of(op, self.steps)
        own = None if own is not None and op.recurrent is not None and not own.positive else own
        filtered = None if own is None else self._rows(source, own)
        wanted = self._wanted(at)
        self.bounds[at], rows = self._counted(at, op, current, filtered, wanted)
        self.sources[at] = _Counted(dict(zip(wanted, rows, strict=True)), self.bounds[at].spikes, self.rounded)

    def _counted(
        self, at: int, op: Neurons, current: Interval, filtered: Interval | None, wanted: tuple[Filter, ...]
    ) -> tuple[SpikeBounds, list[Interval]]:
        """Return what the count domain knows of a layer."""
        return count_domain(op, current, filtered, wanted)[:2]

    def _wanted(self, at: int) -> tuple[Filter, ...]:
        """Return the filters of all that takes the spikes of a layer, through what is between."""
        found: dict[Filter, None] = {}
        for consumer in self.graph.consumers(at):
            op = self.graph.nodes[consumer].op
            if isinstance(op, Neurons):
                wanted = filter_of(op, self.steps)
            elif isinstance(op, Readout):
                wanted = filter_of_readout(op, self.steps)._replace(last=False)
            else:
                found |= dict.fromkeys(self._wanted(consumer))
                continue
            found |= {} if wanted is None else {wanted: None}
        return tuple(wanted for wanted in found if wanted.positive)

    def _rows(self, at: int, wanted: Filter) -> Interval:
        """Return the rows of a node's values."""
        if at in self.still:
            return self._constant(self.still[at], wanted)
        if at in self.sources:
            return self.sources[at].rows(wanted)
        node = self.graph.nodes[at]
        if isinstance(node.op, MaxPool | ReLU):  # not linear: from the steps one by one
            steps = operation_bounds(node, [self._steps(node.inputs[0])], True)
            return _Given(steps, self.rounded).rows(wanted)
        taken = [self._rows(source, wanted) for source in node.inputs]
        sizes = [self._sizes(source, wanted, rows) for source, rows in zip(node.inputs, taken, strict=True)]
        if isinstance(node.op, Linear):
            return through_rows(node.op, taken[0], sizes[0], wanted.matrix(taken[0].low))
        assert isinstance(node.op, Add)
        value = added(*taken)
        error = 0.0 if sizes[0] is None or sizes[1] is None else node.op.slack * (sizes[0] + sizes[1])
        return Interval(value.low - error, value.high + error)

    def _steps(self, at: int) -> Interval:
        """Return bounds on every step of a node's values, [T, B, …]."""
        if at not in self.steps_of:
            self.steps_of[at] = self._rows(at, every_step(self.steps))
        return self.steps_of[at]

    def _sizes(self, at: int, wanted: Filter, rows: Interval) -> Tensor | None:
        """Return bounds on Σ_t |A[t]| |a[t]|, which rounding is in proportion to; None where nothing is rounded."""
        if not self.rounded:
            return None
        if wanted == every_step(self.steps) or (at in self.bounds and wanted.positive):  # one step; nothing is negative
            return size_of(rows)
        return torch.tensordot(wanted.matrix(rows.low).abs(), size_of(self._steps(at)), 1)

    def _constant(self, value: Interval, wanted: Filter) -> Interval:
        """Return the rows of what stays the same, [1, B, …]: it is computed once, its error is the same at every step."""
        A = wanted.matrix(value.low)
        ones = A.sum(1).reshape(-1, *[1] * (value.low.ndim - 1))
        low, high = torch.minimum(ones * value.low, ones * value.high), torch.maximum(ones * value.low, ones * value.high)
        if not self.rounded or wanted == every_step(self.steps):
            return Interval(low, high)
        tiny = 4 * len(A.mT) * torch.finfo(A.dtype).eps * A.abs().sum(1).reshape(ones.shape) * size_of(value)
        return Interval(low - tiny, high + tiny)


def is_rounded(graph: Graph) -> bool:
    return any(node.op.slack > 0 for node in graph.nodes if isinstance(node.op, Neurons))


def _filtered(A: Tensor, a: Interval) -> Interval:
    """Return A a for a [T, B, …] whose steps move by themselves."""
    if a.low is a.high:
        value = torch.tensordot(A, a.low, 1)
        return Interval(value, value)
    up, down = A.clamp_min(0), A.clamp_max(0)
    low = torch.tensordot(up, a.low, 1) + torch.tensordot(down, a.high, 1)
    return Interval(low, torch.tensordot(up, a.high, 1) + torch.tensordot(down, a.low, 1))


def _blocks(graph: Graph, x: Tensor, most_bytes: int) -> tuple[Tensor, ...]:
    """Return the samples in blocks; a layer of N neurons has at most T + 1 states of about 60 numbers with what a step takes."""
    widest = max(int(torch.Size(node.shape).numel()) for node in graph.nodes)
    each = 8 * 64 * ((graph.steps or 0) + 1) * widest
    return x.split(max(1, most_bytes // each))


def _joined(parts: list[Interval], at: int) -> Interval:
    return Interval(torch.cat([part.low for part in parts], at), torch.cat([part.high for part in parts], at))
