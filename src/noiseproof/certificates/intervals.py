"""Plain intervals: every value of a network gets the least and the largest that it can take, operation by operation.

What a generic tool does, and what the other bounds are held against. In a spiking network every step takes membrane, spike,
adaptation and threshold as boxes of their own and forgets how they hang together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._graph import Add, Graph, Linear, MaxPool, Neurons, Node, Op, Readout, ReLU
from noiseproof.certificates._interval import (
    Interval,
    added,
    mapped,
    margins,
    multiplied,
    point,
    rounding_of_mixed,
    separate_margins,
    stack_of,
    subtracted,
    through,
)
from noiseproof.certificates._layers import dense
from noiseproof.certificates._spikes import SpikeBounds
from noiseproof.errors import NoiseproofError
from noiseproof.networks._base import ChannelsLast
from noiseproof.neurons.equation import Form, heaviside, in_time

_BLOCK = 2**19  # numbers of the largest node, in one block of samples


def interval_values(graph: Graph, x: Tensor) -> list[Interval]:
    """Return the least and largest value of every node of the graph over the box: [B, …], in spiking networks [T or 1, B, …].

    Of a layer of neurons that is its spikes, 0 or 1 at either end. `x` [B, *shape] in the data's own units. Where the graph was
    built of parameters that need gradients the ends have them; those of spikes are the surrogate's.

    Raises `NoiseproofError` for inputs of another shape.

    Example:
        >>> import noiseproof as npf
        >>> from noiseproof.certificates._box import Box
        >>> from noiseproof.certificates._build import graph_of
        >>> data = npf.data.load("digits", limit_test=4)
        >>> network = npf.networks.MLP(hidden=(8,)).build(data.task, torch.Generator().manual_seed(0))
        >>> low, high = interval_values(graph_of(network, Box(z=0.01)), data.test.x)[-1]
        >>> bool((low <= network(data.test.x)).all() and (network(data.test.x) <= high).all())
        True
    """
    return [value for value, _ in _walk(graph, x, keep=True)]


def interval_spikes(graph: Graph, x: Tensor) -> dict[int, SpikeBounds]:
    """Return what plain intervals know of every layer of neurons, by the index of its node.

    One step is the equation of `noiseproof.neurons.equation` in interval arithmetic, from boxes of v, s, b and r: h is compared
    with B (s is 1 at the least where low(h) > high(B), 0 at the most where high(h) ≤ low(B)), and a spike that is not known
    leaves [0, 1]. The reset takes h, B and s as independent of each other, as interval arithmetic does: it does not use that a
    neuron without a spike is below its threshold. `noiseproof.certificates.spiking` does. `x` [B, *shape].

    Source of interval bounds for spiking networks under weight boxes: Büchel et al., arXiv:2106.05009, Fig. S9.

    Raises `NoiseproofError` for inputs of another shape.

    Example:
        >>> import noiseproof as npf
        >>> from noiseproof.certificates._box import Box
        >>> from noiseproof.certificates._build import graph_of
        >>> data = npf.data.load("digits", limit_test=4)
        >>> network = npf.networks.MLP(hidden=(8,), neuron="lif", steps=3).build(data.task, torch.Generator().manual_seed(0))
        >>> [tuple(found.counts.high.shape) for found in interval_spikes(graph_of(network, Box(z=0.01)), data.test.x).values()]
        [(4, 8)]
    """
    return {at: found for at, (_, found) in enumerate(_walk(graph, x, keep=True)) if found is not None}


def interval_logits(graph: Graph, x: Tensor) -> Interval:
    """Return the least and largest value of every logit [B, C] over the box.

    A linear operation costs two products (W c ± |W| r, the exact hull), all others two evaluations. `x` and errors as for
    `interval_values`.
    """
    found = [_final(_walk(graph, part)) for part in _blocks(graph, x)]
    return Interval(torch.cat([part.low for part in found]), torch.cat([part.high for part in found]))


def interval_margins(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """Return lower bounds [B, C] on z_y − z_c over the box, +∞ at c = y: where all are above zero, no chip of the box is wrong.

    The last linear layer and the difference are one linear form, so that what y and c have in common is counted once; with
    readout "max" the logits are bounded apart. `x` [B, *shape], labels `y` [B].

    Raises `NoiseproofError` for inputs of another shape, and for labels that are not classes of the network.
    """
    classes = graph.nodes[-1].shape[-1]
    if len(y) != len(x) or not bool(((y >= 0) & (y < classes)).all()):
        raise NoiseproofError(f"y is of shape {tuple(y.shape)} for {len(x)} samples: give one class of 0 to {classes - 1} a sample")
    return torch.cat([_margins(graph, part, labels) for part, labels in zip(_blocks(graph, x), _blocks(graph, y), strict=True)])


def _margins(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    last = graph.nodes[-1].op
    if isinstance(last, Linear) and last.apply is dense:
        return margins(last, _final(_walk(graph, x, nodes=-1)), y)
    if isinstance(last, Readout) and last.how != "max":
        spikes = _final(_walk(graph, x, nodes=-1))
        total, ones = _weighted(last, spikes, graph)
        found = margins(last.linear, total, y, ones)
        mixed = (spikes.low < 0).any(0)
        if not last.linear.slack or not bool(mixed.any()):
            return found
        sizes = point(torch.maximum(spikes.low.abs(), spikes.high.abs()) * mixed)
        return found - rounding_of_mixed(last.linear, _weighted(last, sizes, graph)[0].high, y)
    return separate_margins(_final(_walk(graph, x)), y)


def _blocks(graph: Graph, x: Tensor) -> tuple[Tensor, ...]:
    """Return the samples in blocks whose values stay in the cache of a CPU."""
    largest = max(math.prod(node.shape) for node in graph.nodes)
    return x.split(max(1, _BLOCK // largest) if x.device.type == "cpu" else max(1, len(x)))


# --- operation by operation


def _walk(graph: Graph, x: Tensor, *, keep: bool = False, nodes: int | None = None) -> Iterator[tuple[Interval, SpikeBounds | None]]:
    """Give the bounds of one node after the other, those of neurons with what is known of them where `keep` asks for it.

    Values are dropped once no later node takes them.
    """
    last_use = {source: at for at, node in enumerate(graph.nodes) for source in node.inputs}
    values: dict[int, Interval] = {}
    for at, node in enumerate(graph.nodes[:nodes]):
        found = None
        if node.op is None:
            value = input_ends(graph, x)
        elif isinstance(node.op, Neurons):
            value, found = _emitted(node.op, values[node.inputs[0]], graph.steps or 0, keep)
        elif isinstance(node.op, Readout):
            value = _read(node.op, values[node.inputs[0]], graph)
        else:
            value = operation_bounds(node, [values[source] for source in node.inputs], graph.spiking)
        for source in node.inputs:
            if last_use[source] == at:
                values.pop(source, None)
        values[at] = value
        yield value, found


def input_ends(graph: Graph, x: Tensor) -> Interval:
    shape = graph.nodes[0].shape
    sizes = ", ".join(map(str, shape))
    takes = f"[B, {sizes}]" + (f", or sequences [B, {graph.steps}, {sizes}] where the network takes them" if graph.spiking else "")
    if x.ndim not in (len(shape) + 1, len(shape) + 1 + graph.spiking):
        raise NoiseproofError(f"x is of shape {tuple(x.shape)}: give {takes}")
    low, high = graph.inputs(x)
    if low.shape[1 + graph.spiking :] != shape or (graph.spiking and len(low) not in (1, graph.steps)):
        raise NoiseproofError(f"x is of shape {tuple(x.shape)}: give {takes}")
    return Interval(low, high) if graph.eps else point(low)


def _final(walk: Iterator[tuple[Interval, SpikeBounds | None]]) -> Interval:
    return deque(walk, maxlen=1).pop()[0]


def operation_bounds(node: Node, taken: list[Interval], spiking: bool) -> Interval:
    """Return the bounds of an operation that knows no time; its rows are samples, or steps × samples."""
    op, a = node.op, taken[0]
    if isinstance(op, Add):
        return added(a, taken[1]).widened(op.slack)
    if isinstance(op, ReLU):
        return mapped(a, torch.relu)
    if not spiking:
        return _rows(op, a)
    batch = a.low.shape[:2]
    return mapped(_rows(op, mapped(a, lambda value: value.flatten(0, 1))), lambda value: value.unflatten(0, batch))


def _rows(op: Op | None, a: Interval) -> Interval:
    if a.low.ndim == 4 and (isinstance(op, MaxPool) or (isinstance(op, Linear) and op.weight is not None and op.weight.ndim == 4)):
        a = mapped(a, ChannelsLast())
    if isinstance(op, Linear):
        return through(op, a)
    if isinstance(op, MaxPool):
        return mapped(a, op.apply)
    raise NoiseproofError(f"operation is {type(op).__name__}: plain intervals know no bound for it")


# --- neurons


class _Constants(NamedTuple):
    """The constants of the equation, one interval a step."""

    leak: list[Interval]
    threshold: list[Interval]
    gain: list[Interval] | None
    beta: list[Interval] | None
    rho: list[Interval] | None


class _State(NamedTuple):
    """What is known of the state of `noiseproof.neurons.equation`, and of the threshold of the step before."""

    v: Interval
    s: Interval
    b: Interval
    r: Interval
    B: Interval


def _emitted(op: Neurons, current: Interval, steps: int, keep: bool) -> tuple[Interval, SpikeBounds | None]:
    """Return the spikes [T, B, …] of a layer and, with `keep`, all that is known of it."""
    constants = _Constants(*(_in_time(low, high, steps) for low, high in zip(op.low, op.high, strict=True)))  # pyright: ignore
    rest = point(torch.zeros_like(current.low[0]))
    state = _State(rest, rest, rest, rest, _threshold(op, constants, rest, 0))
    spikes, potentials, thresholds = [], [], []
    for t, taken in enumerate(_in_time(current.low, current.high, steps) or []):
        if op.recurrent is not None:
            # the current is one more term of the sum over the layer's own spikes
            taken = added(taken.widened(op.recurrent.slack), through(op.recurrent, state.s))
        h, state = _step(op, constants, state, taken, t)
        spikes.append(state.s)
        if keep:
            potentials.append(h)
            thresholds.append(Interval(state.B.low.expand_as(h.low), state.B.high.expand_as(h.high)))
    found = stack_of(spikes)
    if not keep:
        return found, None
    return found, SpikeBounds(found, stack_of(potentials), stack_of(thresholds), mapped(found, lambda ends: ends.sum(0)))


def _step(op: Neurons, constants: _Constants, state: _State, current: Interval, t: int) -> tuple[Interval, _State]:
    """Return h and the state after one step: the equation, line by line."""
    form, (v, s, b, r, B) = op.form, state
    h = added(
        multiplied(constants.leak[t], v).widened(op.slack),
        (current if constants.gain is None else multiplied(constants.gain[t], current)).widened(op.slack),
    )
    if form.reset == "soft-next":
        h = subtracted(h, multiplied(B, _cut(form, s)).widened(op.slack))
    if form.adaptive and constants.rho is not None:
        b = _blend(constants.rho[t], b, s).widened(op.slack)
        B = _threshold(op, constants, b, t)
    s = _fired(form, h, B, r)
    if form.refractory:
        full, less = float(form.refractory), mapped(r, lambda left: (left - 1).clamp_min(0))
        r = Interval(torch.where(s.low > 0, full, less.low), torch.where(s.high > 0, full, less.high))
    if form.reset == "hard":
        cut = _cut(form, s)
        v = multiplied(Interval(1 - cut.high, 1 - cut.low), h)
    elif form.reset == "soft":
        v = subtracted(h.widened(op.slack), multiplied(B, _cut(form, s)).widened(op.slack))
    else:
        v = h
    return h, _State(v, s, b, r, B)


def _threshold(op: Neurons, constants: _Constants, b: Interval, t: int) -> Interval:
    """Return B = θ + β·b."""
    theta = constants.threshold[t]
    if constants.beta is None or not op.form.adaptive:
        return theta
    return added(theta, multiplied(constants.beta[t], b)).widened(op.slack)


def _blend(rho: Interval, b: Interval, s: Interval) -> Interval:
    """Return ρ·b + (1 − ρ)·s: for ρ in [0, 1] it rises with b and s, and in ρ it is linear, so that its ends are at those of ρ."""
    ends = [Interval(*(end * old + (1 - end) * new for old, new in zip(b, s, strict=True))) for end in rho]
    return Interval(torch.minimum(ends[0].low, ends[1].low), torch.maximum(ends[0].high, ends[1].high))


def _fired(form: Form, h: Interval, B: Interval, r: Interval) -> Interval:
    """Return s = H(h − B), 0 where r > 0; one in the dead time for sure never fires, one that may be dead need not."""
    surely, perhaps = (r.high <= 0, r.low <= 0) if form.refractory else (None, None)
    return Interval(_spike(form, h.low, B.high, surely), _spike(form, h.high, B.low, perhaps))


def _spike(form: Form, h: Tensor, B: Tensor, alive: Tensor | None) -> Tensor:
    if h.requires_grad or B.requires_grad:
        return heaviside(h, B, form.surrogate, alive)
    return (h > B if alive is None else (h > B) & alive).to(h.dtype)


def _cut(form: Form, s: Interval) -> Interval:
    """Return the spikes as the reset takes them."""
    return Interval(s.low.detach(), s.high.detach()) if form.detach_reset else s


def _in_time(low: Tensor | None, high: Tensor | None, steps: int) -> list[Interval] | None:
    """Return one interval a step."""
    if low is None or high is None:
        return None
    if low is high:
        return [point(value) for value in in_time(low, steps)]
    return [Interval(*ends) for ends in zip(in_time(low, steps), in_time(high, steps), strict=True)]


# --- readouts


def _read(op: Readout, spikes: Interval, graph: Graph) -> Interval:
    """Return the logits [B, C]; the weights are frozen in time, so that one product serves the sum over all steps."""
    if op.how != "max":
        total, ones = _weighted(op, spikes, graph)
        return through(op.linear, total, ones)
    # u[t] = Σ_k λ^(t−k) (W s[k] + b): the largest of all steps, each bounded by one product
    steps, batch = graph.steps or 0, spikes.low.shape[1]
    rest = spikes.low.new_zeros(())
    total, ones, totals, all_ones = point(rest), 0.0, [], []
    for taken in _in_time(spikes.low, spikes.high, steps) or []:
        total, ones = added(Interval(op.leak * total.low, op.leak * total.high), taken), op.leak * ones + 1.0
        totals.append(total)
        all_ones.append(ones)
    rows = mapped(stack_of(totals), lambda value: value.flatten(0, 1))
    u = through(op.linear, rows, rest.new_tensor(all_ones).repeat_interleave(batch))
    return mapped(u, lambda value: value.unflatten(0, (steps, batch)).amax(0))


def _weighted(op: Readout, spikes: Interval, graph: Graph) -> tuple[Interval, float]:
    """Return what the weights of a linear readout multiply, [B, F], and what multiplies its bias."""
    steps = graph.steps or 0
    kept = [1.0 if op.how != "last" else op.leak ** (steps - 1 - t) for t in range(steps)]
    ones = sum(kept)
    if op.how == "rate":
        kept, ones = [1 / steps] * steps, 1.0
    # the sum over time rounds every term by itself
    wide = spikes.widened(op.linear.slack)
    weights = spikes.low.new_tensor(kept if len(spikes.low) == steps else [ones])
    return mapped(wide, lambda value: torch.tensordot(weights, value, 1)), ones
