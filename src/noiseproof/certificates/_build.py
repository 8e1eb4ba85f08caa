"""Networks → graphs. A layer that is not known is refused by its name: a bound that passed by it would prove nothing."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._checks import check_arithmetic, check_modules, check_shape, given_parameters
from noiseproof.certificates._graph import Apply, Graph, Linear, MaxPool, Neurons, Node, Op, Readout
from noiseproof.certificates._layers import LAYERS
from noiseproof.certificates._rounding import Arithmetic, Rounding
from noiseproof.errors import NoiseproofError
from noiseproof.networks import Network, SpikingNetwork
from noiseproof.neurons import Neuron
from noiseproof.neurons.equation import Constants
from noiseproof.neurons.neuron import _Spread
from noiseproof.parameters import Params


def graph_of(
    network: nn.Module,
    box: Box,
    *,
    params: Params | None = None,
    arithmetic: Arithmetic = "float32",
    dtype: torch.dtype = torch.float64,
    shape: Sequence[int] | None = None,
    proving: bool = True,
) -> Graph:
    """Return the operations of a network of noiseproof or of an adapted one, as in inference, with the box around `params`.

    `params`: other parameters than the network's own, an adapted network's under its own names too; their gradients are kept, but
    for those of the neurons. `shape`: of one input, which an adapted network does not know by itself. `proving`: False for
    training, where nothing is proved, so that hooks and the like do no harm.

    Raises `NoiseproofError` that names the layer for one that is not known, and for hooks, methods put on an object, classes above
    `Network`, and modules that stay in train mode, as what they do is not read; for parameters of half the digits, or of fewer than
    `arithmetic` has; for `params` that do not fit; for Poisson coding (a certificate holds for every draw or for none), for ε with
    latency coding, for another `shape` than the network takes or an adapted one without, and when the box selects nothing.
    """
    if not isinstance(network, Network):
        from noiseproof.certificates._outside import graph_of_adapted

        return graph_of_adapted(network, box, params=params, arithmetic=arithmetic, dtype=dtype, shape=shape, proving=proving)
    if proving:
        check_modules(network)
    if shape is not None:
        check_shape(network, shape)
    steps = _steps(network, box) if isinstance(network, SpikingNetwork) else None
    row = network.shape[1:] if isinstance(network, SpikingNetwork) and network.sequence else network.shape
    builder = Builder(network, box, params, Rounding(arithmetic, dtype), row, steps)
    builder.children("", network, 0)
    return builder.graph(_encoding(network, builder), network.bounds)


class Builder:
    """Collects the nodes of a graph; knows the parameters, the box, and the shape that every node gives."""

    def __init__(
        self, network: nn.Module, box: Box, params: Params | None, rounding: Rounding, shape: tuple[int, ...], steps: int | None
    ) -> None:
        self.params = given_parameters(network, params)
        check_arithmetic(network, self.params, rounding.arithmetic)
        self.box, self.rounding, self.steps = box, rounding, steps
        self.half_widths = box.half_widths(self.params)
        self.device = next(iter(self.params.values())).device
        first = {id(parameter): name for name, parameter in network.named_parameters()}
        for name, parameter in network.named_parameters(remove_duplicate=False):
            known = first[id(parameter)]
            if name != known and known in self.params:  # one parameter of two names
                self.params[name] = self.params[known]
                self.half_widths |= {name: self.half_widths[known]} if known in self.half_widths else {}
        self.nodes = [Node("input", None, (), tuple(shape))]
        # the dimensions before those of a row, in the tensors that the layers themselves are given: [B, …], or two for [T, B, …]
        self.lead = 1
        self._views: set[int] = set()  # nodes in the memory of their input
        self._written: list[tuple[str, int]] = []  # who writes over which node

    def graph(self, encode: Callable[[Tensor], Tensor], bounds: tuple[float, float]) -> Graph:
        """Return what was collected.

        Raises `NoiseproofError` where a layer works in place on what others take too, as they would take its result, or on the input,
        which the next step and the next call would find changed.
        """
        root: list[int] = []
        for index, node in enumerate(self.nodes):
            root.append(root[node.inputs[0]] if index in self._views else index)
        for name, at in self._written:
            if root[at] == 0:
                raise NoiseproofError(f"layer {name} works in place, on the input of the network: give it inplace=False")
            takers = [n for i, n in enumerate(self.nodes) if i not in self._views and root[at] in {root[j] for j in n.inputs}]
            if len(takers) > 1:
                others = ", ".join(sorted({n.name for n in takers} - {name})) or name
                raise NoiseproofError(f"layer {name} works in place, on what {others} takes too: give it inplace=False")
        return Graph(tuple(self.nodes), encode, bounds, self.box.eps, self.rounding.dtype, self.steps)

    def written(self, name: str, at: int) -> None:
        """Note that an operation writes over node `at`."""
        self._written.append((name, at))

    def add(self, name: str, op: Op, *inputs: int) -> int:
        """Add an operation and return its number; its shape is found by trying it on zeros."""
        shape = self.nodes[inputs[0]].shape
        if isinstance(op, Readout):
            shape = (len(_weight(op.linear)),)
        elif isinstance(op, Linear | MaxPool):
            zeros = torch.zeros(1, *shape, dtype=self.rounding.dtype, device=self.device)
            try:
                shape = tuple((op.apply(zeros, _detached(op.weight)) if isinstance(op, Linear) else op.apply(zeros)).shape[1:])
            except RuntimeError as error:
                raise NoiseproofError(f"layer {name} cannot take samples of shape {shape}: {str(error).splitlines()[0]}") from error
        self.nodes.append(Node(name, op, inputs, shape))
        return len(self.nodes) - 1

    def child(self, name: str, module: nn.Module, at: int) -> int:
        """Add a module that takes node `at`; return the node that it gives.

        Raises `NoiseproofError` for one that is not known.
        """
        found = LAYERS.get(type(module))
        if found is None:
            of_torch = sorted(kind.__name__ for kind in LAYERS if kind.__module__.startswith("torch.nn."))
            own = name.removeprefix("module.") or "network"  # as the user has it: adapt puts a network under that name
            raise NoiseproofError(
                f"layer {own} is {type(module).__name__}: no bound is known for it; known are {', '.join(of_torch)} and spiking neurons"
            )
        return found(self, name, module, at)

    def children(self, name: str, module: nn.Module, at: int) -> int:
        """Add the children of a module one after the other."""
        for part, child in named_parts(module):
            at = self.child(f"{name}.{part}" if name else part, child, at)
        return at

    def parameter(self, name: str) -> tuple[Tensor, float]:
        """Return a parameter in the dtype of the bounds, and its relative half-width.

        Raises `NoiseproofError` for what is no parameter of the network.
        """
        if name not in self.params:
            raise NoiseproofError(f"{name} is no parameter of the network, and nothing is known of what it is made from: make it one")
        return self.params[name].to(self.rounding.dtype), self.half_widths.get(name, 0.0)

    def weighted(self, name: str, module: nn.Module, apply: Apply, terms: int, channel_dims: int = 0) -> Linear:
        """Return the operation of a layer with `weight` and perhaps `bias` [C], which is followed by `channel_dims` dimensions."""
        weight, z = self.parameter(f"{name}.weight")
        if getattr(module, "bias", None) is None:
            return Linear(apply, weight, None, z, slack=self.rounding.of_sum(terms))
        bias, bias_z = self.parameter(f"{name}.bias")
        return Linear(apply, weight, bias.reshape(1, -1, *[1] * channel_dims), z, bias_z, self.rounding.of_sum(terms))

    def fixed(self, apply: Apply, terms: int = 1, weight: Tensor | None = None, bias: Tensor | None = None) -> Linear:
        """Return an operation without parameters; `weight` and `bias` are constants."""
        w, b = (None if value is None else value.to(self.rounding.dtype) for value in (weight, bias))
        return Linear(apply, w, b, slack=self.rounding.of_sum(terms) if terms > 1 or w is not None or b is not None else 0.0)

    def reshaped(self, name: str, at: int, shape: tuple[int, ...]) -> int:
        """Add another shape of the rows."""
        index = self.add(name, self.fixed(lambda a, _: a.reshape(len(a), *shape)), at)
        self._views.add(index)
        return index

    def flattened(self, name: str, start: int, end: int, at: int) -> int:
        """Add what `torch.flatten` does from dimension `start` to `end` of the tensors that the layers are given.

        Raises `NoiseproofError` where samples would be mixed.
        """
        shape, dims = self.nodes[at].shape, len(self.nodes[at].shape) + self.lead
        first, last = ((d + dims if d < 0 else d) - self.lead for d in (start, end))
        if first < 0:
            raise NoiseproofError(f"layer {name} flattens from dimension {start}, which mixes samples: flatten from {self.lead}")
        merged = math.prod(shape[first : last + 1])
        return self.reshaped(name, at, (*shape[:first], merged, *shape[last + 1 :]))

    def neurons(self, name: str, neuron: Neuron, at: int, recurrent: Linear | None = None) -> int:
        """Add a layer of neurons; the ends of its constants are found at the corners of the box of its parameters.

        Every constant of the equation is monotone in each parameter when the others are held (λ in τ, λ·a[t] in a[t], 1 − λ in
        λ), so that its least and largest values over a box of parameters lie at corners.
        """
        spread = _Spread(neuron.per, torch.zeros(1, 1, *self.nodes[at].shape))
        names = {part: f"{name}.{part}" for part, _ in neuron.named_parameters()}

        def constants(values: Mapping[str, Tensor]) -> Constants:
            return _constants(neuron, values, self.time(name), spread)

        low, high = self.ends(names, constants)
        return self.add(name, Neurons(neuron.form, low, high, recurrent, self.rounding.of_step), at)

    def time(self, name: str) -> int:
        """Return the number of steps, which a layer of neurons needs.

        Raises `NoiseproofError` for a network without time.
        """
        if self.steps is None:
            raise NoiseproofError(f"layer {name} has spiking neurons, in a network without time: adapt it with steps or sequence")
        return self.steps

    def in_arithmetic(self, value: Tensor) -> Tensor:
        """Return a value as the network's own arithmetic has it."""
        return value.detach().to({"float32": torch.float32, "float64": torch.float64}.get(self.rounding.arithmetic, value.dtype))

    def ends(self, names: Mapping[str, str], constants: Callable[[Mapping[str, Tensor]], Constants]) -> tuple[Constants, Constants]:
        """Return the least and the largest constants over the box of the parameters `names`, {part: name in the network}.

        `constants`: of the parameters by part, monotone in each; they are called in the arithmetic of the network, whose differences
        and products are monotone too, at corners that no number of the box lies beyond.
        """
        own = {part: self.in_arithmetic(self.params[name]) for part, name in names.items()}
        moving = [part for part, name in names.items() if self.half_widths.get(name, 0.0) > 0]
        corners = []
        sides = [_sides(own[part], self.box.z, outwards=self.rounding.own > 0) for part in moving]
        for chosen in itertools.product(*sides):
            corners.append(constants(own | dict(zip(moving, chosen, strict=True))))
        # an error of λ near 1 is one of 1 − λ, and a[t] multiplies it
        largest = max(1.0, float(own["a"].abs().max()) * (1 + self.box.z)) if "a" in own else 1.0
        return _hull(corners, self.rounding.dtype, self.rounding.of_step, largest)


