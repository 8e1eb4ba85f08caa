"""Data sets by name: `fashion-mnist` is `fashion_mnist.py`."""

from __future__ import annotations

from pathlib import Path

from noiseproof import _names
from noiseproof.data._augment import check_augmentation
from noiseproof.data._build import build
from noiseproof.data._checks import as_labels, as_samples
from noiseproof.data._data_set import DataSet
from noiseproof.data._splits import Splits, check_limit
from noiseproof.errors import require


def available() -> list[str]:
    """Return the names that `load` knows.

    >>> available()
    ['cifar-10', 'cifar-100', 'digits', 'ecg', 'ecg-beat-wise', 'fashion-mnist', 'n-mnist', 'speech', 'speech-log-mel']
    """
    return _names.available("data", "data_set")


def find(name: str) -> DataSet:
    """Return the `DataSet` of a name, or the user's own of `package.module:name`."""
    found = _names.find("data", "data_set", name)
    require(isinstance(found, DataSet), "data_set", name, "it must be an instance of noiseproof.data.DataSet")
    return found


def load(
    name: str,
    *,
    folder: str | Path | None = None,
    seed: int = 0,
    validation: float = 0.1,
    augment: bool = False,
    cutout: int = 0,
    limit_train: int | None = None,
    limit_test: int | None = None,
) -> Splits:
    """Load a named data set; samples in their own units (images 0 … 1), not normalised.

    `validation` (a fraction below 1, or a count) is held out of the published training split by a permutation that
    depends on `seed` only; where samples belong to groups (the patients of `ecg`) whole groups are, and the share is met
    approximately. A set with a published validation split (Speech Commands) uses that, whatever `validation` says. Then
    `limit_train` keeps that many training samples, the first of the same permutation, and at most as many validation
    samples; `limit_test` keeps the first test samples. A limit above what there is has no effect. Mean and std are measured
    next, and `augment` comes last, as published for the data set (`DataSet.augmentation`): for 28×28 images two more copies
    of them, each image rotated within ± 10° and flipped with probability 1/2; for CIFAR a random crop and flip of every
    batch, anew in every epoch, with `cutout` followed by blanking a square of that side.

    Raises `NoiseproofError` for an unknown name, a missing or damaged file, a hold-out that leaves nothing, a limit below 1,
    an augmentation that the data set has not.

    >>> data = load("digits", validation=100, limit_train=500)
    >>> len(data.train), len(data.validation), len(data.test), tuple(data.train.x.shape)
    (500, 100, 360, (500, 1, 28, 28))
    >>> data.task.classes, data.task.bounds
    (10, (0.0, 1.0))
    """
    check_limit("limit_train", limit_train)  # before the files are read
    check_limit("limit_test", limit_test)
    data_set = find(name)
    check_augmentation(name, data_set.augmentation, augment, cutout)
    arrays = data_set.load(_folder(folder))
    low, high = data_set.bounds
    published = arrays.validation
    return build(
        f"{name} ({arrays.variant})" if arrays.variant else name,
        (as_samples(arrays.train_x, "x"), as_labels(arrays.train_y, "y")),
        (as_samples(arrays.test_x, "test x"), as_labels(arrays.test_y, "test y")),
        classes=arrays.classes or data_set.classes,
        bounds=data_set.bounds,
        seed=seed,
        validation=validation,
        groups=None if arrays.train_groups is None else as_labels(arrays.train_groups, "groups"),
        published=None if published is None else (as_samples(published[0], "validation x"), as_labels(published[1], "validation y")),
        divisor=255.0 / (high - low) if arrays.train_x.dtype == "uint8" else 1.0,
        augmentation=data_set.augmentation if augment else "none",
        cutout=cutout,
        limit_train=limit_train,
        limit_test=limit_test,
    )


def where(name: str, folder: str | Path | None = None) -> Path | None:
    """Return the place that `load` would read from, or None when the data are nowhere; opens no file.

    >>> where("digits").name
    'digits.csv.gz'
    """
    return find(name).where(_folder(folder))


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a data set below `folder` (None: the user's cache) unless it is there already; return where it is.

    Raises `NoiseproofError` when no server answers, the content is not the published one or the folder cannot be written.

    >>> fetch("digits").name  # bundled, nothing to do
    'digits.csv.gz'
    """
    return find(name).fetch(_folder(folder))


def _folder(folder: str | Path | None) -> Path | None:
    return None if folder is None else Path(folder).expanduser()
