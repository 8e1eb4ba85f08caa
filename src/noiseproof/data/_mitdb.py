"""The MIT-BIH Arrhythmia Database: its records, and the windows around their beats."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noiseproof.data import _files
from noiseproof.data._archives import first_file, members
from noiseproof.data._cache import cached
from noiseproof.data._data_set import DataSet
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

NAME = "mitdb"
OFFICIAL = "mit-bih-arrhythmia-database-1.0.0"  # the folder in PhysioNet's archive, and the archive's name
ADDRESS = f"https://physionet.org/static/published-projects/mitdb/{OFFICIAL}.zip"
ARCHIVES = ("mitdb.tar.xz", "mitdb.tar.gz", "mitdb.zip", f"{OFFICIAL}.zip")
ENDINGS = {"hea": "header", "dat": "signals", "atr": "annotations"}
# fmt: off
RECORDS = (
    100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 111, 112, 113, 114, 115, 116, 117, 118, 119, 121, 122, 123, 124,
    200, 201, 202, 203, 205, 207, 208, 209, 210, 212, 213, 214, 215, 217, 219, 220, 221, 222, 223, 228, 230, 231, 232, 233, 234,
)
# fmt: on
# sha256 over the lines "<name> <sha256>" of all records' files, from the sums that PhysioNet publishes
CONTENT = "812a96c38349d1ba809f47ca88773bd5aedce7789d7ad1f0b73eea9d6316a5d7"
RATE = 360  # samples per second
WINDOW, STRIDE = 100, 2  # samples of a window, and every how many-th of the record they are: 0.56 s
LEAD = "MLII"  # the one that comes first
BOUNDS = (-20.0, 20.0)  # standard deviations; the records themselves lie within −19.6 and 17.4


@dataclass(frozen=True)
class MITBIH(DataSet):
    """Windows [100, 2] around beats: every second sample from 100 before to 98 after it, two leads, each z-scored over its record."""

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the first folder with records, or archive of them; nothing is opened."""
        _files.check_folder(NAME, folder)
        for place in _files.places(NAME, folder, OFFICIAL):
            if any((place / f"{record}.hea").is_file() for record in RECORDS):
                return place
            archive = first_file([place], ARCHIVES)
            if archive:
                return archive
        return None

    def fetch(self, folder: Path | None = None) -> Path:
        """Download PhysioNet's archive (about 74 MB) into `folder`/mitdb, or into the user's cache; its files' sha256 are checked."""
        return _files.download_archive(NAME, ADDRESS, f"{OFFICIAL}.zip", folder, check_content)


