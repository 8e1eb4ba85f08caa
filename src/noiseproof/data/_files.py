"""Where the files of a data set are looked for, and how they get there with their content verified."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from noiseproof.data._idx import read_content
from noiseproof.errors import NoiseproofError
from noiseproof.files import locked, write_atomically

DEBIAN = Path("/usr/share/datasets")  # where Debian's dataset-* packages install
VARIABLE = "NOISEPROOF_DATA"
CACHE_VARIABLE = "NOISEPROOF_CACHE"


def cache() -> Path:
    """Return the user's cache folder: $NOISEPROOF_CACHE, else by the operating system's convention."""
    import pooch

    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return Path(pooch.os_cache("noiseproof"))


def places(name: str, folder: Path | None, *also: str) -> list[Path]:
    """Return the folders searched for data set `name`, in order: `folder`, $NOISEPROOF_DATA, Debian's, the cache.

    In the first two `name` and other names that its folder may have (`also`) are sub-folders.
    """
    roots = [folder] if folder is not None else []
    if os.environ.get(VARIABLE):
        roots.append(Path(os.environ[VARIABLE]).expanduser())
    below = [place for root in roots for place in (root, *(root / sub_folder for sub_folder in (name, *also)))]
    return [*below, DEBIAN / name, cache() / name]


def in_folder(folder: Path, file: str) -> Path | None:
    """Return `file`, or `file`.gz, in `folder`, or None."""
    return next((path for path in (folder / file, folder / f"{file}.gz") if path.is_file()), None)


def locate(name: str, files: Iterable[str], folder: Path | None) -> Path | None:
    """Return the first place that has all `files`, plain or gzipped, or None.

    Raises `NoiseproofError` when `folder` was given and does not exist, or has some of the files but not all.
    """
    files = list(files)
    check_folder(name, folder)
    if folder is not None:
        for place in (folder, folder / name):
            missing = [file for file in files if in_folder(place, file) is None]
            if 0 < len(missing) < len(files):
                remedy = f"put it there or run noiseproof data fetch {name}"
                raise NoiseproofError(f"data folder is '{place}': {missing[0]}(.gz) is missing in it; {remedy}")
    return next((place for place in places(name, folder) if all(in_folder(place, file) for file in files)), None)


def check_folder(name: str, folder: Path | None) -> None:
    """Raise `NoiseproofError` when a folder was given and does not exist."""
    if folder is not None and not folder.is_dir():
        raise NoiseproofError(f"data folder is '{folder}': there is no such folder; name one that has the files of {name}, or none")


def not_found(name: str, searched: Iterable[Path], remedy: str) -> NoiseproofError:
    """Return the error for data that are nowhere: all places searched and the ways to get them."""
    there = ", ".join(str(place) for place in searched)
    return NoiseproofError(f"data is '{name}': its files are in none of {there}; {remedy}, or set {VARIABLE}")


def cannot_fetch(name: str, address: str) -> NoiseproofError:
    """Return the error for data that only the user can get."""
    return NoiseproofError(
        f"data is '{name}': noiseproof cannot fetch it; get it from {address} and give its folder with --data-dir or {VARIABLE}"
    )


def verify(content: bytes, sha256: str, source: object) -> bytes:
    """Return `content` if its sha256 (of the decompressed bytes) is the published one, else raise `NoiseproofError`."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise NoiseproofError(
            f"{source} has a wrong checksum: its content's sha256 is {found[:12]}… instead of {sha256[:12]}…; delete it and fetch it again"
        )
    return content


def download(name: str, checksums: Mapping[str, str], mirrors: Iterable[str], folder: Path | None) -> Path:
    """Put `<file>.gz` for all files of `checksums` (file → sha256 of the content) into `folder`/`name`; return that folder.

    Files that are there and right are kept. A file appears whole and verified or not at all.

    Raises `NoiseproofError` when no mirror delivers, or the folder cannot be written.
    """
    target = (folder if folder is not None else cache()) / name
    with locked(target):
        for file, sha256 in checksums.items():
            if not _is_right(target, file, sha256):
                write_from(mirrors, f"{file}.gz", sha256, target)
    return target


def write_from(mirrors: Iterable[str], file: str, sha256: str, target: Path) -> None:
    """Write `file` from the first mirror that delivers it with the right content."""
    faults = []
    for mirror in mirrors:
        with tempfile.TemporaryDirectory(prefix="noiseproof-") as temporary:
            try:
                path = _retrieve(mirror + file, file, temporary)
                verify(read_content(path), sha256, file)
                compressed = path.read_bytes()
            except NoiseproofError as error:
                faults.append(f"{mirror}: {str(error).replace(temporary + os.sep, '')}")
                continue
        write_atomically(target / file, lambda stream, content=compressed: stream.write(content))
        return
    raise NoiseproofError(f"cannot fetch {file} into {target}: {' | '.join(faults)}; go online, or give a folder that has the files")


def _is_right(target: Path, file: str, sha256: str) -> bool:
    path = in_folder(target, file)
    if path is None:
        return False
    try:
        verify(read_content(path), sha256, path)
    except NoiseproofError:
        path.unlink()  # damaged; a plain file would otherwise hide the fetched one
        return False
    return True


def download_archive(name: str, url: str, file: str, folder: Path | None, check: Callable[[Path], object]) -> Path:
    """Put the archive `file` from `url` into `folder`/`name`, or into the cache, and return that folder.

    One that is there is kept if it is right: if `check` raises no `NoiseproofError`.
    """
    target = (folder if folder is not None else cache()) / name
    with locked(target):
        path = target / file
        if path.is_file():
            with contextlib.suppress(NoiseproofError):
                check(path)
                return target
        with tempfile.TemporaryDirectory(prefix="noiseproof-") as temporary:
            try:
                fetched = _retrieve(url, file, temporary)
                check(fetched)
            except NoiseproofError as error:
                reason = str(error).replace(temporary + os.sep, "")
                remedy = "go online, or give a folder that has the files"
                raise NoiseproofError(f"cannot fetch {file} into {target}: {url}: {reason}; {remedy}") from None
            with open(fetched, "rb") as source:
                write_atomically(path, lambda stream: shutil.copyfileobj(source, stream))
    return target


def check_md5(path: Path, md5: str) -> None:
    """Raise `NoiseproofError` unless the file's md5 is `md5`, the one that its authors publish."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise NoiseproofError(f"{path} has a wrong checksum: its md5 is {found} instead of {md5}")


def _retrieve(url: str, file: str, folder: str) -> Path:
    """Download with pooch; its hash would be of the compressed bytes, which differ between mirrors, so we check the content."""
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # it would announce every file
    try:
        return Path(pooch.retrieve(url, known_hash=None, fname=file, path=folder))
    except (OSError, ValueError) as error:  # what requests raises is an OSError
        raise NoiseproofError(_reason(error)) from None
    finally:
        logger.setLevel(level)


def _reason(error: Exception) -> str:
    from requests import exceptions

    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code}"
    if isinstance(error, exceptions.Timeout):
        return "the server did not answer in time"
    if isinstance(error, exceptions.ConnectionError):
        return "no connection"
    return str(error).splitlines()[0]
