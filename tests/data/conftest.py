"""What the tests of data sets share: a machine without data, and the real files where $NOISEPROOF_DATA has them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from noiseproof import data
from noiseproof.data import _files
from noiseproof.errors import NoiseproofError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any data: no variable, no Debian package, an empty cache; returns an empty folder."""
    monkeypatch.delenv("NOISEPROOF_DATA", raising=False)
    monkeypatch.setenv("NOISEPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_files, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


@pytest.fixture
def refused() -> Callable[..., str]:
    """Return a function that loads a data set, which must be refused, and returns the message."""

    def load(name: str, folder: Path, **options: object) -> str:
        with pytest.raises(NoiseproofError) as caught:
            data.load(name, folder=folder, **options)  # pyright: ignore[reportArgumentType]
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return load


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., data.Splits]]:
    """Return a function that loads real data, or skips the test when they are not on this machine."""
    patch = pytest.MonkeyPatch()

    def load(name: str, **options: object) -> data.Splits:
        if data.where(name) is None:
            pytest.skip(f"needs the real files of {name}: set NOISEPROOF_DATA to the folder that has them")
        patch.setenv("NOISEPROOF_CACHE", str(tmp_path_factory.getbasetemp() / "real"))
        return data.load(name, **options)  # pyright: ignore[reportArgumentType]

    yield load
    patch.undo()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that writes no log."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A server of the files in a folder: the folder, its address."""
    (tmp_path / "served").mkdir()
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield tmp_path / "served", f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()
