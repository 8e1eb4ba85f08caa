"""Backward linear bounds of networks with ReLU: a margin is followed back to the input as one linear form of what is below it.

Intervals forget that two neurons hang on the same input; a linear form does not. Over a box of weights it needs no more than two
transposed products a layer, as the least value over W' in W(1 ± z) of a linear form is known in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from noiseproof.certificates._graph import Add, Graph, Linear, MaxPool, Op, ReLU
from noiseproof.certificates._interval import Interval, margins, separate_margins
from noiseproof.certificates._layers import dense, same, scaled
from noiseproof.certificates._linear_forms import Backward, separate, shared
from noiseproof.certificates._relaxations import below_relu, crossing
from noiseproof.certificates.intervals import interval_margins, interval_values, operation_bounds
from noiseproof.errors import NoiseproofError, require_number

# tensors as large as the coefficients that live at the same time
_COPIES = 16


def backward_margins(
    graph: Graph, x: Tensor, y: Tensor, full: bool = False, *, optimise: int = 0, most_neurons: int = 1000, most_bytes: int = 2**28
) -> Tensor:
    """Return lower bounds [B, C] on z_y − z_c over the box, +∞ at c = y: where all are above zero, no chip of the box is wrong.

        min over W' in W(1 ± z) of A·W'a = (A W) a − z (|A||W|) |a|,   −|a| ≥ −(α a + β) over l ≤ a ≤ u

    from the logits back to the first layer that moves, whose values are a box of their own; ReLU and maxima between two lines. The
    bounds l, u between are intervals, or with `full` backward bounds themselves. Never below `interval_margins`. Where the graph was
    built of parameters that need gradients the margins have them (with `full`, l and u have not).
    A weight that a convolution uses at many places is one weight here; intervals take every use as one of its own.

    `x` [B, *shape] in the data's own units, labels `y` [B]. `optimise`: gradient steps on the slopes below the ReLUs, one a
    margin: tighter, each for about the price of four bounds. `most_neurons`: layers with more unstable neurons in a sample keep
    their intervals in `full`, whose price goes with their number. `most_bytes`: about the memory of the coefficients; that of one
    sample (with `full`, of one neuron a sample) is the least.

    Source: Zhang et al., arXiv:1811.00866; Xu et al., arXiv:2002.12920 (perturbed weights), arXiv:2011.13824 (slopes).

    Raises `NoiseproofError` for a network with spiking neurons, inputs of another shape, and labels that are not classes.

    Example:
        >>> import noiseproof as npf
        >>> from noiseproof.certificates._box import Box
        >>> from noiseproof.certificates._build import graph_of
        >>> data = npf.data.load("digits", limit_test=4)
        >>> network = npf.networks.MLP(hidden=(8, 8)).build(data.task, torch.Generator().manual_seed(0))
        >>> tuple(backward_margins(graph_of(network, Box(z=0.01)), data.test.x, data.test.y).shape)
        (4, 10)
    """
    require_number("optimise", optimise, 0, whole=True)
    _require_plain(graph)
    classes = graph.nodes[-1].shape[-1]
    if len(y) != len(x) or not bool(((y >= 0) & (y < classes)).all()):
        raise NoiseproofError(f"y is of shape {tuple(y.shape)} for {len(x)} samples: give one class of 0 to {classes - 1} a sample")
    found = []
    for part in _blocks(graph, len(x), 1, most_bytes):
        values = _values(graph, x[part], full, most_neurons, most_bytes)
        found.append(_margins(graph, values, y[part], optimise))
    return torch.cat(found) if found else interval_margins(graph, x, y)


def backward_logits(graph: Graph, x: Tensor, full: bool = False, *, most_neurons: int = 1000, most_bytes: int = 2**28) -> Interval:
    """Return the least and largest value of every logit [B, C] over the box, never wider than `interval_logits`.

    Each is followed back by itself; margins are better asked of `backward_margins`. Settings and errors as there.
    """
    _require_plain(graph)
    classes, found = graph.nodes[-1].shape[-1], []
    for part in _blocks(graph, len(x), 2, most_bytes):
        values = _values(graph, x[part], full, most_neurons, most_bytes)
        each = torch.eye(classes, dtype=graph.dtype, device=x.device).expand(len(x[part]), -1, -1)
        below = Backward(graph, values).lower(len(graph.nodes) - 1, torch.cat((each, -each), 1))
        found.append(_both(values[-1], Interval(below[:, :classes], -below[:, classes:])))
    if not found:
        return interval_values(graph, x)[-1]
    return Interval(torch.cat([low for low, _ in found]), torch.cat([high for _, high in found]))


def _margins(graph: Graph, values: list[Interval], y: Tensor, optimise: int) -> Tensor:
    last, op = len(graph.nodes) - 1, graph.nodes[-1].op
    if isinstance(op, Linear) and op.apply is dense:
        plain = margins(op, values[graph.nodes[-1].inputs[0]], y)
    else:
        plain = separate_margins(values[-1], y)
    each = torch.eye(plain.shape[1], dtype=graph.dtype, device=y.device)
    others = (each[y] == 0).nonzero()[:, 1].reshape(len(y), -1)
    backward, rows = Backward(graph, values), each[y][:, None] - each[others]
    found = backward.lower(last, rows)
    if optimise:
        found = _optimised(backward, last, rows, found, optimise)
    return torch.maximum(plain, torch.full_like(plain, torch.inf).scatter(1, others, found))


def _optimised(backward: Backward, start: int, rows: Tensor, found: Tensor, steps: int) -> Tensor:
    """Return the best bounds over slopes below the ReLUs, found by Adam on the sum of all bounds; every one met on the way holds."""
    twin = Backward(backward.graph, [Interval(low.detach(), high.detach()) for low, high in backward.values])
    used = {at: node.inputs[0] for at, node in enumerate(twin.graph.nodes[:start]) if isinstance(node.op, ReLU)}
    begin = {at: below_relu(twin.values[source])[:, None] for at, source in used.items()}
    slopes = {at: slope.repeat(1, rows.shape[1], *[1] * (slope.ndim - 2)).requires_grad_() for at, slope in begin.items()}
    if not slopes:
        return found
    adam = torch.optim.Adam(slopes.values(), lr=0.2)
    with torch.enable_grad():
        for _ in range(steps):
            adam.zero_grad()
            (-twin.lower(start, rows, slopes).sum()).backward(inputs=list(slopes.values()))
            adam.step()
            for slope in slopes.values():
                slope.data.clamp_(0, 1)
            found = torch.maximum(found, twin.lower(start, rows, slopes).detach())
    return found


def _values(graph: Graph, x: Tensor, full: bool, most_neurons: int, most_bytes: int) -> list[Interval]:
    """Return bounds of every node: intervals, or with `full` backward bounds of all whose sign or order matters, first nodes first."""
    if not full:
        return interval_values(graph, x)
    with torch.no_grad():
        values, exact = interval_values(graph, x), _exact(graph)
        for index, node in enumerate(graph.nodes):
            if node.op is None:
                continue
            if index not in exact:
                values[index] = _both(values[index], operation_bounds(node, [values[source] for source in node.inputs], False))
            wanted = _wanted(graph, index, values[index])
            if index in exact or wanted is None:
                continue
            count = int(wanted.flatten(1).sum(1).amax()) if len(x) else 0
            if 0 < count <= most_neurons:
                values[index] = _refined(graph, values, index, wanted, count, most_bytes)
    return values


def _wanted(graph: Graph, index: int, a: Interval) -> Tensor | None:
    """Return which values of a node [B, …] backward bounds may help: those that a ReLU cuts, or that may be the largest of a window."""
    takers = [graph.nodes[taker] for taker in graph.consumers(index)]
    if any(isinstance(taker.op, MaxPool) for taker in takers):
        return a.low < a.high
    if isinstance(graph.nodes[index].op, MaxPool) or not any(isinstance(taker.op, ReLU) for taker in takers):
        return None
    return crossing(a)


def _refined(graph: Graph, values: list[Interval], index: int, wanted: Tensor, count: int, most_bytes: int) -> Interval:
    """Return the bounds of a node, met with backward bounds of the wanted values in blocks of neurons."""
    a, wanted = values[index], wanted.flatten(1)
    # each sample has its own list; samples with fewer wanted values fill theirs with others, whose bounds hold too
    low, high = a.low.flatten(1).clone(), a.high.flatten(1).clone()
    at = wanted.to(low).topk(count, 1).indices
    backward = Backward(graph, values[: index + 1])
    for part in at.split(_rows_of(graph, len(wanted), most_bytes, index), 1):
        rows = low.new_zeros(*part.shape, low.shape[1]).scatter_(2, part[:, :, None], 1.0).reshape(*part.shape, *a.low.shape[1:])
        low.scatter_reduce_(1, part, backward.lower(index, rows), "amax")
        high.scatter_reduce_(1, part, -backward.lower(index, -rows), "amin")
    return _both(a, Interval(low.reshape(a.low.shape), high.reshape(a.high.shape)))


def _exact(graph: Graph) -> set[int]:
    """Return the nodes whose intervals no backward bound can better: the first layers that move, and what only scales or copies them."""
    found = separate(graph)
    for index, node in enumerate(graph.nodes):
        if isinstance(node.op, Linear) and node.inputs[0] in found:
            copies = node.op.weight is None and not node.op.slack
            if copies or node.op.apply is same or node.op.apply is scaled:
                found.add(index)
    return found


def _both(a: Interval, b: Interval) -> Interval:
    """Return what lies in both; never empty, should our own rounding cross the ends of a point."""
    low = torch.maximum(a.low, b.low)
    return Interval(low, torch.maximum(low, torch.minimum(a.high, b.high)))


def _blocks(graph: Graph, samples: int, copies: int, most_bytes: int) -> Iterator[slice]:
    """Return blocks of samples whose coefficients, `copies` a class, take about `most_bytes`."""
    rows = _rows_of(graph, graph.nodes[-1].shape[-1] * copies, most_bytes, len(graph.nodes) - 1)
    return (slice(i, i + rows) for i in range(0, samples, rows))


def _rows_of(graph: Graph, each: int, most_bytes: int, start: int) -> int:
    """Return how many times `each` rows of coefficients fit on the way back from a node, at least one."""
    first = min((at for at in separate(graph) if not shared(graph.nodes[at].op)), default=0)
    widest = max(max(math.prod(node.shape), _own_weights(node.op)) for node in graph.nodes[first : start + 1])
    return max(1, most_bytes // (_COPIES * widest * each * torch.finfo(graph.dtype).bits // 8))


def _own_weights(op: Op | None) -> int:
    """Return how many weights every row has for itself."""
    return op.weight.numel() if shared(op) and isinstance(op, Linear) and op.weight is not None else 0


def _require_plain(graph: Graph) -> None:
    for node in graph.nodes[1:]:
        if not isinstance(node.op, Linear | ReLU | MaxPool | Add):
            raise NoiseproofError(
                f"layer {node.name} is {type(node.op).__name__}: backward bounds of ReLU networks know no spikes; use spiking"
            )
