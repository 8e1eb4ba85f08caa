"""Functions and methods of torch that the forward of a module may call, as operations of a graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noiseproof.certificates._build import Builder
from noiseproof.certificates._graph import Add, Linear
from noiseproof.certificates._layers import LAYERS, convolved, dense, same, scaled
from noiseproof.errors import NoiseproofError


@dataclass(frozen=True)
class Value:
    """What a node of the graph gives."""

    node: int


@dataclass(frozen=True)
class Known:
    """A parameter, which moves by z, or a constant (z 0)."""

    name: str
    value: Tensor
    z: float


@dataclass(frozen=True)
class Batch:
    """A size in the dimensions before those of a row: of the batch, or of time."""

    dim: int


@dataclass(frozen=True)
class Call:
    """Where a function is called: the builder, and the name of the call in the network."""

    builder: Builder
    name: str

    def node(self, a: Any) -> int:
        """Return the node that gives a; parameters and constants have none."""
        if not isinstance(a, Value):
            what = f"the parameter or constant {a.name}" if isinstance(a, Known) else type(a).__name__
            raise self.refuse(f"is given {what}: bounds are known for what is computed from the input")
        return a.node

    def shape(self, a: Value) -> tuple[int, ...]:
        return self.builder.nodes[self.node(a)].shape

    def linear(self, a: Value, apply: Any, weight: Tensor | None = None, terms: int = 1) -> Value:
        return Value(self.builder.add(self.name, self.builder.fixed(apply, terms, weight), self.node(a)))

    def layer(self, module: nn.Module, a: Value) -> Value:
        return Value(LAYERS[type(module)](self.builder, self.name, module, self.node(a)))

    def refuse(self, why: str) -> NoiseproofError:
        return NoiseproofError(f"{self.name}: {why}")

    def row_dims(self, a: Value, dims: Any) -> tuple[int, ...]:
        """Return dimensions of the tensor that the module sees as negative ones of a row."""
        rank = len(self.shape(a))
        found = tuple(d if d < 0 else d - self.builder.lead - rank for d in ((dims,) if isinstance(dims, int) else tuple(dims)))
        if not found or any(not -rank <= d < 0 for d in found):
            raise self.refuse(f"dimensions {dims} are not those of one sample")
        return found

    def fitting(self, a: Value, known: Known | float) -> tuple[Tensor, float]:
        """Return a constant or parameter with the dimensions of a row, and how far it moves."""
        shape = self.shape(a)
        value = (
            known.value if isinstance(known, Known) else torch.tensor(known, dtype=self.builder.rounding.dtype, device=self.builder.device)
        )
        z = known.z if isinstance(known, Known) else 0.0
        if not bool(torch.isfinite(value).all()):
            raise self.refuse("a constant is NaN or infinite")
        sizes = [1] * (len(shape) + 1 - value.ndim) + list(value.shape)
        # another dimension in front would be that of the samples
        if len(sizes) > len(shape) + 1 or torch.broadcast_shapes(tuple(sizes), (1, *shape)) != (1, *shape):
            raise self.refuse(f"a constant of shape {tuple(value.shape)} does not fit one sample of shape {shape}")
        return value.reshape(sizes), z


def call_function(builder: Builder, name: str, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Add what a function does; return a `Value`, or a number.

    Raises `NoiseproofError` that names a function that is not known.
    """
    return _call(builder, name, FUNCTIONS.get(function), getattr(function, "__name__", str(function)), args, options)


