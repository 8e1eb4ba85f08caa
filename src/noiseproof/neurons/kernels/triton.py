"""The equation in Triton, for CUDA: float32, bfloat16 and float16 with the state in float32, float64 with it in float64.

`_triton_layer.py` and `_triton_recurrent.py` are the kernels; here is what calls them. A recurrent layer in float64, which is there
for checking, goes the way of the handwritten backend. Under TRITON_INTERPRET=1 all of it runs on the CPU, slowly, for tests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noiseproof.neurons.equation import Form
from noiseproof.neurons.kernels import _triton_layer, _triton_recurrent
from noiseproof.neurons.kernels._constants import Row, Run
from noiseproof.neurons.kernels._inputs import Gradients, Inputs, Outputs, laid_out
from noiseproof.neurons.kernels._triton_step import check, kept_in, launch, settings_of, slope_of

PARAMETERS = ("leak", "gain", "theta", "beta", "rho")
WARPS = 4
# steps whose potentials backward keeps in registers, at most: where that is all, where there is more to keep of a step, and in float64
SEGMENT, SEGMENT_RICH, SEGMENT_DOUBLE = 16, 8, 4
# neurons from which on a larger block still gives every multiprocessor several
MANY = 2**20
# neurons that 32 bits can number
NARROW = 2**31


def forward(inputs: Inputs, form: Form, steps: int) -> Outputs:
    """Return spikes and final state, in the memory layout and type of x."""
    check(inputs.x)
    if inputs.recurrent is not None:
        return _triton_recurrent.forward(inputs, form, steps)
    call = _Call(inputs, form, steps)
    x, block = inputs.x, 1024 if call.row.n >= MANY and inputs.x.dtype != torch.float64 else 256
    spikes, v = laid_out(x, steps), laid_out(x, 1)[0]
    b = laid_out(x, 1)[0] if form.adaptive else None
    r = laid_out(x, 1)[0] if form.refractory else None
    call.run(_triton_layer.forward_kernel, block, *call.described(), spikes, v, b, r, steps, call.row.n)
    return Outputs(spikes, v, b, r)


def backward(gs: Tensor, gv: Tensor | None, gb: Tensor | None, inputs: Inputs, form: Form, steps: int, wanted: Gradients) -> Gradients:
    """Return the wanted gradients, each in the type of what it is a gradient of."""
    check(inputs.x)
    if inputs.recurrent is not None:
        return _triton_recurrent.backward(gs, gv, gb, inputs, form, steps, wanted)
    call = _Call(inputs, form, steps)
    x, row = inputs.x, call.row
    rich = form.general or wanted.leak or wanted.gain
    most = SEGMENT_DOUBLE if x.dtype == torch.float64 else SEGMENT_RICH if rich else SEGMENT
    segment = min(1 << (steps - 1).bit_length(), most)
    block = 512 if most == SEGMENT and segment < SEGMENT and row.n >= MANY else 256
    gx = laid_out(x, len(x))
    gv0 = laid_out(x, 1)[0] if wanted.v else None
    gs0 = laid_out(x, 1)[0] if wanted.s else None
    gb0 = laid_out(x, 1)[0] if wanted.b and form.adaptive else None
    sums = {n: row.room(run, steps, -(-row.n // block)) for n, run in call.runs.items() if getattr(wanted, n)}
    told = form.adaptive or form.reset == "soft-next"  # whether a step looks at the spike of the step before
    there = [steps > segment and needed for needed in (True, told, form.adaptive, form.refractory > 0)]
    tapes = [call.kept.new_empty(-(-steps // segment) - 1, row.n) if t else None for t in there]
    call.run(
        _triton_layer.backward_kernel, block, *call.described(), row.sequence(gs), row.state(gv), row.state(gb), gx, gv0, gs0, gb0,
        *(sums.get(name) for name in PARAMETERS), *tapes, steps, row.n, *slope_of(form),
        THROUGH=not form.detach_reset, SURROGATE=form.surrogate.code, SEGMENT=segment,
    )  # fmt: skip
    found = {name: row.gradient(value, call.runs[name], getattr(inputs, name)) for name, value in sums.items()}
    return Gradients(gx, gv0, gs0, gb0, **{name: found.get(name) for name in PARAMETERS}, recurrent=None)


class _Call:
    """The arguments that forward and backward share."""

    def __init__(self, inputs: Inputs, form: Form, steps: int) -> None:
        self.row, self.inputs, self.form = Row(inputs.x), inputs, form
        self.kept = inputs.x.new_empty(0, dtype=kept_in(inputs.x))
        self.constant = len(inputs.x) != steps or steps == 1
        values = {name: getattr(inputs, name) for name in PARAMETERS}
        self.runs: dict[str, Run] = {n: self.row.run(value, self.kept.dtype) for n, value in values.items() if value is not None}

    def described(self) -> list[Any]:
        """Return the state, then the parameters as `_triton_layer.look` takes them."""
        state = [self.row.state(value) for value in (self.inputs.v, self.inputs.s, self.inputs.b, self.inputs.r)]
        return [*state, *(self._run(name) for name in PARAMETERS)]

    def _run(self, name: str) -> tuple[Any, ...] | None:
        run = self.runs.get(name)
        if run is None:
            return None
        scalar = run.period == 1
        return (run.data, None if scalar else run.period, None if scalar else run.inner, run.step or None)

    def run(self, kernel: Any, block: int, *arguments: Any, **settings: Any) -> None:
        if self.row.n == 0:
            return
        launch(
            kernel, -(-self.row.n // block), self.row.sequence(self.inputs.x), *arguments, warps=WARPS,
            **settings_of(self.form, self.inputs.x), CONSTANT=self.constant, BLOCK=block, WIDE=self.row.n > NARROW - 2 * block, **settings,
        )  # fmt: skip
