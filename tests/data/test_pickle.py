"""The restricted reader of pickles: what CIFAR needs goes in, nothing is ever called, damage is one clear line."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseproof.data._pickle import load_plain
from noiseproof.errors import NoiseproofError


def python_2(value: Any) -> bytes:
    """A pickle as Python 2 with NumPy 1 wrote it, like the official files: text as str, arrays by numpy.core."""

    def text(b: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(b)) + b

    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    def save(o: Any) -> bytes:
        if isinstance(o, dict):
            return b"}(" + b"".join(save(k) + save(v) for k, v in o.items()) + b"u"
        if isinstance(o, list):
            return b"](" + b"".join(save(v) for v in o) + b"e"
        if isinstance(o, bytes):
            return text(o)
        if isinstance(o, int):
            return number(o)
        dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R(" + number(3) + text(b"|")
        dtype += b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
        shape = b"".join(map(number, o.shape)) + (b"\x85" if o.ndim == 1 else b"\x86")
        return made + b"(" + number(1) + shape + dtype + b"\x89" + text(o.tobytes()) + b"tb"

    return b"\x80\x02" + save(value) + b"."


def refusal(content: bytes) -> str:
    with pytest.raises(NoiseproofError) as caught:
        load_plain(content, "FILE")
    message = str(caught.value)
    assert message.startswith("FILE ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("dtype", ["u1", "<i8", ">i4", "<f4", "?"])
def test_arrays_of_numbers(protocol: int, dtype: str):
    array = (np.arange(24).reshape(4, 6) % 5).astype(dtype)
    found = load_plain(pickle.dumps({"data": array, "turned": array.T, b"labels": [1, 2]}, protocol), "FILE")
    assert np.array_equal(found["data"], array)
    assert found["data"].dtype == array.dtype
    assert np.array_equal(found["turned"], array.T)
    assert found["labels"] == [1, 2]


def test_what_python_2_wrote():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    found = load_plain(python_2({b"data": array, b"labels": [3, 1, 2], b"filenames": [b"a.png"]}), "FILE")
    assert np.array_equal(found["data"], array)
    assert (found["labels"], found["filenames"]) == ([3, 1, 2], [b"a.png"])


class Calls:
    """An object whose pickle calls something."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


ATTACKS: dict[str, Any] = {
    "system": lambda marker: Calls(os.system, f"touch {marker}"),
    "eval": lambda marker: Calls(builtins.eval, f"open({marker!r}, 'w')"),
    "exec": lambda marker: Calls(builtins.exec, f"open({marker!r}, 'w')"),
    "open": lambda marker: Calls(builtins.open, marker, "w"),
    "getattr": lambda marker: Calls(builtins.getattr, "", "join"),
    "scalar": lambda marker: np.float64(1.0),
    "array of objects": lambda marker: np.array([Calls(os.system, f"touch {marker}")], dtype=object),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_executed(attack: str, nested: bool, protocol: int, tmp_path: Path):
    marker = tmp_path / "executed"
    bad = ATTACKS[attack](str(marker))
    inside = {"data": np.zeros(3, np.uint8), "labels": [1, [2, {"deep": [bad]}]]} if nested else bad
    message = refusal(pickle.dumps(inside, protocol))
    assert "nothing is executed" in message or "nothing of it was executed" in message
    assert not marker.exists()


def test_refused_name_is_said():
    assert "asks for 'posix.system'" in refusal(pickle.dumps(Calls(os.system, "true")))
    assert "asks for 'builtins.eval'" in refusal(pickle.dumps({"labels": [Calls(eval, "1")]}))


def test_a_pickle_in_a_pickle_stays_bytes(tmp_path: Path):
    inner = pickle.dumps(Calls(os.system, f"touch {tmp_path / 'executed'}"))
    assert load_plain(pickle.dumps({"data": inner}), "FILE")["data"] == inner
    assert not (tmp_path / "executed").exists()


def array_of(code: bytes, state: bytes, content: bytes) -> bytes:
    """A pickle of {"data": array} with a dtype of any code and state."""
    dtype = b"cnumpy\ndtype\n(V" + code + b"\nI00\nI01\ntR" + state
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    return b"(dVdata\n" + made + b"(I1\n(I1\nt" + dtype + b"I00\n" + content + b"tbs."


def test_raw_bytes_never_become_objects():
    # an object array whose dtype says that it holds no objects: NumPy would take the bytes for addresses
    address = b"C\x08" + b"\x41" * 8
    forged = b"(I3\nV|\nNNNI8\nI8\nI0\ntb"
    assert "O8, which is no plain number" in refusal(array_of(b"O8", forged, address))
    assert "no plain number" in refusal(array_of(b"V8", forged, address))
    assert load_plain(array_of(b"u8", b"(I3\nV<\nNNNI-1\nI-1\nI0\ntb", address), "FILE")["data"].tolist() == [0x4141414141414141]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is cut off, damaged or no pickle"),
        (b"\x1f\x8b\x08 gzip", "is cut off, damaged or no pickle"),
        (pickle.dumps([1, 2]), "it holds no dict"),
        (pickle.dumps({1: 2}), "it has int where text belongs"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f", "is cut off, damaged"),
        (b"Pouter\n.", "does PERSID, which plain data do not need: nothing of it was executed"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "does LONG_BINPUT"),
        (b"\x80\x02}p2147483647\n.", "does PUT"),
        (b"\x80\x05\x96\xff\xff\xff\xff\x00\x00\x00\x00.", "cut off, damaged"),
        (pickle.dumps({"labels": bytearray(9)}, 5), "does BYTEARRAY8"),
        (pickle.dumps({"labels": {1, 2}}, 4), "does EMPTY_SET"),
    ],
)
def test_no_plain_dict(content: bytes, says: str):
    assert says in refusal(content)


def test_every_cut_is_noticed():
    content = python_2({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]})
    for length in range(len(content)):
        refusal(content[:length])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))
def test_damage_is_always_one_clear_error(place: int, noise: bytes):
    content = bytearray(pickle.dumps({"data": np.arange(4, dtype=np.uint8), "labels": [1, 2, 3]}, 2))
    place %= len(content)
    content[place : place + len(noise)] = noise
    try:
        load_plain(bytes(content), "FILE")
    except NoiseproofError as error:
        assert str(error).startswith("FILE ")  # noqa: PT017 (it may also be read without an error)
