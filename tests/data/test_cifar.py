"""CIFAR-10 and CIFAR-100: both published forms, as folders and archives, and what is refused."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_pickle import Calls, python_2

from noiseproof import data
from noiseproof.data import _cifar, cifar_10, cifar_100
from noiseproof.errors import NoiseproofError

FOLDERS = {
    ("cifar-10", "python"): "cifar-10-batches-py",
    ("cifar-10", "binary"): "cifar-10-batches-bin",
    ("cifar-100", "python"): "cifar-100-python",
    ("cifar-100", "binary"): "cifar-100-binary",
}
TEN = [f"data_batch_{i}" for i in range(1, 6)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets with 20 training and 8 test images instead of 50,000 and 10,000."""
    monkeypatch.setattr(cifar_10, "data_set", replace(cifar_10.data_set, train=20, test=8))
    monkeypatch.setattr(cifar_100, "data_set", replace(cifar_100.data_set, train=20, test=8))


def images(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), random.integers(0, classes, count)


def contents(name: str, form: str) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """The files of a small set, and the arrays that are to be read from them."""
    fine = name == "cifar-100"
    files = {"train": 20, "test": 8} if fine else dict.fromkeys(TEN, 4) | {"test_batch": 8}
    made, parts = {}, []
    for seed, (file, count) in enumerate(files.items()):
        x, y = images(seed, count, 100 if fine else 10)
        parts.append((x, y))
        if form == "binary":
            coarse = np.full((count, 1), 7) if fine else np.zeros((count, 0))
            made[f"{file}.bin"] = np.concatenate([coarse, y[:, None], x], axis=1).astype(np.uint8).tobytes()
        elif fine:  # written by Python 3
            labels = {"fine_labels": y.tolist(), "coarse_labels": [7] * count}
            made[file] = pickle.dumps({"data": x, **labels}, 2)
        else:
            made[file] = python_2({b"batch_label": b"some", b"labels": y.tolist(), b"data": x, b"filenames": [b"a.png"] * count})
    x, y = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    return made, {"train_x": x[:20], "train_y": y[:20], "test_x": x[20:], "test_y": y[20:]}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder


def pack(archive: Path, folder: str, files: dict[str, bytes], scratch: Path) -> Path:
    write(scratch / folder, files)
    with tarfile.open(archive, "w:gz") as file:
        file.add(scratch / folder, folder)
    return archive


@pytest.mark.parametrize("below", [None, "", "named"])
@pytest.mark.parametrize(("name", "form"), FOLDERS)
def test_every_form_gives_the_same(name: str, form: str, below: str | None, bare: Path, tmp_path: Path):
    files, expected = contents(name, form)
    if below is None:
        place = pack(bare / f"{name}-{form}.tar.gz", FOLDERS[name, form], files, tmp_path / "scratch")
    else:
        place = write(bare / (f"{name}/{FOLDERS[name, form]}" if below else below), files)
    assert data.where(name, bare) == place
    module = cifar_100 if name == "cifar-100" else cifar_10
    arrays = module.data_set.load(bare)
    for part, array in expected.items():
        assert np.array_equal(getattr(arrays, part).reshape(array.shape), array), part
    splits = data.load(name, folder=bare, validation=4)
    assert (splits.task.shape, splits.task.bounds, len(splits.train)) == ((3, 32, 32), (0.0, 1.0), 16)
    # channel, row, column: the files have 1024 red, 1024 green, 1024 blue values, each row by row
    assert float(splits.test.x[5, 2, 3, 4]) == pytest.approx(expected["test_x"][5, 2048 + 3 * 32 + 4] / 255)


def ten(form: str = "python") -> dict[str, bytes]:
    return contents("cifar-10", form)[0]


