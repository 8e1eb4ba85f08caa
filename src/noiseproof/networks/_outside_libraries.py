"""What noiseproof knows of snnTorch, SpikingJelly, Norse and sinabs: who keeps state where, and who takes time how.

None of them is imported here: a module's library is read from where its class was defined.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

from noiseproof.errors import NoiseproofError

# how a module takes time: called once a step with [B, …]; once with [T, B, …]; once with [B, T, …]; once with [B·T, …];
# once with x as it is, because its own forward loops over time
Layout = Literal["step", "time-first", "batch-first", "flattened", "own"]
LIBRARIES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly", "norse": "Norse", "sinabs": "sinabs"}

_NORSE_STEP, _NORSE_TIME = ("SNNCell", "SNNRecurrentCell"), ("SNN", "SNNRecurrent", "Lift")
_SNNTORCH_TIME = ("StateLeaky", "AssociativeLeaky", "LeakyParallel")


def library_of(module: nn.Module) -> str | None:
    """Return the package that a module's class, or a class above it, comes from: a key of `LIBRARIES`, or None."""
    return _home(type(module))


@functools.cache
def _home(kind: type[nn.Module]) -> str | None:
    # kept, because every call of an adapted network asks it of all modules
    roots = (above.__module__.partition(".")[0] for above in kind.__mro__)
    return next((root for root in roots if root in LIBRARIES), None)


def _is_a(module: nn.Module, *names: str) -> bool:
    return any(kind.__name__ in names for kind in type(module).__mro__)


def is_neuron(module: nn.Module) -> bool:
    """Return whether a module is a layer of spiking neurons of one of the libraries (leaky integrators do not spike)."""
    match library_of(module):
        case "snntorch":
            return hasattr(module, "spike_grad")
        case "spikingjelly":
            return hasattr(module, "surrogate_function")
        case "norse":
            return _is_a(module, *_NORSE_STEP, "SNN", "SNNRecurrent") and not _is_a(module, "LI", "LICell", "LIBoxCell")
        case "sinabs":
            return _is_a(module, "StatefulLayer") and bool(getattr(module, "does_spike", False))
    return False


def layout_of(module: nn.Module) -> Layout | None:
    """Return how one layer of a library takes time; None where time means nothing to it."""
    match library_of(module):
        case "snntorch" if is_neuron(module):
            return "time-first" if _is_a(module, *_SNNTORCH_TIME) else "step"
        case "spikingjelly":
            if getattr(module, "step_mode", None) == "m" or _is_a(module, "MultiStepModule"):
                return "time-first"
            return "step" if hasattr(module, "_memories") else None
        case "norse":
            if _is_a(module, *_NORSE_TIME):
                return "time-first"
            return "step" if _is_a(module, *_NORSE_STEP) else None
        case "sinabs":
            if _is_a(module, "SqueezeMixin"):
                return "flattened"
            return "batch-first" if _is_a(module, "StatefulLayer", "FlattenTime", "Repeat") else None
    return None


def find_layout(network: nn.Module) -> Layout | None:
    """Return how a whole network takes time, from the layers inside; None when none of them is of a known library.

    Raises `NoiseproofError` when they disagree.
    """
    layers: list[tuple[str, nn.Module, Layout]] = []
    for name, module in network.named_modules():
        layout = layout_of(module)
        if layout is not None:
            layers.append((name, module, layout))
    found: set[Layout] = {layout for _, _, layout in layers}
    libraries = {library_of(module) for _, module, _ in layers}
    # a whole-sequence container around layers of single steps, as Norse's Lift and SpikingJelly's containers are
    if found == {"step", "time-first"} and libraries <= {"norse", "spikingjelly"} and len(libraries) == 1:
        return "time-first"
    # sinabs: FlattenTime … UnflattenTime around layers that take [B·T, …]
    if found == {"flattened", "batch-first"}:
        return "batch-first"
    if len(found) > 1:
        said = ", ".join(f"{name} takes time {layout}" for name, _, layout in layers[:4])
        raise NoiseproofError(f"layout is 'auto' and the layers disagree ({said}): give the layout that the whole network has")
    return layers[0][2] if layers else None


def keeps_state(module: nn.Module) -> bool:
    """Return whether a module may change from call to call in a way that `fresh_state` takes back."""
    return library_of(module) is not None or hasattr(module, "reset_state")


@contextlib.contextmanager
def fresh_state(network: nn.Module, shared: dict[str, str] | None = None) -> Iterator[None]:
    """Give every stateful layer its first state, and at the end what it had before: the same objects, unchanged.

    `shared`: the neuron settings of Norse that are parameters too, from `shared_settings`.
    """
    kept = [(module, dict(vars(module))) for module in network.modules() if keeps_state(module)]
    try:
        # all copies first: a reset may reach into the layers below
        for module, _ in kept:
            _copy_state(module)
        for module, _ in kept:
            _reset(module)
        for setting, parameter in (shared or {}).items():
            _bind(network, setting, parameter)
        yield
    finally:
        for module, before in kept:
            now = vars(module)
            now.update(before)
            for name in now.keys() - before.keys():
                del now[name]


