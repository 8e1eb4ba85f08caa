"""Layers with a recurrent matrix in Triton, x [T, rows, n]. Rows of the batch do not touch each other: a program takes a few of them
through all steps, columns by columns, and no program waits for another. What the next step needs of other columns goes through
memory, with a barrier between writing and reading.

Backward runs forward once more and keeps potentials, states and spikes of every step, then goes back through them; the gradient of
the matrix is one product at the end.
"""

# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from noiseproof.neurons.equation import Form
from noiseproof.neurons.kernels import handwritten
from noiseproof.neurons.kernels._inputs import Gradients, Inputs, Outputs, laid_out
from noiseproof.neurons.kernels._triton_step import advance, kept_in, kernel, launch, retreat, settings_of, slope_of, tl

PARAMETERS = ("leak", "gain", "theta", "beta", "rho")
# the offsets within the matrix are 32 bits wide
MOST_UNITS = 46340
# rows of the batch up to which a program takes few of them, so that there are more programs
SMALL = 512
# rows and columns of one product, units that are added up at a time, warps
FEW_ROWS, MANY_ROWS = (4, 128, 32, 8), (16, 64, 32, 4)


@kernel
def unit(run, t, row, column, mask, STATE: tl.constexpr):
    """A parameter at step t. run: data, step from row to row, step in time (None: the same at all steps); None if not there."""
    if run is None:
        found = None
    else:
        data = run[0]
        if run[2] is not None:
            data = data + t * tl.cast(run[2], tl.int64)
        found = tl.load(data + row * run[1] + column, mask=mask, other=1.0).to(STATE)
    return found


@kernel
def product(left, right, row, column, rows, n, STATE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, UNITS: tl.constexpr):
    """left[rows, n] @ right[n, n], these rows and columns of it."""
    total = tl.zeros([ROWS, COLUMNS], STATE)
    for first in range(0, n, UNITS):
        across = first + tl.arange(0, UNITS)[None, :]
        down = first + tl.arange(0, UNITS)[:, None]
        a = tl.load(left + row * n + across, mask=(row < rows) & (across < n), other=0.0).to(STATE)
        w = tl.load(right + down * n + column, mask=(down < n) & (column < n), other=0.0)
        total = tl.dot(a, w, total, input_precision="ieee")
    return total


