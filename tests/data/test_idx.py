"""The reader of IDX files: right ones, and every kind of damage."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from noiseproof.data._idx import read_idx
from noiseproof.errors import NoiseproofError

ARRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in ARRAY.shape) + ARRAY.tobytes()


@pytest.mark.parametrize(("name", "stored"), [("x", CONTENT), ("x.gz", gzip.compress(CONTENT))], ids=["raw", "gzip"])
def test_array_comes_back(tmp_path: Path, name: str, stored: bytes):
    (tmp_path / name).write_bytes(stored)
    array = read_idx(tmp_path / name)
    assert array.dtype == np.uint8
    assert np.array_equal(array, ARRAY)


PACKED = gzip.compress(CONTENT)
DAMAGED = {
    "cut gzip": ("x.gz", PACKED[:-12], "cut off after"),
    "cut gzip trailer": ("x.gz", PACKED[:-3], "cut off after"),
    "cut gzip header": ("x.gz", PACKED[:5], "cut off after"),
    "no gzip": ("x.gz", CONTENT, "not a gzip file"),
    "empty gzip": ("x.gz", b"", "is empty"),
    "changed gzip": ("x.gz", PACKED[:12] + bytes([PACKED[12] ^ 255]) + PACKED[13:], "damaged"),
    "html": ("x", b"<html>not found</html>", "begins with 3c 68 74 6d"),
    "html in gzip": ("x.gz", gzip.compress(b"<html></html>"), "begins with 3c 68 74 6d"),
    "other type": ("x", bytes([0, 0, 13, 3]) + CONTENT[4:], "begins with 00 00 0d 03"),
    "no dimensions": ("x", bytes([0, 0, 8, 0, 7]), "begins with 00 00 08 00"),
    "empty": ("x", b"", "begins with nothing"),
    "cut header": ("x", CONTENT[:10], "within its header of 16"),
    "cut values": ("x", CONTENT[:-1], "cut off: 23 values"),
    "too long": ("x", CONTENT + b"0", "too long: 25 values"),
    "huge": ("x", bytes([0, 0, 8, 3]) + b"\xff" * 12, "cut off: 0 values"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_one_clear_line(tmp_path: Path, case: str):
    name, stored, says = DAMAGED[case]
    (tmp_path / name).write_bytes(stored)
    with pytest.raises(NoiseproofError) as caught:
        read_idx(tmp_path / name)
    message = str(caught.value)
    assert says in message
    assert str(tmp_path / name) in message
    assert "\n" not in message


def test_missing_file(tmp_path: Path):
    with pytest.raises(NoiseproofError, match=r"cannot read .*x: No such file"):
        read_idx(tmp_path / "x")
