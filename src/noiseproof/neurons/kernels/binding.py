"""The kernels as one function of PyTorch: autograd, vmap, vmap of grad, second derivatives, torch.compile.

Forward and backward are each a custom operator inside an autograd Function with a `vmap` of its own. No other composition serves
all five; `generate_vmap_rule` meets tensors without memory, an operator with registered autograd fails under functorch.
"""

# no postponed annotations here: torch reads the types of a custom operator from them

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.neurons.equation import Constants, Form, State, initial_state, reference
from noiseproof.neurons.kernels._inputs import Gradients, Inputs, Outputs, laid_out
from noiseproof.neurons.surrogates import SURROGATES

STATE, RECURRENT = range(1, 5), 10  # places in Inputs
YES = "x"  # in the text that says which of `Gradients` are wanted


def integrate(inputs: Inputs, form: Form, steps: int, backend: str) -> Outputs:
    """Return spikes and final state of the equation, computed by the kernels of `backend`."""
    spikes, v, b, r = _Integrate.apply(*inputs, key_of(form), steps, backend)  # pyright: ignore[reportGeneralTypeIssues]
    return Outputs(spikes, v, b if form.adaptive else None, r if form.refractory else None)


def key_of(form: Form) -> str:
    """Return the form as text: what an operator of torch takes and torch.compile sees as one constant."""
    p0, p1 = form.surrogate.settings
    return f"{form.reset} {form.adaptive:d} {form.refractory} {form.detach_reset:d} {form.surrogate.code} {p0!r} {p1!r}"


@cache
def form_of(key: str) -> Form:
    """Return the form that `key_of` wrote."""
    reset, adaptive, refractory, detach_reset, code, *settings = key.split()
    kind = next(kind for kind in SURROGATES.values() if kind.code == int(code))
    chosen = [float(value) for value in settings[: len(fields(kind))]]
    return Form(reset, adaptive == "1", int(refractory), detach_reset == "1", kind(*chosen))  # pyright: ignore[reportArgumentType]


def places_of(wanted: str) -> list[int]:
    """Return the places of the gradients that are wanted."""
    return [i for i, w in enumerate(wanted) if w == YES]


def _yes(letter: str) -> bool:
    return letter == YES


def _inputs(tensors: Sequence[Any]) -> Inputs:
    return Inputs(*tensors)


def _kernels(backend: str) -> Any:
    return importlib.import_module(f"noiseproof.neurons.kernels.{backend}")


def _run_forward(tensors: Sequence[Tensor | None], key: str, steps: int, backend: str) -> list[Tensor]:
    inputs = _inputs(tensors)
    out = _kernels(backend).forward(inputs, form_of(key), steps)
    return [inputs.x.new_empty(0) if value is None else value for value in out]


def _run_backward(
    gradients: Sequence[Tensor | None], tensors: Sequence[Tensor | None], key: str, steps: int, backend: str, wanted: str
) -> list[Tensor]:
    inputs, form = _inputs(tensors), form_of(key)
    gs, gv, gb = gradients[0], gradients[1], gradients[2] if form.adaptive else None
    if gs is None:
        gs = inputs.x.new_zeros(()).expand(steps, *inputs.x.shape[1:])
    found = _kernels(backend).backward(gs, gv, gb, inputs, form, steps, Gradients(*map(_yes, wanted)))
    return [value if value is not None and w == YES else inputs.x.new_empty(0) for value, w in zip(found, wanted, strict=True)]


# What torch.compile sees. Outside of it the functions are called as they are, which costs a tenth of the time of a small layer less
_integrate = torch.library.custom_op("noiseproof::integrate", _run_forward, mutates_args=())
_integrate_backward = torch.library.custom_op("noiseproof::integrate_backward", _run_backward, mutates_args=())


def _traced(x: Tensor) -> bool:
    return torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter)


@_integrate.register_fake
def _(tensors: Sequence[Tensor | None], key: str, steps: int, backend: str) -> list[Tensor]:
    x, form = tensors[0], form_of(key)
    assert x is not None
    return [
        laid_out(x, steps),
        laid_out(x, 1)[0],
        laid_out(x, 1)[0] if form.adaptive else x.new_empty(0),
        laid_out(x, 1)[0] if form.refractory else x.new_empty(0),
    ]


