"""One step of the equation in Triton, forward and backward, and what all kernels of it share.

The order of operations is that of the reference, and nothing is contracted (`launch`): spikes are the same to the bit.
"""

# pyright: reportInvalidTypeForm=false
# (what marks an argument as known when a kernel is compiled is no type)

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError
from noiseproof.neurons.equation import RESETS, Form

triton: Any = None
tl: Any = None
# where Triton is missing the modules can still be read, and `check` says so
with contextlib.suppress(ImportError):
    triton, tl = import_module("triton"), import_module("triton.language")


def kernel(function: Any) -> Any:
    """Compile at the first call. T is not looked at: another number of steps is not another kernel."""
    return function if triton is None else triton.jit(function, do_not_specialize=["T"])


def check(x: Tensor) -> None:
    """Raise `NoiseproofError` where Triton cannot run on the device of x."""
    if triton is None:
        raise NoiseproofError("backend is 'triton', which is not installed: pip install triton, or take 'auto'")
    if not x.is_cuda and isinstance(advance, triton.JITFunction):
        raise NoiseproofError(
            f"backend is 'triton' with tensors on {x.device}: take 'auto' (TRITON_INTERPRET=1, for tests, runs it anywhere)"
        )


def launch(function: Any, programs: int, x: Tensor, *arguments: Any, warps: int, **settings: Any) -> None:
    """Run a kernel on the device of x. Without fusion: a contracted multiply-add can move a potential across the threshold."""
    with torch.cuda.device_of(x):
        function[(programs,)](x, *arguments, **settings, num_warps=warps, enable_fp_fusion=False)


def kept_in(x: Tensor) -> torch.dtype:
    """Return the type in which the state is kept while a kernel runs."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def settings_of(form: Form, x: Tensor) -> dict[str, Any]:
    """Return what is fixed about the neuron, known when the kernel is compiled."""
    return {
        "RESET": RESETS.index(form.reset),
        "REFRACTORY": form.refractory,
        "STATE": tl.float64 if kept_in(x) == torch.float64 else tl.float32,
    }


def slope_of(form: Form) -> tuple[float, float]:
    """Return p0 and p1 as `slope` takes them."""
    first, second = form.surrogate.settings
    return first, 1 / second if second else 0.0


@kernel
def advance(current, v, s, b, r, leak, gain, theta, beta, rho, RESET: tl.constexpr, REFRACTORY: tl.constexpr):
    """One step. Returns h, B, alive, then the state after it. gain, beta, rho: None where there are none; alive is s where none is dead."""
    h = leak * v + (current if gain is None else gain * current)
    B = theta
    if beta is not None:
        if RESET == 2:
            h = h - s * (theta + beta * b)
        b = rho * b + (1 - rho) * s
        B = theta + beta * b
    elif RESET == 2:
        h = h - s * B
    fires = h > B
    alive = fires
    if REFRACTORY > 0:
        alive = r <= 0
        fires = fires & alive
        r = tl.where(fires, REFRACTORY * 1.0, tl.maximum(r - 1, 0.0))
    if RESET == 0:
        v = tl.where(fires, 0.0, h)
    elif RESET == 1:
        v = h - tl.where(fires, B, 0.0)
    else:
        v = h
    return h, B, alive, v, fires.to(h.dtype), b, r


@kernel
def slope(z, p0, p1, SURROGATE: tl.constexpr):
    """The derivative of the surrogate, by its code; p0 is its first setting, p1 one over the second."""
    far = tl.abs(z)
    if SURROGATE == 0:
        w = p0 * tl.maximum(1 - far * p1, 0.0)
    elif SURROGATE == 1:
        u = (1.5707963267948966 * p0) * z
        w = (0.5 * p0) / (1 + u * u)
    elif SURROGATE == 2:
        e = tl.exp(-(p0 * far))
        w = p0 * e / ((1 + e) * (1 + e))
    elif SURROGATE == 3:
        u = 1 + p0 * far
        w = 1 / (u * u)
    else:
        w = tl.where(far < 0.5 * p0, 1 / p0, 0.0)
    return w


@kernel
def retreat(
    to_s, h, B, per, alive, old_s, old_b, old_B, carry_v, carry_s, carry_b, carry_B, leak, beta, rho, p0, p1,
    RESET: tl.constexpr, REFRACTORY: tl.constexpr, THROUGH: tl.constexpr, SURROGATE: tl.constexpr,
):  # fmt: skip
    """One step of backward. Returns ∂L/∂h, ∂L/∂B, ∂L/∂b of this step, then what it hands down to the step before.

    The symbols are those of `handwritten.backward`; `per` is 1/B, since a division is dear.
    """
    fires = h > B
    if REFRACTORY > 0:
        fires = fires & alive
    e = to_s + carry_s
    to_h = carry_v
    to_B = carry_B  # zero but for the reset at the next step
    if RESET == 0:
        if THROUGH:
            e = e - carry_v * h
        to_h = tl.where(fires, 0.0, carry_v)
    elif RESET == 1:
        if THROUGH:
            e = e - carry_v * B
        to_B = tl.where(fires, -carry_v, 0.0)
    z = (h - B) * per
    if SURROGATE == 4:  # its edges are where they are in the reference
        z = (h - B) / B if h.dtype == tl.float64 else tl.div_rn(h - B, B)
    steep = e * slope(z, p0, p1, SURROGATE) * per
    if REFRACTORY > 0:
        steep = tl.where(alive, steep, 0.0)
    to_h = to_h + steep
    to_B = to_B - steep * (h * per)
    to_b = carry_b
    carry_s = steep * 0
    if beta is not None:
        to_b = carry_b + beta * to_B
        carry_s = (1 - rho) * to_b
        carry_b = rho * to_b
    if RESET == 2:
        if THROUGH:
            carry_s = carry_s - to_h * old_B
        carry_B = -to_h * old_s
    return to_h, to_B, to_b, leak * to_h, carry_s, carry_b, carry_B
