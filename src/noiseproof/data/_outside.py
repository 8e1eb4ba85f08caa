"""Data of the user's own: any pair of tensors, any map-style `torch.utils.data.Dataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noiseproof.data._build import build
from noiseproof.data._checks import as_labels, as_samples, as_tensor, labels_within, same_length
from noiseproof.data._splits import Splits, hold_out
from noiseproof.errors import NoiseproofError, require

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset


def from_tensors(
    x: Any,
    y: Any,
    *,
    test: tuple[Any, Any] | None = None,
    classes: int | None = None,
    bounds: tuple[float, float] | None = None,
    name: str = "tensors",
    seed: int = 0,
    validation: float = 0.1,
    test_fraction: float = 0.1,
) -> Splits:
    """Make `Splits` of samples x [N, …] and integer labels y [N]: tensors, arrays or nested lists, in the data's own units.

    Without a `test` pair, `test_fraction` (or a count) of the samples becomes the test split, by a permutation that is the
    same for every `seed`, so that networks of several seeds are compared on the same samples. `validation` is then held
    out of the rest by `seed`. `classes` defaults to the largest label + 1 (at least 2). `bounds`, the valid range of inputs that
    attacks must respect, defaults to 0 … 255 for uint8, 0 … 1 if all values lie there, else the smallest and largest value.

    Raises `NoiseproofError` for x and y of different length, no samples, values that are not finite or outside `bounds`,
    labels that are not integers in [0, classes), hold-outs that leave nothing.

    >>> import torch
    >>> data = from_tensors(torch.rand(100, 3, 8, 8), torch.arange(100) % 4, validation=10, test_fraction=0.2)
    >>> len(data.train), len(data.validation), len(data.test), data.task.classes, len(data.task.mean)
    (70, 10, 20, 4, 3)
    """
    train, testing = (as_samples(x, "x"), as_labels(y, "y")), None
    if test is not None:
        pair = isinstance(test, tuple | list) and len(test) == 2
        require(pair, "test", type(test).__name__, "give a pair (x, y)")
        testing = as_samples(test[0], "test x"), as_labels(test[1], "test y")
    # of all samples, before a test split is taken: what a class or a valid input is does not depend on the split
    parts = [train] if testing is None else [train, testing]
    for (x_, y_), field in zip(parts, ("", "test "), strict=False):
        same_length(x_, y_, field)
    classes = _classes(classes, [part[1] for part in parts])
    limits = _bounds(bounds, [part[0] for part in parts])
    if testing is None:
        labels_within(train[1], classes, "y")  # while sample numbers are still the caller's
        held_out, rest = hold_out(len(train[0]), test_fraction, 0, "test_fraction")
        train, testing = (train[0][rest], train[1][rest]), (train[0][held_out], train[1][held_out])
    return build(name, train, testing, classes=classes, bounds=limits, seed=seed, validation=validation)


def from_dataset(
    dataset: Dataset[Any],
    *,
    test: Dataset[Any] | None = None,
    classes: int | None = None,
    bounds: tuple[float, float] | None = None,
    name: str = "dataset",
    seed: int = 0,
    validation: float = 0.1,
    test_fraction: float = 0.1,
) -> Splits:
    """Make `Splits` of a map-style dataset of (x, y) by reading every sample once into memory; see `from_tensors`.

    A random transform inside the dataset is applied once, to validation samples too: leave such transforms out.

    Raises `NoiseproofError` as `from_tensors`, and for a dataset without length, samples of different shapes, or items
    that are not (tensor or array, label).

    >>> import torch
    >>> from torch.utils.data import TensorDataset
    >>> data = from_dataset(TensorDataset(torch.randn(50, 6), torch.arange(50) % 2), classes=2)
    >>> len(data.train), len(data.validation), len(data.test), data.task.shape
    (41, 4, 5, (6,))
    """
    x, y = _read(dataset, "dataset")
    testing = None if test is None else _read(test, "test")
    return from_tensors(
        x, y, test=testing, classes=classes, bounds=bounds, name=name, seed=seed, validation=validation, test_fraction=test_fraction
    )


def _classes(given: int | None, labels: list[Tensor]) -> int:
    if given is None:
        found = max(2, *(int(y.max()) + 1 for y in labels))
        total = sum(len(y) for y in labels)
        require(found <= max(2, total), "y", found - 1, f"a label larger than the number of samples, {total}; give classes if it is meant")
        return found
    whole = isinstance(given, int) and not isinstance(given, bool) and given >= 2
    require(whole, "classes", given, "give the number of classes, at least 2, or leave it out")
    return given


def _bounds(given: tuple[float, float] | None, parts: list[Tensor]) -> tuple[float, float]:
    import torch

    extremes = [part.aminmax() for part in parts]
    low, high = min(float(e.min) for e in extremes), max(float(e.max) for e in extremes)
    if given is None:
        if all(part.dtype == torch.uint8 for part in parts):
            return 0.0, 255.0
        found = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
        require(found[0] < found[1], "x", low, "all values are the same; give samples that differ")
        return found
    try:
        lowest, highest = (float(v) for v in given)
    except (TypeError, ValueError):
        raise NoiseproofError(f"bounds is {given!r}: give two numbers, the lowest and the highest valid input") from None
    require(-float("inf") < lowest < highest < float("inf"), "bounds", given, "give two finite numbers, the lower one first")
    remedy = f"samples run from {low:g} to {high:g}; give bounds that contain them or bring the samples into them"
    rounded = torch.tensor([lowest, highest]).tolist()  # the samples are 32-bit numbers, and so must these be to compare
    require(rounded[0] <= low and high <= rounded[1], "bounds", given, remedy)
    return lowest, highest


def _read(dataset: Dataset[Any], field: str) -> tuple[Tensor, Tensor]:
    import torch

    try:
        total = len(dataset)  # pyright: ignore[reportArgumentType]
    except (TypeError, NotImplementedError):
        raise NoiseproofError(f"{field} is {type(dataset).__name__}: it has no length; give a map-style dataset or tensors") from None
    require(total > 0, f"{field}'s length", total, "it has no samples; give at least one")
    xs, ys = [], []
    for i in range(total):
        item = dataset[i]
        pair = isinstance(item, tuple | list) and len(item) == 2
        require(pair, f"{field} item {i}", type(item).__name__, "give pairs (x, y)")
        x, y = as_tensor(item[0], f"{field} item {i} x"), as_tensor(item[1], f"{field} item {i} y")
        if xs and x.shape != xs[0].shape:
            sizes = f"{tuple(x.shape)}, but item 0 is {tuple(xs[0].shape)}"
            raise NoiseproofError(f"{field} item {i} has shape {sizes}: resize or crop all samples to one shape")
        require(y.ndim == 0, f"{field} item {i} label's shape", tuple(y.shape), "give one class number per sample")
        xs.append(x)
        ys.append(y)
    return torch.stack(xs), torch.stack(ys)
