"""Backward bounds of spiking networks: linear lower bounds of the margins, taken back through layers and time, and cases.

A margin is a sum of weights times the spikes of the last layer. Its weights are handed back, layer by layer, to the currents of
the neurons and to the spikes before them, each time by a lower bound that holds for every chip of the box; what is left at the
first layer is bounded over all spike trains that it can give. As the weights of a chip are the same at every step, the sum over
time is taken before the absolute value: z|W_ij|·|Σ_t A_i[t] s_j[t]| and not z|W_ij|·Σ_t |A_i[t] s_j[t]|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._counts import count_domain
from noiseproof.certificates._first_layer import Trains
from noiseproof.certificates._graph import Add, Graph, Linear, MaxPool, Neurons, Node, Readout, ReLU
from noiseproof.certificates._interval import Interval, size_of, through
from noiseproof.certificates._layers import dense
from noiseproof.certificates._rows import Filter, filter_of_readout
from noiseproof.certificates._spikes import SpikeBounds
from noiseproof.certificates._splits import split
from noiseproof.certificates._time_relaxations import Known, known_of, least_spikes, through_time
from noiseproof.certificates.intervals import interval_margins
from noiseproof.certificates.spiking import ExactLayer, Walk, is_rounded, spiking_margins
from noiseproof.errors import require_number

# how much of the width of its currents speaks against handing a neuron's weights on to them
TRUST = 0.25


def spiking_backward_margins(graph: Graph, x: Tensor, y: Tensor, parts: int = 64, *, most_bytes: int = 2**28) -> Tensor:
    """Return lower bounds [B, C] on z_y − z_c over the box, +∞ at c = y: where all are above zero, no chip of the box is wrong.

    The best of `interval_margins`, `spiking_margins` and, for the samples that these leave open, the backward bounds of this
    module. Where the first layer has a still input the box of such a sample is then cut into at most `parts` parts (`_splits`), each
    is bounded as by `spiking_margins`, and the least margin over them holds for the box; the weights of the backward bounds say
    where to cut. A recurrent layer that the readout takes is followed through both cases of spikes that are not sure (`_forks`), up to
    `parts` cases a sample. 1: nothing is cut. With readout "max" the first two are all that there is.
    `x` [B, *shape] in the data's own units, labels `y` [B]. `most_bytes`: about the size of the largest tensor.

    Source of linear bounds that go back: Zhang et al., NeurIPS 2018 (CROWN); of cases: Bunel et al., JMLR 21 (2020). The relaxation
    of the neurons in time, the frozen weights and the cases of currents and of spikes are our own.

    Raises `NoiseproofError` for a network without spiking neurons, inputs of another shape, labels that are not classes, and
    parts below 1.

    Example:
        >>> import noiseproof as npf
        >>> from noiseproof.certificates._box import Box
        >>> from noiseproof.certificates._build import graph_of
        >>> data = npf.data.load("digits", limit_test=4)
        >>> network = npf.networks.MLP(hidden=(8, 8), neuron="lif", steps=3).build(data.task, torch.Generator().manual_seed(0))
        >>> spiking_backward_margins(graph_of(network, Box(z=0.01)), data.test.x, data.test.y).shape
        torch.Size([4, 10])
    """
    require_number("parts", parts, 1, whole=True)
    best = spiking_margins(graph, x, y)
    if not is_rounded(graph):  # elsewhere they are among the spiking margins
        best = torch.maximum(best, interval_margins(graph, x, y))
    if not isinstance(graph.last, Readout) or graph.last.how == "max":
        return best
    size = _samples(graph, most_bytes)
    undecided = (best.amin(-1) <= 0).nonzero()[:, 0]
    for block in undecided.split(size) if len(undecided) else ():
        best[block] = _block(graph, x[block], y[block], best[block], parts, size)
    return best


def _block(graph: Graph, x: Tensor, y: Tensor, start: Tensor, parts: int, size: int) -> Tensor:
    """Return lower bounds [B, C], at least `start`, with the box in parts where that is possible."""
    whole = _Cases(graph, x, {})
    forward = _forward(whole)
    rows = start.topk(int((start <= 0).sum(-1).max()), dim=-1, largest=False).indices.mT  # [S, B], those that are open
    bound, weights = backward(forward, y, rows)
    start = torch.maximum(start, torch.full_like(start, -torch.inf).scatter(-1, rows.mT, bound.mT))
    if parts == 1:
        return start
    if len(weights) != 1:
        return _in_time(graph, x, y, start, parts, size)
    (first,) = weights

    def case(samples: Tensor, left: Trains) -> tuple[Tensor, Tensor]:
        cases = _Cases(graph, x[samples], {first: left})
        margins = torch.maximum(cases.margins(y[samples]), start[samples])
        _, weights = backward(_forward(cases), y[samples], margins.argmin(-1)[None], always=True)
        return margins, weights[first][:, 0]

    return split(forward.first[first], start, case, parts, size)


def _in_time(graph: Graph, x: Tensor, y: Tensor, start: Tensor, parts: int, size: int) -> Tensor:
    """Return lower bounds [B, C], at least `start`, from cases of the spikes of a recurrent layer that the readout takes.

    Few cases first, and more of them only for samples that these leave open.
    """
    source = graph.nodes[graph.nodes[-1].inputs[0]].op
    if not isinstance(source, Neurons) or source.recurrent is None:
        return start
    start, most = start.clone(), 1
    while most < parts:
        most = min(4 * most, parts)
        left = (start <= 0).any(-1).nonzero()[:, 0]
        for block in left.split(max(1, size // most)) if len(left) else ():
            walk = _CasesInTime(graph, x[block], most)
            case = walk.margins(y[block][walk.samples])
            least = case.new_full((len(block), case.shape[1]), torch.inf)
            least.scatter_reduce_(0, walk.samples[:, None].expand_as(case), case, "amin")
            start[block] = torch.maximum(start[block], least)
    return start


class _CasesInTime(Walk):
    """The forward bounds, where a sample may be several rows of the last layer: cases of its spikes, that cover the box together."""

    def __init__(self, graph: Graph, x: Tensor, parts: int) -> None:
        self.parts, self.samples = parts, torch.arange(len(x), device=x.device)
        super().__init__(graph, x)

    def _counted(
        self, at: int, op: Neurons, current: Interval, filtered: Interval | None, wanted: tuple[Filter, ...]
    ) -> tuple[SpikeBounds, list[Interval]]:
        if at != self.graph.nodes[-1].inputs[0]:
            return super()._counted(at, op, current, filtered, wanted)
        bounds, rows, self.samples = count_domain(op, current, filtered, wanted, self.parts)
        return bounds, rows


class _Cases(Walk):
    """The forward bounds, where the first layer may have been left fewer trains than its currents allow."""

    def __init__(self, graph: Graph, x: Tensor, left: dict[int, Trains]) -> None:
        self.x, self.left = x, left
        super().__init__(graph, x)

    def _neurons(self, at: int, op: Neurons, source: int) -> None:
        if at not in self.left:
            super()._neurons(at, op, source)
            return
        trains = self.left[at]
        self.bounds[at] = trains.bounds()
        self.sources[at] = ExactLayer(trains, self.rounded)


class _Forward(NamedTuple):
    """What is known of every node, and of the neurons in the form that the walk back needs."""

    graph: Graph
    values: list[Interval]  # [T or 1, B, …]
    known: dict[int, Known]
    first: dict[int, Trains]  # layers with a still input: all their spike trains


def backward(forward: _Forward, y: Tensor, rows: Tensor, *, always: bool = False) -> tuple[Tensor, dict[int, Tensor]]:
    """Return lower bounds [S, B] of z_y − z_c for the classes c in `rows` [S, B], and the weights [T, S, B, …] on exact layers.

    Node by node from the readout: what is linear hands its weights on, neurons do so where that promises more than what is
    known of their spikes (`always`: anyway), and everything else is bounded where it is.
    """
    graph, last = forward.graph, forward.graph.nodes[-1]
    assert isinstance(last.op, Readout)
    reached: dict[int, Tensor] = {}
    weights: dict[int, Tensor] = {}
    weights[last.inputs[0]], bound = _readout(last.op, forward.values[last.inputs[0]], y, rows, graph.steps or 0)
    for at in reversed(range(len(graph.nodes) - 1)):
        a = weights.pop(at, None)
        if a is None:
            continue
        node, value = graph.nodes[at], forward.values[at]
        handed: Tensor | None = None
        a = _once(a, value)
        if at in forward.first:
            reached[at] = a
            constant = _total(forward.first[at].least(a.movedim(0, 1)))
        elif isinstance(node.op, Neurons):
            handed, constant = _through_neurons(node.op, forward.known[at], a, forward.values[node.inputs[0]], always)
        elif isinstance(node.op, Linear):
            handed, constant = through_linear(node.op, forward.values[node.inputs[0]], a)
        elif isinstance(node.op, Add):
            sizes = [torch.maximum(forward.values[i].low.abs(), forward.values[i].high.abs()) for i in node.inputs]
            handed, constant = a, -node.op.slack * _total((a.abs() * (sizes[0] + sizes[1])[:, None]).sum(0))
        else:  # the input, and what is not linear: over all that the forward bounds allow
            constant = _total(torch.minimum(a * value.low[:, None], a * value.high[:, None]).sum(0))
        bound = bound + constant
        if handed is not None:
            for source in node.inputs:
                more = _once(handed, forward.values[source])
                weights[source] = weights[source] + more if source in weights else more
    return bound, reached


def _once(a: Tensor, value: Interval) -> Tensor:
    """Return the weights [T, S, B, …] on a value, summed over time where it stays the same for all steps.

    Before anything is added: what has been summed already and what has not would be broadcast, and counted T times.
    """
    return a.sum(0, keepdim=True) if len(value.low) == 1 else a


def _through_neurons(op: Neurons, known: Known, a: Tensor, current: Interval, always: bool) -> tuple[Tensor, Tensor]:
    """Return weights on the currents and a constant [S, B]: each neuron goes back to its currents or stays with its spikes.

    Which is better shows at the end alone, as it hangs on the other neurons. Here the currents count as their middle less `TRUST`
    times their radius. Both are sound.
    """
    currents, constant = through_time(op, known, a)
    if always:
        return currents, _total(constant)
    stay = least_spikes(a, known)
    low, high = current.low[:, None], current.high[:, None]
    promise = constant + (currents * (low + high) / 2 - TRUST * currents.abs() * (high - low) / 2).sum(0)
    goes = promise > stay
    if op.recurrent is not None:  # the weights of one neuron went on to the spikes of the others: all go, or none
        goes = (_total(promise) > _total(stay)).reshape(*stay.shape[:2], *[1] * (stay.ndim - 2))
    return currents * goes, _total(torch.where(goes, constant, stay))


def _total(values: Tensor) -> Tensor:
    """Return the sum over the neurons, [S, B]."""
    return values.flatten(2).sum(-1)


def through_linear(linear: Linear, value: Interval, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return A [T, S, B, …] and c [S, B] with Σ_t a[t]·(W'v[t] + b') ≥ Σ_t A[t]·v[t] + c over the box, for v [T, B, …] within `value`.

    The part of the box is the same at every step, that of rounding is not:

        Σ_t a_i[t] W'_ij v_j[t] ≥ Σ_t W_ij a_i[t] v_j[t] − z|W_ij|·|Y_ij| − (1 + z)·slack·|W_ij|·Σ_t |a_i[t]|·|v_j[t]|

    with Y_ij = Σ_t a_i[t] v_j[t]. |Y| ≤ κ·Y + k with the chord over the Y that `value` allows, exact where the sign of Y is
    known. That needs one number a weight, row and sample, and is done for dense layers; elsewhere the box counts as rounding
    does, step by step.
    """
    frozen = linear.z > 0 and linear.apply is dense and a.ndim == 4 and len(a) > 1
    relative = linear.slack * (1 + linear.z) if frozen else linear.width
    handed, constant = _transposed(linear.apply, linear.weight, value.low, a), a.new_zeros(a.shape[1:3])
    if relative:
        # |v| ≤ κ·v + k, step by step
        size = None if linear.weight is None else linear.weight.abs()
        spread = relative * _transposed(linear.apply, size, value.low, a.abs())
        slope, offset = _chord(value)
        handed = handed - spread * slope[:, None]
        constant = constant - (spread * offset[:, None]).flatten(3).sum((0, 3))
    if frozen and linear.weight is not None:
        moved, lost = _frozen(linear.z * linear.weight.abs(), value, a)
        handed, constant = handed - moved, constant - lost
    if linear.bias is not None:
        # [T, S, B, …]: the bias is frozen, too
        total, bias = (a * linear.bias).sum(0), linear.bias.abs()
        size = (a.abs() * bias).sum(0)
        constant = constant + (total - linear.bias_z * (a.sum(0).abs() * bias) - linear.slack * (1 + linear.bias_z) * size).flatten(2).sum(
            -1
        )
    return handed, constant


