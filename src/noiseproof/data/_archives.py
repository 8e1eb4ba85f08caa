"""Reading files out of archives (.zip, .tar.gz, .tar.xz) in memory: nothing is unpacked to a place that the archive names."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from noiseproof.errors import NoiseproofError

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, NotImplementedError)


def members(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the content of the files whose name in the archive `wanted` accepts, by that name.

    Raises `NoiseproofError` for an archive that is cut off, damaged or none at all.
    """
    try:
        return dict(_zip(path, wanted) if path.suffix == ".zip" else _tar(path, wanted))
    except DAMAGE as error:
        raise _damaged(path, error) from None


def names(path: Path) -> list[str]:
    """Return the names of the files in a .zip; errors as `members`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]
    except DAMAGE as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> NoiseproofError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return NoiseproofError(f"{path} is cut off, damaged or no such archive: {reason}; fetch it again")


def _zip(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/") and wanted(name):
                yield name, archive.read(name)


def _tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with (gzip.open if path.suffix == ".gz" else lzma.open)(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isfile() and wanted(member.name):
                    content = archive.extractfile(member)
                    yield member.name, content.read() if content else b""
        while stream.read(2**20):  # to its end, where the checksum is: tarfile stops quietly at a damaged header
            pass


def first_file(places: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Return the first file of one of `names` in one of `places`, or None."""
    names = list(names)
    return next((place / name for place in places for name in names if (place / name).is_file()), None)
