"""What every known layer of `torch.nn` and of noiseproof adds to a graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noiseproof.certificates._graph import Add, Apply, Linear, MaxPool, Readout, ReLU
from noiseproof.errors import NoiseproofError
from noiseproof.networks import _spiking as spiking
from noiseproof.networks._base import ChannelsLast, Normalise
from noiseproof.networks._residual import ImageMean, PaddedShortcut
from noiseproof.neurons import ALIF, DLIF, IF, LIF, Recurrent

if TYPE_CHECKING:
    from noiseproof.certificates._build import Builder

AddLayer = Callable[["Builder", str, Any, int], int]


def dense(a: Tensor, weight: Tensor | None) -> Tensor:
    """Return a·Wᵀ, over the last dimension."""
    assert weight is not None
    return F.linear(a, weight)


def scaled(a: Tensor, weight: Tensor | None) -> Tensor:
    """Return a·W, element by element."""
    return a if weight is None else a * weight


def same(a: Tensor, weight: Tensor | None) -> Tensor:
    """Return a: what only adds a bias."""
    return a


# --- layers of torch.nn


def check_rows(builder: Builder, name: str, module: nn.Module, at: int, dims: int) -> None:
    """Raise `NoiseproofError` unless a layer takes rows of so many dimensions: torch reads the batch as channels where one is missing."""
    shape = builder.nodes[at].shape
    if len(shape) != dims or builder.lead != 1:
        given = f"[{'batch' if builder.lead == 1 else 'time, batch'}, {', '.join(map(str, shape))}]"
        raise NoiseproofError(
            f"layer {name} is {type(module).__name__} and takes {given}: bounds are known for one dimension of samples and {dims} behind it"
        )


def _linear(builder: Builder, name: str, module: nn.Module, at: int) -> int:
    return builder.add(name, builder.weighted(name, module, dense, module.in_features), at)  # pyright: ignore[reportArgumentType]


def convolved(dims: int, *where: Any) -> Apply:
    """Return a convolution of so many dimensions; `where`: stride, padding, dilation, groups."""
    function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]

    def apply(a: Tensor, weight: Tensor | None) -> Tensor:
        assert weight is not None
        return function(a, weight, None, *where)

    return apply


def _convolution(dims: int) -> AddLayer:
    def add(builder: Builder, name: str, module: Any, at: int) -> int:
        check_rows(builder, name, module, at, dims + 1)
        if module.padding_mode != "zeros":
            raise NoiseproofError(f"layer {name} has padding_mode {module.padding_mode!r}: bounds are known for 'zeros' alone")
        apply = convolved(dims, module.stride, module.padding, module.dilation, module.groups)
        return builder.add(name, builder.weighted(name, module, apply, math.prod(module.weight.shape[1:]), dims), at)

    return add


def _batch_norm(dims: int | None) -> AddLayer:
    def add(builder: Builder, name: str, module: Any, at: int) -> int:
        shape = builder.nodes[at].shape
        # BatchNorm1d takes [B, C] and [B, C, L]
        check_rows(builder, name, module, at, min(len(shape), 2) if dims is None else dims + 1)
        if module.running_var is None:
            raise NoiseproofError(f"layer {name} has no running statistics: batch norm over the batch itself ties samples together")
        per_channel = (1, -1, *[1] * (len(shape) - 1))
        std = torch.sqrt(module.running_var.to(builder.rounding.dtype) + module.eps)
        centred = builder.add(name, builder.fixed(same, bias=-module.running_mean.reshape(per_channel)), at)
        if not module.affine:
            return builder.add(name, builder.fixed(scaled, weight=(1 / std).reshape(per_channel)), centred)
        (weight, z), (bias, bias_z) = builder.parameter(f"{name}.weight"), builder.parameter(f"{name}.bias")
        slack = builder.rounding.of_sum(1)
        return builder.add(name, Linear(scaled, (weight / std).reshape(per_channel), bias.reshape(per_channel), z, bias_z, slack), centred)

    return add


def _average_pool(builder: Builder, name: str, module: Any, at: int) -> int:
    check_rows(builder, name, module, at, 3)
    if (module.divisor_override or 1) < 0:
        raise NoiseproofError(f"layer {name} has divisor_override {module.divisor_override}: give a positive one")
    own = (module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad, module.divisor_override)
    return builder.add(name, builder.fixed(lambda a, _: F.avg_pool2d(a, *own), math.prod(_pair(module.kernel_size))), at)


def _adaptive_average_pool(builder: Builder, name: str, module: Any, at: int) -> int:
    check_rows(builder, name, module, at, 3)
    # no window is larger than the whole image
    size = module.output_size
    return builder.add(name, builder.fixed(lambda a, _: F.adaptive_avg_pool2d(a, size), math.prod(builder.nodes[at].shape[1:])), at)


def _max_pool(builder: Builder, name: str, module: Any, at: int) -> int:
    check_rows(builder, name, module, at, 3)
    if module.return_indices:
        raise NoiseproofError(f"layer {name} returns indices: no bound is known for them")
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    padding, dilation = _pair(module.padding), _pair(module.dilation)

    def apply(a: Tensor) -> Tensor:
        return F.max_pool2d(a, kernel, stride, padding, dilation, module.ceil_mode)

    def windows(a: Tensor) -> Tensor:
        out = apply(a)
        pads = []
        for axis in (1, 0):
            # as far as the last window reaches; with ceil_mode beyond the padding
            reach = (out.shape[2 + axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
            pads += [padding[axis], max(reach - a.shape[2 + axis] - padding[axis], 0)]
        padded = F.pad(a, pads, value=-torch.inf) if any(pads) else a
        found = F.unfold(padded, kernel, dilation=dilation, stride=stride)
        return found.reshape(len(a), a.shape[1], math.prod(kernel), *out.shape[2:]).movedim(2, -1)

    return builder.add(name, MaxPool(apply, windows), at)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    first, second = value if isinstance(value, tuple) else (value, value)
    return first, second


def _relu(builder: Builder, name: str, module: Any, at: int) -> int:
    if module.inplace:
        builder.written(name, at)
    return builder.add(name, ReLU(), at)


def _flatten(builder: Builder, name: str, module: Any, at: int) -> int:
    return builder.flattened(name, module.start_dim, module.end_dim, at)


def _nothing(builder: Builder, name: str, module: nn.Module, at: int) -> int:
    """Add nothing: the identity, dropout in inference, another layout in memory."""
    return at


def _pad(builder: Builder, name: str, module: Any, at: int) -> int:
    check_rows(builder, name, module, at, 3)
    if getattr(module, "value", 0) != 0:
        raise NoiseproofError(f"layer {name} pads with {module.value}: bounds are known for padding with 0")
    return builder.add(name, builder.fixed(lambda a, _: module(a)), at)


def _children(builder: Builder, name: str, module: nn.Module, at: int) -> int:
    return builder.children(name, module, at)


# --- layers of noiseproof


def _normalise(builder: Builder, name: str, module: Any, at: int) -> int:
    scale = 1 / module.std.to(builder.rounding.dtype)
    shape = builder.nodes[at].shape
    per_channel = (1, -1, 1, 1) if module.std.ndim == 3 else (1, -1) if len(shape) == 1 else (1, *[1] * (len(shape) - 1), -1)
    centred = builder.add(name, builder.fixed(same, bias=-module.mean.reshape(per_channel)), at)
    return builder.add(name, builder.fixed(scaled, weight=scale.reshape(per_channel)), centred)


def _residual(builder: Builder, name: str, module: Any, at: int) -> int:
    branches = (builder.child(f"{name}.{part}", getattr(module, part), at) for part in ("body", "shortcut"))
    return builder.child(f"{name}.out", module.out, builder.add(name, Add(builder.rounding.of_sum(1)), *branches))


def _image_mean(builder: Builder, name: str, module: nn.Module, at: int) -> int:
    return builder.add(name, builder.fixed(lambda a, _: module(a), math.prod(builder.nodes[at].shape[-2:])), at)


def _neurons(builder: Builder, name: str, module: Any, at: int) -> int:
    return builder.neurons(name, module, at)


def _recurrent(builder: Builder, name: str, module: Any, at: int) -> int:
    weight, z = builder.parameter(f"{name}.weight")
    masked = weight * module.mask.to(weight.dtype)
    if LAYERS.get(type(module.neuron)) is not _neurons:
        raise NoiseproofError(f"layer {name}.neuron is {type(module.neuron).__name__}: no bound is known for these neurons")
    own = Linear(dense, masked, None, z, slack=builder.rounding.of_sum(len(weight)))
    return builder.neurons(f"{name}.neuron", module.neuron, at, own)


def _readout(builder: Builder, name: str, module: Any, at: int) -> int:
    # "max" rounds the leak, its product and a sum at every step; the others round one sum over all steps
    rounded = (3 if module.how == "max" else 1) * (builder.steps or 0)
    linear = builder.weighted(name, module, dense, module.in_features + rounded)
    return builder.add(name, Readout(linear, module.how, module.leak), at)


LAYERS: dict[type, AddLayer] = {
    nn.Linear: _linear,
    nn.Conv1d: _convolution(1),
    nn.Conv2d: _convolution(2),
    nn.Conv3d: _convolution(3),
    nn.BatchNorm1d: _batch_norm(None),
    nn.BatchNorm2d: _batch_norm(2),
    nn.BatchNorm3d: _batch_norm(3),
    nn.AvgPool2d: _average_pool,
    nn.AdaptiveAvgPool2d: _adaptive_average_pool,
    nn.MaxPool2d: _max_pool,
    nn.ReLU: _relu,
    nn.Flatten: _flatten,
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Dropout1d: _nothing,
    nn.Dropout2d: _nothing,
    nn.Dropout3d: _nothing,
    nn.ZeroPad2d: _pad,
    nn.ConstantPad2d: _pad,
    nn.Sequential: _children,
    Normalise: _normalise,
    ChannelsLast: _nothing,
    PaddedShortcut: _pad,
    ImageMean: _image_mean,
    spiking.SequenceDropout: _nothing,
    spiking.Residual: _residual,
    spiking.Readout: _readout,
    IF: _neurons,
    LIF: _neurons,
    DLIF: _neurons,
    ALIF: _neurons,
    Recurrent: _recurrent,
}
