"""The count domain: of every neuron one state for each number of spikes that it may have fired so far.

A state is a box of what the neuron carries. At a step it is split exactly at the threshold: the part below keeps its number, the
part above goes on to the next number, reset. Boxes are merged where neuron and number are the same, and nowhere else: what is
known of a neuron that has fired k times never mixes with that of one which has fired more or less often.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._first_layer import reduced
from noiseproof.certificates._forks import fork
from noiseproof.certificates._graph import Neurons
from noiseproof.certificates._interval import Interval, added, multiplied, point, size_of, stack_of, through
from noiseproof.certificates._rows import Filter, filter_of
from noiseproof.certificates._spikes import SpikeBounds


@dataclass(frozen=True)
class States:
    """The states that can be reached, [P], in the order of neuron and number of spikes."""

    neuron: Tensor  # which, in the flattened layer
    number: Tensor  # of spikes so far
    carry: Interval  # λ·v − q: what the next step starts from
    leaked: Interval | None  # λ·v and q apart, where nothing is rounded: the network subtracts q after g·I is added
    pending: Interval | None
    adaptation: Interval | None  # b of the next step
    dead: Interval | None  # dead steps left
    resets: Interval | None  # d: the sum of the own resets as the membrane has kept them; h = U − d
    drift: Interval | None  # how far rounding may have brought h from U − d
    traces: tuple[Interval, ...]  # F of the own spikes, one for each filter that is kept

    @property
    def parts(self) -> list[Interval]:
        """All boxes."""
        some = (self.carry, self.leaked, self.pending, self.adaptation, self.dead, self.resets, self.drift, *self.traces)
        return [part for part in some if part is not None]

    def of(self, index: Tensor) -> States:
        """Return some of the states."""
        return self.with_parts(self.neuron[index], self.number[index], (Interval(a.low[index], a.high[index]) for a in self.parts))

    def with_parts(self, neuron: Tensor, number: Tensor, parts: Iterable[Interval]) -> States:
        """Return states of the same kind with other boxes, in the order of `parts`."""
        left = iter(parts)
        carry = next(left)
        optional = (self.leaked, self.pending, self.adaptation, self.dead, self.resets, self.drift)
        leaked, pending, adaptation, dead, resets, drift = (None if part is None else next(left) for part in optional)
        return States(neuron, number, carry, leaked, pending, adaptation, dead, resets, drift, tuple(left))


class Counted(NamedTuple):
    """What is known of a layer, the rows [T, B, …] of its spikes for every filter, and of which sample a row is a case, [B]."""

    bounds: SpikeBounds
    rows: list[Interval]
    samples: Tensor


def count_domain(op: Neurons, current: Interval, filtered: Interval | None, filters: tuple[Filter, ...] = (), parts: int = 1) -> Counted:
    """Return what is known of a layer, and the rows [T, B, …] of its spikes for every filter.

    `current` [T, B, …]: bounds on the input of every step; `filtered` [T, B, …]: bounds on U, the membrane that is never reset,
    as `filter_of(op)` makes it. No gain of the filters is negative. With `parts` a sample may become so many rows, cases that cover its
    box together (`_forks`): what holds in all of them holds. Memory: about 30 numbers for each state, of which a neuron
    has at most t + 1 at step t.
    """
    return _Layer(op, current, filtered, filters, parts).run()


class _Layer:
    """One run of the domain over a layer."""

    def __init__(self, op: Neurons, current: Interval, filtered: Interval | None, filters: tuple[Filter, ...], parts: int) -> None:
        self.op, self.current, self.filtered = op, current, filtered
        self.steps, self.shape = len(current.low), current.low.shape[1:]
        own = filter_of(op, self.steps) if filtered is not None else None
        self.own_ones = None if own is None else own.matrix(current.low).sum(1).tolist()
        self.wanted = filters
        self.filters = filters if own is None or op.recurrent is None else (*filters, own.earlier())
        self.kept = [one for one in self.filters if not one.counts]
        # errors of our own sums over time; nothing is rounded where the arithmetic is exact
        eps = torch.finfo(current.low.dtype).eps
        self.tiny, self.tolerance = 4 * self.steps * eps if op.slack else 0.0, 1e4 * eps
        self.one = point(torch.ones(1).to(current.low))
        form, rest = op.form, point(torch.zeros_like(current.low[0]).flatten())
        neuron, apart = torch.arange(len(rest.low), device=rest.low.device), form.reset == "soft-next" and not op.slack
        self.states = States(
            neuron,
            torch.zeros_like(neuron),
            rest,
            rest if apart else None,
            rest if apart else None,
            rest if form.adaptive else None,
            rest if form.refractory else None,
            rest if filtered is not None and form.reset != "hard" else None,
            rest if filtered is not None and op.slack else None,
            (rest,) * len(self.kept),
        )
        nothing = point(torch.zeros_like(current.low[0]))
        # spikes of the step before, and what the own membrane makes of those before it
        self.fired, self.own_row = nothing, nothing
        self.reach = nothing.low  # the largest |U| so far

        # cases: of which sample each row is one, and from which row it came at every step
        self.parts, self.samples, self.parents = parts, torch.arange(len(current.low[0]), device=neuron.device), list[Tensor]()
        each = current.low.new_ones(math.prod(self.shape[1:]))
        self.influence = each if op.recurrent is None or op.recurrent.weight is None else op.recurrent.weight.detach().abs().sum(0)

    def run(self) -> Counted:
        spikes, potentials, thresholds, rows = [], [], [], []
        for t in range(self.steps):
            potential, threshold, self.fired = self._step(t)
            spikes.append(self.fired)
            potentials.append(potential)
            thresholds.append(threshold)
            found = self._rows()
            self.own_row = found[-1] if len(found) > len(self.wanted) else self.own_row
            rows.append(found[: len(self.wanted)])
        fired, h, B = (self._of_last_rows(one) for one in (spikes, potentials, thresholds))
        found = [self._of_last_rows(list(one)) for one in zip(*rows, strict=True)]
        return Counted(SpikeBounds(fired, h, B, self._numbers()), found, self.samples)

    def _of_last_rows(self, steps: list[Interval]) -> Interval:
        """Return what was found at every step for the rows that there are at the end: a case has the past of the row it came from."""
        row, found = torch.arange(len(self.samples), device=self.samples.device), list[Interval]()
        for step, parent in zip(reversed(steps), reversed(self.parents), strict=True):
            found.append(Interval(step.low[row], step.high[row]))
            row = parent[row]
        return stack_of(found[::-1])

    def _input(self, t: int) -> tuple[Interval, Interval | None, Tensor | float]:
        """Return the input and U at a step, one a state, and the rounding error of the input that is not in it."""
        taken = Interval(self.current.low[t][self.samples], self.current.high[t][self.samples])
        U = None if self.filtered is None else Interval(self.filtered.low[t][self.samples], self.filtered.high[t][self.samples])
        back, error = self.op.recurrent, 0.0
        if back is not None:
            # the input is one more term of the sum over the own spikes
            error = self._one_each(back.slack * size_of(taken)) if back.slack else 0.0
            taken = added(taken.widened(back.slack), through(back, self.fired))
            U = None if U is None or self.own_ones is None else added(U, through(back, self.own_row, self.own_ones[t]))
        if U is None:
            return self._each(taken), None, error
        self.reach = torch.maximum(self.reach, size_of(U))
        return self._each(taken), self._each(U), error

    def _step(self, t: int) -> tuple[Interval, Interval, Interval]:
        taken, U, error = self._input(t)
        gain, slack = self._constant("gain", t), self.op.slack
        driven = multiplied(gain, taken)
        h = self._potential(driven.widened(slack))
        drift = None
        if self.states.drift is not None:
            drift = self.states.drift.high + slack * size_of(driven) + size_of(gain) * error
        if U is not None:
            h, drift = self._with_sum(h, U, drift)
        states = self.states
        B = self._threshold(t)
        rests, fires = h.low <= B.high, h.high > B.low
        if states.dead is not None:
            rests, fires = rests | (states.dead.high > 0), fires & (states.dead.low <= 0)
        h, B, drift, rests, fires = self._forked(h, B, drift, rests, fires)
        found = self._hull(h), self._hull(B), Interval(1 - self._any(rests), self._any(fires))
        self._next(t, h, B, drift, rests, fires)
        return found

    def _forked(
        self, h: Interval, B: Interval, drift: Tensor | None, rests: Tensor, fires: Tensor
    ) -> tuple[Interval, Interval, Tensor | None, Tensor, Tensor]:
        """Follow both cases of spikes that are not sure, as long as there are parts for them."""
        parent = torch.arange(len(self.samples), device=self.samples.device)
        while self.parts > 1:
            unsure = (self._any(rests) * self._any(fires)).flatten(1) > 0
            found = fork(self.states.neuron, unsure, self.samples, self.parts, self.influence)
            if found is None:
                break
            self.states = replace(self.states.of(found.states), neuron=found.neuron)
            h, B = (Interval(a.low[found.states], a.high[found.states]) for a in (h, B))
            drift = None if drift is None else drift[found.states]
            rests, fires = rests[found.states] & ~found.firing, fires[found.states] & ~found.silent
            self.own_row = Interval(self.own_row.low[found.rows], self.own_row.high[found.rows])
            self.reach = self.reach[found.rows]
            self.samples, parent = self.samples[found.rows], parent[found.rows]
            self.shape = torch.Size((len(self.samples), *self.shape[1:]))
        self.parents.append(parent)
        return h, B, drift, rests, fires

    def _potential(self, driven: Interval) -> Interval:
        """Return h = λ·v + g·I − q; rounded as in the network where λ·v and q are known, so that exact bounds of one chip are its run."""
        h, leaked, q = added(self.states.carry, driven), self.states.leaked, self.states.pending
        if leaked is None or q is None:
            return h
        known = (leaked.low == leaked.high) & (q.low == q.high)
        return Interval(*(torch.where(known, a + b - c, end) for a, b, c, end in zip(leaked, driven, q, h, strict=True)))

    def _with_sum(self, h: Interval, U: Interval, drift: Tensor | None) -> tuple[Interval, Tensor | None]:
        """Return h cut with U − d, what is known from the frozen sum over time; states where nothing is left are dropped.

        What differs by less than a tolerance is taken as the same: where nothing is rounded outwards two ways to one number differ.
        They do by roundings of d and of all that U has been so far, which may be far larger than h.
        """
        d = point(torch.zeros_like(h.low)) if self.states.resets is None else self.states.resets
        error = (0.0 if drift is None else drift) + self.tiny * (size_of(U) + size_of(d))
        low, high = U.low - d.high - error, U.high - d.low + error
        if self.states.resets is None:  # hard reset: h is U until the first spike
            first = self.states.number == 0
            low, high = torch.where(first, low, -torch.inf), torch.where(first, high, torch.inf)
        apart = self.tolerance * (1 + size_of(h) + size_of(d) + self._one_each(self.reach))
        low, high = torch.where(low > h.low + apart, low, h.low), torch.where(high < h.high - apart, high, h.high)
        left = low <= high + apart
        if not bool(left.all()):
            left |= self._any(left).flatten()[self.states.neuron] == 0
            kept = left.nonzero()[:, 0]
            self.states, low, high = self.states.of(kept), low[kept], high[kept]
            drift = None if drift is None else drift[kept]
        return Interval(torch.minimum(low, high), torch.maximum(low, high)), drift

    def _next(self, t: int, h: Interval, B: Interval, drift: Tensor | None, rests: Tensor, fires: Tensor) -> None:
        """Go on to the states after the step: those that keep their number, merged with those that come to it by a spike."""
        branches, keys, most = [], [], self.steps + 1
        for fired, chosen in enumerate((rests, fires)):
            index = chosen.nonzero()[:, 0]
            some = self.states.of(index)
            of_h, of_B = (Interval(a.low[index], a.high[index]) for a in (h, B))
            branches.append(self._branch(t, some, of_h, of_B, None if drift is None else drift[index], bool(fired)))
            keys.append(some.neuron * most + some.number + fired)
        reached = torch.zeros(self.shape.numel() * most, dtype=torch.bool, device=h.low.device)
        for key in keys:
            reached[key] = True
        all_keys = reached.nonzero()[:, 0]
        quiet, firing = (torch.searchsorted(all_keys, key) for key in keys)
        merged = []
        for a, b in zip(*branches, strict=True):
            low, high = a.low.new_full((len(all_keys),), torch.inf), a.low.new_full((len(all_keys),), -torch.inf)
            low[quiet], high[quiet] = a.low, a.high
            low[firing], high[firing] = torch.minimum(low[firing], b.low), torch.maximum(high[firing], b.high)
            merged.append(Interval(low, high))
        self.states = self.states.with_parts(all_keys // most, all_keys % most, merged)

    def _branch(self, t: int, old: States, h: Interval, B: Interval, drift: Tensor | None, fired: bool) -> list[Interval]:
        """Return all boxes after a step with or without a spike, in the order of `States.parts`."""
        leak, form, slack = self._constant("leak", min(t + 1, self.steps - 1), old), self.op.form, self.op.slack
        if fired:
            h = Interval(torch.maximum(h.low, B.low), h.high)
        elif old.dead is None:
            h = Interval(h.low, torch.minimum(h.high, B.high))
        else:
            h = Interval(h.low, torch.where(old.dead.high <= 0, torch.minimum(h.high, B.high), h.high))
        zero = torch.zeros_like(h.low)
        if fired and form.reset == "hard":
            v = point(zero)
        elif fired and form.reset == "soft":  # a spike means h > B: nothing below zero is left
            v = Interval((h.low - B.high).clamp_min(0), (h.high - B.low).clamp_min(0))
        else:
            v = h
        carry = leaked = multiplied(leak, v)
        size = slack * size_of(carry)
        carry = carry.widened(slack)
        if fired and form.reset == "soft-next":
            q = B.widened(slack)
            carry, size = Interval(carry.low - q.high, carry.high - q.low), size + slack * size_of(B)
        parts = [carry]
        if old.leaked is not None:
            parts += [leaked, B if fired else point(zero)]
        if old.adaptation is not None:
            parts.append(self._adapted(t, old, old.adaptation, fired))
        if old.dead is not None:
            dead = zero + form.refractory
            parts.append(point(dead) if fired else Interval((old.dead.low - 1).clamp_min(0), (old.dead.high - 1).clamp_min(0)))
        if old.resets is not None:
            d = multiplied(leak, added(old.resets, B) if fired and form.reset == "soft" else old.resets)
            parts.append(added(d, B) if fired and form.reset == "soft-next" else d)
        if drift is not None:
            parts.append(point((size_of(leak) * drift + size) * (1 + self.tiny)))
        for wanted, trace in zip(self.kept, old.traces, strict=True):
            more = wanted.gain[t] if fired else 0.0
            parts.append(Interval(wanted.leak[t] * trace.low + more, wanted.leak[t] * trace.high + more))
        return parts

    def _threshold(self, t: int) -> Interval:
        """Return B = θ + β·b, one a state."""
        B = self._constant("threshold", t)
        if self.states.adaptation is not None:
            B = added(B, multiplied(self._constant("beta", t), self.states.adaptation)).widened(self.op.slack)
        like = self.states.carry.low
        return Interval(B.low.expand_as(like), B.high.expand_as(like))

    def _adapted(self, t: int, old: States, b: Interval, fired: bool) -> Interval:
        """Return ρ·b + (1 − ρ)·s: linear in ρ, and for ρ in [0, 1] it rises with b."""
        rho = self._constant("rho", t, old)
        ends = [Interval(*(end * old + (1 - end) * float(fired) for old in b)) for end in rho]
        low, high = torch.minimum(ends[0].low, ends[1].low), torch.maximum(ends[0].high, ends[1].high)
        return Interval(low, high).widened(self.op.slack)

    def _constant(self, name: str, t: int, states: States | None = None) -> Interval:
        """Return a constant of the equation at a step: one number, or one a state; 1 where there is none."""
        low, high = getattr(self.op.low, name), getattr(self.op.high, name)
        if low is None:
            return self.one
        neuron = (self.states if states is None else states).neuron
        t = t if len(low) > 1 else 0

        def spread(values: Tensor) -> Tensor:
            if values[t].numel() == 1:
                return values[t].reshape(1)
            sample = self.shape[1:]
            return values[t].expand(1, *sample).flatten()[neuron % sample.numel()]

        return point(spread(low)) if low is high else Interval(spread(low), spread(high))

    def _rows(self) -> list[Interval]:
        """Return F of every filter, over all states."""
        numbers, traces, found = None, iter(self.states.traces), []
        for wanted in self.filters:
            if wanted.counts:
                numbers = self._numbers() if numbers is None else numbers
                found.append(Interval(wanted.gain[0] * numbers.low, wanted.gain[0] * numbers.high))
            else:
                found.append(self._hull(next(traces)))
        return [row.widened(self.tiny) for row in found]

    def _numbers(self) -> Interval:
        """Return the least and the largest number of spikes, [B, …]."""
        return self._hull(point(self.states.number.to(self.current.low.dtype)))

    def _hull(self, part: Interval) -> Interval:
        """Return the hull over the states of every neuron, [B, …]."""
        neuron = self.states.neuron
        return Interval(reduced(part.low, neuron, self.shape, "amin"), reduced(part.high, neuron, self.shape, "amax"))

    def _any(self, chosen: Tensor) -> Tensor:
        """Return 1 where it holds for some state of a neuron, else 0, [B, …]."""
        found = torch.zeros(self.shape.numel(), dtype=self.current.low.dtype, device=chosen.device)
        found[self.states.neuron[chosen]] = 1
        return found.reshape(self.shape)

    def _one_each(self, values: Tensor) -> Tensor:
        return values.flatten()[self.states.neuron]

    def _each(self, values: Interval) -> Interval:
        return Interval(self._one_each(values.low), self._one_each(values.high))
