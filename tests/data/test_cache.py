"""What is prepared once: one build for two processes, rebuilt when damaged or when anything that decides it changes."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from noiseproof.data._cache import cached
from noiseproof.errors import NoiseproofError


class Counting:
    """Makes arrays and counts how often."""

    def __init__(self) -> None:
        self.builds = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.builds += 1
        return {"x": np.arange(1000, dtype=np.float32), "builds": np.array(self.builds)}


@pytest.fixture
def source(bare: Path) -> Path:
    path = bare / "a.wav"
    path.write_bytes(b"sound")
    return path


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "preprocessed").glob("*.npz"))


def test_made_once(source: Path, tmp_path: Path):
    make = Counting()
    first, second = (cached("some", [source], {"a": 1}, make) for _ in range(2))
    assert make.builds == 1
    assert np.array_equal(first["x"], second["x"])
    assert second["x"].dtype == np.float32
    assert len(kept(tmp_path)) == 1


def test_whatever_decides_the_values_makes_them_anew(source: Path):
    make = Counting()
    cached("some", [source], {"a": 1}, make)
    cached("some", [source], {"a": 2}, make)
    source.write_bytes(b"other")
    cached("some", [source], {"a": 1}, make)
    renamed = source.rename(source.with_name("b.wav"))
    cached("some", [renamed], {"a": 1}, make)
    cached("other", [renamed], {"a": 1}, make)
    assert make.builds == 5


def test_where_the_files_lie_does_not_matter(source: Path, tmp_path: Path):
    make = Counting()
    cached("some", [source], {}, make)
    moved = tmp_path / "elsewhere" / "a.wav"
    moved.parent.mkdir()
    source.rename(moved)
    cached("some", [moved], {}, make)
    assert make.builds == 1


def test_known_files_are_not_read_again(source: Path, monkeypatch: pytest.MonkeyPatch):
    make = Counting()
    cached("some", [source], {}, make)
    monkeypatch.setattr("hashlib.file_digest", lambda *a: pytest.fail("it was read"))
    cached("some", [source], {}, make)
    assert make.builds == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "one byte", "text", "memo"])
def test_damage_is_repaired(damage: str, source: Path, tmp_path: Path):
    make = Counting()
    cached("some", [source], {}, make)
    (path,) = kept(tmp_path)
    content = path.read_bytes()
    if damage == "memo":
        next(path.parent.glob("*.json")).write_text("[1")
    else:
        changed = content[:500] + bytes([content[500] ^ 1]) + content[501:]
        path.write_bytes({"empty": b"", "cut": content[:-100], "one byte": changed, "text": b"hello"}[damage])
    assert np.array_equal(cached("some", [source], {}, make)["x"], np.arange(1000))
    assert make.builds == (1 if damage == "memo" else 2)
    assert np.array_equal(cached("some", [source], {}, make)["x"], np.arange(1000))
    assert make.builds == (1 if damage == "memo" else 2)


def test_objects_are_never_loaded(source: Path, tmp_path: Path):
    make = Counting()
    cached("some", [source], {}, make)
    (path,) = kept(tmp_path)
    np.savez(path, x=np.array([{"an": "object"}], dtype=object))  # a pickle
    assert cached("some", [source], {}, make)["x"].dtype == np.float32
    assert make.builds == 2


def test_an_error_is_not_kept(source: Path, tmp_path: Path):
    def fails() -> dict[str, np.ndarray]:
        raise NoiseproofError("a.wav is bad")

    for _ in range(2):
        with pytest.raises(NoiseproofError, match=r"a\.wav is bad"):
            cached("some", [source], {}, fails)
    assert not kept(tmp_path)


def test_missing_source(source: Path):
    with pytest.raises(NoiseproofError, match=r"cannot read .*missing\.wav: No such file"):
        cached("some", [source, source.with_name("missing.wav")], {}, Counting())


def test_without_a_place_it_works_and_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOISEPROOF_CACHE", str(tmp_path / "file"))
    make = Counting()
    with caplog.at_level(logging.WARNING, "noiseproof.data"):
        assert len(cached("some", [source], {}, make)["x"]) == 1000
    assert "set NOISEPROOF_CACHE" in caplog.text


PROCESS = """
import sys, time, numpy as np
from pathlib import Path
from noiseproof.data._cache import cached
def make():
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    time.sleep(1.0)
    return {"x": np.arange(5)}
print("ready", flush=True)
sys.stdin.readline()
print(cached("some", [Path(sys.argv[1])], {}, make)["x"].tolist())
"""


def test_two_processes_build_once(source: Path, tmp_path: Path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", PROCESS, str(source), str(log)]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:  # both have imported everything before either begins
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in both] == ["[0, 1, 2, 3, 4]\n"] * 2
    assert log.read_text() == "built\n"
