"""What CIFAR-10 and CIFAR-100 have in common: two published forms, as folders or as the official archives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noiseproof.data import _files
from noiseproof.data._archives import first_file, members
from noiseproof.data._data_set import Arrays, DataSet
from noiseproof.data._pickle import load_plain
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

PIXELS = 3 * 32 * 32
ADDRESS = "https://www.cs.toronto.edu/~kriz/"


@dataclass(frozen=True)
class Layout:
    """One published form: its folder, its archive, the files of both splits, and how one file is read."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[bytes, object], tuple[np.ndarray, np.ndarray]]

    @property
    def files(self) -> tuple[str, ...]:
        """All files, in the order in which they are read."""
        return self.train + self.test

    def contents(self, place: Path) -> dict[str, bytes]:
        """Return the files' content from a folder or an archive; raise `NoiseproofError` for one that is not there."""
        if place.is_dir():
            found = {file: (place / file).read_bytes() for file in self.files if (place / file).is_file()}
        else:
            found = members(place, lambda name: name.removeprefix("./") in [f"{self.folder}/{file}" for file in self.files])
            found = {Path(name).name: content for name, content in found.items()}
        missing = [file for file in self.files if file not in found]
        if missing:
            raise NoiseproofError(f"{place} lacks {missing[0]}: it should have {', '.join(self.files)}; delete it and fetch it again")
        return found


@dataclass(frozen=True)
class Cifar(DataSet):
    """Reads images uint8 [N, 3, 32, 32]; checks structure, counts and labels, not checksums: copies that decode to the same set differ."""

    name: str = ""
    layouts: tuple[Layout, ...] = ()  # the first one is fetched
    md5: str = ""  # of its archive, as published

    def load(self, folder: Path | None = None) -> Arrays:
        """Read the files of the form that is found first.

        Raises `NoiseproofError` for a file that is missing, cut off, has another structure or other labels or asks for
        code to be run.
        """
        import numpy as np

        found = self._find(folder)
        if found is None:
            remedy = f"run noiseproof data fetch {self.name}"
            raise _files.not_found(self.name, _files.places(self.name, folder), remedy)
        place, layout = found
        contents = layout.contents(place)
        parts = []
        for split, files, total in (("training", layout.train, self.train), ("test", layout.test, self.test)):
            read = [self._read(layout, contents[file], f"{place}/{file}") for file in files]
            x, y = (np.concatenate(arrays) for arrays in zip(*read, strict=True))
            if len(y) != total:
                raise NoiseproofError(
                    f"{place} has {len(y):,} {split} images where {self.name} has {total:,}; delete it and fetch it again"
                )
            parts += [x, y]
        return Arrays(*parts)

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the first folder or archive that is one of the published forms; nothing is opened."""
        found = self._find(folder)
        return found[0] if found else None

    def fetch(self, folder: Path | None = None) -> Path:
        """Download the archive of the python version (about 170 MB) into `folder`, or into the user's cache, held against its md5."""
        archive = self.layouts[0].archive
        return _files.download_archive(self.name, ADDRESS + archive, archive, folder, partial(_files.check_md5, md5=self.md5))

    def _find(self, folder: Path | None) -> tuple[Path, Layout] | None:
        _files.check_folder(self.name, folder)
        for place in _files.places(self.name, folder):
            for layout in self.layouts:
                # the files may lie in `place` itself, but some are called "train": then it must have all of them
                if all((place / file).is_file() for file in layout.files):
                    return place, layout
                if any((place / layout.folder / file).is_file() for file in layout.files):
                    return place / layout.folder, layout
                archive = first_file([place], [layout.archive])
                if archive:
                    return archive, layout
        return None

    def _read(self, layout: Layout, content: bytes, source: str) -> tuple[np.ndarray, np.ndarray]:
        x, y = layout.read(content, source)
        if len(y) and not 0 <= y.min() <= y.max() < self.classes:
            wrong = int(y.max() if y.max() >= self.classes else y.min())
            raise NoiseproofError(
                f"{source} has label {wrong}: labels of {self.name} are 0 to {self.classes - 1}; delete it and fetch it again"
            )
        return x, y


def read_binary(content: bytes, source: object, *, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Read records of `label_bytes` labels (the last one counts) and 1024 red, 1024 green, 1024 blue pixels, row by row."""
    import numpy as np

    record = label_bytes + PIXELS
    if not content or len(content) % record:
        raise NoiseproofError(
            f"{source} is cut off or another file: {len(content)} bytes are no records of {record}; delete it and fetch it again"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1]


def read_pickle(content: bytes, source: object, *, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a pickled dict with data uint8 [N, 3072] and N labels under the key `labels`."""
    import numpy as np

    found = load_plain(content, source)
    for key in ("data", labels):
        if key not in found:
            raise NoiseproofError(
                f"{source} has no {key!r}, only {', '.join(sorted(found)) or 'nothing'}: it is another file; delete it and fetch it again"
            )
    x, y = found["data"], _whole_numbers(found[labels])
    if not (isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 2 and x.shape[1] == PIXELS):
        shown = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise NoiseproofError(f"{source} has data of {shown}: images must be uint8 [N, {PIXELS}]; delete it and fetch it again")
    if y is None or len(y) != len(x):
        shown = "no list of whole numbers" if y is None else f"{len(y)} labels for {len(x)} images"
        raise NoiseproofError(f"{source} has {shown} under {labels!r}; delete it and fetch it again")
    return x.reshape(-1, 3, 32, 32), y


def _whole_numbers(value: Any) -> np.ndarray | None:
    import numpy as np

    if isinstance(value, list) and all(type(n) is int and abs(n) < 2**31 for n in value):
        value = np.array(value, np.int64)
    return value if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iu" else None