def batch(**changes: Any) -> bytes:
    x, y = images(0, 4, 10)
    return pickle.dumps({"data": x, "labels": y.tolist(), **changes}, 2)


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "another pickle": ({"test_batch": pickle.dumps({"a": 1})}, "test_batch has no 'data', only a"),
    "no labels": ({"test_batch": pickle.dumps({"data": 1})}, "has no 'labels'"),
    "cut off": ({"data_batch_3": batch()[:-5000]}, "data_batch_3 is cut off, damaged or no pickle"),
    "too few": ({"data_batch_3": batch(data=images(0, 3, 10)[0], labels=[1, 2, 3])}, "has 19 training images where cifar-10 has 20"),
    "floats": ({"data_batch_2": batch(data=np.zeros((4, 3072)))}, "data_batch_2 has data of float64 (4, 3072): images must be uint8"),
    "another size": ({"data_batch_2": batch(data=np.zeros((4, 3000), np.uint8))}, "data of uint8 (4, 3000)"),
    "no array": ({"data_batch_2": batch(data=[1])}, "has data of list"),
    "label too large": ({"data_batch_4": batch(labels=[1, 2, 10, 3])}, "data_batch_4 has label 10: labels of cifar-10 are 0 to 9"),
    "label negative": ({"data_batch_4": batch(labels=[1, -2, 1, 3])}, "has label -2"),
    "labels no numbers": ({"data_batch_4": batch(labels=[1, "b", 1, 3])}, "has no list of whole numbers under 'labels'"),
    "labels absurd": ({"data_batch_4": batch(labels=[1, 2**80, 1, 3])}, "has no list of whole numbers"),
    "label missing": ({"data_batch_4": batch(labels=[1, 2, 1])}, "has 3 labels for 4 images under 'labels'"),
    "code": ({"data_batch_1": pickle.dumps({"data": Calls(os.system, "false")})}, "asks for 'posix.system'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_pickles(case: str, bare: Path, refused: Callable[..., str]):
    changed, says = REFUSED[case]
    place = write(bare / "cifar-10-batches-py", ten() | changed)
    message = refused("cifar-10", bare)
    assert says in message
    assert str(place) in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "test_batch.bin is cut off or another file: 0 bytes are no records of 3073"),
        (ten("binary")["test_batch.bin"][:-1], f"{8 * 3073 - 1} bytes are no records"),
        (ten("binary")["test_batch.bin"][3073:], "has 7 test images where cifar-10 has 8"),
        (b"\x0b" * (8 * 3073), "has label 11"),
    ],
)
def test_bad_binary_files(content: bytes, says: str, bare: Path, refused: Callable[..., str]):
    write(bare, ten("binary") | {"test_batch.bin": content})
    assert says in refused("cifar-10", bare)


def test_a_missing_batch_is_named(bare: Path, tmp_path: Path, refused: Callable[..., str]):
    files = ten()
    del files["data_batch_5"]
    write(bare / "cifar-10-batches-py", files)
    assert "cifar-10-batches-py lacks data_batch_5" in refused("cifar-10", bare)
    (tmp_path / "other").mkdir()
    pack(tmp_path / "other" / "cifar-10-python.tar.gz", "cifar-10-batches-py", files, tmp_path / "scratch")
    assert "cifar-10-python.tar.gz lacks data_batch_5" in refused("cifar-10", tmp_path / "other")


def test_damaged_archives(bare: Path, tmp_path: Path, refused: Callable[..., str]):
    archive = pack(bare / "cifar-10-python.tar.gz", "cifar-10-batches-py", ten(), tmp_path / "scratch")
    content = archive.read_bytes()
    for damaged in (b"", b"no archive", content[:-3000], content[:5000] + bytes(200) + content[5200:]):
        archive.write_bytes(damaged)
        assert "cifar-10-python.tar.gz is cut off, damaged or no such archive" in refused("cifar-10", bare)


def test_nowhere(bare: Path, refused: Callable[..., str]):
    message = refused("cifar-100", bare)
    assert "noiseproof data fetch cifar-100, or set NOISEPROOF_DATA" in message
    assert "apt-get" not in message
    assert "there is no such folder" in refused("cifar-100", bare / "typo")


def test_fetch_checks_the_published_sum(bare: Path, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    served = pack(server[0] / "cifar-10-python.tar.gz", "cifar-10-batches-py", ten(), tmp_path / "scratch")
    monkeypatch.setattr(_cifar, "ADDRESS", server[1])
    with pytest.raises(NoiseproofError, match=r"cannot fetch cifar-10-python.tar.gz .* wrong checksum: its md5 is"):
        data.fetch("cifar-10", bare)
    assert not list(bare.rglob("*.tar.gz"))
    right = hashlib.md5(served.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar_10, "data_set", replace(cifar_10.data_set, md5=right))
    assert data.fetch("cifar-10", bare) == bare / "cifar-10"
    served.unlink()
    data.fetch("cifar-10", bare)  # it is there: nothing is asked for
    assert len(data.load("cifar-10", folder=bare, validation=4).test) == 8
    with pytest.raises(NoiseproofError, match=r"cannot fetch cifar-10-python.tar.gz .* the server answered 404"):
        data.fetch("cifar-10")


@pytest.mark.parametrize("name", ["cifar-10", "cifar-100"])
def test_real_files(name: str, real: Callable[..., data.Splits], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cifar_10, "data_set", replace(cifar_10.data_set, train=50_000, test=10_000))
    monkeypatch.setattr(cifar_100, "data_set", replace(cifar_100.data_set, train=50_000, test=10_000))
    splits = real(name, limit_train=5000)
    classes = splits.task.classes
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [5000, 5000, 10_000]
    assert splits.test.y.bincount().tolist() == [10_000 // classes] * classes
    if name == "cifar-10":
        assert splits.task.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.01)
