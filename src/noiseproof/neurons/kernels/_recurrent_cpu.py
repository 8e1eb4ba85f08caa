"""Recurrent layers in C: every thread takes rows of the batch through all steps; `c/recurrent.h` says how."""

from __future__ import annotations

import ctypes
from math import prod
from typing import Any

import torch
from torch import Tensor

from noiseproof.neurons.equation import RESETS, Form
from noiseproof.neurons.kernels._inputs import Gradients, Inputs, Outputs

# Share of active units from which on a matrix product of the rows is cheaper than adding up the rows of the active ones
# (measured with 256 units on AVX-512; `benchmarks/recurrent.py` prints the curve)
DENSE = 0.3
# the same for the gradient of the matrix, which is one large product at the end
DENSE_GRADIENT = 0.15

_pointer, _whole = ctypes.c_void_p, ctypes.c_int64
_CONSTANTS = ("leak", "gain", "theta", "beta", "rho")


class _Unit(ctypes.Structure):
    _fields_ = [("data", _pointer), ("row_step", _whole), ("time_step", _whole), ("grad", _pointer)]


class _Recurrent(ctypes.Structure):
    _fields_ = [
        *((name, _whole) for name in ("steps", "rows", "n", "x_step")),
        *((name, _pointer) for name in ("x", "v", "s", "b", "r", "matrix", "transposed")),
        *((name, _Unit) for name in _CONSTANTS),
        *((name, _whole) for name in ("reset", "general", "refractory", "through", "surrogate")),
        *((name, ctypes.c_double) for name in ("p0", "p1", "dense")),
        *((name, _pointer) for name in ("spikes", "v_out", "b_out", "r_out", "gs", "gv", "gb", "gx", "gv0", "gs0", "gb0")),
    ]


def forward(library: ctypes.CDLL, kind: str, inputs: Inputs, form: Form, steps: int) -> Outputs:
    """Return spikes and final state; `kind` is float or double."""
    call = _Call(inputs, form, steps)
    spikes = inputs.x.new_empty(steps, *inputs.x.shape[1:])
    v = torch.empty_like(spikes[0])
    b = torch.empty_like(v) if form.adaptive else None
    r = torch.empty_like(v) if form.refractory else None
    call.layer.spikes, call.layer.v_out, call.layer.b_out, call.layer.r_out = map(_address, (spikes, v, b, r))
    call.run(library, f"recurrent_forward_{kind}")
    return Outputs(spikes, v, b, r)


def backward(
    library: ctypes.CDLL,
    kind: str,
    gradients: tuple[Tensor, Tensor | None, Tensor | None],
    inputs: Inputs,
    form: Form,
    steps: int,
    wanted: Gradients,
) -> Gradients:
    """Return the wanted gradients."""
    call = _Call(inputs, form, steps)
    layer, shape = call.layer, inputs.x.shape[1:]
    layer.gs, layer.gv, layer.gb = (None if g is None else call.keep(g).data_ptr() for g in gradients)
    spikes, gx = inputs.x.new_empty(steps, *shape), inputs.x.new_empty(steps, *shape)
    gv0, gs0 = (torch.empty_like(gx[0]) if w else None for w in (wanted.v, wanted.s))
    gb0 = torch.empty_like(gx[0]) if wanted.b and form.adaptive else None
    layer.spikes, layer.gx, layer.gv0, layer.gs0, layer.gb0 = map(_address, (spikes, gx, gv0, gs0, gb0))
    sums = {name: call.sums(name) for name in _CONSTANTS if getattr(wanted, name)}
    call.run(library, f"recurrent_backward_{kind}")
    totals = {name: value.sum_to_size(getattr(inputs, name).shape) for name, value in sums.items()}
    matrix = _matrix_gradient(library, kind, inputs, spikes, gx) if wanted.recurrent else None
    found = {name: totals.get(name) for name in _CONSTANTS}
    return Gradients(gx.sum_to_size(inputs.x.shape), gv0, gs0, gb0, **found, recurrent=matrix)