@kernel
def forward_kernel(
    x, s0, transposed, leak, gain, theta, beta, rho, v, b, r, spikes, h_tape, v_tape, b_tape, alive_tape, current_tape, T, rows, n,
    RESET: tl.constexpr, REFRACTORY: tl.constexpr, STATE: tl.constexpr,
    CONSTANT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """v, b, r: the state, replaced by the one after the last step. Tapes, [T, rows, n], are None where nobody looks them up."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    wide = tl.cast(rows, tl.int64) * n
    before = s0
    for t in range(0, T):
        for first in range(0, n, COLUMNS):
            column = first + tl.arange(0, COLUMNS)[None, :]
            mask = (row < rows) & (column < n)
            at = row * n + column
            now = t * wide + at
            recurrent = product(before, transposed, row, column, rows, n, STATE, ROWS, COLUMNS, UNITS)
            old_v = tl.load(v + at, mask=mask, other=0.0)
            old_s = tl.load(before + at, mask=mask, other=0.0).to(STATE)
            old_b = old_v if b is None else tl.load(b + at, mask=mask, other=0.0)
            old_r = old_v if r is None else tl.load(r + at, mask=mask, other=0.0)
            current = tl.load(x + (at if CONSTANT else now), mask=mask, other=0.0).to(STATE) + recurrent
            h, _, alive, new_v, new_s, new_b, new_r = advance(
                current, old_v, old_s, old_b, old_r, unit(leak, t, row, column, mask, STATE), unit(gain, t, row, column, mask, STATE),
                unit(theta, 0, row, column, mask, STATE), unit(beta, 0, row, column, mask, STATE), unit(rho, 0, row, column, mask, STATE),
                RESET, REFRACTORY,
            )  # fmt: skip
            tl.debug_barrier()  # another thread may have read what this one is about to replace
            tl.store(v + at, new_v, mask=mask)
            tl.store(spikes + now, new_s, mask=mask)
            if b is not None:
                tl.store(b + at, new_b, mask=mask)
            if r is not None:
                tl.store(r + at, new_r, mask=mask)
            if h_tape is not None:
                tl.store(h_tape + now, h, mask=mask)
            if v_tape is not None:
                tl.store(v_tape + now, new_v, mask=mask)
            if b_tape is not None:
                tl.store(b_tape + now, new_b, mask=mask)
            if alive_tape is not None:
                tl.store(alive_tape + now, alive.to(tl.int8), mask=mask)
            if current_tape is not None:
                tl.store(current_tape + now, current, mask=mask)
        tl.debug_barrier()  # the next step reads the spikes of all columns
        before = spikes + t * wide


@kernel
def add(sums, run, t, wide, at, mask, value):
    """Add to the gradient of a parameter, a number a row and unit; where it changes in time every step has its own."""
    if run[2] is not None:
        tl.store(sums + t * wide + at, value, mask=mask)
    else:
        tl.store(sums + at, tl.load(sums + at, mask=mask, other=0.0) + value, mask=mask)


@kernel
def backward_kernel(
    gs, nothing, matrix, leak, gain, theta, beta, rho, h_tape, v_tape, s_tape, b_tape, alive_tape, current_tape, gx,
    carried_v, carried_s, carried_b, carried_B, to_leak, to_gain, to_theta, to_beta, to_rho, T, rows, n, p0: tl.float64, p1: tl.float64,
    RESET: tl.constexpr, REFRACTORY: tl.constexpr, STATE: tl.constexpr, THROUGH: tl.constexpr, SURROGATE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """Tapes of v, s and b begin with the initial state, so that at t they have what step t found. gx [T, rows, n] is ∂L/∂I."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    wide = tl.cast(rows, tl.int64) * n
    settings0, settings1 = tl.cast(p0, STATE), tl.cast(p1, STATE)
    after = nothing
    for back in range(0, T):
        t = T - 1 - back
        for first in range(0, n, COLUMNS):
            column = first + tl.arange(0, COLUMNS)[None, :]
            mask = (row < rows) & (column < n)
            at = row * n + column
            now = t * wide + at
            carry_s = tl.load(carried_s + at, mask=mask, other=0.0) + product(
                after, matrix, row, column, rows, n, STATE, ROWS, COLUMNS, UNITS
            )
            carry_v = tl.load(carried_v + at, mask=mask, other=0.0)
            carry_b = carry_v * 0 if beta is None else tl.load(carried_b + at, mask=mask, other=0.0)
            carry_B = tl.load(carried_B + at, mask=mask, other=0.0) if RESET == 2 else carry_v * 0
            h = tl.load(h_tape + now, mask=mask, other=0.0)
            old_s = tl.load(s_tape + now, mask=mask, other=0.0).to(STATE)
            theta_now, beta_now = unit(theta, 0, row, column, mask, STATE), unit(beta, 0, row, column, mask, STATE)
            leak_now, rho_now = unit(leak, t, row, column, mask, STATE), unit(rho, 0, row, column, mask, STATE)
            gain_now = unit(gain, t, row, column, mask, STATE)
            old_b, b, old_B, B, alive = h, h, theta_now, theta_now, h > theta_now
            if beta is not None:
                old_b = tl.load(b_tape + now, mask=mask, other=0.0)
                b = tl.load(b_tape + wide + now, mask=mask, other=0.0)
                old_B = theta_now + beta_now * old_b
                B = theta_now + beta_now * b
            if REFRACTORY > 0:
                alive = tl.load(alive_tape + now, mask=mask, other=0) != 0
            to_h, to_B, to_b, carry_v, carry_s, carry_b, carry_B = retreat(
                tl.load(gs + now, mask=mask, other=0.0).to(STATE), h, B, 1 / B, alive, old_s, old_b, old_B,
                carry_v, carry_s, carry_b, carry_B, leak_now, beta_now, rho_now, settings0, settings1,
                RESET, REFRACTORY, THROUGH, SURROGATE,
            )  # fmt: skip
            tl.debug_barrier()  # another thread may have read what this one is about to replace
            tl.store(gx + now, to_h if gain_now is None else gain_now * to_h, mask=mask)
            tl.store(carried_v + at, carry_v, mask=mask)
            tl.store(carried_s + at, carry_s, mask=mask)
            if beta is not None:
                tl.store(carried_b + at, carry_b, mask=mask)
            if RESET == 2:
                tl.store(carried_B + at, carry_B, mask=mask)
            if to_leak is not None:
                add(to_leak, leak, t, wide, at, mask, to_h * tl.load(v_tape + now, mask=mask, other=0.0))
            if to_gain is not None:
                add(to_gain, gain, t, wide, at, mask, to_h * tl.load(current_tape + now, mask=mask, other=0.0))
            if to_theta is not None:
                add(to_theta, theta, t, wide, at, mask, to_B)
            if to_beta is not None:
                add(to_beta, beta, t, wide, at, mask, to_B * b)
            if to_rho is not None:
                add(to_rho, rho, t, wide, at, mask, to_b * (old_b - old_s))
        tl.debug_barrier()  # the next step reads the gradients of all columns
        after = gx + t * wide


def forward(inputs: Inputs, form: Form, steps: int) -> Outputs:
    """Return spikes and final state."""
    if _elsewhere(inputs.x):
        return handwritten.forward(inputs, form, steps)
    call, x = _Call(inputs, form, steps), inputs.x
    spikes = x.new_empty(steps, *x.shape[1:])
    v, b, r = call.forward(call.first(inputs.s).to(x.dtype), spikes)
    return Outputs(_as(x, spikes), _as(x, v[None])[0], None if b is None else _as(x, b[None])[0], None if r is None else _as(x, r[None])[0])


def backward(gs: Tensor, gv: Tensor | None, gb: Tensor | None, inputs: Inputs, form: Form, steps: int, wanted: Gradients) -> Gradients:
    """Return the wanted gradients."""
    if _elsewhere(inputs.x):
        return handwritten.backward(gs, gv, gb, inputs, form, steps, wanted)
    call, x = _Call(inputs, form, steps), inputs.x
    s = call.tape(inputs.s)
    v = call.tape(inputs.v) if wanted.leak else None
    b = call.tape(inputs.b) if form.adaptive else None
    h = call.room(steps)
    alive = torch.empty_like(h, dtype=torch.int8) if form.refractory else None
    current = torch.empty_like(h) if wanted.gain and inputs.gain is not None else None
    call.forward(s[0], s[1:], h, None if v is None else v[1:], None if b is None else b[1:], alive, current)

    gx, nothing = call.room(steps), call.first(None)
    carry_v, carry_s, carry_b, carry_B = call.first(gv), call.first(None), call.first(gb), call.first(None)
    sums = {name: call.sums(name) for name in PARAMETERS if getattr(wanted, name) and getattr(inputs, name) is not None}
    call.run(
        backward_kernel, gs.contiguous(), nothing, call.matrix, *call.parameters(), h, v, s, b, alive, current, gx,
        carry_v, carry_s, carry_b, carry_B, *(sums.get(name) for name in PARAMETERS), steps, *call.size, *slope_of(form),
        THROUGH=not form.detach_reset, SURROGATE=form.surrogate.code,
    )  # fmt: skip

    if form.reset == "soft-next":  # the threshold that belongs to the initial state
        if "theta" in sums:
            sums["theta"] += carry_B
        if "beta" in sums and b is not None:
            sums["beta"] += carry_B * b[0]
        if inputs.beta is not None:
            carry_b = carry_b + inputs.beta[0].to(call.dtype) * carry_B
    found = {name: value.sum_to_size(getattr(inputs, name).shape).to(getattr(inputs, name).dtype) for name, value in sums.items()}
    rows = gx.view(-1, call.size[1])
    weights = (rows.mT @ s[:-1].reshape(rows.shape).to(call.dtype)).to(call.given.dtype) if wanted.recurrent else None
    to_s = carry_s + gx[0] @ call.matrix if wanted.s else None
    state = [None if value is None else _as(x, value[None])[0] for value in (carry_v, to_s, carry_b if form.adaptive else None)]
    return Gradients(_as(x, gx.sum_to_size(x.shape)), *state, **{name: found.get(name) for name in PARAMETERS}, recurrent=weights)


def _elsewhere(x: Tensor) -> bool:
    return x.dtype == torch.float64 or x.shape[-1] > MOST_UNITS or x.numel() == 0


def _as(x: Tensor, value: Tensor) -> Tensor:
    """Return [T, B, …] in the type and memory layout of x."""
    empty = laid_out(x, len(value))
    return value if value.dtype == x.dtype and value.stride() == empty.stride() else empty.copy_(value)


class _Call:
    """The arguments that forward and backward share."""

    def __init__(self, inputs: Inputs, form: Form, steps: int) -> None:
        assert inputs.recurrent is not None
        self.inputs, self.form, self.steps, self.given = inputs, form, steps, inputs.recurrent
        self.dtype, self.shape = kept_in(inputs.x), inputs.x.shape[1:]
        self.size = prod(self.shape[:-1]), self.shape[-1]
        self.matrix = self.given.to(self.dtype).contiguous()

    def room(self, steps: int) -> Tensor:
        return self.inputs.x.new_empty(steps, *self.shape, dtype=self.dtype)

    def first(self, value: Tensor | None) -> Tensor:
        """Return memory of its own with the value in it, zero for None."""
        room = self.room(1)[0]
        return room.zero_() if value is None else room.copy_(value)

    def tape(self, value: Tensor | None) -> Tensor:
        """Return room for what every step leaves, after the initial state."""
        room = self.room(self.steps + 1)
        room[0] = 0 if value is None else value
        return room

    def parameters(self) -> list[Any]:
        """Return the parameters as `unit` takes them, written out to [T or 1, rows or 1, n]."""
        return [self._parameter(getattr(self.inputs, name)) for name in PARAMETERS]

    def _parameter(self, value: Tensor | None) -> tuple[Any, ...] | None:
        if value is None:
            return None
        per_row = any(size != 1 for size in value.shape[1:-1])
        value = value.to(self.dtype).expand(-1, *(self.shape[:-1] if per_row else value.shape[1:-1]), self.shape[-1]).contiguous()
        return (value, self.shape[-1] if per_row else 0, value[0].numel() if len(value) > 1 else None)

    def sums(self, name: str) -> Tensor:
        """Return room for the gradient of a parameter, a number a row and unit."""
        return self.room(self.steps if len(getattr(self.inputs, name)) > 1 else 1).zero_()

    def forward(self, s: Tensor, spikes: Tensor, *tapes: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run all steps; return the final state."""
        inputs, form = self.inputs, self.form
        v = self.first(inputs.v)
        b = self.first(inputs.b) if form.adaptive else None
        r = self.first(inputs.r) if form.refractory else None
        constant = len(inputs.x) != self.steps or self.steps == 1
        self.run(
            forward_kernel, inputs.x.contiguous(), s, self.matrix.mT.contiguous(), *self.parameters(), v, b, r, spikes,
            *(tapes or (None,) * 5), self.steps, *self.size, CONSTANT=constant,
        )  # fmt: skip
        return v, b, r

    def run(self, kernel: Any, *arguments: Any, **settings: Any) -> None:
        rows = self.size[0]
        block, columns, units, warps = FEW_ROWS if rows <= SMALL else MANY_ROWS
        launch(
            kernel, -(-rows // block), *arguments, warps=warps,
            **settings_of(self.form, self.inputs.x), ROWS=block, COLUMNS=columns, UNITS=units, **settings,
        )  # fmt: skip
