"""Tensors, arrays and datasets of the user's own, good and bad."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from noiseproof import data
from noiseproof.errors import NoiseproofError

X, Y = torch.rand(40, 3, 5, 5), torch.arange(40) % 4


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint16, np.uint8, np.bool_])
@pytest.mark.parametrize("labels", [np.uint8, np.int32, np.uint16, np.int64])
def test_arrays_of_any_number_type(dtype: Any, labels: Any):
    x = (np.arange(40 * 6).reshape(40, 6) % 7).astype(dtype)
    y = (np.arange(40) % 3).astype(labels)
    x.flags.writeable = y.flags.writeable = False
    splits = data.from_tensors(x, y)
    assert (splits.train.x.dtype, splits.train.y.dtype, splits.task.classes) == (torch.float32, torch.int64, 3)


def test_lists_and_gradients():
    splits = data.from_tensors([[0.0, 1.0]] * 20 + [[1.0, 0.0]] * 20, [0, 1] * 20)
    assert splits.task.shape == (2,)
    assert not data.from_tensors(X.clone().requires_grad_(), Y).train.x.requires_grad


def test_given_test_pair_is_used_and_not_aliased():
    test_x, test_y = torch.rand(7, 3, 5, 5), torch.arange(7) % 4
    splits = data.from_tensors(X, Y, test=(test_x, test_y), validation=10)
    assert torch.equal(splits.test.x, test_x)
    assert (len(splits.train), len(splits.test)) == (30, 7)
    splits.test.x.zero_()
    assert float(test_x.sum()) > 0


@pytest.mark.parametrize(
    ("x", "given", "bounds"),
    [
        (X, None, (0.0, 1.0)),
        ((X * 255).byte(), None, (0.0, 255.0)),
        (X * 4 - 2, (-2, 2), (-2.0, 2.0)),
        (X * 0.1 / X.max(), (0, 0.1), (0.0, 0.1)),
    ],
)
def test_bounds(x: torch.Tensor, given: Any, bounds: tuple[float, float]):
    assert data.from_tensors(x, Y, bounds=given).task.bounds == bounds


def test_bounds_default_to_the_range_of_the_data():
    x = X * 4 - 2
    assert data.from_tensors(x, Y).task.bounds == (float(x.min()), float(x.max()))


def bad(value: float, at: int = 3) -> torch.Tensor:
    x = X.clone()
    x[at, 0, 0, 0] = value
    return x


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": ({"y": Y[:-1]}, "x has 40 samples but y has 39 labels"),
    "float labels": ({"y": Y.float()}, "y's type is 'float32': labels must be integers"),
    "bool labels": ({"y": Y > 1}, "y's type is 'bool'"),
    "one-hot labels": ({"y": torch.eye(4)[Y]}, "y's shape is (40, 4): give one class number"),
    "text labels": ({"y": ["cat"] * 40}, "y is list: it makes no tensor"),
    "label too large": ({"classes": 3}, "y is 3 at sample 3 and 9 others"),
    "label negative": ({"y": Y - 1}, "y is -1 at sample 0"),
    "all negative": ({"y": Y * 0 - 1}, "y is -1 at sample 0"),
    "label absurd": ({"y": Y * 1000}, "y is 3000: a label larger than the number of samples"),
    "nan": ({"x": bad(float("nan"))}, "x is nan at sample 3"),
    "inf": ({"x": bad(float("-inf"))}, "x is -inf at sample 3"),
    "beyond float32": ({"x": bad(0).double() + 1e300}, "x is inf at sample 0"),
    "complex": ({"x": X + 0j}, "x's type is 'torch.complex64'"),
    "empty": ({"x": X[:0], "y": Y[:0]}, "x's shape is (0, 3, 5, 5): there are no samples"),
    "no features": ({"x": torch.rand(40, 0)}, "x's shape is (40, 0)"),
    "no dimensions": ({"x": torch.rand(40)}, "x's shape is (40,): give samples as [N, …]"),
    "constant": ({"x": torch.full((40, 2), 3.0)}, "x is 3.0: all values are the same"),
    "ragged": ({"x": [[1.0], [1.0, 2.0]]}, "x is list: it makes no tensor"),
    "one class": ({"classes": 1}, "classes is 1: give the number of classes, at least 2"),
    "fractional classes": ({"classes": 2.5}, "classes is 2.5"),
    "narrow bounds": ({"bounds": (0, 0.5)}, "bounds is (0, 0.5): samples run from"),
    "reversed bounds": ({"bounds": (1, 0)}, "bounds is (1, 0): give two finite numbers"),
    "nan bounds": ({"bounds": (0, float("nan"))}, "bounds is (0, nan)"),
    "one bound": ({"bounds": 1}, "bounds is 1: give two numbers"),
    "test no pair": ({"test": X}, "test is 'Tensor': give a pair (x, y)"),
    "test lengths": ({"test": (X, Y[:3])}, "test x has 40 samples but test y has 3 labels"),
    "test size": ({"test": (X[..., :4], Y)}, "shape of test samples is (3, 5, 4): training samples have (3, 5, 5)"),
    "test labels": ({"test": (X, Y + 4), "classes": 4}, "test y is 4 at sample 0"),
    "test fraction": ({"test_fraction": 0.001}, "test_fraction is 0.001: it takes 0 of 40 samples"),
    "validation": ({"validation": 40}, "validation is 40: it takes 40 of 36 samples"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_clear_line(case: str):
    options, says = REFUSED[case]
    arguments: dict[str, Any] = {"x": X, "y": Y, **options}
    with pytest.raises(NoiseproofError) as caught:
        data.from_tensors(**arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


class Items(Dataset[Any]):
    """A dataset of given items."""

    def __init__(self, items: list[Any]):
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_dataset_equals_its_tensors():
    from_dataset, from_tensors = data.from_dataset(TensorDataset(X, Y), seed=2), data.from_tensors(X, Y, seed=2)
    assert torch.equal(from_dataset.train.x, from_tensors.train.x)
    assert torch.equal(from_dataset.test.y, from_tensors.test.y)
    arrays = Items([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)])
    assert torch.equal(data.from_dataset(arrays, test=arrays, seed=2).test.x, X)


class Stream(IterableDataset[Any]):
    """A dataset without length."""

    def __iter__(self) -> Any:
        return iter([(X[0], 0)])


BAD_ITEMS: dict[str, tuple[Dataset[Any], str]] = {
    "sizes": (Items([(X[0], 0), (X[1, :, :4], 1)]), "dataset item 1 has shape (3, 4, 5), but item 0 is (3, 5, 5): resize or crop"),
    "no pair": (Items([X[0]]), "dataset item 0 is 'Tensor': give pairs (x, y)"),
    "object": (Items([(object(), 0)]), "dataset item 0 x is object: it makes no tensor"),
    "vector label": (Items([(X[0], torch.zeros(4))]), "dataset item 0 label's shape is (4,)"),
    "float label": (Items([(X[0], 0.5)] * 9), "y's type is 'float64'"),
    "empty": (Items([]), "dataset's length is 0"),
    "stream": (Stream(), "dataset is Stream: it has no length"),
}


@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_dataset_is_one_clear_line(case: str):
    dataset, says = BAD_ITEMS[case]
    with pytest.raises(NoiseproofError) as caught:
        data.from_dataset(dataset)
    assert says in str(caught.value)


class Beats(data.DataSet):
    """A data set of the user's own, named on the command line as `module:beats`."""

    def load(self, folder: Path | None) -> data.Arrays:
        x = np.linspace(-1, 1, 30 * 8 * 2, dtype=np.float32).reshape(30, 8, 2)
        y = np.arange(30) % 3
        return data.Arrays(x[:20], y[:20], x[20:], y[20:])

    def where(self, folder: Path | None) -> Path | None:
        return None

    def fetch(self, folder: Path | None) -> Path:
        return Path()


def own(classes: int) -> Beats:
    return Beats("beats", train=20, test=10, classes=classes, shape=(8, 2), bounds=(-1.0, 1.0), licence="", citation="")


def test_data_set_of_the_users_own(monkeypatch: pytest.MonkeyPatch):
    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    module.beats, module.short, module.other = own(3), own(2), 5  # pyright: ignore[reportAttributeAccessIssue]
    splits = data.load("mine:beats", validation=4)
    assert (len(splits.train), splits.task.shape, splits.task.bounds, len(splits.task.mean)) == (16, (8, 2), (-1.0, 1.0), 2)
    with pytest.raises(NoiseproofError, match="y is 2 at sample 2 and 5 others"):
        data.load("mine:short")
    with pytest.raises(NoiseproofError, match="augment is True"):
        data.load("mine:beats", augment=True)
    with pytest.raises(NoiseproofError, match=r"data_set is 'mine:other': it must be an instance of noiseproof.data.DataSet"):
        data.load("mine:other")