def _frozen(half_width: Tensor, value: Interval, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the chord of |Y_ij| takes from the weights [T, S, B, J] and from the constant [S, B]; `half_width` z|W| [I, J]."""
    rows = a.permute(2, 1, 3, 0).flatten(1, 2)  # [B, S·I, T]
    low, high = value.low.movedim(0, 1), value.high.movedim(0, 1)  # [B, T, J]
    plus, minus = rows.clamp_min(0), rows.clamp_max(0)
    slope, offset = _chord(Interval(plus @ low + minus @ high, plus @ high + minus @ low))
    units = a.shape[1], a.shape[3]
    slope = slope.unflatten(1, units) * half_width
    moved = a.permute(2, 1, 0, 3) @ slope  # [B, S, T, J]
    lost = (offset.unflatten(1, units) * half_width).sum((-1, -2))
    return moved.permute(2, 1, 0, 3), lost.mT


def _chord(value: Interval) -> tuple[Tensor, Tensor]:
    """Return κ and k with |v| ≤ κ·v + k, k ≥ 0, over the interval: ±v where the sign is known, else the line through both ends."""
    low, high = value
    slope = ((high + low) / (high - low).clamp_min(1e-300)).clamp(-1, 1)
    slope = torch.where(low >= 0, 1.0, torch.where(high <= 0, -1.0, slope))
    offset = torch.maximum(high.abs() - slope * high, low.abs() - slope * low)
    return slope, torch.where((low >= 0) | (high <= 0), 0.0, offset)


def _transposed(apply: Callable[[Tensor, Tensor | None], Tensor], weight: Tensor | None, like: Tensor, a: Tensor) -> Tensor:
    """Return Wᵀa for weights a [T, S, B, …] on the output of a linear operation."""
    if apply is dense and weight is not None:
        return a @ weight
    rows = a.flatten(0, 2)
    zeros = torch.zeros(len(rows), *like.shape[2:], dtype=a.dtype, device=a.device)
    transposed = torch.func.vjp(lambda v: apply(v, weight), zeros)[1]
    return transposed(rows)[0].unflatten(0, a.shape[:3])


def _readout(op: Readout, value: Interval, y: Tensor, rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return the weights [T, S, B, …] that z_y − z_c puts on the spikes, and its constant [S, B]: all but "max" are linear in them.

    min over the box of (W'_y − W'_c)·F = (W_y − W_c)·F − z(|W_y| + |W_c|)·|F|, F = Σ_t k[t]·s[t]; row c = y is nothing.
    Rounding goes with Σ_t k[t]·|s[t]|, which is F itself unless values have two signs.
    """
    linear = op.linear
    assert linear.weight is not None
    like = linear.weight
    kept = filter_of_readout(op, steps).matrix(like)[0]
    other = (rows != y).to(like)
    difference = (like[y] - like[rows]) * other[..., None]  # [S, B, F]
    spread = linear.width * (like[y].abs() + like[rows].abs()) * other[..., None]
    each = kept.reshape(-1, *[1] * (value.low.ndim - 1))
    slope, offset = _chord(Interval((each * value.low).sum(0), (each * value.high).sum(0)))
    a = kept[:, None, None, None] * (difference - spread * slope)
    constant = -(spread * offset).sum(-1)
    if linear.slack and bool((value.low < 0).any()):
        size = (each.abs() * size_of(value) * (value.low < 0).any(0)).sum(0)
        constant = constant - linear.slack * (1 + linear.z) * ((like[y].abs() + like[rows].abs()) * other[..., None] * size).sum(-1)
    if linear.bias is not None:
        bias = linear.bias.reshape(-1) * kept.sum()
        constant = constant + (bias[y] - bias[rows] - linear.bias_width * (bias[y].abs() + bias[rows].abs())) * other
    return a, constant


def _forward(walk: _Cases) -> _Forward:
    """Return the bounds of every node but the last, from a walk that has those of the spikes."""
    graph = walk.graph
    values: list[Interval] = []
    known: dict[int, Known] = {}
    first = {at: source.trains for at, source in walk.sources.items() if isinstance(source, ExactLayer)}
    for at, node in enumerate(graph.nodes[:-1]):
        taken = [values[i] for i in node.inputs]
        if isinstance(node.op, Neurons):
            values.append(walk.bounds[at].spikes)
            if at not in first:
                known[at] = known_of(node.op, walk.bounds[at], taken[0])
        else:
            values.append(Interval(*graph.inputs(walk.x)) if node.op is None else operation_bounds(node, taken))
    return _Forward(graph, values, known, first)


def operation_bounds(node: Node, taken: list[Interval]) -> Interval:
    """Return the bounds of an operation that knows no time."""
    first = taken[0]
    shape = first.low.shape[:2]
    rows = Interval(first.low.flatten(0, 1), first.high.flatten(0, 1))
    if isinstance(node.op, Linear):
        out = through(node.op, rows)
    elif isinstance(node.op, MaxPool):
        out = Interval(node.op.apply(rows.low), node.op.apply(rows.high))
    elif isinstance(node.op, ReLU):
        out = Interval(rows.low.relu(), rows.high.relu())
    else:
        assert isinstance(node.op, Add)
        second = taken[1]
        return Interval(first.low + second.low, first.high + second.high).widened(node.op.slack)
    return Interval(out.low.unflatten(0, shape), out.high.unflatten(0, shape))


def _samples(graph: Graph, most_bytes: int) -> int:
    """Return how many samples a block may have, with a few rows each."""
    sizes = [16 * math.prod(node.shape) * (graph.steps or 1) for node in graph.nodes]
    for node in graph.nodes:
        if isinstance(node.op, Linear) and node.op.apply is dense and node.op.weight is not None:
            sizes.append(node.op.weight.numel())
    return max(1, most_bytes // (8 * 4 * max(sizes)))
