"""IDX files (the format of MNIST and its relatives), plain or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

UNSIGNED_BYTE = 0x08


def read_content(path: Path) -> bytes:
    """Return the bytes of a file, decompressed if its name ends with .gz.

    Raises `NoiseproofError` for a file that cannot be read, is not gzip though named so, is cut off or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NoiseproofError(f"cannot read {path}: {error.strerror or error}") from None
    if path.suffix != ".gz":
        return content
    if content[:2] != b"\x1f\x8b":
        kind = "is empty" if not content else "is not a gzip file although its name ends with .gz"
        raise NoiseproofError(f"{path} {kind}: fetch it again, or rename it if it is a decompressed file")
    try:
        return gzip.decompress(content)
    except EOFError:
        raise NoiseproofError(f"{path} is cut off after {len(content)} bytes: the gzip data do not end; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise NoiseproofError(f"{path} is damaged: {error}; fetch it again") from None


def parse_idx(content: bytes, source: object) -> np.ndarray:
    """Return the array in IDX content: 0, 0, type, number of dimensions, the dimensions (4 bytes each, big-endian), values.

    Only unsigned bytes, the one type that the MNIST family uses. The array is read-only, `source` is named in errors.

    Raises `NoiseproofError` for a wrong magic number and for more or fewer values than the dimensions say.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), "three labels").tolist()
    [7, 8, 9]
    """
    import math

    import numpy as np

    magic = content[:4]
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTE]) or magic[3] == 0:
        shown = magic.hex(" ") or "nothing"
        raise NoiseproofError(f"{source} begins with {shown}: an IDX file of bytes begins with 00 00 08 and its dimensions; fetch it again")
    start = 4 + 4 * magic[3]
    if len(content) < start:
        raise NoiseproofError(f"{source} is cut off after {len(content)} bytes, within its header of {start}: fetch it again")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=magic[3], offset=4))
    values = len(content) - start
    if values != math.prod(shape):
        fault = "is cut off" if values < math.prod(shape) else "is too long"
        raise NoiseproofError(f"{source} {fault}: {values} values where its header says {shape} = {math.prod(shape)}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array of an IDX file, gzipped (.gz) or not; errors as `read_content` and `parse_idx`."""
    return parse_idx(read_content(path), path)
