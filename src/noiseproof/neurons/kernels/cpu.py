"""The equation in C, for float32 and float64 on the CPU; `c/neurons.h` says how. Bound through ctypes: no part of PyTorch is linked."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError
from noiseproof.neurons.equation import RESETS, Form
from noiseproof.neurons.kernels import _recurrent_cpu
from noiseproof.neurons.kernels._build import library_path
from noiseproof.neurons.kernels._constants import Row, Run
from noiseproof.neurons.kernels._inputs import Gradients, Inputs, Outputs, laid_out

BLOCK = 256  # neurons of a block, as in c/neurons.c
CONSTANTS = ("leak", "gain", "theta", "beta", "rho")
TYPES = {torch.float32: "float", torch.float64: "double"}

_pointer, _whole = ctypes.c_void_p, ctypes.c_int64


class _Constant(ctypes.Structure):
    _fields_ = [("data", _pointer), ("period", _whole), ("inner", _whole), ("step", _whole), ("grad", _pointer)]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _whole) for name in ("steps", "n", "x_step")),
        *((name, _pointer) for name in ("x", "v", "s", "b", "r")),
        *((name, _Constant) for name in CONSTANTS),
        *((name, _whole) for name in ("reset", "general", "refractory", "through", "surrogate")),
        *((name, ctypes.c_double) for name in ("p0", "p1")),
        *((name, _pointer) for name in ("spikes", "v_out", "b_out", "r_out", "gs", "gv", "gb", "gx", "gv0", "gs0", "gb0")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, None where they were not built."""
    path = library_path(Path(__file__).parent)
    if path is None:
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        return None


def forward(inputs: Inputs, form: Form, steps: int) -> Outputs:
    """Return spikes and final state, in the memory layout of x."""
    if inputs.recurrent is not None:
        return _recurrent_cpu.forward(_built(), TYPES[inputs.x.dtype], inputs, form, steps)
    call = _Call(inputs, form, steps)
    layer, like = call.layer, inputs.x
    spikes, v = laid_out(like, steps), laid_out(like, 1)[0]
    b = torch.empty_like(v) if form.adaptive else None
    r = torch.empty_like(v) if form.refractory else None
    layer.spikes, layer.v_out = spikes.data_ptr(), v.data_ptr()
    layer.b_out, layer.r_out = _address(b), _address(r)
    call.run("neurons_forward")
    return Outputs(spikes, v, b, r)


def backward(gs: Tensor, gv: Tensor | None, gb: Tensor | None, inputs: Inputs, form: Form, steps: int, wanted: Gradients) -> Gradients:
    """Return the wanted gradients."""
    if inputs.recurrent is not None:
        return _recurrent_cpu.backward(_built(), TYPES[inputs.x.dtype], (gs, gv, gb), inputs, form, steps, wanted)
    call = _Call(inputs, form, steps)
    layer, x = call.layer, inputs.x
    layer.gs, layer.gv, layer.gb = call.sequence(gs), call.state(gv), call.state(gb)
    gx = laid_out(x, len(x))
    gv0 = laid_out(x, 1)[0] if wanted.v else None
    gs0 = laid_out(x, 1)[0] if wanted.s else None
    gb0 = laid_out(x, 1)[0] if wanted.b and form.adaptive else None
    layer.gx, layer.gv0, layer.gs0, layer.gb0 = gx.data_ptr(), _address(gv0), _address(gs0), _address(gb0)
    sums = {name: call.sums(name) for name in CONSTANTS if getattr(wanted, name)}
    call.run("neurons_backward")
    totals = {name: call.total(name, value) for name, value in sums.items()}
    found = {name: totals.get(name) for name in CONSTANTS}
    return Gradients(x=gx, v=gv0, s=gs0, b=gb0, **found, recurrent=None)


def _built() -> ctypes.CDLL:
    found = library()
    if found is None:
        raise NoiseproofError("backend is 'cpu': the C kernels were not built; install noiseproof where a C compiler is, or take 'auto'")
    return found


def _address(value: Tensor | None) -> int | None:
    return None if value is None else value.data_ptr()


class _Call:
    """The arguments of one call in C; keeps the tensors alive whose memory is used."""

    def __init__(self, inputs: Inputs, form: Form, steps: int) -> None:
        self.alive: list[Any] = []
        self.row, self.inputs = Row(inputs.x), inputs
        n, x, surrogate = self.row.n, inputs.x, form.surrogate
        self.layer = _Layer(
            steps=steps, n=n, x_step=n if len(x) == steps and steps > 1 else 0, x=self.sequence(x),
            v=self.state(inputs.v), s=self.state(inputs.s), b=self.state(inputs.b), r=self.state(inputs.r),
            reset=RESETS.index(form.reset), general=form.general, refractory=form.refractory, through=not form.detach_reset,
            surrogate=surrogate.code, p0=surrogate.settings[0], p1=surrogate.settings[1],
        )  # fmt: skip
        values = {name: getattr(inputs, name) for name in CONSTANTS}
        self.runs: dict[str, Run] = {name: self.row.run(value, x.dtype) for name, value in values.items() if value is not None}
        for name, run in self.runs.items():
            constant = getattr(self.layer, name)
            constant.data, constant.period, constant.inner, constant.step = run.data.data_ptr(), run.period, run.inner, run.step

    def sequence(self, value: Tensor) -> int:
        self.alive.append(self.row.sequence(value))
        return self.alive[-1].data_ptr()

    def state(self, value: Tensor | None) -> int | None:
        self.alive.append(self.row.state(value))
        return _address(self.alive[-1])

    def sums(self, name: str) -> Tensor:
        """Return the memory for the gradient of a parameter."""
        made = self.row.room(self.runs[name], self.layer.steps, -(-self.row.n // BLOCK))
        getattr(self.layer, name).grad = made.data_ptr()
        return made

    def total(self, name: str, sums: Tensor) -> Tensor:
        return self.row.gradient(sums, self.runs[name], getattr(self.inputs, name))

    def run(self, name: str) -> None:
        if self.row.n and getattr(_built(), f"{name}_{TYPES[self.inputs.x.dtype]}")(ctypes.byref(self.layer)):
            raise MemoryError(f"neurons: no memory for the potentials of {self.layer.steps} steps")