def beats(data_set: MITBIH, name: str, folder: Path | None, records: Sequence[int], classes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return windows x float32 [N, 100, 2], labels y and record numbers of all beats whose symbol `classes` has.

    Beats whose window does not lie within the record are left out (30 of 100,718). Kept in the cache.

    Raises `NoiseproofError` for a record that is missing, damaged, without annotations or not at 360 Hz, and without wfdb.
    """
    place = data_set.where(folder)
    if place is None:
        searched = _files.places(NAME, folder, OFFICIAL)
        raise _files.not_found(name, searched, f"run noiseproof data fetch {name}")
    sources = [place]
    if place.is_dir():
        sources = [place / f"{record}.{ending}" for record in records for ending in ENDINGS]
        _check_complete(place, {path.name for path in sources if path.is_file()}, records)
    settings = {"records": records, "classes": dict(classes), "window": WINDOW, "stride": STRIDE, "bounds": BOUNDS}
    return cached(name, sources, settings, lambda: read(place, name, records, classes))


def read(place: Path, name: str, records: Sequence[int], classes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Do what `beats` does, without the cache."""
    import numpy as np

    if importlib.util.find_spec("wfdb") is None:
        raise NoiseproofError(f"data is '{name}': wfdb, which reads it, is not installed; run pip install 'noiseproof[ecg]'")
    xs, ys, numbers = [], [], []
    with _unpacked(place, records) as folder:
        for record in records:
            signal, samples, symbols = read_record(folder, record)
            label = np.array([classes.get(symbol, -1) for symbol in symbols])
            first = samples - WINDOW * STRIDE // 2
            used = (label >= 0) & (first >= 0) & (first + (WINDOW - 1) * STRIDE < len(signal))
            xs.append(signal[first[used, None] + np.arange(WINDOW) * STRIDE].clip(*BOUNDS).astype(np.float32))
            ys.append(label[used])
            numbers.append(np.full(used.sum(), record))
    return {"x": np.concatenate(xs), "y": np.concatenate(ys), "record": np.concatenate(numbers)}


def read_record(folder: Path, record: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return a record's z-scored signal [T, 2] with lead MLII first, and place and symbol of its annotations."""
    import numpy as np
    import wfdb

    def fault(what: str) -> NoiseproofError:
        return NoiseproofError(f"record {record} of {NAME} {what}; delete it and fetch it again")

    def attempt(what: str, read: Any, *arguments: str) -> Any:
        try:
            return read(*arguments)
        except Exception as error:  # a damaged file can go wrong in every way there is
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise fault(f"has damaged {what}: {reason}") from None

    found = attempt("signals", wfdb.rdrecord, str(folder / str(record)))
    notes = attempt("annotations", wfdb.rdann, str(folder / str(record)), "atr")
    signal = found.p_signal
    if signal.ndim != 2 or signal.shape[1] != 2 or found.fs != RATE:
        raise fault(f"has {signal.shape[-1]} leads at {found.fs} Hz: this data set has two at {RATE}")
    if not np.isfinite(signal).all() or (np.ptp(signal, axis=0) == 0).any():
        raise fault("has a lead with gaps or without any signal")
    if not len(notes.sample):
        raise fault("is without annotations: no beat is marked in its .atr file")
    if LEAD in found.sig_name[1:]:
        signal = signal[:, ::-1]  # record 114
    return (signal - signal.mean(axis=0)) / signal.std(axis=0), notes.sample, notes.symbol


@contextlib.contextmanager
def _unpacked(place: Path, records: Sequence[int]) -> Iterator[Path]:
    """Give the folder with the records: wfdb reads files only, so an archive is unpacked for the time being."""
    if place.is_dir():
        yield place
        return
    files = _record_files(place)
    _check_complete(place, set(files), records)
    with tempfile.TemporaryDirectory(prefix="noiseproof-") as temporary:
        for file, content in files.items():
            (Path(temporary) / file).write_bytes(content)
        yield Path(temporary)


def _record_files(archive: Path) -> dict[str, bytes]:
    """Return the records' files in an archive by their bare names, whatever folders they are in."""
    expected = {f"{record}.{ending}" for record in RECORDS for ending in ENDINGS}
    # PhysioNet's archive has older annotations in folders of their own
    found = members(archive, lambda name: Path(name).name in expected and name.removeprefix("./").count("/") <= 1)
    return {Path(name).name: content for name, content in found.items()}


def _check_complete(place: Path, there: set[str], records: Sequence[int]) -> None:
    for record in records:
        for ending, what in ENDINGS.items():
            if f"{record}.{ending}" not in there:
                lacks = f"{record}.{ending} is missing in {place}; put it there, or delete all and fetch it again"
                raise NoiseproofError(f"record {record} of {NAME} is without {what}: {lacks}")


def check_content(archive: Path) -> None:
    """Raise `NoiseproofError` unless the archive has all records as PhysioNet publishes them."""
    files = _record_files(archive)
    _check_complete(archive, set(files), RECORDS)
    lines = "\n".join(f"{file} {hashlib.sha256(files[file]).hexdigest()}" for file in sorted(files))
    if hashlib.sha256(lines.encode()).hexdigest() != CONTENT:
        raise NoiseproofError(f"{archive} has a wrong checksum: its records are not those that PhysioNet publishes")
