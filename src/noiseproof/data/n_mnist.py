"""N-MNIST: handwritten digits seen by an event camera, as frames of event counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from noiseproof.data import _files
from noiseproof.data._cache import cached
from noiseproof.data._data_set import Arrays, DataSet
from noiseproof.data._events import event_frames, parse_events
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

NAME = "n-mnist"
PAGE = "https://www.garrickorchard.com/datasets/n-mnist"
STEPS, DURATION = 20, 300_000  # bins, microseconds
SIDE = 34  # pixels
FOLDERS = {"train": "Train", "test": "Test"}  # the original: Train/7/00016.bin
SMALL = {"train": "nmnist_small_train.npz", "test": "nmnist_small_test.npz"}
FIELDS = ("x", "y", "p", "t", "offsets", "labels")
MOST = 255  # events of one pixel and polarity in a bin; the first 1,000 recordings have at most 9


@dataclass(frozen=True)
class NMNIST(DataSet):
    """Orchard et al., Frontiers in Neuroscience 9:437, 2015: MNIST on a screen, a camera that makes three saccades before it.

    Samples are [20, 2, 34, 34]: counts of events (darker, brighter) in 20 bins of 15 ms. Recordings last about 308 ms; events
    from 300 ms on (0.2 %) are dropped.

    Two forms: the original folders `Train/<digit>/*.bin` and `Test/…`, or a part of the set in `nmnist_small_train.npz` and
    `nmnist_small_test.npz` (x, y, p, t of all recordings one after the other, offsets, labels), in the given folder, its
    sub-folder `n-mnist`, the same of $NOISEPROOF_DATA, or the cache; the task's name says which. All 70,000 recordings are
    3.2 GB as bytes and four times that as the numbers that a network takes: `limit_train` keeps them few.
    """

    def load(self, folder: Path | None = None) -> Arrays:
        """Read all recordings, or what was kept of them when they were last read.

        Raises `NoiseproofError` for a file that is missing, cut off or another, whose times go back or whose pixels do not exist.
        """
        import numpy as np

        place = self.where(folder)
        if place is None:
            raise _files.not_found(NAME, _files.places(NAME, folder, "N-MNIST"), f"get them from {PAGE}")
        if _has_folders(place):
            files = {split: sorted((place / below).glob("[0-9]/*.bin")) for split, below in FOLDERS.items()}
            empty = next((split for split in files if not files[split]), None)
            if empty:
                raise NoiseproofError(f"{place / FOLDERS[empty]} has no recordings <digit>/*.bin; unpack the archive again")
            settings, variant = {"steps": STEPS, "duration": DURATION}, ""
        else:
            files = {split: [place / file] for split, file in SMALL.items()}
            settings, variant = {"steps": STEPS, "duration": DURATION, "form": "npz"}, "small"
        found = cached(NAME, [path for paths in files.values() for path in paths], settings, lambda: read(files))
        # the files are in the order of the classes: mixed, so that a limit sees all of them
        train, test = (np.random.RandomState(0).permutation(len(found[f"{split}_y"])) for split in files)
        x, y, test_x, test_y = (found[name] for name in ("train_x", "train_y", "test_x", "test_y"))
        return Arrays(x[train], y[train], test_x[test], test_y[test], variant=variant)

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the first folder that has both splits in one of the two forms; nothing is opened."""
        _files.check_folder(NAME, folder)
        for place in _files.places(NAME, folder, "N-MNIST"):
            if _has_folders(place) or all((place / file).is_file() for file in SMALL.values()):
                return place
        return None

    def fetch(self, folder: Path | None = None) -> Path:
        """Return `where`; raise `NoiseproofError` with the address when the files are not there: they are not fetched by us."""
        place = self.where(folder)
        if place is None:
            raise _files.cannot_fetch(NAME, PAGE)
        return place


def _has_folders(place: Path) -> bool:
    return all((place / below / "0").is_dir() for below in FOLDERS.values())


def read(files: dict[str, list[Path]]) -> dict[str, np.ndarray]:
    """Return for each split frames x uint8 [N, 20, 2, 34, 34] and labels y."""
    import numpy as np

    made: dict[str, np.ndarray] = {}
    for split, paths in files.items():
        recordings = read_small(paths[0]) if paths[0].suffix == ".npz" else read_folders(paths)
        xs, ys = [], []
        for source, events, label in recordings:
            counts = event_frames(*events, steps=STEPS, duration=DURATION, shape=(SIDE, SIDE), source=source)
            xs.append(np.minimum(counts, MOST).astype(np.uint8))
            ys.append(label)
        made |= {f"{split}_x": np.stack(xs), f"{split}_y": np.array(ys, np.int64)}
    return made


Events = tuple["np.ndarray", "np.ndarray", "np.ndarray", "np.ndarray"]


def read_folders(paths: list[Path]) -> Iterator[tuple[str, Events, int]]:
    """Yield name, events and label of every file; the label is the name of its folder."""
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise NoiseproofError(f"cannot read {path}: {error.strerror or error}") from None
        yield str(path), parse_events(content, str(path)), int(path.parent.name)


def read_small(path: Path) -> Iterator[tuple[str, Events, int]]:
    """Yield name, events and label of every recording in an .npz file."""
    import numpy as np

    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in FIELDS}
    except Exception as error:  # a damaged file can go wrong in every way there is
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NoiseproofError(f"{path} is cut off, damaged or lacks one of {', '.join(FIELDS)}: {reason}; replace it") from None
    *events, offsets, labels = arrays.values()
    whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in arrays.values())
    if not (
        whole and len(labels) and len(offsets) == len(labels) + 1 and offsets[0] == 0 and (np.diff(offsets.astype(np.int64)) > 0).all()
    ):
        raise NoiseproofError(f"{path} has offsets and labels that do not divide events into recordings; replace it")
    if any(len(array) != offsets[-1] for array in events):
        raise NoiseproofError(
            f"{path} has {[len(array) for array in events]} values of x, y, p, t where its offsets say {offsets[-1]}; replace it"
        )
    for i, label in enumerate(labels):
        x, y, p, t = (array[offsets[i] : offsets[i + 1]] for array in events)
        yield f"{path}, recording {i},", (x, y, p, t), int(label)


data_set = NMNIST(
    title="N-MNIST, event counts in 20 frames of 34×34, two polarities",
    train=60_000,
    test=10_000,
    classes=10,
    shape=(STEPS, 2, SIDE, SIDE),
    bounds=(0.0, float(MOST)),
    licence="CC BY-SA 4.0",
    citation="Orchard, Jayawant, Cohen, Thakor, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades, "
    "Frontiers in Neuroscience 9:437, 2015",
)
