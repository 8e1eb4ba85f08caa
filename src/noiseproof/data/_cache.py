"""What is costly to prepare (thousands of recordings) is prepared once, and kept under the hash of all that decides it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noiseproof.data import _files
from noiseproof.errors import NoiseproofError
from noiseproof.files import write_atomically, write_text

if TYPE_CHECKING:
    import numpy as np

    Contents = dict[str, np.ndarray]

VERSION = 1  # raise it when the code that prepares any data set gives other values
LOG = logging.getLogger("noiseproof.data")


def cached(name: str, sources: Sequence[Path], settings: Mapping[str, Any], make: Callable[[], Contents]) -> Contents:
    """Return `make()`, or what an earlier call with the same content of `sources` and the same `settings` made.

    Kept in the user's cache folder (`NOISEPROOF_CACHE` moves it), sub-folder `preprocessed`, as uncompressed .npz. Of several
    processes that come at once one calls `make` and the others wait. A damaged file is made again. Where nothing can be
    kept, a warning says so and `make` is called every time.
    """
    folder = _files.cache() / "preprocessed"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_alone(folder, name))
            path = folder / f"{name}-{_key(folder, name, sources, settings)}.npz"
        except SourceError:
            raise
        except (OSError, NoiseproofError) as error:
            LOG.warning("%s is prepared anew each time: nothing can be kept in %s (%s); set %s", name, folder, error, _files.CACHE_VARIABLE)
            return make()
    # read without the lock: other processes need not wait for it
    found = _read(path)
    if found is not None:
        return found
    with _alone(folder, name):
        found = _read(path)  # another process may have been faster
        if found is None:
            found = make()
            _write(path, found)
        return found


def _read(path: Path) -> Contents | None:
    """Return the arrays of an .npz file, or None when it is not there or damaged (every part has a checksum)."""
    import numpy as np

    try:
        # opened here: NumPy leaves a file open whose end is missing
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _write(path: Path, contents: Contents) -> None:
    import numpy as np

    try:
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **contents))
    except NoiseproofError as error:  # the data are there all the same
        LOG.warning("%s; set %s to another folder", error, _files.CACHE_VARIABLE)


def _key(folder: Path, name: str, sources: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Return the hash of version, settings, and name and content of all sources.

    A file with the path, size and time of change of one that was hashed before is not read again.
    """
    paths = [os.path.abspath(path) for path in sources]
    memo = folder / f"{name}-hashes.json"
    known = _memo(memo)
    hashes = {path: _hash(path, known.get(path)) for path in paths}
    if any(known.get(path) != entry for path, entry in hashes.items()):
        write_text(memo, json.dumps(known | hashes))
    # names count, because labels may stand in them; where the files lie does not
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    contents = sorted([os.path.relpath(path, common), hashes[path][2]] for path in paths)
    return hashlib.sha256(json.dumps([VERSION, name, dict(settings), contents], sort_keys=True).encode()).hexdigest()[:32]


def _memo(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(path: str, known: Any) -> list[Any]:
    """Return [size, time of change, sha256]; `known` is such an entry or None."""
    try:
        status = os.stat(path)
        if isinstance(known, list) and len(known) == 3 and known[:2] == [status.st_size, status.st_mtime_ns]:
            return known
        with open(path, "rb") as file:
            return [status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None


class SourceError(NoiseproofError):
    """A file of the data set cannot be read: this is no fault of the cache."""


@contextlib.contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of `name`; wait for the process that has it. The lock falls when its process dies, however it dies."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f".{name}.lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("%s is being prepared by another process: waiting for it", name)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
