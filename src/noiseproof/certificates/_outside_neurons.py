"""The neurons of snnTorch, SpikingJelly and sinabs as settings of our equation; what it cannot say is refused by its name.

Read from the sources of snnTorch 1.0, SpikingJelly 2.0 and sinabs 3.1:

    snnTorch   Leaky               U = clamp(β, 0, 1)·U + I − R·θ, R the spike of the step before          reset at the next step
                                   or U = clamp(β, 0, 1)·(1 − R)·U + I, with "zero"                         hard reset
    SpikingJelly  IF, LIF, PLIF    H = V + I;  H = V + (I − V)/τ;  H = V − V/τ + I;  1/τ = σ(w) in PLIF    hard or soft reset
    sinabs     IAF, LIF            v = α·v + I;  v = α·v + (1 − α)·I with norm_input;  α = exp(−1/τ)        hard or soft reset

snnTorch spikes strictly above the threshold, the other two at it too. H(h ≥ θ) is H(h > θ') for all h when θ' is the number before
θ: so the threshold is the interval [θ', θ], which holds both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.certificates._build import Builder
from noiseproof.certificates._graph import Neurons
from noiseproof.errors import NoiseproofError
from noiseproof.neurons.equation import Constants, Form, Reset


@dataclass(frozen=True)
class _Known:
    """One layer of a library, as the equation takes it."""

    reset: Reset
    # λ, θ and g from the values of the layer's parameters by part
    constants: Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor, Tensor | None]]
    # which parts are parameters of the network
    parts: tuple[str, ...] = ()
    # a spike at the threshold, not only above it
    at_threshold: bool = False
    # the membrane is computed as V − V/τ: its error is one of V, not of λ·V
    by_difference: bool = False


def add_neurons(builder: Builder, name: str, module: nn.Module, at: int) -> int:
    """Add a layer of neurons of a library.

    Raises `NoiseproofError` for neurons and settings that our equation does not have.
    """
    found = NEURONS.get(kind_of(module))
    if found is None:
        known = ", ".join(sorted(NEURONS))
        raise NoiseproofError(f"layer {name} is {kind_of(module)}: no bound is known for these neurons; known are {known}")
    known, shape = found(builder, name, module), builder.nodes[at].shape
    builder.time(name)

    def constants(values: Mapping[str, Tensor]) -> Constants:
        leak, theta, gain = known.constants(values)
        return Constants(_spread(name, leak, shape), _spread(name, theta, shape), None if gain is None else _spread(name, gain, shape))

    low, high = builder.ends({part: f"{name}.{part}" for part in known.parts}, constants)
    if known.at_threshold:
        before = torch.nextafter(low.threshold, low.threshold.new_tensor(-torch.inf))
        low = low._replace(threshold=before)
    _check_ends(name, low)
    slack = builder.rounding.of_step
    if known.by_difference and slack:
        slack *= _difference(low)
    if slack > 1e-3:
        raise NoiseproofError(
            f"layer {name} has a time constant so near to one step that V − V/τ is rounding alone: give tau 1.001 or more"
        )
    return builder.add(name, Neurons(Form(known.reset), low, high, slack=slack), at)


def kind_of(module: nn.Module) -> str:
    """Return library and class of a module, as "snntorch.Leaky"; a class of the user is of the user's own module."""
    return f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"