def call_method(builder: Builder, name: str, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Add what a method of a tensor does, as `call_function`."""
    return _call(builder, name, METHODS.get(method), f"Tensor.{method}", args, options)


def _call(builder: Builder, name: str, found: Any, what: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if all(isinstance(a, int | float | bool) for a in args) and args and found in _PLAIN:
        return _PLAIN[found](*args)
    if found is None:
        known = ", ".join(sorted({getattr(f, "__name__", str(f)) for f in FUNCTIONS} | {f"Tensor.{m}" for m in METHODS}))
        raise NoiseproofError(f"{name} calls {what}: no bound is known for it; known are {known}")
    try:
        return found(Call(builder, name), *args, **options)
    except (TypeError, RuntimeError, IndexError, AttributeError) as error:
        reason = str(error).splitlines()[0]
        raise NoiseproofError(f"{name} calls {what} in a way for which no bound is known: {reason}") from error


def _relu(call: Call, input: Value, inplace: bool = False) -> Value:
    return call.layer(nn.ReLU(inplace), input)


def _relu_in_place(call: Call, input: Value) -> Value:
    return _relu(call, input, True)


def _flatten(call: Call, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    return Value(call.builder.flattened(call.name, start_dim, end_dim, call.node(input)))


def _view(call: Call, input: Value, *shape: Any) -> Value:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    before, lead = call.shape(input), call.builder.lead
    kept, rest = sizes[:lead], list(sizes[lead:])
    whole = math.prod(before)
    if -1 in rest:
        others = math.prod(size for size in rest if size != -1)
        rest[rest.index(-1)] = whole // others
    in_front = [isinstance(size, Batch) and size.dim == i for i, size in enumerate(kept)]
    # −1 in front is the batch where the rest is one whole sample
    if not (all(in_front) or (lead == 1 and kept == (-1,))) or any(isinstance(size, Batch) for size in rest) or math.prod(rest) != whole:
        raise call.refuse(f"shape {sizes} mixes samples of shape {before}, or cannot be seen to keep them: give (x.size(0), …)")
    return Value(call.builder.reshaped(call.name, input.node, tuple(rest)))


def _unsqueeze(call: Call, input: Value, dim: int) -> Value:
    shape = call.shape(input)
    at = dim + len(shape) + 1 if dim < 0 else dim - call.builder.lead
    if not 0 <= at <= len(shape):
        raise call.refuse(f"dimension {dim} is not one of a sample")
    return Value(call.builder.reshaped(call.name, input.node, (*shape[:at], 1, *shape[at:])))


def _squeeze(call: Call, input: Value, dim: int) -> Value:
    shape, at = call.shape(input), call.row_dims(input, dim)[0] + len(call.shape(input))
    if shape[at] != 1:
        return input
    return Value(call.builder.reshaped(call.name, input.node, (*shape[:at], *shape[at + 1 :])))


def _size(call: Call, input: Value, dim: int | None = None) -> Any:
    sizes = (*(Batch(i) for i in range(call.builder.lead)), *call.shape(input))
    return sizes if dim is None else sizes[dim]


def _getattr(call: Call, input: Any, name: str) -> Any:
    if name == "shape" and isinstance(input, Value):
        return _size(call, input)
    raise call.refuse(f"no bound is known for what it reads, .{name}")


def _getitem(call: Call, values: Any, index: Any) -> Any:
    if isinstance(values, tuple) and isinstance(index, int | slice):
        return values[index]
    raise call.refuse("no bound is known for parts of a tensor")


def _add(call: Call, a: Any, b: Any) -> Value:
    if isinstance(a, Value) and isinstance(b, Value):
        if call.shape(a) != call.shape(b):
            raise call.refuse(f"adds samples of shapes {call.shape(a)} and {call.shape(b)}: they must be the same")
        return Value(call.builder.add(call.name, Add(call.builder.rounding.of_sum(1)), a.node, b.node))
    x, known = _with_constant(call, a, b)
    bias, z = call.fitting(x, known)
    return Value(call.builder.add(call.name, Linear(same, None, bias, 0.0, z, call.builder.rounding.of_sum(1)), x.node))


def _add_in_place(call: Call, a: Any, b: Any) -> Value:
    if not isinstance(a, Value):
        raise call.refuse("writes over a parameter or a constant")
    call.builder.written(call.name, a.node)
    return _add(call, a, b)


def _negative(call: Call, a: Value) -> Value:
    return _mul(call, a, -1.0)


def _sub(call: Call, a: Any, b: Any) -> Value:
    minus = _negative(call, b) if isinstance(b, Value) else Known(b.name, -b.value, b.z) if isinstance(b, Known) else -b
    return _add(call, a, minus)


def _mul(call: Call, a: Any, b: Any) -> Value:
    x, known = _with_constant(call, a, b)
    weight, z = call.fitting(x, known)
    return Value(call.builder.add(call.name, Linear(scaled, weight, None, z, slack=call.builder.rounding.of_sum(1)), x.node))


def _div(call: Call, a: Any, b: Any) -> Value:
    if not isinstance(b, int | float) or b == 0:
        raise call.refuse("bounds are known for division by a number")
    return _mul(call, a, 1.0 / b)


def _with_constant(call: Call, a: Any, b: Any) -> tuple[Value, Known | float]:
    for x, known in ((a, b), (b, a)):
        if isinstance(x, Value) and isinstance(known, Known | int | float):
            return x, known
    raise call.refuse("bounds are known for a tensor and a constant or parameter, or for the sum of two tensors")


def _max_pool(call: Call, input: Value, *args: Any, **options: Any) -> Value:
    return call.layer(nn.MaxPool2d(*args, **options), input)


def _average_pool(call: Call, input: Value, *args: Any, **options: Any) -> Value:
    return call.layer(nn.AvgPool2d(*args, **options), input)


def _adaptive_average_pool(call: Call, input: Value, output_size: Any) -> Value:
    return call.layer(nn.AdaptiveAvgPool2d(output_size), input)


def _mean(call: Call, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    if dim is None:
        raise call.refuse("takes the mean over the batch too: give the dimensions")
    dims = call.row_dims(input, dim)
    return call.linear(input, lambda a, _: a.mean(dims, keepdim), terms=math.prod(call.shape(input)[d] for d in dims))


def _dropout(call: Call, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False) -> Value:
    if training:
        raise call.refuse("F.dropout draws by chance in inference too: give training=self.training")
    return input


def _linear(call: Call, input: Value, weight: Known, bias: Known | None = None) -> Value:
    return _weighted(call, input, dense, weight, bias, weight.value.shape[1], 0)


def _conv2d(
    call: Call,
    input: Value,
    weight: Known,
    bias: Known | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    if call.builder.lead != 1 or len(call.shape(input)) != 3:
        raise call.refuse(f"takes samples of shape {call.shape(input)}: bounds are known for [batch, channels, height, width]")
    terms = math.prod(weight.value.shape[1:])
    return _weighted(call, input, convolved(2, stride, padding, dilation, groups), weight, bias, terms, 2)


def _weighted(call: Call, input: Value, apply: Any, weight: Known, bias: Known | None, terms: int, dims: int) -> Value:
    added = None if bias is None else bias.value.reshape(1, -1, *[1] * dims)
    op = Linear(apply, weight.value, added, weight.z, 0.0 if bias is None else bias.z, call.builder.rounding.of_sum(terms))
    return Value(call.builder.add(call.name, op, call.node(input)))


def _cat(call: Call, tensors: Any, dim: int = 0) -> Value:
    """Pad every part with zeros to the whole, and add them up."""
    shapes = [call.shape(part) for part in tensors]
    axis = call.row_dims(tensors[0], dim)[0]
    whole, before, total = sum(shape[axis] for shape in shapes), 0, None
    for part, shape in zip(tensors, shapes, strict=True):
        sides = [0, 0] * (-axis - 1) + [before, whole - before - shape[axis]]
        padded = call.linear(part, lambda a, _, sides=sides: F.pad(a, sides))
        total = padded if total is None else Value(call.builder.add(call.name, Add(), total.node, padded.node))
        before += shape[axis]
    assert total is not None
    return total


def _nothing(call: Call, input: Value) -> Value:
    return input


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    F.relu: _relu,
    torch.relu: _relu,
    torch.relu_: _relu_in_place,
    torch.flatten: _flatten,
    torch.reshape: _view,
    torch.unsqueeze: _unsqueeze,
    torch.squeeze: _squeeze,
    torch.cat: _cat,
    torch.add: _add,
    operator.add: _add,
    operator.iadd: _add_in_place,
    torch.sub: _sub,
    operator.sub: _sub,
    torch.mul: _mul,
    operator.mul: _mul,
    torch.div: _div,
    operator.truediv: _div,
    operator.neg: _negative,
    torch.neg: _negative,
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.avg_pool2d: _average_pool,
    F.adaptive_avg_pool2d: _adaptive_average_pool,
    torch.mean: _mean,
    F.dropout: _dropout,
    F.linear: _linear,
    F.conv2d: _conv2d,
    getattr: _getattr,
    operator.getitem: _getitem,
}
METHODS: dict[str, Callable[..., Any]] = {
    "relu": _relu,
    "relu_": _relu_in_place,
    "flatten": _flatten,
    "view": _view,
    "reshape": _view,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "size": _size,
    "mean": _mean,
    "add": _add,
    "add_": _add_in_place,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "contiguous": _nothing,
}
# the same of sizes, which are numbers
_PLAIN: dict[Any, Callable[..., Any]] = {_add: operator.add, _sub: operator.sub, _mul: operator.mul, _div: operator.truediv}
