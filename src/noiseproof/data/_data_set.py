"""What a file of this folder provides: a `DataSet`, under the name `data_set` on its last line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from noiseproof.data._augment import Augmentation

if TYPE_CHECKING:
    import numpy as np


class Arrays(NamedTuple):
    """A data set as its files have it: x [N, *shape], uint8 (0…255 stand for bounds) or float (already in bounds); y [N]."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    train_groups: np.ndarray | None = None  # [N] whole numbers, e.g. patients: the validation split takes whole groups
    validation: tuple[np.ndarray, np.ndarray] | None = None  # (x, y) of a published validation split; nothing is held out then
    classes: int | None = None  # where the files decide how many there are
    variant: str = ""  # where the files may be one of several sets: which; it becomes part of the task's name


@dataclass(frozen=True)
class DataSet(ABC):
    """A data set with a published (or here fixed) test split; subclasses say where its files are and how to read them."""

    title: str
    train: int  # samples, validation included
    test: int  # samples
    classes: int
    shape: tuple[int, ...]  # of one sample
    bounds: tuple[float, float]  # valid input range
    licence: str
    citation: str
    augmentation: Augmentation = "none"  # what `augment` does: as published for this data set

    @abstractmethod
    def load(self, folder: Path | None) -> Arrays:
        """Read all files; raise `NoiseproofError` for a missing or damaged one."""

    @abstractmethod
    def where(self, folder: Path | None) -> Path | None:
        """Return where `load` would read from, or None when the files are nowhere."""

    @abstractmethod
    def fetch(self, folder: Path | None) -> Path:
        """Put the files below `folder` (None: the user's cache) and return where they are."""