def _spread(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a constant with the dimensions of the current [T, B, …], broadcast from the right as torch does."""
    value = value.reshape([1] * (len(shape) + 2 - value.ndim) + list(value.shape))
    if torch.broadcast_shapes(value.shape, (1, 1, *shape)) != (1, 1, *shape):
        raise NoiseproofError(f"layer {name} has constants of shape {tuple(value.shape)} for neurons of shape {shape}: one sample each")
    return value


def _check_ends(name: str, low: Constants) -> None:
    for what, value in (("leak", low.leak), ("gain", low.gain)):
        if value is not None and bool((value < 0).any()):
            raise NoiseproofError(f"layer {name} has a {what} of {value.min().item():g} within the box: it may not be negative")
    if bool((low.threshold <= 0).any()):
        raise NoiseproofError(f"layer {name} has a threshold of {low.threshold.min().item():g} within the box: it must be positive")


def _difference(low: Constants) -> float:
    """Return how much larger the error of V − V/τ is than one of λ·V, λ = 1 − 1/τ: it is one of V and of V/τ."""
    return float((2 * (1 + (1 - low.leak) / low.leak)).max())


def _refuse(name: str, what: str, value: object, remedy: str) -> NoiseproofError:
    return NoiseproofError(f"layer {name} has {what} {value!r}: no bound is known for it; {remedy}")


def _is_step(function: Any, home: str, at: float) -> bool:
    """Return whether a surrogate of a library gives H(x) forwards, and `at` at 0."""
    if not (getattr(function, "__module__", "") or "").startswith(home):
        return False
    x = torch.cat((torch.linspace(-2, 2, 400), torch.zeros(1)))
    with torch.no_grad(), contextlib.suppress(Exception):  # one that draws spikes takes probabilities, or a variance
        return torch.equal(function(x), torch.where(x == 0, at, (x > 0).to(x.dtype)))
    return False


# --- snnTorch


def _leaky(builder: Builder, name: str, module: Any) -> _Known:
    if module.reset_mechanism not in ("subtract", "zero"):
        raise _refuse(name, "reset_mechanism", module.reset_mechanism, "give 'subtract' or 'zero'")
    if module.reset_mechanism == "subtract" and not module.reset_delay:
        raise _refuse(name, "reset_delay", False, "give True or reset_mechanism 'zero'")
    for setting in ("inhibition", "state_quant"):
        if getattr(module, setting):
            raise _refuse(name, setting, getattr(module, setting), "leave it out")
    if not bool((module.graded_spikes_factor == 1).all()) or isinstance(module.graded_spikes_factor, nn.Parameter):
        raise _refuse(name, "graded_spikes_factor", module.graded_spikes_factor.tolist(), "give 1")
    if not (module.surrogate_disable or _is_step(module.spike_grad, "snntorch.", 0.0)):
        raise _refuse(
            name,
            "spike_grad",
            getattr(module.spike_grad, "__qualname__", module.spike_grad),
            "take one of snntorch.surrogate that gives 0 or 1",
        )
    parts = tuple(part for part in ("beta", "threshold") if isinstance(getattr(module, part), nn.Parameter))
    fixed = {part: builder.in_arithmetic(getattr(module, part)) for part in ("beta", "threshold") if part not in parts}

    def constants(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, None]:
        own = fixed | dict(values)
        return own["beta"].clamp(0, 1), own["threshold"], None

    return _Known("soft-next" if module.reset_mechanism == "subtract" else "hard", constants, parts)


# --- SpikingJelly


def _jelly(builder: Builder, name: str, module: Any) -> Reset:
    """Return how a layer of SpikingJelly resets, after checking what all of them have."""
    mode = "s" if builder.lead == 1 else "m"
    if module.step_mode != mode:
        raise _refuse(name, "step_mode", module.step_mode, f"give {mode!r}, as the layers around it have")
    if module.v_reset not in (None, 0.0):
        raise _refuse(name, "v_reset", module.v_reset, "give None or 0.0")
    if getattr(module, "_neuron_precision", None) is not None:
        raise _refuse(name, "precision", module._neuron_precision, "leave it out")
    if not _is_step(module.surrogate_function, "spikingjelly.", 1.0):
        raise _refuse(name, "surrogate_function", type(module.surrogate_function).__name__, "take one that spikes")
    return "soft" if module.v_reset is None else "hard"


def _jelly_threshold(builder: Builder, module: Any) -> Tensor:
    return builder.in_arithmetic(torch.tensor(module.v_threshold, dtype=torch.float64, device=builder.device))


def _jelly_if(builder: Builder, name: str, module: Any) -> _Known:
    theta = _jelly_threshold(builder, module)
    return _Known(_jelly(builder, name, module), lambda _: (torch.ones_like(theta), theta, None), at_threshold=True)


def _jelly_lif(builder: Builder, name: str, module: Any) -> _Known:
    theta = _jelly_threshold(builder, module)
    kept = torch.full_like(theta, 1 / module.tau, dtype=torch.float64)
    values = (1 - kept, theta, kept if module.decay_input else None)
    return _Known(_jelly(builder, name, module), lambda _: values, at_threshold=True, by_difference=True)


def _jelly_plif(builder: Builder, name: str, module: Any) -> _Known:
    theta = _jelly_threshold(builder, module)

    def constants(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        kept = values["w"].double().sigmoid()
        return 1 - kept, theta, kept if module.decay_input else None

    return _Known(_jelly(builder, name, module), constants, ("w",), at_threshold=True, by_difference=True)


# --- sinabs


def _sinabs(builder: Builder, name: str, module: Any) -> _Known:
    squeezed = hasattr(module, "squeeze_forward")
    if builder.lead != (1 if squeezed else 2):
        raise NoiseproofError(
            f"layer {name} is {kind_of(module)}, which takes {'[B·T, …]' if squeezed else '[B, T, …]'}: see layout of adapt"
        )
    spike, reset = getattr(module.spike_fn, "__name__", type(module.spike_fn).__name__), type(module.reset_fn).__name__
    if not spike == "SingleSpike" or not module.spike_fn.__module__.startswith("sinabs."):
        raise _refuse(name, "spike_fn", spike, "a neuron may spike once a step: give sinabs.activation.SingleSpike")
    for setting in ("min_v_mem", "tau_syn" if hasattr(module, "tau_syn") else "alpha_syn"):
        if getattr(module, setting) is not None:
            raise _refuse(name, setting, getattr(module, setting).tolist(), "leave it out")
    form: Reset = "soft" if reset == "MembraneSubtract" else "hard"
    to = module.reset_fn.subtract_value if reset == "MembraneSubtract" else getattr(module.reset_fn, "reset_value", None)
    if (reset, to) not in (("MembraneSubtract", None), ("MembraneReset", 0.0)) or not type(module.reset_fn).__module__.startswith(
        "sinabs."
    ):
        raise _refuse(name, "reset_fn", module.reset_fn, "give MembraneSubtract() or MembraneReset()")
    if module.spike_threshold is None:
        raise _refuse(name, "spike_threshold", None, "give a number")
    part = None if "IAF" in type(module).__name__ else "alpha_mem" if module.train_alphas else "tau_mem"

    def constants(values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        theta = values["spike_threshold"]
        if part is None:
            return torch.ones_like(theta), theta, None
        alpha = torch.exp(-1.0 / values[part]) if part == "tau_mem" else values[part]
        return alpha, theta, 1 - alpha if module.norm_input else None

    return _Known(form, constants, ("spike_threshold", *([part] if part else [])), at_threshold=True)


NEURONS: dict[str, Callable[[Builder, str, Any], _Known]] = {
    "snntorch.Leaky": _leaky,
    "spikingjelly.IFNode": _jelly_if,
    "spikingjelly.LIFNode": _jelly_lif,
    "spikingjelly.ParametricLIFNode": _jelly_plif,
    "sinabs.IAF": _sinabs,
    "sinabs.LIF": _sinabs,
    "sinabs.IAFSqueeze": _sinabs,
    "sinabs.LIFSqueeze": _sinabs,
}
