"""Heartbeats of two leads in four classes, split by beat: comparable in kind with paper A, and optimistic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noiseproof.data._data_set import Arrays
from noiseproof.data._mitdb import BOUNDS, MITBIH, RECORDS, WINDOW, beats
from noiseproof.errors import NoiseproofError

CLASSES = ("N", "L", "R", "V")
EACH = 3_350  # beats of a class, as in paper A
TEST = 670  # of them for test: a fifth


@dataclass(frozen=True)
class ECGBeatWise(MITBIH):
    """MIT-BIH Arrhythmia Database, 3,350 beats of each of four symbols from all 48 records together, split by beat.

    **Not the paper's classes**: those, and its records, are unpublished, but each has 3,350 beats. **Patients leak**: beats of
    one person are in training, validation and test, so accuracies say little about a new patient; never compare or pool them
    with those of `ecg`. Classes N (normal), L and R (left and right bundle branch block), V (premature ventricular); which
    beats are taken, and which 670 of each class are for test, is fixed, whatever the seed. Always saying N is right on 25 %.
    Samples are [100, 2]: see `MITBIH`; in records 102 and 104, which lack MLII, the leads are V5 and V2.
    """

    def load(self, folder: Path | None = None) -> Arrays:
        """Read 48 records with wfdb, or what was kept of them; errors as `beats`, and for too few beats of a class."""
        import numpy as np

        found = beats(self, "ecg-beat-wise", folder, RECORDS, {symbol: i for i, symbol in enumerate(CLASSES)})
        draw = np.random.RandomState(0)
        train, test = [], []
        for label, symbol in enumerate(CLASSES):
            there = np.flatnonzero(found["y"] == label)
            if len(there) < EACH:
                raise NoiseproofError(f"records of mitdb have {len(there):,} beats {symbol!r}: {EACH:,} are needed; fetch them again")
            drawn = draw.permutation(there)[:EACH]
            train.append(drawn[TEST:])
            test.append(drawn[:TEST])
        # mixed, so that a limit sees all classes
        first, second = draw.permutation(np.concatenate(train)), draw.permutation(np.concatenate(test))
        return Arrays(found["x"][first], found["y"][first], found["x"][second], found["y"][second])


data_set = ECGBeatWise(
    title="MIT-BIH arrhythmia, beats N L R V, split by beat: not the paper's classes, patients leak",
    train=len(CLASSES) * (EACH - TEST),
    test=len(CLASSES) * TEST,
    classes=len(CLASSES),
    shape=(WINDOW, 2),
    bounds=BOUNDS,
    licence="ODC-By 1.0",
    citation="Moody and Mark, The impact of the MIT-BIH Arrhythmia Database, IEEE Eng. Med. Biol. 20(3), 2001, doi:10.13026/C2F305",
)
