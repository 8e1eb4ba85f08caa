"""Files that are either whole or not there: atomic writes, and one process at a time per folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from noiseproof.errors import NoiseproofError


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a temporary file beside `path`, flush it to the disk, then rename it to `path`.

    A process killed at any instant leaves the old file or the new one, never a part. The temporary name is fixed, so
    that what a killed process left behind is overwritten by the next one.

    Raises `NoiseproofError` when the disk is full or the folder cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # torch reports a failed write as RuntimeError; the cause is an OSError or lost
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def append_lines(path: Path, lines: list[str]) -> None:
    """Append whole lines; a part of a line that a killed process left at the end is removed first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            end = _end_of_last_line(file)
            file.truncate(end)
            try:
                file.write("".join(line + "\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(path, end)
                raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: BaseException) -> NoiseproofError:
    """Return the error of a write that failed: nothing is lost, and the same command goes on from there."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return NoiseproofError(f"cannot write {path}: {reason}; make room or choose another folder, then run the same command again")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the lock falls by itself when the process dies, however it dies.

    Raises `NoiseproofError` when another process holds it.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w")  # noqa: SIM115 (it stays open while the lock is held)
    except OSError as error:
        raise cannot_write(folder, error) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NoiseproofError(f"{folder} is in use by another noiseproof process: wait for it or choose another folder") from None
        yield


def _end_of_last_line(file: IO[bytes]) -> int:
    position = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - 65536)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        position = start
    return 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