def _copy_state(module: nn.Module) -> None:
    """Put copies where one layer keeps its state: resets and calls may write in place."""
    attributes, library = vars(module), library_of(module)
    if library == "snntorch":
        # what the library registers as not persistent is state; an empty tensor is its sign for "not begun"
        state = module._non_persistent_buffers_set
        attributes["_buffers"] = {n: b.new_zeros(0) if n in state and b is not None else b for n, b in module._buffers.items()}
    elif library == "sinabs":
        attributes["_buffers"] = module._buffers | {n: module.get_buffer(n).new_zeros(0) for n in _state_buffers(module)}
    elif library == "spikingjelly":
        attributes.update(_copied(attributes))
        if "_memories" in attributes:
            attributes["_memories"] = _copied(attributes["_memories"])
    elif library is None:
        attributes.update(_copied(attributes))
        attributes["_buffers"] = module._buffers | _copied(module._buffers)


def _copied(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in values.items()}


def _reset(module: Any) -> None:
    """Bring one layer to its first state by its library's own means, or by those of the module itself."""
    method = {"snntorch": "reset_mem", "spikingjelly": "reset", None: "reset_state"}.get(library_of(module))
    if method is not None and hasattr(module, method):
        getattr(module, method)()


def _state_buffers(module: nn.Module) -> list[str]:
    """Return the buffers of one layer that are state although they are saved with the weights, as sinabs has them."""
    if library_of(module) != "sinabs" or not _is_a(module, "StatefulLayer"):
        return []
    return [name for name, buffer in module._buffers.items() if buffer is not None]


def saved_state(network: nn.Module) -> dict[str, Tensor]:
    """Return by name the tensors that `state_dict` counts as weights and that are state: their shape follows the last batch."""
    named = ((prefix, module, name) for prefix, module in network.named_modules() for name in _state_buffers(module))
    return {f"{prefix}.{name}".lstrip("."): module.get_buffer(name) for prefix, module, name in named}


@contextlib.contextmanager
def surrogates_on(network: nn.Module) -> Iterator[None]:
    """Put SpikingJelly's neurons into train mode, where they have their gradient; batch norm and dropout keep their mode.

    The other three libraries do not look at the mode.
    """
    neurons = [m for m in network.modules() if library_of(m) == "spikingjelly" and is_neuron(m)]
    # one kind of neuron has a batch norm of its own, and no other use for the mode
    neurons = [(m, m.training) for m in neurons if not type(m).__module__.endswith(".mpbn")]
    try:
        for module, _ in neurons:
            module.training = True
        yield
    finally:
        for module, training in neurons:
            module.training = training


def shared_settings(network: nn.Module) -> dict[str, str]:
    """Return {"layer.field": "name of the parameter"} for settings of Norse's neurons that are parameters of the network too.

    Norse keeps thresholds and time constants in a named tuple `p`, where PyTorch does not look. `layer.v_th = layer.p.v_th`
    makes a parameter known; at other values of it the named tuple has to follow.

    Raises `NoiseproofError` for a parameter in `p` that the network does not know: nothing would train or perturb it.
    """
    known = {id(parameter): name for name, parameter in network.named_parameters()}
    shared: dict[str, str] = {}
    for prefix, module in network.named_modules():
        settings: Any = getattr(module, "p", None)
        if library_of(module) != "norse" or not hasattr(settings, "_asdict"):
            continue
        for field, value in settings._asdict().items():
            if isinstance(value, nn.Parameter):
                if id(value) not in known:
                    raise NoiseproofError(
                        f"parameter p.{field} of layer {prefix or 'network'} is unknown to PyTorch, so training and noise would pass by "
                        f"it: write layer.{field} = layer.p.{field} first"
                    )
                shared[f"{prefix}.{field}".lstrip(".")] = known[id(value)]
    return shared


def _bind(network: nn.Module, setting: str, parameter: str) -> None:
    """Put the present value of a parameter into the named tuple of a Norse layer."""
    prefix, _, field = setting.rpartition(".")
    owner, _, name = parameter.rpartition(".")
    layer = network.get_submodule(prefix)
    value = network.get_submodule(owner)._parameters[name]
    vars(layer)["p"] = layer.p._replace(**{field: value})  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def copy_layers(network: nn.Module, memo: dict[int, Any]) -> None:
    """Copy sinabs' layers into the memo of a `copy.deepcopy`: their own copying shares the recurrent weights with the original."""
    layers = [m for m in network.modules() if library_of(m) == "sinabs" and _is_a(m, "StatefulLayer")]
    for layer in layers:
        memo[id(layer)] = type(layer).__new__(type(layer))
    for layer in layers:
        vars(memo[id(layer)]).update(copy.deepcopy(vars(layer), memo))
