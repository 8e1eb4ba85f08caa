"""Outside modules → graphs: known layers by themselves, everything else through what `torch.fx` sees its forward do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import Builder, named_parts
from noiseproof.certificates._checks import check_modules
from noiseproof.certificates._graph import Graph, Linear, Neurons, Readout
from noiseproof.certificates._layers import LAYERS, dense
from noiseproof.certificates._outside_functions import Known, Value, call_function, call_method
from noiseproof.certificates._outside_neurons import NEURONS, add_neurons, kind_of
from noiseproof.certificates._rounding import Arithmetic, Rounding
from noiseproof.certificates._tracing import check_same, forward_of, needed_for
from noiseproof.errors import NoiseproofError, require
from noiseproof.networks._base import ChannelsLast, Normalise
from noiseproof.networks._outside_libraries import LIBRARIES, Layout, is_neuron, layout_of, library_of
from noiseproof.networks._outside_time import Time, _folded, passes_state
from noiseproof.networks._residual import ImageMean, PaddedShortcut
from noiseproof.networks._spiking import How
from noiseproof.networks._under_noise import UnderNoise
from noiseproof.networks.adapt import Adapted
from noiseproof.parameters import Params, inference_mode

# layers of SpikingJelly that are those of torch, and in step mode "m" those of every step
_KNOWN_LAYERS = {
    *("spikingjelly.Linear", "spikingjelly.Conv1d", "spikingjelly.Conv2d", "spikingjelly.Conv3d", "spikingjelly.BatchNorm1d"),
    *("spikingjelly.BatchNorm2d", "spikingjelly.MaxPool2d", "spikingjelly.AvgPool2d", "spikingjelly.AdaptiveAvgPool2d"),
    *("spikingjelly.Flatten", "spikingjelly.Dropout", "spikingjelly.Dropout2d"),
}
# the same for one step and for all at once
_ANY_STEP = {"spikingjelly.Linear", "spikingjelly.Dropout", "spikingjelly.Dropout2d"}
# containers that take [T, B, …] or [B, T, …] and give every step to what is inside
_EACH_STEP = {"spikingjelly.SeqToANNContainer", "spikingjelly.MultiStepContainer", "sinabs.Repeat"}
# layers of noiseproof that are called with one tensor
_OWN = (Normalise, ChannelsLast, ImageMean, PaddedShortcut)
_HOW: dict[str, How] = {"sum": "sum", "mean": "rate", "last": "last", "max": "max"}


def graph_of_adapted(
    network: nn.Module,
    box: Box,
    *,
    params: Params | None = None,
    arithmetic: Arithmetic = "float32",
    dtype: torch.dtype = torch.float64,
    shape: Sequence[int] | None = None,
    proving: bool = True,
) -> Graph:
    """Return the operations of an adapted network; `shape`: of one input, [T, …] for sequences.

    Modules of the user are traced: their forward is called once, with inputs that only note what is done to them.

    Raises `NoiseproofError` that names the layer or the function for one that is not known, that cannot be traced, or that keeps
    state; for what `noiseproof.adapt` was told of time where it cannot be expressed; without `shape`.
    """
    if isinstance(network, UnderNoise):
        raise NoiseproofError("network is UnderNoise: a certificate covers a whole box at once; give the network inside")
    if not isinstance(network, Adapted):
        raise NoiseproofError(f"network is {type(network).__name__}: give a network of noiseproof, others through noiseproof.adapt")
    if shape is None or not len(shape):
        raise NoiseproofError(f"shape is {shape!r}: an adapted network does not know the shape of one input; give it")
    if proving:
        check_modules(network)
    row, steps = _in_time(network, tuple(shape))
    builder = OutsideBuilder(network, box, params, Rounding(arithmetic, dtype), row, steps)
    with inference_mode(network):
        out = _output(builder, network)
    if len(builder.nodes[out].shape) != 1:
        raise NoiseproofError(f"the network gives {builder.nodes[out].shape} for one sample: it must give logits [classes]")
    if out != len(builder.nodes) - 1:
        raise NoiseproofError(
            f"the network gives what layer {builder.nodes[out].name} does, and there are layers behind it: leave them out"
        )
    if network.time is not None:
        _read(builder, network.time)
    return builder.graph(_encoding(network), network.bounds)


def _output(builder: OutsideBuilder, network: Adapted) -> int:
    """Add the whole module; return the node that is read."""
    value = builder.called("module", network.module, (Value(0),), {})
    if isinstance(value, tuple | list):
        output = 0 if network.time is None else network.time.output
        require(output < len(value), "output", output, f"the network returns {len(value)} values, counted from 0")
        value = value[output]
    if not isinstance(value, Value):
        remedy = "; read its spikes: adapt(…, output=0)" if isinstance(value, str) else ""  # a string is the name of a membrane
        raise NoiseproofError(f"the network gives {value}: bounds are known for spikes and logits, in one tensor{remedy}")
    return value.node


def _in_time(network: Adapted, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int | None]:
    """Return the shape of a row and the number of steps."""
    time = network.time
    if time is None:
        return shape, None
    if time.layout == "own" or passes_state(network.module):
        what = "loops over time itself" if time.layout == "own" else "passes its state"
        raise NoiseproofError(
            f"the forward of {type(network.module).__name__} {what}: bounds are known for networks that are called with one "
            "step and keep their state inside, as torch.nn.Sequential of layers, with adapt(…, steps=T)"
        )
    if not time.sequence:
        return shape, time.steps
    require(time.steps in (None, shape[0]), "shape", shape, f"the network takes sequences of {time.steps} steps")
    return shape[1:], shape[0]


def _encoding(network: Adapted) -> Callable[[Tensor], Tensor]:
    if network.time is None:
        return lambda x: x
    return (lambda x: x.transpose(0, 1)) if network.time.sequence else (lambda x: x[None])


def _read(builder: Builder, time: Time) -> None:
    """Bring the outputs of all steps to logits: in the last dense layer where it takes spikes, else by a readout of its own."""
    last, T = builder.nodes[-1], builder.time("module")
    if not any(isinstance(node.op, Neurons) for node in builder.nodes):
        raise NoiseproofError(f"the network takes {T} steps and has no spiking neurons whose bounds are known: leave steps out")
    how = _HOW[time.readout]
    leak = 1.0 if how in ("sum", "rate") else 0.0  # what is added up with leak 0 is each step alone
    if isinstance(last.op, Linear) and last.op.apply is dense and isinstance(builder.nodes[last.inputs[0]].op, Neurons):
        builder.nodes.pop()
        slack = builder.rounding.of_sum(math.prod(builder.nodes[last.inputs[0]].shape) + T)
        builder.add(last.name, Readout(replace(last.op, slack=slack), how, leak), *last.inputs)
        return
    same = torch.eye(last.shape[0], dtype=builder.rounding.dtype, device=builder.device)
    builder.add(f"readout {how}", Readout(Linear(dense, same, slack=builder.rounding.of_sum(T)), how, leak), len(builder.nodes) - 1)


class OutsideBuilder(Builder):
    """Adds layers of the libraries, and traces modules that it does not know."""

    def __init__(self, network: Adapted, *args: Any) -> None:
        super().__init__(network, *args)
        self.layout: Layout = "step" if network.time is None else network.time.layout
        self.lead = 2 if self.layout in ("time-first", "batch-first") else 1
        self._stateful: set[nn.Module] = set()

    def child(self, name: str, module: nn.Module, at: int) -> int:
        """Add a module that takes node `at` and gives one tensor; return the node that it gives."""
        value = self.called(name, module, (Value(at),), {})
        if not isinstance(value, Value):
            raise NoiseproofError(f"layer {name} is {type(module).__name__} and gives {value}: bounds are known for spikes and logits")
        return value.node

    def called(self, name: str, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Add a module as it is called; return what it gives: a `Value`, or a tuple with what else there is.

        Raises `NoiseproofError` for one that is not known, and for state that nothing here sees.
        """
        outside = library_of(module) is not None and type(module).__module__.partition(".")[0] in LIBRARIES
        if not outside and type(module) not in _OWN and not type(module).__module__.startswith("torch.nn.modules."):
            return _traced(self, name, module, args, options)
        if len(args) != 1 or not isinstance(args[0], Value) or options:
            given = ", ".join([a if isinstance(a, str) else type(a).__name__ for a in args] + list(options))
            what = f"layer {name} is {type(module).__name__} and is called with ({given})"
            raise NoiseproofError(f"{what}: bounds are known for layers of one tensor that keep their state inside")
        if type(module) is nn.Sequential:
            return self._in_turn(name, module, args[0])
        return self._of_library(name, module, args[0].node) if outside else Value(super().child(name, module, args[0].node))

    def _in_turn(self, name: str, module: nn.Module, value: Any) -> Any:
        for part, child in named_parts(module):
            value = self.called(f"{name}.{part}", child, (value,), {})
        return value

    def _of_library(self, name: str, module: Any, at: int) -> Any:
        kind, layout = kind_of(module), layout_of(module)
        takes_time = kind in _KNOWN_LAYERS or kind in _EACH_STEP or is_neuron(module)
        fits = layout == self.layout or (layout is None and (self.lead == 1 or kind in _ANY_STEP))
        if takes_time and not fits:
            raise NoiseproofError(
                f"layer {name} is {kind} and takes time {layout or 'step'}, and the network {self.layout}: see layout of adapt"
            )
        if is_neuron(module):
            if module in self._stateful:
                raise NoiseproofError(
                    f"layer {name} is called twice in one step: its state would go on; give every call a layer of its own"
                )
            self._stateful.add(module)
            spikes = Value(add_neurons(self, name, module, at))
            # what snnTorch's neurons give beside their spikes
            return (spikes, f"the membrane of {name}") if kind == "snntorch.Leaky" and (module.output or not module.init_hidden) else spikes
        if kind in _EACH_STEP:
            if kind != "spikingjelly.MultiStepContainer" and any(is_neuron(m) for m in module.modules()):
                raise NoiseproofError(f"layer {name} is {kind} with neurons inside, for which all steps are one: take them out")
            with self._each_step():
                return self._in_turn(name, module, Value(at))
        if kind in _KNOWN_LAYERS:
            with self._each_step():
                return Value(LAYERS[getattr(nn, type(module).__name__)](self, name, module, at))
        raise NoiseproofError(
            f"layer {name} is {kind}: no bound is known for it; known are layers of torch.nn and {', '.join(sorted(NEURONS))}"
        )

    def example(self, value: Any) -> Any:
        """Return something of the shape that a module is given at this place, for two samples."""
        if not isinstance(value, Value):
            return value.value if isinstance(value, Known) else value
        T, shape = self.steps or 1, self.nodes[value.node].shape
        lead = {"time-first": (T, 2), "batch-first": (2, T), "flattened": (2 * T,)}.get(self.layout, (2,))
        kind = next(iter(self.params.values())).dtype
        return torch.randn(*lead, *shape, generator=torch.Generator().manual_seed(0), dtype=kind).to(self.device)

    @contextlib.contextmanager
    def _each_step(self) -> Iterator[None]:
        """Let layers take single steps [B, …] where those around them take all at once."""
        layout, lead = self.layout, self.lead
        self.layout, self.lead = "step", 1
        yield
        self.layout, self.lead = layout, lead


