"""The equation with its backward written by hand in plain PyTorch: no build, any device, nothing saved but the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noiseproof.neurons.equation import Form, in_time
from noiseproof.neurons.kernels._inputs import Gradients, Inputs, Outputs, laid_out


def forward(inputs: Inputs, form: Form, steps: int) -> Outputs:
    """Return spikes and final state of `noiseproof.neurons.equation.reference`, without a graph."""
    tape = _Tape(inputs, form, steps)
    spikes = torch.stack(tape.s, out=laid_out(inputs.x, steps))
    return Outputs(spikes, tape.v[-1], tape.b[-1], tape.r[-1])


def backward(gs: Tensor, gv: Tensor | None, gb: Tensor | None, inputs: Inputs, form: Form, steps: int, wanted: Gradients) -> Gradients:
    """Return the gradients that are `wanted`, from those of the spikes [T, B, …] and of the final potential and adaptation.

    The symbols: to_h is ∂L/∂h of this step, to_B ∂L/∂B; `carry_…` what the step after hands down.
    """
    tape = _Tape(inputs, form, steps)
    p, rest = inputs, tape.rest
    zero = torch.zeros_like(rest)
    carry_v, carry_s = zero if gv is None else gv, zero
    carry_b, carry_B = zero if gb is None else gb, zero
    beta, rho = _first(p.beta), _first(p.rho)
    leak, x = in_time(p.leak, steps), in_time(p.x, steps)
    gain = None if p.gain is None else in_time(p.gain, steps)
    to_x: list[Tensor] = []
    to_leak: list[Tensor] = []
    to_gain: list[Tensor] = []
    to_theta, to_beta, to_rho = zero, zero, zero
    to_W = None if p.recurrent is None else torch.zeros_like(p.recurrent)

    for t in range(steps - 1, -1, -1):
        h, B, s = tape.h[t], tape.B[t], tape.s[t]
        old_v, old_s, old_b = (tape.v[t - 1], tape.s[t - 1], tape.b[t - 1]) if t else (tape.first_v, tape.first_s, tape.first_b)
        e, to_h, to_B = gs[t] + carry_s, carry_v, carry_B
        if form.reset == "hard":
            e = e if form.detach_reset else e - carry_v * h
            to_h = carry_v * (1 - s)
        elif form.reset == "soft":
            e = e if form.detach_reset else e - carry_v * B
            to_B = to_B - carry_v * s
        steep = e * form.surrogate.derivative((h - B) / B) / B
        if tape.alive[t] is not None:
            steep = steep * tape.alive[t]
        to_h = to_h + steep
        to_B = to_B - steep * (h / B)
        to_theta = to_theta + to_B
        carry_s, carry_B = zero, zero
        if beta is not None and rho is not None and old_b is not None:
            to_b = carry_b + beta * to_B
            to_beta = to_beta + to_B * tape.b[t]
            to_rho = to_rho + to_b * (old_b - old_s)
            carry_s, carry_b = (1 - rho) * to_b, rho * to_b
        to_current = to_h if gain is None else gain[t] * to_h
        if p.recurrent is not None and to_W is not None:
            carry_s = carry_s + to_current @ p.recurrent
            to_W = to_W + to_current.flatten(0, -2).mT @ old_s.flatten(0, -2)
        if p.gain is not None and wanted.gain:
            to_gain.append(to_h * (x[t] if p.recurrent is None else x[t] + old_s @ p.recurrent.mT))
        if wanted.leak:
            to_leak.append(to_h * old_v)
        to_x.append(to_current)
        carry_v = leak[t] * to_h
        if form.reset == "soft-next":
            old_B = tape.B[t - 1] if t else tape.first_B
            carry_s = carry_s if form.detach_reset else carry_s - to_h * old_B
            carry_B = -to_h * old_s
    to_theta = to_theta + carry_B
    if beta is not None and tape.first_b is not None:  # the threshold that belongs to the initial state
        to_beta = to_beta + carry_B * tape.first_b
        carry_b = carry_b + beta * carry_B

    def in_order(values: list[Tensor], like: Tensor | None) -> Tensor | None:
        return None if like is None or not values else torch.stack(values[::-1]).sum_to_size(like.shape)

    def total(value: Tensor, like: Tensor | None) -> Tensor | None:
        return None if like is None else value[None].sum_to_size(like.shape)

    return Gradients(
        in_order(to_x, p.x), carry_v, carry_s, carry_b if form.adaptive else None, in_order(to_leak, p.leak), total(to_theta, p.theta),
        in_order(to_gain, p.gain), total(to_beta, p.beta), total(to_rho, p.rho), to_W,
    )  # fmt: skip


class _Tape:
    """All steps of the equation, forward: what backward looks up. Lists by step; `first_…` is the initial state."""

    def __init__(self, p: Inputs, form: Form, steps: int) -> None:
        self.rest = torch.zeros_like(p.x[0])
        theta, beta, rho = p.theta[0], _first(p.beta), _first(p.rho)
        v = self.first_v = self.rest if p.v is None else p.v
        s = self.first_s = self.rest if p.s is None else p.s
        b = self.first_b = (self.rest if p.b is None else p.b) if form.adaptive else None
        r = (self.rest if p.r is None else p.r) if form.refractory else None
        B = self.first_B = theta if beta is None or b is None else theta + beta * b
        leak = in_time(p.leak, steps)
        gain = None if p.gain is None else in_time(p.gain, steps)
        self.h: list[Tensor] = []
        self.B: list[Tensor] = []
        self.v: list[Tensor] = []
        self.s: list[Tensor] = []
        self.b: list[Any] = []  # None where the form has none, as r and alive
        self.r: list[Any] = []
        self.alive: list[Any] = []
        for t, current in enumerate(in_time(p.x, steps)):
            if p.recurrent is not None:
                current = current + s @ p.recurrent.mT
            h = leak[t] * v + (current if gain is None else gain[t] * current)
            if form.reset == "soft-next":
                h = h - s * B
            if beta is not None and rho is not None and b is not None:
                b = rho * b + (1 - rho) * s
                B = theta + beta * b
            fires, alive = h > B, None
            if r is not None:
                alive = r <= 0
                fires = fires & alive
                r = torch.where(fires, float(form.refractory), (r - 1).clamp_min(0)).to(h.dtype)
            s = fires.to(h.dtype)
            v = h * (1 - s) if form.reset == "hard" else h - B * s if form.reset == "soft" else h
            kept: list[list[Any]] = [self.h, self.B, self.v, self.s, self.b, self.r, self.alive]
            for values, value in zip(kept, (h, B, v, s, b, r, alive), strict=True):
                values.append(value)


def _first(values: Tensor | None) -> Tensor | None:
    return None if values is None else values[0]
