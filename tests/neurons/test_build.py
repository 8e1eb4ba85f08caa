"""The C kernels: built where there is a compiler, quietly left out where there is none, never loaded when they are old."""

import ctypes
import shutil
from pathlib import Path

import pytest

from noiseproof.neurons import kernels
from noiseproof.neurons.kernels import _build

SOURCES = Path(kernels.__file__).parent / "c"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(SOURCES, tmp_path / "c")
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without optimisation: what is tested is the building."""
    monkeypatch.setattr(_build, "FLAGS", tuple("-O0" if flag == "-O3" else flag for flag in _build.FLAGS))


def test_without_a_compiler_nothing_is_built_and_nothing_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    assert _build.build(folder) is None
    assert _build.library_path(folder) is None


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_a_compiler_that_fails_is_no_compiler(compiler: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    assert _build.build(folder) is None
    assert [path.name for path in folder.iterdir()] == ["c"]


@pytest.mark.usefixtures("quick")
def test_it_is_built_once_and_again_when_the_sources_change(folder: Path) -> None:
    (folder / "kernels_0123456789abcdef.so").write_bytes(b"old")
    first = _build.build(folder)
    assert first is not None
    assert [path.name for path in folder.glob("*.so")] == [first.name], "the old library is still there"
    assert hasattr(ctypes.CDLL(str(first)), "neurons_forward_float")
    written = first.stat().st_mtime_ns
    assert _build.build(folder) == first
    assert first.stat().st_mtime_ns == written
    source = folder / "c" / "common.h"
    source.write_text(source.read_text() + "\n/* changed */\n")
    assert _build.library_path(folder) is None, "an old library would be loaded"


@pytest.mark.usefixtures("quick")
def test_a_compiler_without_versions_builds_one(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that refuses `target_clones` gets -DPLAIN."""
    picky = tmp_path / "picky"
    picky.write_text('#!/bin/sh\ncase "$*" in *-DPLAIN*|*-shared*) exec cc "$@";; esac\nexit 1\n')
    picky.chmod(0o755)
    monkeypatch.setenv("CC", str(picky))
    built = _build.build(folder)
    assert built is not None
    assert hasattr(ctypes.CDLL(str(built)), "recurrent_backward_double")