def _traced(builder: OutsideBuilder, name: str, module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Add what the forward of a module of the user does with its inputs."""
    if hasattr(module, "reset_state"):
        raise NoiseproofError(f"layer {name} is {type(module).__name__}, which keeps state (reset_state): no bound is known for it")
    if options:
        raise NoiseproofError(f"layer {name} is called with {', '.join(options)} by name: give its inputs by position")
    forward = forward_of(name, module, len(args))
    needed, given, seen = needed_for(name, forward.graph), iter(args), dict[fx.Node, Any]()
    for node in forward.graph.nodes:
        at = f"{name}.{node.name}"
        if node.op == "output":
            with _folded(module, 2, builder.steps or 1):
                written = check_same(name, module, forward, [builder.example(a) for a in args])
            for i in written:
                builder.written(name, args[i].node)
            return fx.map_arg(node.args[0], seen.__getitem__)
        if node.op == "placeholder":
            seen[node] = next(given, None)  # those after what is given have their default
        elif node not in needed:
            continue
        elif node.op == "get_attr":
            seen[node] = _attribute(builder, name, module, str(node.target), forward.constants)
        else:
            inputs, named = fx.map_arg((node.args, node.kwargs), seen.__getitem__)
            if node.op == "call_module":
                seen[node] = builder.called(f"{name}.{node.target}", module.get_submodule(str(node.target)), inputs, named)
            elif node.op == "call_method":
                seen[node] = call_method(builder, at, str(node.target), inputs, named)
            else:
                seen[node] = call_function(builder, at, node.target, inputs, named)
    raise AssertionError("a graph of torch.fx has an output")


def _attribute(builder: Builder, name: str, module: nn.Module, target: str, constants: dict[str, Tensor]) -> Known:
    """Return a parameter or a constant tensor that a forward uses by itself."""
    owner, _, last = target.rpartition(".")
    value = constants[target] if target in constants else getattr(module.get_submodule(owner), last)
    if not isinstance(value, Tensor):
        raise NoiseproofError(f"layer {name} uses {target}, which is {type(value).__name__}: bounds are known for tensors")
    full = f"{name}.{target}"
    if full in builder.params:
        return Known(full, *builder.parameter(full))
    if isinstance(value, nn.Parameter):
        raise NoiseproofError(f"layer {name} uses {target}, a parameter that the network has under another name: use that one")
    return Known(full, value.to(builder.rounding.dtype), 0.0)
