"""Speech from its two sources: which files are of which split and class, what is refused, the real digits where they are."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_speech_features import wav

from noiseproof import data
from noiseproof.data import _speech, speech, speech_log_mel
from noiseproof.data._features import log_mel, mfcc
from noiseproof.data._wav import at_16_khz, one_second
from noiseproof.errors import NoiseproofError

OTHERS = ("bed", "cat", "zero")
COUNTS = {"train": 5, "validation": 2, "test": 3}


@pytest.fixture(autouse=True)
def say_again() -> None:
    _speech._say_resampled.cache_clear()


def tone(number: int, seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * (300 + 40 * number) * np.arange(int(seconds * rate)) / rate)


@pytest.fixture
def commands(bare: Path) -> Path:
    """A small folder in the layout of Speech Commands: ten recordings a word, nine words."""
    place = bare / "speech_commands_v0.02"
    lists: dict[str, list[str]] = {split: [] for split in COUNTS}
    number = 0
    for word in (*_speech.WORDS, *OTHERS):
        (place / word).mkdir(parents=True)
        splits = [split for split, count in COUNTS.items() for _ in range(count)]
        for i, split in enumerate(splits):
            file = f"{word}/{i:08x}_nohash_0.wav"
            (place / file).write_bytes(wav(tone(number)))
            lists[split].append(file)
            number += 1
    (place / "_background_noise_").mkdir()
    for name in ("pink", "white"):
        (place / "_background_noise_" / f"{name}.wav").write_bytes(wav(np.random.default_rng(len(name)).normal(0, 0.1, 40_000).clip(-1, 1)))
    (place / "validation_list.txt").write_text("\n".join(lists["validation"]) + "\n")
    (place / "testing_list.txt").write_text("\n".join(lists["test"]) + "\n")
    return place


def test_classes_and_published_splits(commands: Path):
    splits = data.load("speech", folder=commands.parent, seed=3)
    assert splits.task.name == "speech (Speech Commands)"
    assert (splits.task.classes, splits.task.shape, len(splits.task.mean)) == (8, (98, 40), 40)
    # six words, then silence and unknown, each about as often as a word
    assert splits.train.y.bincount().tolist() == [5] * 8
    assert splits.validation.y.bincount().tolist() == [2] * 8
    assert splits.test.y.bincount().tolist() == [3] * 8
    assert len(data.load("speech", folder=commands.parent, validation=0.5).validation) == 16  # it is the published one
    limited = data.load("speech", folder=commands.parent, limit_train=7, limit_test=5)
    assert [len(split) for split in (limited.train, limited.validation, limited.test)] == [7, 7, 5]
    assert len(set(limited.train.y.tolist())) > 2


def test_samples_are_of_their_files(commands: Path):
    arrays = speech_log_mel.data_set.load(commands)
    expected = log_mel(np.stack([(tone(10 * _speech.WORDS.index("left") + i) * 32767).astype(np.int16) / 32768 for i in range(5, 7)]))
    assert arrays.validation is not None
    x, y = arrays.validation
    found = x[y == _speech.WORDS.index("left")]
    order = found[:, 50, :].argmax(axis=1).argsort(kind="stable")
    assert len(found) == 2
    assert min(np.abs(found[order] - expected).max(), np.abs(found[order[::-1]] - expected).max()) < 1e-4
    with_dct = speech.data_set.load(commands)
    assert np.allclose(with_dct.train_x, mfcc(arrays.train_x))
    assert np.array_equal(with_dct.train_y, arrays.train_y)


def test_silence_shares_no_sound_between_splits():
    noise = np.arange(200_000) / 200_000
    parts = {split: _speech.silence([noise], split, 50) for split in _speech.SPLITS}
    volume = {split: [np.diff(piece)[0] * 200_000 for piece in pieces] for split, pieces in parts.items()}
    starts = {split: [piece[0] / v for piece, v in zip(parts[split], volume[split], strict=True)] for split in parts}
    assert max(starts["train"]) + 0.08 <= 0.8
    assert min(starts["validation"]) >= 0.8
    assert max(starts["validation"]) + 0.08 <= 0.9 + 1e-6 <= min(starts["test"]) + 2e-6
    assert min(volume["train"]) < 0.2 < 0.8 < max(volume["train"])
    assert all(piece.shape == (16000,) for pieces in parts.values() for piece in pieces)
    again = _speech.silence([noise], "train", 50)
    assert all(np.array_equal(a, b) for a, b in zip(parts["train"], again, strict=True))


def test_unknown_is_drawn_from_the_other_words_of_the_same_split(commands: Path):
    plan = _speech.speech_commands(commands)
    listed = (commands / "testing_list.txt").read_text().split()
    unknown = [file for file, label in plan.clips["test"] if label == _speech.UNKNOWN]
    assert len(set(unknown)) == 3
    assert all(file in listed and file.split("/")[0] in OTHERS for file in unknown)
    assert plan.clips == _speech.speech_commands(commands).clips


def edit(path: str, content: bytes | None) -> Callable[[Path], object]:
    return lambda place: (place / path).unlink() if content is None else (place / path).write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "listed but missing": (edit("up/00000009_nohash_0.wav", None), "lacks up/00000009_nohash_0.wav, which its lists name (1 such files)"),
    "word missing": (lambda p: [f.unlink() for f in (p / "no").glob("0000000[0-4]*")], "no has no recordings for train"),
    "noise missing": (lambda p: [f.unlink() for f in (p / "_background_noise_").iterdir()], "_background_noise_ has no .wav files"),
    "unreadable": (edit("yes/00000001_nohash_0.wav", b"RIFF no sound"), "yes/00000001_nohash_0.wav"),
    "empty": (edit("left/00000002_nohash_0.wav", b""), "left/00000002_nohash_0.wav cannot be read as sound"),
    "noise unreadable": (edit("_background_noise_/pink.wav", b"hello"), "_background_noise_/pink.wav cannot be read as sound"),
    "list not text": (edit("testing_list.txt", b"\xff\xfe\x00"), "testing_list.txt"),
    "only six words": (
        lambda p: (
            [f.unlink() for word in OTHERS for f in (p / word).iterdir()]
            + [(p / name).write_text("\n".join(x for x in (p / name).read_text().split() if not x.startswith(OTHERS))) for name in LISTS]
        ),
        "'unknown' is drawn from others",
    ),
}
LISTS = ("testing_list.txt", "validation_list.txt")


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(case: str, commands: Path, refused: Callable[..., str]):
    damage, says = DAMAGE[case]
    damage(commands)
    assert says in refused("speech", commands.parent)


@pytest.fixture
def digits_folder(bare: Path) -> Path:
    """A small folder in the layout of the Free Spoken Digit Dataset: 8 kHz, two speakers, indices 0 to 7."""
    place = bare / "fsdd" / "recordings"
    place.mkdir(parents=True)
    for digit in range(10):
        for speaker in ("ann", "bob"):
            for index in range(8):
                seconds = 0.2 + 0.25 * index
                (place / f"{digit}_{speaker}_{index}.wav").write_bytes(wav(tone(digit, seconds, 8000), 8000))
    return place


def test_spoken_digits(digits_folder: Path, bare: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "noiseproof.data"):
        splits = data.load("speech-log-mel", folder=bare, validation=20)
        data.load("speech", folder=bare, validation=20)
    assert splits.task.name == "speech-log-mel (Free Spoken Digits)"
    assert (splits.task.classes, len(splits.train), len(splits.validation)) == (10, 40, 20)
    assert splits.test.y.bincount().tolist() == [10] * 10  # indices 0 to 4 of two speakers
    assert len(set(splits.test.y[:10].tolist())) > 4  # mixed
    assert [record.getMessage() for record in caplog.records] == ["Free Spoken Digits: recordings at 8000 Hz were resampled to 16000 Hz"]
    sound = (tone(4, 0.45, 8000) * 32767).astype(np.int16) / 32768
    expected = log_mel(one_second(at_16_khz(sound, 8000))[None])[0]
    found = splits.test.x[splits.test.y == 4].numpy()
    assert np.abs(found - expected).max(axis=(1, 2)).min() < 1e-4

    packed = tmp_path / "packed" / "recordings.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in digits_folder.iterdir():
            archive.write(path, f"recordings/{path.name}")
        archive.writestr("recordings/readme.txt", "")
    assert data.where("speech", packed.parent) == packed
    again = data.load("speech-log-mel", folder=packed.parent, validation=20)
    assert bool((again.test.x == splits.test.x).all())


def test_bad_digits(digits_folder: Path, bare: Path, refused: Callable[..., str]):
    (digits_folder / "3_ann_2.wav").write_bytes(b"no sound")
    assert "3_ann_2.wav cannot be read as sound" in refused("speech", bare)
    for path in digits_folder.glob("*_[5-7].wav"):
        path.unlink()
    assert "has no recordings for train (index 0 to 4: test, from 5 on: train)" in refused("speech", bare)
    (bare / "recordings.zip").write_bytes(b"PK\x03\x04")
    assert "recordings.zip is cut off, damaged or no such archive" in refused("speech", bare)


def test_nowhere(bare: Path, refused: Callable[..., str]):
    for name in ("speech", "speech-log-mel"):
        assert data.where(name, bare) is None
        assert (
            "get them from http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz (unpack it) or https://github.com/"
            in refused(name, bare)
        )
        with pytest.raises(NoiseproofError, match="noiseproof cannot fetch it; get it from http://"):
            data.fetch(name, bare)


def test_real_recordings(real: Callable[..., data.Splits]):
    splits = real("speech")
    if splits.task.classes == 10:
        assert (len(splits.train) + len(splits.validation), len(splits.test)) == (2700, 300)
        assert splits.test.y.bincount().tolist() == [30] * 10
    assert splits.task.shape == (98, 40)
    # nearest class mean of the mean MFCC: far above chance already
    x, y = splits.train.x[:, :, 1:13].mean(1), splits.train.y
    means = (x - x.mean(0)) / x.std(0)
    centres = np.stack([means[y == c].mean(0).numpy() for c in range(splits.task.classes)])
    test = ((splits.test.x[:, :, 1:13].mean(1) - x.mean(0)) / x.std(0)).numpy()
    guess = ((test[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert (guess == splits.test.y.numpy()).mean() > 0.4