@_integrate_backward.register_fake
def _(
    gradients: Sequence[Tensor | None],
    tensors: Sequence[Tensor | None],
    key: str,
    steps: int,
    backend: str,
    wanted: str,
) -> list[Tensor]:
    inputs = _inputs(tensors)
    x = inputs.x
    rest = laid_out(x, 1)[0]
    like = (x, rest, rest, rest, *inputs[5:])
    return [
        (laid_out(x, len(x)) if value is x else torch.empty_like(value)) if w == YES and value is not None else x.new_empty(0)
        for value, w in zip(like, wanted, strict=True)
    ]


class _Integrate(torch.autograd.Function):
    """Arguments: the eleven of `Inputs`, key, steps, backend. Returns spikes, v, b, r; b and r empty where the form has none."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        x: Any, v: Any, s: Any, b: Any, r: Any, leak: Any, theta: Any, gain: Any, beta: Any, rho: Any, recurrent: Any,
        key: str, steps: int, backend: str,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        # one by one, not *arguments: torch.compile counts them to find out whether there is a context among them
        run = _integrate if _traced(x) else _run_forward
        return tuple(run([x, v, s, b, r, leak, theta, gain, beta, rho, recurrent], key, steps, backend))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:11])
        ctx.settings = inputs[11:]
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gs: Tensor | None, gv: Tensor | None, gb: Tensor | None, gr: None) -> tuple[Any, ...]:  # pyright: ignore
        key, steps, backend = ctx.settings
        tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad
        wanted = "".join(YES if needed[i] else "-" for i in range(11) if i != 4)
        found = _Backward.apply(gs, gv, gb, *tensors, key, steps, backend, wanted)
        gradients: list[Any] = [g if w == YES else None for g, w in zip(found, wanted, strict=True)]  # pyright: ignore
        gradients.insert(4, None)
        return (*gradients, None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        tensors, settings = arguments[:11], arguments[11:]
        if in_dims[RECURRENT] is not None:
            return _one_by_one(_Integrate.apply, info.batch_size, in_dims, arguments, 4)
        lifted = _lift_inputs(tensors, in_dims[:11], info.batch_size, all_of_them=False)
        spikes, v, b, r = _Integrate.apply(*lifted, *settings)  # pyright: ignore[reportGeneralTypeIssues]
        form = form_of(settings[0])
        b, r = b if form.adaptive else _batched_nothing(b, info.batch_size), r if form.refractory else _batched_nothing(r, info.batch_size)
        return (spikes, v, b, r), (1, 0, 0, 0)


class _Backward(torch.autograd.Function):
    """Arguments: gradients of spikes, v, b; the eleven of `Inputs`; key, steps, backend, wanted. Returns the ten of `Gradients`."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        gs: Any, gv: Any, gb: Any,
        x: Any, v: Any, s: Any, b: Any, r: Any, leak: Any, theta: Any, gain: Any, beta: Any, rho: Any, recurrent: Any,
        key: str, steps: int, backend: str, wanted: str,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        tensors = [x, v, s, b, r, leak, theta, gain, beta, rho, recurrent]
        run = _integrate_backward if _traced(x) else _run_backward
        return tuple(run([gs, gv, gb], tensors, key, steps, backend, wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:14])
        ctx.settings = inputs[14:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *second: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The second derivative, through the reference."""
        key, steps, _, wanted = ctx.settings
        tensors = ctx.saved_tensors
        places = [i for i, value in enumerate(tensors) if value is not None]

        def first(*given: Tensor) -> tuple[Tensor, ...]:
            full: list[Any] = [None] * 14
            for place, value in zip(places, given, strict=True):
                full[place] = value
            return _first_derivative(full[:3], Inputs(*full[3:]), form_of(key), steps, places_of(wanted))

        _, pull, *_ = torch.func.vjp(first, *(tensors[i] for i in places))
        there = places_of(wanted)
        found = pull(tuple(second[i] if second[i] is not None else _zeros(tensors, i) for i in there))
        gradients: list[Any] = [None] * 14
        for place, value in zip(places, found, strict=True):
            gradients[place] = value
        return (*gradients, None, None, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        batch, settings = info.batch_size, arguments[14:]
        if in_dims[3 + RECURRENT] is not None or (arguments[3 + RECURRENT] is not None and settings[3][9] == YES):
            return _one_by_one(_Backward.apply, batch, in_dims, arguments, 10)
        gs, gv, gb = (_lift(g, d, batch, at) for g, d, at in zip(arguments[:3], in_dims[:3], (1, 0, 0), strict=True))
        lifted = _lift_inputs(arguments[3:14], in_dims[3:14], batch, all_of_them=True)
        found = _Backward.apply(gs, gv, gb, *lifted, *settings)
        at = (1, 0, 0, 0, 1, 1, 1, 1, 1, 0)
        wanted = settings[3]
        out = [g if w == YES else _batched_nothing(g, batch) for g, w in zip(found, wanted, strict=True)]  # pyright: ignore
        return tuple(out), tuple(d if w == YES else 0 for d, w in zip(at, wanted, strict=True))


# torch asks for the signature of `forward` at every call; working it out anew costs a tenth of the time of a small layer
for _function in (_Integrate.forward, _Backward.forward):
    _function.__signature__ = inspect.signature(_function)  # pyright: ignore[reportFunctionMemberAccess]


def _first_derivative(gradients: Sequence[Any], p: Inputs, form: Form, steps: int, there: list[int]) -> tuple[Tensor, ...]:
    """Return the wanted gradients as the reference has them, differentiable once more."""
    rest = initial_state(p.x[0], form)
    begin: list[Any] = [r if given is None else given for given, r in zip((p.v, p.s, p.b, p.r), rest, strict=True)]
    state = State(*begin)
    values = [p.x, *state[:3], p.leak, p.theta, p.gain, p.beta, p.rho, p.recurrent]

    def outputs(*chosen: Tensor) -> tuple[Tensor, ...]:
        full = list(values)
        for place, value in zip(there, chosen, strict=True):
            full[place] = value
        x, v, s, b, leak, theta, gain, beta, rho, recurrent = full
        out = reference(x, State(v, s, b, state.r), Constants(leak, theta, gain, beta, rho), form, steps, recurrent)  # pyright: ignore[reportArgumentType]
        return (out.spikes, out.state.v) if out.state.b is None else (out.spikes, out.state.v, out.state.b)

    out, pull, *_ = torch.func.vjp(outputs, *(values[i] for i in there))
    given = [torch.zeros_like(o) if g is None else g for o, g in zip(out, gradients, strict=False)]
    return pull(tuple(given))


def _zeros(tensors: Sequence[Any], place: int) -> Tensor:
    like = [tensors[3], *(tensors[i] if tensors[i] is not None else tensors[3][0] for i in (4, 5, 6)), *tensors[8:]][place]
    return torch.zeros_like(like)


def _lift(value: Tensor | None, dim: int | None, batch: int, at: int) -> Tensor | None:
    """Return the value with the mapped dimension at `at`: moved there, or repeated."""
    if value is None:
        return None
    return value.movedim(dim, at) if dim is not None else value.unsqueeze(at).expand(*value.shape[:at], batch, *value.shape[at:])


def _lift_inputs(tensors: Sequence[Any], dims: Sequence[Any], batch: int, *, all_of_them: bool) -> list[Any]:
    """Return the inputs with the mapped dimension as one more of the batch; constants that are not mapped broadcast, unless all must be."""
    lifted: list[Any] = []
    for place, (value, dim) in enumerate(zip(tensors[:RECURRENT], dims[:RECURRENT], strict=True)):
        at = 0 if place in STATE else 1
        if value is not None and dim is None and place > 4 and not all_of_them:
            lifted.append(value.unsqueeze(1))
        else:
            lifted.append(_lift(value, dim, batch, at))
    return [*lifted, tensors[RECURRENT]]


def _one_by_one(function: Callable[..., Any], batch: int, dims: Sequence[Any], arguments: Sequence[Any], outputs: int) -> Any:
    """Map by a loop: where every element has a recurrent matrix of its own."""
    results = [function(*(a.select(d, i) if isinstance(d, int) else a for a, d in zip(arguments, dims, strict=True))) for i in range(batch)]
    return tuple(torch.stack([r[k] for r in results]) for k in range(outputs)), (0,) * outputs


def _batched_nothing(nothing: Tensor, batch: int) -> Tensor:
    return nothing.new_empty(batch, 0)