def _matrix_gradient(library: ctypes.CDLL, kind: str, inputs: Inputs, spikes: Tensor, gx: Tensor) -> Tensor:
    """Return ∂L/∂W [to, from] = Σ over t and rows of ∂L/∂I[t] times the spikes of the step before."""
    n = spikes.shape[-1]
    before, after = spikes[:-1].reshape(-1, n), gx[1:].reshape(-1, n)
    if float(before.mean() if len(before) else 0.0) > DENSE_GRADIENT:
        found = after.mT @ before
    else:
        transposed = torch.zeros(n, n, dtype=gx.dtype)
        getattr(library, f"recurrent_weights_{kind}")(
            _whole(len(before)), _whole(n), _pointer(before.data_ptr()), _pointer(after.data_ptr()), _pointer(transposed.data_ptr())
        )
        found = transposed.mT.contiguous()
    if inputs.s is not None:
        found = found + gx[0].reshape(-1, n).mT @ inputs.s.reshape(-1, n)
    return found


def _address(value: Tensor | None) -> int | None:
    return None if value is None else value.data_ptr()


class _Call:
    """The arguments of one call in C; keeps the tensors alive whose memory is used."""

    def __init__(self, inputs: Inputs, form: Form, steps: int) -> None:
        assert inputs.recurrent is not None
        self.alive: list[Tensor] = []
        x = self.keep(inputs.x)
        self.shape, self.steps = x.shape[1:], steps
        n, rows = self.shape[-1], prod(self.shape[:-1])
        surrogate = form.surrogate
        self.layer = _Recurrent(
            steps=steps, rows=rows, n=n, x_step=rows * n if len(x) == steps and steps > 1 else 0, x=x.data_ptr(),
            matrix=self.keep(inputs.recurrent).data_ptr(), transposed=self.keep(inputs.recurrent.mT).data_ptr(),
            reset=RESETS.index(form.reset), general=form.general, refractory=form.refractory, through=not form.detach_reset,
            surrogate=surrogate.code, p0=surrogate.settings[0], p1=surrogate.settings[1], dense=DENSE,
            **{name: self.keep(value).data_ptr() for name, value in zip("vsbr", inputs[1:5], strict=True) if value is not None},
        )  # fmt: skip
        for name, otherwise in zip(_CONSTANTS, (1.0, 1.0, 1.0, 0.0, 0.0), strict=True):
            value: Any = getattr(inputs, name)
            self._set(getattr(self.layer, name), x.new_full((1,) * x.ndim, otherwise) if value is None else value.to(x.dtype))

    def keep(self, value: Tensor) -> Tensor:
        """Return the value in order in memory."""
        value = value.contiguous()
        self.alive.append(value)
        return value

    def _set(self, unit: Any, value: Tensor) -> None:
        """Write a parameter out to [T or 1, rows or 1, n]."""
        per_row = any(size != 1 for size in value.shape[1:-1])
        value = value.expand(-1, *(self.shape[:-1] if per_row else value.shape[1:-1]), self.shape[-1])
        n = self.shape[-1]
        unit.data = self.keep(value).data_ptr()
        unit.row_step = n if per_row else 0
        unit.time_step = value[0].numel() if len(value) > 1 else 0

    def sums(self, name: str) -> Tensor:
        """Return the memory for the gradient of a parameter, a number a row and unit."""
        unit = getattr(self.layer, name)
        made = torch.zeros(self.steps if unit.time_step else 1, *self.shape, dtype=self.alive[0].dtype)
        unit.grad = made.data_ptr()
        self.alive.append(made)
        return made

    def run(self, library: ctypes.CDLL, name: str) -> None:
        if getattr(library, name)(ctypes.byref(self.layer)):
            raise MemoryError(f"neurons: no memory for {self.steps} steps of {self.layer.n} units")
