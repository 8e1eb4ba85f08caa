"""The equation, fast: one function with several backends, all held against `noiseproof.neurons.equation.reference`.

reference    the equation step by step, differentiated by autograd; every device and type
handwritten  its backward written by hand in plain PyTorch; every device
cpu          C with OpenMP, built at installation where there is a compiler; float32, float64
triton       CUDA
auto         the fastest that is there
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, unknown
from noiseproof.neurons.equation import Constants, Emitted, Form, State, initial_state, reference
from noiseproof.neurons.kernels._inputs import Inputs
from noiseproof.neurons.surrogates import SURROGATES

BACKENDS = ("auto", "reference", "handwritten", "cpu", "triton")
_chosen = "auto"


@contextlib.contextmanager
def using(backend: str) -> Iterator[None]:
    """Take `backend` for all neurons while the context is open.

    Raises `NoiseproofError` for an unknown backend.

    Example:
        >>> with using("reference"):
        ...     pass
    """
    global _chosen
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    before, _chosen = _chosen, backend
    try:
        yield
    finally:
        _chosen = before


def integrate(
    x: Tensor,
    constants: Constants,
    form: Form,
    *,
    steps: int | None = None,
    state: State | None = None,
    recurrent: Tensor | None = None,
    membrane: bool = False,
) -> Emitted:
    """Return spikes [T, B, …] and final state of a layer of neurons, by the equation of `noiseproof.neurons.equation`.

    `x`: input current [T, B, …], or [1, B, …] with `steps` for one that stays the same. Constants have as many dimensions as x
    and broadcast to it. `state`: None at rest. `recurrent`: W [N, N], to unit from unit, for x [T, B, N]. With `membrane` the
    potentials are returned too, by the reference, which also takes surrogates of your own. Half precision is computed in
    float32; spikes and state are returned in float32 too, but by triton in the type of x.

    Raises `NoiseproofError` for no steps, or shapes that do not fit.
    """
    steps = len(x) if steps is None else steps
    if not x.is_floating_point():
        x = x.to(constants.threshold.dtype)
    _check(x, steps, constants, state, recurrent)
    known = type(form.surrogate) in SURROGATES.values()
    backend = _backend(x) if known and not membrane else "reference"
    half = x.dtype in (torch.float16, torch.bfloat16)
    if half and backend != "triton":
        x = x.float()
    if recurrent is not None:
        x, recurrent = x.contiguous(), recurrent.to(x.dtype)
    if backend == "reference":
        begin = initial_state(x[0], form) if state is None else _complete(state, x[0], form)
        out = reference(x, begin, constants, form, steps, recurrent)
        return out if membrane else out._replace(membrane=None)
    from noiseproof.neurons.kernels import binding

    leak, theta, gain, beta, rho = (None if c is None else c.to(torch.float32 if half else x.dtype) for c in constants)
    assert leak is not None
    assert theta is not None
    begin = (None, None, None, None) if state is None else _complete(state, x[0], form)
    inputs = Inputs(x, *begin, leak, theta, gain, beta, rho, recurrent)
    spikes, v, b, r = binding.integrate(inputs, form, steps, backend)
    return Emitted(spikes, State(v, spikes[-1], b, r))


def _complete(state: State, like: Tensor, form: Form) -> State:
    """Return the state in the type of `like`, with all parts of the form and no others; one that is missing is at rest."""
    rest = initial_state(like, form)
    parts = (None if r is None else r if given is None else given.to(like.dtype) for given, r in zip(state, rest, strict=True))
    return State(*parts)  # pyright: ignore[reportArgumentType]


def _check(x: Tensor, steps: int, constants: Constants, state: State | None, recurrent: Tensor | None) -> None:
    if x.ndim < 2 or len(x) not in (1, steps) or steps < 1:
        raise NoiseproofError(f"x is of shape {tuple(x.shape)} for {steps} steps: give [T, B, …] with T = steps ≥ 1, or [1, B, …]")
    for name, part in zip(State._fields, state or (), strict=False):
        if part is not None and part.shape != x.shape[1:]:
            raise NoiseproofError(f"state is of shape {tuple(part.shape)} ({name}): neurons of this input have {tuple(x.shape[1:])}")
    for name, value in zip(Constants._fields, constants, strict=True):
        if value is None:
            continue
        times = (1, steps) if name in ("leak", "gain") else (1,)
        fits = value.ndim == x.ndim and len(value) in times and all(a in (1, b) for a, b in zip(value.shape[1:], x.shape[1:], strict=True))
        if not fits:
            raise NoiseproofError(f"{name} is of shape {tuple(value.shape)}: it must broadcast to the input, {(*times[-1:], *x.shape[1:])}")
    if recurrent is not None and recurrent.shape != (x.shape[-1], x.shape[-1]):
        raise NoiseproofError(f"recurrent weights are of shape {tuple(recurrent.shape)}: {x.shape[-1]} units need {(x.shape[-1],) * 2}")


def _backend(x: Tensor) -> str:
    if _chosen != "auto":
        return _chosen
    return _fastest(x.device.type) if x.is_floating_point() else "handwritten"


@cache
def _fastest(device: str) -> str:
    """Return the fastest backend that is there, and say so once where it is not the one that should be."""
    logger = logging.getLogger("noiseproof.neurons")
    if device == "cpu":
        from noiseproof.neurons.kernels import cpu

        if cpu.library() is not None:
            return "cpu"
        logger.warning("the C kernels were not built (no compiler at installation): neurons run in plain PyTorch, more slowly")
    elif device == "cuda":
        try:
            import triton  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        except ImportError:
            logger.warning("triton is not installed: neurons run in plain PyTorch, more slowly")
        else:
            return "triton"
    return "handwritten"
