"""Converters around the tiles, without touching the network: while they are active, products with the chip's weights are theirs.

    per tile, for each input vector x and matrix w:  k = round(x/x_max·L_in);  i = (k/L_in)·w/unit + σ·ξ;
    y += unit·x_max·(range/L_out)·clamp(round(i·L_out/range), ±L_out)

x_max is the largest |input| of this vector in this tile, so that no result depends on what else is in a batch; L = 2^(b−1) − 1.
Output noise σ·ξ is drawn as the products come: a chip is the same in every measurement, which are made in blocks of one size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import pad
from torch.overrides import TorchFunctionMode

from noiseproof.errors import NoiseproofError
from noiseproof.noise._devices import Reading
from noiseproof.noise.read import Read
from noiseproof.randomness import draw_normal, generator

TINY = 1e-30  # full input of a vector of zeros
CHUNK = 1 << 18  # numbers of unfolded inputs, or of outputs, at a time: about what the second-level cache holds


@contextlib.contextmanager
def converting(params: Reading, read: Read) -> Iterator[None]:
    """Put the converters of `read` around all products with the matrices of `params` that were read from devices.

    Known are linear, convolution and matrix products, by whatever view of a matrix or a masked copy of it. Recurrent layers of
    ours are computed step by step meanwhile, where their product with the recurrent matrix can be seen.

    Raises `NoiseproofError` at the end when a matrix took part in no product that was seen.
    """
    from noiseproof.neurons.kernels import using

    mode = _Converters(params, read)
    with using("reference"), mode:
        yield
    mode.check()


class _Converters(TorchFunctionMode):
    def __init__(self, params: Reading, read: Read) -> None:
        super().__init__()
        self.params, self.read = params, read
        self.stream = generator("output noise", params.seed)  # goes on from product to product
        self.known: dict[StorageWeakRef, tuple[str, Tensor | None]] = {}
        for name in params.units:
            self._know(params[name], name)
        self.met: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            return _PRODUCTS[func](self, func, *args, **kwargs)
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and (func in _COPIES or func in _MASKS):
            self._follow(out, func, args)
        elif func in _OTHER_PRODUCTS:
            self._refuse(func, args)
        return out

    def check(self) -> None:
        """Raise `NoiseproofError` when a matrix was not met."""
        missed = [name for name in self.params.units if name not in self.met]
        if missed:
            raise NoiseproofError(
                f"converters saw no product with {', '.join(missed)}: the layer computes it out of sight, or not at all; "
                "leave it out of parameters, or do without dac_bits and adc_bits"
            )

    def name_of(self, value: Any) -> str | None:
        """Return the name of the parameter whose memory a tensor shares."""
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return None
        try:
            found = self.known.get(StorageWeakRef(value.untyped_storage()))
        except (NotImplementedError, RuntimeError):  # a tensor of functorch has no memory
            return None
        return None if found is None else found[0]

    def _know(self, value: Tensor, name: str) -> None:
        self.known[StorageWeakRef(value.untyped_storage())] = (name, value)

    def _follow(self, out: Tensor, func: Any, args: tuple[Any, ...]) -> None:
        """Remember a copy of a matrix, masked or of another type or shape, for as long as it lives."""
        names = [self.name_of(a) for a in args]
        name = next((n for n in names if n is not None), None)
        if name is None or out.numel() != self.params[name].numel() or self.name_of(out) is not None:
            return
        if func in _MASKS and not any(map(_is_mask, args)):
            return
        self.known = {ref: found for ref, found in self.known.items() if not ref.expired()}
        self.known[StorageWeakRef(out.untyped_storage())] = (name, None)

    def _refuse(self, func: Any, args: tuple[Any, ...]) -> None:
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else (arg,))]
        for name in filter(None, map(self.name_of, flat)):
            raise NoiseproofError(
                f"{name} is used in {getattr(func, '__name__', func)}: converters know linear, convolution and matrix products; "
                "leave it out of parameters, or do without dac_bits and adc_bits"
            )

    def _instead(self, exact: Callable[[], Tensor], converted: Callable[[], Tensor], *inputs: Tensor | None) -> Tensor:
        """Return the converted product; where gradients are wanted, with those of the exact one: straight through."""
        if torch.is_grad_enabled() and any(value is not None and value.requires_grad for value in inputs):
            out = exact()
            with torch.no_grad():
                change = converted() - out
            return out + change
        return converted()

    def product(self, matrix: Tensor, name: str, group: slice = slice(None)) -> Callable[..., Tensor]:
        """Return what multiplies vectors x [..., K] with a matrix [O, K]; `group`: the outputs of the parameter that these are."""
        self.met.add(name)
        units, length = self._tiles(matrix, name, group)
        edges = [*range(0, matrix.shape[1], length), matrix.shape[1]]
        parts = [slice(first, last) for first, last in pairwise(edges)]
        steps_in, steps_out = _steps(self.read.dac_bits), _steps(self.read.adc_bits)
        # what one step of the ADC stands for, in inputs relative to the full one (or in steps of the DAC) times the weight
        per_step = [self.read.adc_range * (steps_in or 1) / steps_out * torch.where(u > 0, u, 1) for u in units] if steps_out else units

        def times(x: Tensor, signed: bool = True, out: Tensor | None = None) -> Tensor:
            out = x.new_empty(*x.shape[:-1], len(matrix)) if out is None else out
            for number, (part, step) in enumerate(zip(parts, per_step, strict=True)):
                inputs, full = self._full(x[..., part], signed)
                inputs = (inputs * ((steps_in or 1) / full)).round_() if steps_in else inputs / full
                y = torch.matmul(inputs, matrix[:, part].mT)
                if self.read.output_noise:
                    y = torch.addcmul(y, draw_normal(y, self.stream), units[number], value=self.read.output_noise * (steps_in or 1))
                if steps_out:
                    y = y.div_(step).round_().clamp_(-steps_out, steps_out).mul_(step)
                back = full / (steps_in or 1)
                if number == 0:
                    torch.mul(y, back, out=out)
                else:
                    out.addcmul_(y, back)
            return out

        return times

    def _full(self, x: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
        """Return vectors [..., K] limited to the range of the DAC, and what counts as full input for each, [..., 1]."""
        fixed = self.read.input_range
        if fixed:
            return x.clamp(-fixed, fixed), x.new_full((1,), fixed)
        largest = x.amax(-1, keepdim=True)
        largest = torch.maximum(largest, -x.amin(-1, keepdim=True)) if signed else largest
        return x, largest.clamp_(min=TINY)

    def _tiles(self, matrix: Tensor, name: str, group: slice) -> tuple[Tensor, int]:
        """Return the units of the outputs, by tile along the inputs [tiles, O], and the inputs of a tile.

        Raises `NoiseproofError` for a part of the parameter, and for a matrix used the other way round where columns are scaled.
        """
        units, rows, columns = self.params.units[name], self.params.rows, self.params.columns
        shape = (len(units), self.params[name].numel() // len(units))
        if group != slice(None) or _lies_like(matrix, shape):
            return units[group].mT, rows
        if not _lies_like(matrix.mT, shape):
            raise NoiseproofError(f"{name} is used in parts: converters know products with whole matrices; leave it out of parameters")
        by_tile = units[::columns]
        if not all(torch.equal(part, part[:1].expand_as(part)) for part in units.split(columns)):
            raise NoiseproofError(f"{name} is used transposed: its columns are scaled one by one, so give mapping=tile")
        return by_tile.repeat_interleave(rows, 1)[:, : shape[1]], columns


def _is_mask(value: Any) -> bool:
    """Whether a tensor is zeros and ones; anything else would change what a device stands for."""
    return isinstance(value, Tensor) and value.ndim > 0 and bool(((value == 0) | (value == 1)).all())


def _lies_like(matrix: Tensor, shape: tuple[int, int]) -> bool:
    """Whether a matrix is [out, in] as it was mapped to tiles, and not transposed: a square one shows it by its strides alone."""
    if tuple(matrix.shape) != shape:
        return False
    return 1 in shape or matrix.stride(0) >= matrix.stride(1)


def _steps(bits: int) -> int:
    """Return the steps on each side of zero; 0 for no converter."""
    return max(1, 2 ** (bits - 1) - 1) if bits else 0


def _linear(mode: _Converters, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    name = mode.name_of(weight)
    if name is None:
        return func(input, weight, bias)

    def converted() -> Tensor:
        out = mode.product(weight, name)(input)
        return out if bias is None else out + bias

    return mode._instead(lambda: func(input, weight, bias), converted, input, weight)


def _matmul(mode: _Converters, func: Any, a: Tensor, b: Tensor, **options: Any) -> Tensor:
    return _product(mode, lambda: func(a, b, **options), a, b, options)


def _rmatmul(mode: _Converters, func: Any, b: Tensor, a: Tensor) -> Tensor:
    return _product(mode, lambda: func(b, a), a, b, {})


def _addmm(
    mode: _Converters, func: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1, **options: Any
) -> Tensor:
    if mode.name_of(a) is None and mode.name_of(b) is None:
        return func(bias, a, b, beta=beta, alpha=alpha, **options)
    product = _product(mode, lambda: torch.matmul(a, b), a, b, options)
    return alpha * product + (beta * bias if beta else 0)


def _product(mode: _Converters, exact: Callable[[], Tensor], a: Tensor, b: Tensor, options: dict[str, Any]) -> Tensor:
    """Return a @ b where one of the two is a matrix of the chip."""
    right, left = mode.name_of(b), mode.name_of(a)
    if right is None and left is None:
        return exact()
    name = right or left
    assert name is not None
    if any(value is not None for value in options.values()):
        raise NoiseproofError(f"{name} is used in a product with {', '.join(options)}: converters know it without these")

    def converted() -> Tensor:
        if right is not None:
            return mode.product(_one(b, name).mT, name)(a)
        times = mode.product(_one(a, name), name)
        return times(b) if b.ndim == 1 else times(b.mT).mT

    return mode._instead(exact, converted, a, b)


def _one(matrix: Tensor, name: str) -> Tensor:
    """Return the one matrix that is shown [B, K, O] for every sample of a batch."""
    if matrix.ndim == 2:
        return matrix
    if matrix.ndim == 3 and (len(matrix) == 1 or matrix.stride(0) == 0):
        return matrix[0]
    raise NoiseproofError(f"{name} is used as several matrices: converters know products with whole matrices; leave it out of parameters")


def _convolution(
    mode: _Converters, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    def exact() -> Tensor:
        return func(input, weight, bias, stride, padding, dilation, groups)

    name = mode.name_of(weight)
    if name is None:
        return exact()
    if weight.shape != mode.params[name].shape:
        raise NoiseproofError(f"{name} is used in parts: converters know products with whole matrices; leave it out of parameters")

    def converted() -> Tensor:
        x = input if input.ndim == weight.ndim else input[None]
        patches = _Patches(x, weight, stride, padding, dilation)
        outputs, per_group, signed = len(weight) // groups, weight.shape[1], bool((x < 0).any())
        matrix = weight.flatten(1)
        # outputs lie side by side, as in channels_last, in which all that follows is fast
        out = x.new_empty(len(x), patches.places, len(weight))
        for g in range(groups):
            mine = slice(g * outputs, (g + 1) * outputs)
            times = mode.product(matrix[mine], name, mine)
            for samples, vectors in patches.vectors(g * per_group, (g + 1) * per_group):
                times(vectors, signed, out[samples, :, mine])
        out = out if bias is None else out.add_(bias)
        out = out.unflatten(1, patches.shape).movedim(-1, 1)
        out = out if x.is_contiguous(memory_format=torch.channels_last) else out.contiguous()
        return out if input.ndim == weight.ndim else out[0]

    return mode._instead(exact, converted, input, weight)


class _Patches:
    """What a convolution multiplies: the inputs [B, C, *S] under its kernel at each place, as vectors [B, places, C·prod(kernel)]."""

    def __init__(self, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> None:
        self.outputs, self.kernel = len(weight), tuple(weight.shape[2:])
        dims = len(self.kernel)
        self.stride, self.dilation = _each(stride, dims), _each(dilation, dims)
        reach = [d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True)]
        if padding == "same":
            sides = [(r // 2, r - r // 2) for r in reach]
        else:
            sides = [(p, p) for p in _each(0 if padding == "valid" else padding, dims)]
        x = x.contiguous()
        self.x = pad(x, [side for pair in reversed(sides) for side in pair]) if any(map(any, sides)) else x
        self.shape = tuple((s - r - 1) // step + 1 for s, r, step in zip(self.x.shape[2:], reach, self.stride, strict=True))
        self.places = torch.Size(self.shape).numel()

    def vectors(self, first: int, last: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield the vectors of the channels from `first` to `last`, a few samples at a time; places lie side by side, which is faster."""
        x = self.x[:, first:last]
        size = (last - first) * torch.Size(self.kernel).numel()
        batch, channel, *inner = x.stride()
        taps = [s * d for s, d in zip(inner, self.dilation, strict=True)]
        places = [s * d for s, d in zip(inner, self.stride, strict=True)]
        view = x.as_strided((len(x), x.shape[1], *self.kernel, *self.shape), (batch, channel, *taps, *places), x.storage_offset())
        at_once = max(1, CHUNK // max(1, max(size, self.outputs) * self.places))
        for start in range(0, len(x), at_once):
            samples = slice(start, start + at_once)
            yield samples, view[samples].reshape(-1, size, self.places).mT


def _each(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


_PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    torch.nn.functional.linear: _linear,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    **dict.fromkeys((torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d), _convolution),
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, torch.mv), _matmul),
    **dict.fromkeys((Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__), _matmul),
    Tensor.__rmatmul__: _rmatmul,
    **dict.fromkeys((torch.addmm, torch.baddbmm, torch.addmv, Tensor.addmm, Tensor.baddbmm, Tensor.addmv), _addmm),
}
# what gives a matrix again, in other memory, of another type or shape; and what does where one of the two is a mask
_COPIES = {
    torch.clone, Tensor.clone, Tensor.contiguous, Tensor.to, Tensor.float, Tensor.double, torch.reshape, Tensor.reshape,
    torch.flatten, Tensor.flatten,
}  # fmt: skip
_MASKS = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__}
_OTHER_PRODUCTS = {
    torch.einsum, torch.functional.einsum, torch.tensordot, torch.functional.tensordot, torch.bilinear, torch.nn.functional.bilinear,
    torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d, torch.rnn_tanh, torch.rnn_relu, torch.lstm, torch.gru,
    torch.rnn_tanh_cell, torch.rnn_relu_cell, torch.lstm_cell, torch.gru_cell, torch.nn.functional.multi_head_attention_forward,
    torch.nn.functional.embedding,
}  # fmt: skip
