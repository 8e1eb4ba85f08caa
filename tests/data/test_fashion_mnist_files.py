"""Fashion-MNIST: where it is looked for, what is refused, how it is fetched; with the real files where $NOISEPROOF_DATA has them."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from noiseproof import data
from noiseproof.data import _files, fashion_mnist
from noiseproof.errors import NoiseproofError

FILES = tuple(fashion_mnist.CHECKSUMS)
NOWHERE = "http://127.0.0.1:9/"


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def small() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    images, labels = (lambda n: random.integers(0, 256, (n, 28, 28), dtype=np.uint8)), (lambda n: np.arange(n, dtype=np.uint8) % 10)
    return dict(zip(FILES, map(idx, (images(60), labels(60), images(20), labels(20))), strict=True))


def write(folder: Path, contents: dict[str, bytes], *, packed: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / (f"{file}.gz" if packed else file)).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any data: no variable, no Debian package, an empty cache, no network."""
    monkeypatch.delenv("NOISEPROOF_DATA", raising=False)
    monkeypatch.delenv("NOISEPROOF_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_files, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (NOWHERE,))
    return tmp_path


@pytest.fixture
def small_is_right(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files take the place of the published ones, checksums included."""
    contents = small()
    monkeypatch.setattr(fashion_mnist, "CHECKSUMS", {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()})
    return contents


def refused(**options: object) -> str:
    with pytest.raises(NoiseproofError) as caught:
        data.load("fashion-mnist", **options)  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", [".", "fashion-mnist"])
def test_found_in_the_folder_or_below(alone: Path, small_is_right: dict[str, bytes], packed: bool, below: str):
    place = write(alone / "mine" / below, small_is_right, packed=packed)
    splits = data.load("fashion-mnist", folder=alone / "mine", validation=10)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [50, 10, 20]
    assert (splits.task.shape, splits.task.bounds) == ((1, 28, 28), (0.0, 1.0))
    assert float(splits.train.x.max()) == 1.0
    assert data.where("fashion-mnist", str(alone / "mine")) == place


def test_order_of_places(alone: Path, small_is_right: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    assert data.where("fashion-mnist") is None
    cached = write(alone / "cache" / "noiseproof" / "fashion-mnist", small_is_right)
    assert data.where("fashion-mnist") == cached
    debian = write(alone / "debian" / "fashion-mnist", small_is_right)
    assert data.where("fashion-mnist") == debian
    variable = write(alone / "variable" / "fashion-mnist", small_is_right)
    monkeypatch.setenv("NOISEPROOF_DATA", str(alone / "variable"))
    assert data.where("fashion-mnist") == variable
    given = write(alone / "given", small_is_right)
    assert data.where("fashion-mnist", given) == given


def test_nowhere_names_all_places_and_the_remedies(alone: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOISEPROOF_DATA", str(alone / "variable"))
    (alone / "given").mkdir()
    message = refused(folder=alone / "given")
    for part in (
        "given",
        "given/fashion-mnist",
        "variable",
        "variable/fashion-mnist",
        "debian/fashion-mnist",
        "cache/noiseproof/fashion-mnist",
    ):
        assert str(alone / part) in message
    for part in ("noiseproof data fetch fashion-mnist", "apt-get install dataset-fashion-mnist", "NOISEPROOF_DATA"):
        assert part in message


def test_folder_that_does_not_exist(alone: Path):
    assert "there is no such folder" in refused(folder=alone / "typo")


def test_one_of_four_files_missing(alone: Path, small_is_right: dict[str, bytes]):
    place = write(alone / "given", small_is_right)
    (place / f"{FILES[3]}.gz").unlink()
    message = refused(folder=place)
    assert f"{FILES[3]}(.gz) is missing" in message
    assert str(place) in message


def test_wrong_checksum_names_the_file(alone: Path):
    place = write(alone / "given", small())  # good IDX files, but not Fashion-MNIST
    message = refused(folder=place)
    assert f"{place / FILES[0]}.gz has a wrong checksum" in message
    assert "fetch it again" in message


def test_damage_is_told_before_the_checksum(alone: Path):
    place = write(alone / "given", small())
    path = place / f"{FILES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert "is cut off" in refused(folder=place)
    path.write_bytes(b"not gzip")
    assert "is not a gzip file" in refused(folder=place)


def test_fetch_without_network(alone: Path):
    with pytest.raises(NoiseproofError) as caught:
        data.fetch("fashion-mnist", alone / "new")
    message = str(caught.value)
    assert f"cannot fetch {FILES[0]}.gz" in message
    assert f"{NOWHERE}: no connection" in message
    assert "\n" not in message
    assert not list((alone / "new").rglob("*ubyte*"))


def test_fetch_then_load(
    alone: Path,
    small_is_right: dict[str, bytes],
    server: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    write(server[0], small_is_right)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (NOWHERE, server[1]))  # the first mirror is down
    assert data.fetch("fashion-mnist", alone / "new") == alone / "new" / "fashion-mnist"
    assert len(data.load("fashion-mnist", folder=alone / "new").test) == 20
    assert capfd.readouterr() == ("", "")
    # again: nothing is downloaded, not even asked for; and a damaged file is replaced
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (NOWHERE,))
    data.fetch("fashion-mnist", alone / "new")
    (alone / "new" / "fashion-mnist" / f"{FILES[1]}.gz").write_bytes(b"")
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (server[1],))
    data.fetch("fashion-mnist", alone / "new")
    assert len(data.load("fashion-mnist", folder=alone / "new").test) == 20


def test_fetch_into_the_cache(alone: Path, small_is_right: dict[str, bytes], server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    write(server[0], small_is_right)
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (server[1],))
    assert data.fetch("fashion-mnist") == alone / "cache" / "noiseproof" / "fashion-mnist" == data.where("fashion-mnist")


def test_fetched_wrong_content_is_not_put_in_place(alone: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    write(server[0], small())  # not the published content
    monkeypatch.setattr(fashion_mnist, "MIRRORS", (server[1],))
    with pytest.raises(NoiseproofError, match=r"train-images-idx3-ubyte.gz has a wrong checksum"):
        data.fetch("fashion-mnist", alone / "new")
    shutil.rmtree(server[0])
    server[0].mkdir()
    with pytest.raises(NoiseproofError, match="the server answered 404"):
        data.fetch("fashion-mnist", alone / "new")
    assert not list((alone / "new").rglob("*ubyte*"))


def test_fetch_into_a_folder_that_cannot_be_made(alone: Path):
    (alone / "file").write_text("")
    with pytest.raises(NoiseproofError, match="cannot write"):
        data.fetch("fashion-mnist", alone / "file")


def test_real_files():
    if data.where("fashion-mnist") is None:
        pytest.skip(
            "needs the real Fashion-MNIST: set NOISEPROOF_DATA to the folder that has it, or run noiseproof data fetch fashion-mnist"
        )
    splits = data.load("fashion-mnist")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [54_000, 6_000, 10_000]
    assert splits.test.y.bincount().tolist() == [1000] * 10
    assert (splits.train.y.bincount() + splits.validation.y.bincount()).tolist() == [6000] * 10
    assert splits.task.mean == pytest.approx((0.2860,), abs=1e-3)
    assert splits.task.std == pytest.approx((0.3530,), abs=1e-3)
    assert splits.test.y[:8].tolist() == [9, 2, 1, 1, 6, 1, 4, 6]
