"""Speech from one of two sources, found by their files: Speech Commands (paper A's task) or the Free Spoken Digit Dataset."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from noiseproof.data import _files
from noiseproof.data._archives import members, names
from noiseproof.data._cache import cached
from noiseproof.data._data_set import Arrays, DataSet
from noiseproof.data._features import RATE, SETTINGS, log_mel
from noiseproof.data._wav import at_16_khz, one_second, read_wav
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

NAME = "speech"
FOLDERS = ("speech-commands", "speech_commands", "speech_commands_v0.02", "speech_commands_v0.01", "fsdd")
SPLITS = ("train", "validation", "test")
WORDS = ("yes", "no", "up", "down", "left", "right")
SILENCE, UNKNOWN = len(WORDS), len(WORDS) + 1
NOISE = "_background_noise_"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
DIGIT = re.compile(r"(?:.*/)?(\d)_[A-Za-z]+_(\d+)\.wav")  # <digit>_<speaker>_<index>.wav
PAGES = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz (unpack it) or https://github.com/Jakobovski/free-spoken-digit-dataset"
LOG = logging.getLogger("noiseproof.data")


@dataclass
class Plan:
    """What is read from where: for each split pairs (file, label), and for Speech Commands how many pieces of silence."""

    place: Path  # folder or .zip
    variant: str
    classes: int
    clips: dict[str, list[tuple[str, int]]]
    silence: dict[str, int] = field(default_factory=dict)

    @property
    def sources(self) -> list[Path]:
        """The files that decide the samples."""
        if self.place.is_file():
            return [self.place]
        named = [self.place / file for split in self.clips for file, _ in self.clips[split]]
        return named + (self.noises if self.silence else [])

    @property
    def noises(self) -> list[Path]:
        """The long recordings from which silence is cut."""
        return sorted((self.place / NOISE).glob("*.wav"))

    @cached_property
    def packed(self) -> dict[str, bytes]:
        """The content of a .zip."""
        return members(self.place, lambda name: name.endswith(".wav"))

    def content(self, file: str) -> bytes:
        """Return the bytes of a file; raise `NoiseproofError` when it cannot be read."""
        if self.place.is_file():
            return self.packed[file]
        try:
            return (self.place / file).read_bytes()
        except OSError as error:
            raise NoiseproofError(f"cannot read {self.place / file}: {error.strerror or error}; put it there") from None


@dataclass(frozen=True)
class Speech(DataSet):
    """One second at 16 kHz as 98 frames of 40 numbers; `features` makes them from log-mel energies."""

    name: str = NAME
    features: Callable[[np.ndarray], np.ndarray] | None = None

    def load(self, folder: Path | None = None) -> Arrays:
        """Read all recordings, or what was kept of them when they were last read.

        Raises `NoiseproofError` for a file that is listed but missing, cannot be read as sound, or a word without recordings.
        """
        import numpy as np

        place = self.where(folder)
        if place is None:
            raise _files.not_found(self.name, _files.places(NAME, folder, *FOLDERS), f"get them from {PAGES}")
        plan = speech_commands(place) if _is_speech_commands(place) else spoken_digits(place)
        settings = {**SETTINGS, "variant": plan.variant, "clips": plan.clips, "silence": plan.silence}
        found = cached(NAME, plan.sources, settings, lambda: read(plan))
        other = [int(rate) for rate in found["rates"] if rate != RATE]
        if other:
            _say_resampled(plan.variant, tuple(other))
        parts = {}
        for split in plan.clips:
            x, y = found[f"{split}_x"], found[f"{split}_y"]
            # files are in alphabetical order: mixed, so that a limit sees all classes
            order = np.random.RandomState(0).permutation(len(y))
            parts[split] = (self.features(x) if self.features else x)[order], y[order]
        published = parts.get("validation")
        return Arrays(*parts["train"], *parts["test"], validation=published, classes=plan.classes, variant=plan.variant)

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the first folder, or recordings.zip, of either source; nothing is opened."""
        _files.check_folder(self.name, folder)
        for place in _files.places(NAME, folder, *FOLDERS):
            if _is_speech_commands(place):
                return place
            for digits in (place, place / "recordings"):
                if digits.is_dir() and any(DIGIT.fullmatch(path.name) for path in digits.glob("[0-9]_*.wav")):
                    return digits
            if (place / "recordings.zip").is_file():
                return place / "recordings.zip"
        return None

    def fetch(self, folder: Path | None = None) -> Path:
        """Return `where`; raise `NoiseproofError` with the address when the files are not there: they are not fetched by us."""
        place = self.where(folder)
        if place is None:
            raise _files.cannot_fetch(self.name, PAGES)
        return place


def _is_speech_commands(place: Path) -> bool:
    return all((place / file).is_file() for file in LISTS.values())