def named_parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the children of a module by name, one that stands in two places twice: `named_children` gives it once."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def _steps(network: SpikingNetwork, box: Box) -> int:
    if network.coding == "poisson":
        raise NoiseproofError(
            "coding is 'poisson': spikes are drawn by chance, and a certificate would hold for one draw; use direct coding"
        )
    if network.coding == "latency" and box.eps:
        raise NoiseproofError(f"eps is {box.eps!r} with coding 'latency': a spike time jumps with its input; give eps 0")
    return network.shape[0] if network.sequence else network.steps


def _encoding(network: Network, builder: Builder) -> Callable[[Tensor], Tensor]:
    if not isinstance(network, SpikingNetwork):
        return lambda x: x
    if network.coding != "latency":
        return lambda x: network._in_time(x, None, None)[0]
    # a spike time is rounded, so that the last digits of x count: in the arithmetic of the network
    return lambda x: network._in_time(builder.in_arithmetic(x), None, None)[0].to(x.dtype)


def _constants(neuron: Neuron, values: Mapping[str, Tensor], steps: int, spread: _Spread) -> Constants:
    """Return the constants of a layer at other values of its parameters, in the arithmetic of the network."""
    twin = copy.deepcopy(neuron)
    for part, parameter in twin.named_parameters():
        parameter.data = values[part]
    with torch.no_grad():
        return twin.constants(steps, spread)


