"""Neurons with a still input: every spike train that the box allows, one by one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._graph import Neurons
from noiseproof.certificates._interval import Interval
from noiseproof.certificates._spikes import SpikeBounds


class Trains(NamedTuple):
    """All spike trains that P pieces of currents can give; the neurons have the shape [B, …], flattened for `owner`."""

    owner: Tensor  # [P], which neuron
    spikes: Tensor  # [P, T], bool: the train of a piece
    low: Tensor  # [P], the currents of a piece
    high: Tensor
    potential: Interval  # [T, B, …]: h over all pieces
    threshold: Interval  # [T, B, …]: B over all pieces

    @property
    def shape(self) -> torch.Size:
        """The shape of the neurons, [B, …]."""
        return self.potential.low.shape[1:]

    def rows(self, A: Tensor) -> Interval:
        """Return the least and the largest Σ_t A[m, t] s[t] of every neuron over its trains, [M, B, …], for A [M, T]."""
        return self._hull((self.spikes.to(A.dtype) @ A.mT).mT)

    def least(self, A: Tensor) -> Tensor:
        """Return the least Σ_t A[…, t, i] s_i[t] of every neuron i, [..., B, …], for weights [..., T, B, …] of its own; differentiable."""
        weights = A.flatten(-len(self.shape))
        total = weights.new_zeros(())
        for t in range(self.spikes.shape[1]):
            total = total + weights[..., t, :].index_select(-1, self.owner) * self.spikes[:, t]
        return reduced(total, self.owner, self.shape, "amin")

    def bounds(self) -> SpikeBounds:
        """Return what is known of the layer step by step."""
        dtype, steps = self.potential.low.dtype, self.spikes.shape[1]
        eye = torch.eye(steps, dtype=dtype, device=self.owner.device)
        counts = self.rows(torch.ones_like(eye[:1]))
        return SpikeBounds(self.rows(eye), self.potential, self.threshold, Interval(counts.low[0], counts.high[0]))

    def _hull(self, values: Tensor) -> Interval:
        return Interval(*(reduced(values, self.owner, self.shape, how) for how in ("amin", "amax")))


def still(op: Neurons) -> bool:
    """Whether `trains` applies to neurons, when their input stays the same: no constant moves, and nothing comes back to them."""
    return op.recurrent is None and all(low is high for low, high in zip(op.low, op.high, strict=True))


def trains(op: Neurons, current: Interval, steps: int, most: int = 4_000_000) -> Trains | None:
    """Return the spike trains of neurons whose current I [B, …] is one number of its interval for all steps; None: more than `most` pieces.

    Along one spike train the potential is an affine function of I, h[t] = α I + c: a piece of currents with one train is an
    interval, given by its two ends and h there. A step cuts it where α I + c = B, into a part that is silent and one that fires.
    In the arithmetic of the network a potential within the rounding error of B may fall on either side: the two parts overlap
    by it. Pieces that start as points never become intervals, so that z = 0 is the run itself.
    After a hard reset the same numbers come again, so that a decision is made once and kept: `known`.

    `op` must be `still`. Memory: (2 T + 100) bytes a piece, twice while a step is taken.
    """
    pieces = _start(current, steps)
    levels: list[tuple[Interval, Interval]] = []
    for t in range(steps):
        pieces, potential, threshold = _step(op, t, pieces, current.low.shape)
        if len(pieces.owner) > most:
            return None
        levels.append((potential, threshold))
    h, B = (Interval(torch.stack([level[k].low for level in levels]), torch.stack([level[k].high for level in levels])) for k in (0, 1))
    low, high = torch.minimum(pieces.I_low, pieces.I_high), torch.maximum(pieces.I_low, pieces.I_high)
    return Trains(pieces.owner, pieces.train, low, high, h, B)


class _Pieces(NamedTuple):
    """One interval of currents and one spike train each, [P]. The ends are those of h, so that I_low may be the larger current."""

    owner: Tensor
    train: Tensor  # [P, t]
    I_low: Tensor
    I_high: Tensor
    v_low: Tensor
    v_high: Tensor
    slope: Tensor  # α of v
    error: Tensor  # how far the network's v may be from α I + c, by rounding
    s: Tensor
    b: Tensor
    b_error: Tensor
    r: Tensor
    age: Tensor  # steps since the start or the last spike
    known: Tensor  # [P, T]: whether h was above B at that age, 1 or −1; 0 where it was not asked

    def of(self, index: Tensor) -> _Pieces:
        return _Pieces(*(part[index] for part in self))


def _start(current: Interval, steps: int) -> _Pieces:
    low, high = current.low.flatten(), current.high.flatten()
    zero = torch.zeros_like(low)
    owner = torch.arange(len(low), device=low.device)
    train = owner.new_zeros(len(low), 0, dtype=torch.bool)
    known = owner.new_zeros(len(low), steps, dtype=torch.int8)
    return _Pieces(owner, train, low, high, zero, zero, zero, zero, zero, zero, zero, zero, torch.zeros_like(owner), known)


def _step(op: Neurons, t: int, old: _Pieces, shape: torch.Size) -> tuple[_Pieces, Interval, Interval]:
    form, constants = op.form, op.low

    def at(values: Tensor | None, otherwise: float) -> Tensor:
        """Return a constant of the equation at this step, one a piece."""
        if values is None:
            return torch.full_like(old.v_low, otherwise)
        now = values[t if len(values) > 1 else 0]
        if now.numel() == 1:
            return now.reshape(1).expand_as(old.v_low)
        return now.expand(1, *shape[1:]).flatten()[old.owner % shape[1:].numel()]

    leak, gain, theta = at(constants.leak, 0), at(constants.gain, 1), at(constants.threshold, 0)
    beta, rho = at(constants.beta, 0), at(constants.rho, 0)
    before = theta + beta * old.b
    q, q_error = torch.zeros_like(before), torch.zeros_like(before)
    if form.reset == "soft-next":
        q, q_error = before * old.s, (beta.abs() * old.b_error + op.slack * (theta.abs() + (beta * old.b).abs())) * old.s
    slope = leak * old.slope + gain
    h_low, h_high = (leak * v + gain * current - q for v, current in ((old.v_low, old.I_low), (old.v_high, old.I_high)))
    size = torch.maximum(old.v_low.abs(), old.v_high.abs()), torch.maximum(old.I_low.abs(), old.I_high.abs())
    error = leak.abs() * old.error + q_error + op.slack * (leak.abs() * size[0] + gain.abs() * size[1] + q.abs())
    # of our own: of the place where a piece is cut
    error = error + (32 * torch.finfo(slope.dtype).eps * slope.abs() * size[1] if op.slack else 0.0)

    b, b_error = old.b, old.b_error
    if form.adaptive:
        b_error = rho.abs() * b_error + op.slack * ((rho * b).abs() + (1 - rho).abs() * old.s)
        b = rho * b + (1 - rho) * old.s
    B = theta + beta * b
    B_error = beta.abs() * b_error + op.slack * (beta * b).abs() + (op.slack * theta.abs() if form.adaptive else 0)

    swapped = h_low > h_high  # a negative gain
    I_low, I_high = torch.where(swapped, old.I_high, old.I_low), torch.where(swapped, old.I_low, old.I_high)
    h_low, h_high = torch.minimum(h_low, h_high), torch.maximum(h_low, h_high)
    potential = _hull(h_low - error, h_high + error, old.owner, shape)
    threshold = _hull(B - B_error, B + B_error, old.owner, shape)

    unsure = error + B_error
    alive = old.r <= 0
    told = old.known.gather(1, old.age[:, None])[:, 0] if _repeats(op) else torch.zeros_like(old.owner)
    silent = ((h_low <= B + unsure) & (told < 1)) | ~alive
    fires = (h_high > B - unsure) & (told > -1) & alive
    top, bottom = torch.where(alive, B + unsure, torch.inf), B - unsure
    within = torch.minimum(I_low, I_high), torch.maximum(I_low, I_high)

    def cut(level: Tensor) -> Tensor:
        """Return the current at which h is at the level."""
        return (I_low + (level - h_low) / slope).clamp(*within)

    I_top, I_bottom = (
        torch.where((h_high > top) & (slope != 0), cut(top), I_high),
        torch.where((h_low < bottom) & (slope != 0), cut(bottom), I_low),
    )
    quiet = old._replace(
        I_low=I_low, I_high=I_top, v_low=h_low, v_high=torch.minimum(h_high, top), slope=slope, error=error, s=torch.zeros_like(B)
    )
    firing = quiet._replace(I_low=I_bottom, I_high=I_high, v_low=torch.maximum(h_low, bottom), v_high=h_high, s=torch.ones_like(B))
    if form.reset == "hard":
        nothing = torch.zeros_like(B)
        firing = firing._replace(v_low=nothing, v_high=nothing, slope=nothing, error=nothing)
    elif form.reset == "soft":
        firing = firing._replace(v_low=firing.v_low - B, v_high=firing.v_high - B, error=error + B_error)
    quiet = quiet._replace(b=b, b_error=b_error, r=(old.r - 1).clamp_min(0), age=old.age + 1)
    firing = firing._replace(b=b, b_error=b_error, r=torch.full_like(B, form.refractory), age=torch.zeros_like(old.age))
    if _repeats(op):
        at_age = old.age[:, None]
        quiet = quiet._replace(known=torch.where(alive[:, None], old.known.scatter(1, at_age, -1), old.known))
        firing = firing._replace(known=old.known.scatter(1, at_age, 1))
    parts = quiet.of(silent.nonzero()[:, 0]), firing.of(fires.nonzero()[:, 0])
    new = _Pieces(*(torch.cat(part) for part in zip(*parts, strict=True)))
    return new._replace(train=torch.cat((new.train, new.s[:, None] > 0), 1)), potential, threshold


def _repeats(op: Neurons) -> bool:
    """Whether nothing of the past is left after a spike."""
    fixed = all(value is None or len(value) == 1 for value in op.low)
    return op.form.reset == "hard" and not op.form.adaptive and fixed


def _hull(low: Tensor, high: Tensor, owner: Tensor, shape: torch.Size) -> Interval:
    return Interval(reduced(low, owner, shape, "amin"), reduced(high, owner, shape, "amax"))


def reduced(values: Tensor, owner: Tensor, shape: torch.Size, how: str) -> Tensor:
    """Return the least or the largest value of every neuron, [..., B, …], from one a piece, [..., P]."""
    found = values.new_zeros(*values.shape[:-1], shape.numel())
    found = found.scatter_reduce(-1, owner.expand_as(values), values, how, include_self=False)
    return found.reshape(*values.shape[:-1], *shape)