def speech_commands(place: Path) -> Plan:
    """Return the plan of paper A's task: six words, silence, unknown, each about as often as a word is on average.

    The two lists are the published validation and test splits (no speaker is in two); what is in neither is for training.
    "unknown" is drawn from all other words by a fixed seed.
    """
    import numpy as np

    listed = {split: set(_lines(place / file)) for split, file in LISTS.items()}
    clips: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    others: dict[str, list[str]] = {split: [] for split in SPLITS}
    for file in sorted(f"{path.parent.name}/{path.name}" for path in place.glob("*/*.wav")):
        word = file.partition("/")[0]
        split = next((split for split, files in listed.items() if file in files), "train")
        if word in WORDS:
            clips[split].append((file, WORDS.index(word)))
        elif word != NOISE:
            others[split].append(file)
        listed.get(split, set()).discard(file)
    absent = sorted(file for files in listed.values() for file in files)
    if absent:
        raise NoiseproofError(f"{place} lacks {absent[0]}, which its lists name ({len(absent)} such files): unpack the archive again")
    plan = Plan(place, "Speech Commands", len(WORDS) + 2, clips)
    if not plan.noises:
        raise NoiseproofError(f"{place / NOISE} has no .wav files, from which silence is cut: unpack the archive again")
    for split in SPLITS:
        for number, word in enumerate(WORDS):
            if all(label != number for _, label in clips[split]):
                raise NoiseproofError(f"{place / word} has no recordings for {split}: unpack the archive again")
        if not others[split]:
            raise NoiseproofError(
                f"{place} has no words for {split} but {', '.join(WORDS)}: 'unknown' is drawn from others; unpack it again"
            )
        plan.silence[split] = count = round(len(clips[split]) / len(WORDS))
        drawn = np.random.RandomState(SPLITS.index(split)).permutation(len(others[split]))[:count]
        clips[split] += [(others[split][i], UNKNOWN) for i in sorted(drawn)]
    return plan


def spoken_digits(place: Path) -> Plan:
    """Return the plan of the Free Spoken Digit Dataset: ten digits, indices 0 to 4 of each speaker for test (the source's rule)."""
    files = names(place) if place.is_file() else [path.name for path in place.glob("*.wav")]
    clips: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for file in sorted(files):
        named = DIGIT.fullmatch(file)
        if named:
            clips["test" if int(named[2]) < 5 else "train"].append((file, int(named[1])))
    for split, found in clips.items():
        if not found:
            raise NoiseproofError(f"{place} has no recordings for {split} (index 0 to 4: test, from 5 on: train); unpack the archive again")
    return Plan(place, "Free Spoken Digits", 10, clips)


def read(plan: Plan) -> dict[str, np.ndarray]:
    """Return for each split log-mel energies x [N, 98, 40] and labels y, and the rates at which the files were recorded."""
    import numpy as np

    rates: set[int] = set()

    def sound(file: str) -> np.ndarray:
        samples, rate = read_wav(plan.content(file), plan.place / file)
        rates.add(rate)
        return at_16_khz(samples, rate)

    noises = [sound(f"{NOISE}/{path.name}") for path in plan.noises] if plan.silence else []
    made: dict[str, np.ndarray] = {}
    for split, clips in plan.clips.items():
        pieces = silence(noises, split, plan.silence.get(split, 0))
        waves = chain((one_second(sound(file)) for file, _ in clips), pieces)
        energies = []
        while part := list(islice(waves, 100)):  # not all at once: no more sound in memory than that
            energies.append(log_mel(np.stack(part)))
        made[f"{split}_x"] = np.concatenate(energies)
        made[f"{split}_y"] = np.array([label for _, label in clips] + [SILENCE] * len(pieces), np.int64)
    return {**made, "rates": np.array(sorted(rates))}


def silence(noises: list[np.ndarray], split: str, count: int) -> list[np.ndarray]:
    """Return `count` pieces [16000] of background noise, at random places, each with a volume drawn from 0 to 1.

    The first 80 % of every recording are for training, the next 10 % for validation, the last 10 % for test: no piece shares
    sound with one of another split.
    """
    import numpy as np

    draw = np.random.RandomState(100 + SPLITS.index(split))
    begin, end = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}[split]
    parts = [noise[int(begin * len(noise)) : int(end * len(noise))] for noise in noises]
    pieces = []
    for _ in range(count):
        part = parts[draw.randint(len(parts))]
        start = draw.randint(max(0, len(part) - RATE) + 1)
        pieces.append(one_second(part[start : start + RATE]) * draw.uniform())
    return pieces


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise NoiseproofError(f"cannot read {path}: {error}; unpack the archive again") from None


@cache
def _say_resampled(variant: str, rates: tuple[int, ...]) -> None:
    """Say once per process that sound of another rate holds less than 16 kHz sound does."""
    LOG.warning("%s: recordings at %s Hz were resampled to %d Hz", variant, ", ".join(map(str, rates)), RATE)