def _sides(value: Tensor, z: float, *, outwards: bool) -> tuple[Tensor, Tensor]:
    """Return θ(1 − z) and θ(1 + z) in the arithmetic of θ; `outwards`: rounded away from θ, so that no |θ' − θ| ≤ z|θ| lies beyond."""
    sides = []
    for sign in (-1.0, 1.0):
        side = (value.double() * (1 + sign * z)).to(value.dtype)
        for _ in range(2 if outwards else 0):  # in float64 1 ± z and the product are both rounded
            side = torch.nextafter(side, value * (1 + 2 * sign))
        sides.append(side)
    return sides[0], sides[1]


def _hull(corners: list[Constants], dtype: torch.dtype, slack: float, largest: float) -> tuple[Constants, Constants]:
    """Return the least and the largest of every constant, widened by rounding where the corners differ.

    In proportion to the larger end, and at least to `largest`, whose rounding is in 1 − λ or a[t]·(1 − λ); but not below 0.
    """
    ends: tuple[list[Any], list[Any]] = ([], [])
    for values in zip(*corners, strict=True):
        if values[0] is None or len(values) == 1:
            fixed = None if values[0] is None else values[0].to(dtype)
            low = high = fixed
        else:
            stacked = torch.stack(torch.broadcast_tensors(*values)).to(dtype)
            low, high = stacked.amin(0), stacked.amax(0)
            if torch.equal(low, high):
                high = low
            else:
                wide = slack * torch.maximum(low.abs(), high.abs()).clamp_min(largest)
                low, high = torch.where(low >= 0, (low - wide).clamp_min(0), low - wide), high + wide
        ends[0].append(low)
        ends[1].append(high)
    return Constants(*ends[0]), Constants(*ends[1])


def _weight(linear: Linear) -> Tensor:
    assert linear.weight is not None
    return linear.weight


def _detached(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.detach()
