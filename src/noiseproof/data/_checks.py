"""Data from outside is checked once, here: numbers, labels, lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noiseproof.errors import NoiseproofError, require

if TYPE_CHECKING:
    from torch import Tensor


def as_tensor(value: Any, field: str) -> Tensor:
    """Return a CPU tensor of `value` (tensor, array, number or nested list), detached; arrays are copied."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    try:
        return torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise NoiseproofError(f"{field} is {type(value).__name__}: it makes no tensor ({reason}); give numbers of one shape") from None


def as_samples(value: Any, field: str) -> Tensor:
    """Return `value` as float32, or uint8 where it is that, [N, …].

    Raises `NoiseproofError` unless there is at least one sample, of at least one dimension, and all values are finite.
    """
    import torch

    x = as_tensor(value, field)
    require(x.ndim >= 2, f"{field}'s shape", tuple(x.shape), "give samples as [N, …], at least [N, features]")
    require(x.numel() > 0, f"{field}'s shape", tuple(x.shape), "there are no samples in it; give at least one")
    require(not x.is_complex(), f"{field}'s type", str(x.dtype), "give real numbers")
    if x.dtype == torch.uint8:
        return x
    x = x.float()
    low, high = (float(v) for v in x.aminmax())  # NaN in, NaN out; no large temporary
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        bad = (~x.isfinite()).nonzero()[0].tolist()
        shown = float(x[tuple(bad)])
        raise NoiseproofError(f"{field} is {shown} at sample {bad[0]}: values must be finite 32-bit numbers; repair or remove the sample")
    return x


def as_labels(value: Any, field: str) -> Tensor:
    """Return `value` as int64 [N]; raise `NoiseproofError` unless it is [N] of an integer type."""
    import torch

    y = as_tensor(value, field)
    require(y.ndim == 1, f"{field}'s shape", tuple(y.shape), "give one class number per sample, [N]; of one-hot rows take argmax(1)")
    integers = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    require(integers, f"{field}'s type", str(y.dtype).removeprefix("torch."), "labels must be integers; convert them, e.g. y.long()")
    return y.long()


def same_length(x: Tensor, y: Tensor, field: str) -> None:
    """Raise `NoiseproofError` unless there is one label per sample; `field` is what stands before x and y, e.g. "test "."""
    if len(x) != len(y):
        raise NoiseproofError(f"{field}x has {len(x)} samples but {field}y has {len(y)} labels: give one label per sample")


def labels_within(y: Tensor, classes: int, field: str) -> None:
    """Raise `NoiseproofError` unless all labels are in [0, classes)."""
    outside = ((y < 0) | (y >= classes)).nonzero()
    if len(outside):
        first = int(outside[0])
        place = f"sample {first}" + (f" and {len(outside) - 1} others are outside too" if len(outside) > 1 else "")
        raise NoiseproofError(f"{field} is {int(y[first])} at {place}: labels of {classes} classes must be 0 to {classes - 1}")
