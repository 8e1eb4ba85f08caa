"""A layer of neurons walked back through time: from weights on its spikes to weights on its input currents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._graph import Linear, Neurons
from noiseproof.certificates._interval import Interval
from noiseproof.certificates._spikes import SpikeBounds


class Known(NamedTuple):
    """What the forward bounds know of a layer, [T, 1, B, …]: the second dimension is that of the rows."""

    spikes: Interval
    silent: Interval  # h in a step without a spike, where there can be one
    firing: Interval  # h in a step with a spike, where there can be one
    threshold: Interval  # B
    adaptation: Interval  # b
    offset: Interval  # B − β·b, β in the middle of its interval
    dead: Tensor  # whether the step may be a dead one
    counts: Interval  # [1, B, …]
    error: Tensor  # of h: what moving constants and rounding may add to λ·v + g·I − q
    drift: Tensor  # of b: the same

    def at(self, t: int) -> Known:
        """Return one step of it, [1, B, …]."""

        def of(part: Interval) -> Interval:
            return Interval(part.low[t], part.high[t])

        return Known(
            of(self.spikes), of(self.silent), of(self.firing), of(self.threshold), of(self.adaptation), of(self.offset),
            self.dead[t], self.counts, self.error[t], self.drift[t],
        )  # fmt: skip


class Ends(NamedTuple):
    """A constant of the equation as middle ± radius, [T or 1, 1, 1, …]."""

    middle: Tensor
    radius: Tensor

    @property
    def largest(self) -> Tensor:
        return self.middle.abs() + self.radius

    def at(self, t: int) -> Ends:
        return Ends(*(part[t if len(part) > 1 else 0] for part in self))


class Constants(NamedTuple):
    """All constants of the equation."""

    leak: Ends
    gain: Ends
    theta: Ends
    beta: Ends
    rho: Ends

    def at(self, t: int) -> Constants:
        return Constants(*(part.at(t) for part in self))


def constants_of(op: Neurons) -> Constants:
    """Return the constants of neurons; g is 1, β and ρ are 0 where the neurons have none."""

    def ends(low: Tensor | None, high: Tensor | None, otherwise: float) -> Ends:
        if low is None or high is None:
            like = op.low.threshold[:, None]
            return Ends(torch.full_like(like, otherwise), torch.zeros_like(like))
        if low is high:
            return Ends(low[:, None], torch.zeros_like(low[:, None]))
        middle, radius = (low + high) / 2, (high - low) / 2
        return Ends(middle[:, None], (radius + 2 * op.slack * torch.maximum(low.abs(), high.abs()))[:, None])

    (leak, theta, gain, beta, rho), others = op.low, op.high
    return Constants(
        ends(leak, others.leak, 0), ends(gain, others.gain, 1), ends(theta, others.threshold, 0), ends(beta, others.beta, 0),
        ends(rho, others.rho, 0),
    )  # fmt: skip


def known_of(op: Neurons, found: SpikeBounds, current: Interval) -> Known:
    """Return what is known of a layer in the form that the walk needs; `current` [T or 1, B, …], what comes into the neurons."""
    h, B, spikes = (Interval(i.low[:, None], i.high[:, None]) for i in (found.potential, found.threshold, found.spikes))
    leak, gain, theta, beta, rho = constants_of(op)
    size_h, size_I = (torch.maximum(i.low.abs(), i.high.abs()) for i in (h, current))
    size_v = torch.cat((torch.zeros_like(size_h[:1]), (size_h + B.high)[:-1]))  # of the step before
    # what comes in is one more term of the sum over the own spikes
    of_x = 0.0 if op.recurrent is None else op.recurrent.slack * size_I[:, None]
    size_I = size_I[:, None] + of_x + _recurrent_size(op.recurrent, spikes)
    rounding = op.slack * (leak.largest * size_v + gain.largest * size_I + B.high)
    error = rounding + gain.largest * of_x + leak.radius * size_v + gain.radius * size_I
    b, offset, drift = Interval(torch.zeros_like(B.low), torch.zeros_like(B.low)), B, torch.zeros_like(B.low)
    if op.form.adaptive:
        b = _adaptation(op, B)
        unsure = op.slack * B.high + beta.radius * b.high
        lowest, highest = theta.middle - theta.radius - unsure, theta.middle + theta.radius + unsure
        offset, drift = Interval(lowest, highest), 2 * (op.slack + rho.radius) + drift  # b and s lie in [0, 1]
    dead = torch.zeros_like(spikes.high, dtype=torch.bool)
    for back in range(1, min(op.form.refractory, len(dead) - 1) + 1):
        dead[back:] |= spikes.high[:-back] > 0
    top = torch.where(dead, h.high, torch.minimum(h.high, torch.maximum(B.high, h.low)))
    bottom = torch.maximum(h.low, torch.minimum(B.low, h.high))
    counts = Interval(found.counts.low[None], found.counts.high[None])
    return Known(spikes, Interval(h.low, top), Interval(bottom, h.high), B, b, offset, dead, counts, error, drift)


def least_spikes(a: Tensor, known: Known) -> Tensor:
    """Return the least Σ_t a[t]·s[t] of every neuron [S, B, …] over spikes and counts within what is known, for a [T, S, B, …].

    Sure spikes are taken; of the others the cheapest, as many as the least count asks for, and then those below zero, up to the
    largest count: exact, as nothing else is known.
    """
    sure, free = known.spikes.low, known.spikes.high > known.spikes.low
    ordered = torch.where(free, a, torch.inf).sort(0).values
    cheapest = torch.where(ordered.isinf(), 0.0, ordered)
    place = torch.arange(len(a), dtype=a.dtype, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    must, may = place < known.counts.low - sure.sum(0), place < known.counts.high - sure.sum(0)
    return (a * sure).sum(0) + torch.where(must, cheapest, torch.where(may, cheapest.clamp_max(0), 0.0)).sum(0)


def through_time(op: Neurons, known: Known, a: Tensor) -> tuple[Tensor, Tensor]:
    """Return A [T, S, B, …] and c [S, B, …] with Σ_t a[t]·s[t] ≥ Σ_t A[t]·I[t] + c for every neuron and chip, for a [T, S, B, …].

    From the last step to the first, with weights p on v[t] and ω on b[t], and P on −q[t+1], from the step after it. A step is

        no spike: p·h + ω·b     spike: a + ω·b + (soft: p·(h − B) | hard: 0 | soft-next: p·h − P·B),   B = θ + β·b

    Of it m·h + n·b is handed on, and the least of what is left, over the h and b of each case, goes to c. As h[t] = λ·v[t−1] +
    g·I[t] − q[t], the weight m goes to v[t−1], I[t] and q[t]; as b[t] = ρ·b[t−1] + (1 − ρ)·s[t−1], n goes to b[t−1] and s[t−1].
    Every m and n is sound. Where the spike is known its own case is handed on, and nothing is lost; where it is not, m is a side
    of the convex hull of the two cases over h, and n follows so that a slope on h is one on h − β·b.
    """
    constants, reset = constants_of(op), op.form.reset
    zero = torch.zeros_like(a[0])
    constant, currents = zero, []
    on_v, on_b, on_q, on_s = zero, zero, zero, zero  # p, ω, P and what else the step after puts on s[t]
    for t in reversed(range(len(a))):
        step, (leak, gain, theta, beta, rho) = known.at(t), constants.at(t)
        sure, never = step.spikes.low > 0, step.spikes.high == 0
        drop = on_v if reset == "soft" else on_q if reset == "soft-next" else zero  # weight of −B in the case of a spike
        spike = a[t] + on_s - drop * theta.middle - drop.abs() * (theta.radius + beta.radius * step.adaptation.high)
        h_silent, h_firing = on_v, zero if reset == "hard" else on_v
        b_silent, b_firing = on_b, on_b - drop * beta.middle
        hull = _hull_slope(h_silent, h_firing, spike + (b_firing - b_silent) * step.adaptation.high, step)
        m = torch.where(sure, h_firing, torch.where(never, h_silent, hull))
        n = torch.where(sure, b_firing, b_silent) - torch.where(sure | never, 0.0, beta.middle * (m - h_silent))
        silent = _least(h_silent - m, b_silent - n, step, step.silent, beta.middle, fires=False)
        firing = spike + _least(h_firing - m, b_firing - n, step, step.firing, beta.middle, fires=True)
        left = torch.where(sure, firing, torch.where(never, silent, torch.minimum(silent, firing)))
        # our own rounding: of the terms that were added up here
        largest = torch.maximum(step.silent.low.abs(), step.firing.high.abs())
        terms = a[t].abs() + on_s.abs() + drop.abs() * step.threshold.high + (on_v.abs() + m.abs()) * largest + on_b.abs() + n.abs()
        constant = constant + left - m.abs() * step.error - n.abs() * step.drift - op.slack * terms
        currents.append(m * gain.middle)
        on_v, on_q, on_b, on_s = m * leak.middle, m, n * rho.middle, n * (1 - rho.middle) + _recurrent(op.recurrent, currents[-1])
    return torch.stack(currents[::-1]), constant


def _hull_slope(silent: Tensor, firing: Tensor, spike: Tensor, step: Known) -> Tensor:
    """Return the slope of one side of the lower convex hull of silent·h for h ≤ B and spike + firing·h above, over the h that is known.

    It has a corner at B where the lower of the two values there lies below the straight line between the ends: then the longer
    side is taken.
    """
    B, low, high = (step.threshold.low + step.threshold.high) / 2, step.silent.low, step.firing.high
    left, right = (B - low).clamp_min(1e-12), (high - B).clamp_min(1e-12)
    at_low, at_high = silent * low, spike + firing * high
    corner = torch.minimum(silent * B, spike + firing * B)
    sides = (corner - at_low) / left, (at_high - corner) / right
    straight = (at_high - at_low) / (left + right)
    return torch.where(sides[0] < sides[1], torch.where(left > right, *sides), straight)


def _least(m: Tensor, n: Tensor, step: Known, h: Interval, beta: Tensor, *, fires: bool) -> Tensor:
    """Return a lower bound of m·h + n·b in one of the two cases of a step.

    With adaptation the case says more of x = h − β·b than of h and b alone; of the three ways to write m·h + n·b with two of
    h, b, x, each over its own interval, the best is taken.
    """
    b = step.adaptation
    plain = _ends_least(m, h)
    if not bool(b.high.any()):
        return plain
    lowest, highest = h.low - beta * b.high, h.high - beta * b.low
    if fires:
        x = Interval(torch.maximum(lowest, step.offset.low), highest)
    else:
        x = Interval(lowest, torch.where(step.dead, highest, torch.minimum(highest, step.offset.high)))
    x = Interval(torch.minimum(*x), torch.maximum(*x))
    ways = plain + _ends_least(n, b), _ends_least(m, x) + _ends_least(n + m * beta, b)
    ratio = n / beta.clamp_min(1e-9)
    third = torch.where(beta > 1e-9, _ends_least(m + ratio, h) + _ends_least(-ratio, x), -torch.inf)
    return torch.maximum(torch.maximum(*ways), third)


def _ends_least(weight: Tensor, of: Interval) -> Tensor:
    return torch.minimum(weight * of.low, weight * of.high)


def _adaptation(op: Neurons, B: Interval) -> Interval:
    """Return the ends of b = (B − θ)/β; b is a mean of spikes and lies in [0, 1]."""
    assert op.low.beta is not None
    assert op.high.beta is not None
    (theta_low, theta_high), (beta_low, beta_high) = (
        (ends[0][:, None], ends[1][:, None]) for ends in ((op.low.threshold, op.high.threshold), (op.low.beta, op.high.beta))
    )
    low = (B.low * (1 - op.slack) - theta_high * (1 + op.slack)) / beta_high.clamp_min(1e-300)
    high = (B.high * (1 + op.slack) - theta_low * (1 - op.slack)) / beta_low.clamp_min(1e-300)
    known = beta_low > 0
    return Interval(torch.where(known, low.clamp(0, 1), 0.0), torch.where(known, high.clamp(0, 1), 1.0))


def _recurrent(recurrent: Linear | None, on_I: Tensor) -> Tensor | float:
    """Return the weight on the spikes of the step before, which come back through W: s ≥ 0, so that W·(1 − z·sign) is the worst."""
    if recurrent is None or recurrent.weight is None:
        return 0.0
    W = recurrent.weight
    return on_I @ W - recurrent.width * (on_I.abs() @ W.abs())


def _recurrent_size(recurrent: Linear | None, spikes: Interval) -> Tensor | float:
    """Return the largest |W·s| of the step before."""
    if recurrent is None or recurrent.weight is None:
        return 0.0
    before = torch.cat((torch.zeros_like(spikes.high[:1]), spikes.high[:-1]))
    return (1 + recurrent.width) * (before @ recurrent.weight.abs().mT)
