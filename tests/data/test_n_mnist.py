"""Events into frames, and N-MNIST in its two forms: small files in the real formats, bad ones, the real recordings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noiseproof import data
from noiseproof.data import _events, n_mnist
from noiseproof.errors import NoiseproofError

LAST = 305_000


def recording(seed: int, count: int = 400) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y, p = random.integers(0, 34, count), random.integers(0, 34, count), random.integers(0, 2, count)
    return {"x": x, "y": y, "p": p, "t": np.sort(random.integers(0, LAST, count))}


def by_definition(events: dict[str, np.ndarray]) -> np.ndarray:
    frames = np.zeros((20, 2, 34, 34))
    for x, y, p, t in zip(*events.values(), strict=True):
        if t < 300_000:
            frames[t // 15_000, p, y, x] += 1
    return frames


def as_file(events: dict[str, np.ndarray]) -> bytes:
    """Five bytes an event, as in the original files."""
    rows = [[x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255] for x, y, p, t in zip(*events.values(), strict=True)]
    return np.array(rows, np.uint8).tobytes()


def original(place: Path, train: int = 30, test: int = 10) -> Path:
    for split, count, shift in (("Train", train, 0), ("Test", test, 1000)):
        for i in range(count):
            folder = place / split / str(i % 10)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i + 1 + shift:05}.bin").write_bytes(as_file(recording(i + shift)))
    return place


def small(place: Path, **changes: Any) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for split, count, shift in (("train", 30, 0), ("test", 10, 1000)):
        parts = [recording(i + shift) for i in range(count)]
        events = {key: np.concatenate([part[key] for part in parts]).astype(np.uint32 if key == "t" else np.uint8) for key in "xypt"}
        arrays = events | {"offsets": 400 * np.arange(count + 1), "labels": (np.arange(count) % 10).astype(np.uint8)}
        np.savez(place / f"nmnist_small_{split}.npz", **(arrays | (changes if split == "test" else {})))
    return place


def test_frames_count_events():
    events = recording(0)
    frames = data.event_frames(**events, steps=20, duration=300_000, shape=(34, 34))
    assert np.array_equal(frames, by_definition(events))
    assert frames.sum() == (events["t"] < 300_000).sum() < 400


def test_edges_of_bins_and_pictures():
    frames = data.event_frames([4, 0], [0, 2], [0, 1], [9, 10], steps=2, duration=20, shape=(3, 5))
    assert frames.shape == (2, 2, 3, 5)
    assert [tuple(int(i) for i in place) for place in np.argwhere(frames)] == [(0, 0, 0, 4), (1, 1, 2, 0)]
    assert data.event_frames([0], [0], [0], [20], steps=2, duration=20, shape=(3, 5)).sum() == 0  # later ones are dropped
    assert data.event_frames([0, 0], [0, 0], [0, 0], [5, 5], steps=1, duration=20, shape=(1, 1)).tolist() == [[[[2]], [[0]]]]


BAD_EVENTS: dict[str, tuple[dict[str, Any], str]] = {
    "back in time": ({"t": [5, 9, 8, 7]}, "events goes back in time at event 2: 8 µs after 9 µs"),
    "x": ({"x": [0, 1, 5, 1]}, "events has x 5, y 0, p 0, t 3 at event 2: the camera has 5 × 3 pixels"),
    "y": ({"y": [0, 3, 0, 0]}, "events has x 1, y 3, p 0, t 2 at event 1"),
    "p": ({"p": [0, 0, 0, 2]}, "p 2"),
    "t": ({"t": [-1, 2, 3, 4]}, "t -1 at event 0"),
    "lengths": ({"x": [0]}, "events has (1,), (4,), (4,), (4,) values of x, y, p, t"),
    "steps": ({"steps": 0}, "steps is 0"),
    "duration": ({"duration": 0.3}, "duration is 0.3: give a whole number of microseconds"),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_bad_events(case: str):
    changes, says = BAD_EVENTS[case]
    arguments: dict[str, Any] = {"x": [0, 1, 2, 3], "y": [0, 0, 0, 0], "p": [0, 0, 0, 0], "t": [1, 2, 3, 4], "steps": 2, "duration": 20}
    with pytest.raises(NoiseproofError) as caught:
        data.event_frames(**{**arguments, "shape": (3, 5), **changes})
    assert says in str(caught.value)


def test_files_are_parsed_as_published():
    # x 17, y 33, brighter, 2·65536 + 3·256 + 4 microseconds
    assert [int(v[0]) for v in _events.parse_events(bytes([17, 33, 0x82, 3, 4]), "FILE")] == [17, 33, 1, 131_844]
    # an event in row 240 says that the clock went round: 8,192 microseconds are added to what follows
    x, _, _, t = _events.parse_events(bytes([1, 1, 0, 0, 9, 0, 240, 0, 0, 0, 2, 2, 0, 0, 3]), "FILE")
    assert (x.tolist(), t.tolist()) == ([1, 2], [9, 8195])


@pytest.mark.parametrize("form", [original, small])
def test_both_forms(form: Callable[[Path], Path], bare: Path):
    place = form(bare / "n-mnist")
    assert data.where("n-mnist", bare) == place
    splits = data.load("n-mnist", folder=bare, validation=10)
    assert splits.task.name == ("n-mnist" if form is original else "n-mnist (small)")
    assert (splits.task.shape, splits.task.bounds, len(splits.task.mean)) == ((20, 2, 34, 34), (0.0, 255.0), 2)
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [20, 10, 10]
    assert sorted(splits.test.y.tolist()) == list(range(10))
    for i, label in enumerate(splits.test.y.tolist()):
        assert np.array_equal(splits.test.x[i].numpy(), by_definition(recording(1000 + label)))


def test_bad_original_files(bare: Path, refused: Callable[..., str]):
    place = original(bare)
    file = place / "Train" / "3" / "00004.bin"
    good = file.read_bytes()
    for content, says in (
        (good[:-2], f"{file} is cut off or no event file: 1998 bytes"),
        (b"", f"{file} is cut off or no event file: 0 bytes"),
        (good[:50] + good[25:30] + good[50:], f"{file} goes back in time at event 10"),
        (bytes([34]) + good[1:], f"{file} has x 34"),
    ):
        file.write_bytes(content)
        assert says in refused("n-mnist", bare)
    for path in (place / "Test").glob("*/*.bin"):
        path.unlink()
    assert "Test has no recordings <digit>/*.bin" in refused("n-mnist", bare)


BAD_SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "back in time": ({"t": np.arange(4000, dtype=np.uint32)[::-1]}, "nmnist_small_test.npz, recording 0, goes back in time at event 1"),
    "offsets": ({"offsets": np.arange(5)}, "offsets and labels that do not divide"),
    "lengths": ({"x": np.zeros(3, np.uint8)}, "[3, 4000, 4000, 4000] values of x, y, p, t where its offsets say 4000"),
    "floats": ({"y": np.zeros(4000)}, "offsets and labels that do not divide"),
    "objects": ({"labels": np.array([{}], dtype=object)}, "is cut off, damaged or lacks one of"),
    "label": ({"labels": np.full(10, 10, np.uint8)}, "test y is 10"),
}


@pytest.mark.parametrize("case", BAD_SMALL)
def test_bad_small_files(case: str, bare: Path, refused: Callable[..., str]):
    changes, says = BAD_SMALL[case]
    small(bare, **changes)
    assert says in refused("n-mnist", bare)


def test_damaged_small_files(bare: Path, refused: Callable[..., str]):
    path = small(bare) / "nmnist_small_train.npz"
    content = path.read_bytes()
    for damaged in (b"", b"hello", content[:-500]):
        path.write_bytes(damaged)
        assert "nmnist_small_train.npz is cut off, damaged or lacks one of" in refused("n-mnist", bare)


def test_nowhere(bare: Path, refused: Callable[..., str]):
    assert f"get them from {n_mnist.PAGE}" in refused("n-mnist", bare)
    with pytest.raises(NoiseproofError, match=f"noiseproof cannot fetch it; get it from {n_mnist.PAGE}"):
        data.fetch("n-mnist", bare)


def test_real_recordings(real: Callable[..., data.Splits]):
    splits = real("n-mnist", limit_train=500, limit_test=100)
    events = splits.train.x.sum(dim=(1, 2, 3, 4))
    assert 3000 < float(events.mean()) < 6000  # about 4,100 a recording
    assert float(splits.train.x.max()) < 30
    darker, brighter = (splits.train.x[:, :, p].sum().item() for p in (0, 1))
    assert 0.7 < darker / brighter < 1.4
