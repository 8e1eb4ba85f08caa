"""MIT-BIH: windows, classes and splits on small records in the real format; what is refused; the real records where they are."""

from __future__ import annotations

import importlib.util
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from noiseproof import data
from noiseproof.data import _mitdb, ecg, ecg_beat_wise
from noiseproof.errors import NoiseproofError

LENGTH, SPACE = 6000, 300
SYMBOLS = "NLVFaQN/rN+EJNVN"  # 16 annotations; +, Q, / and r are of no class
TRAINING, TESTING = (101, 106, 108, 114), (100, 103)


def write_record(folder: Path, record: int, symbols: str = SYMBOLS, *, leads: tuple[str, ...] = ("MLII", "V1"), rate: int = 360) -> None:
    """A record of noise whose first lead has a spike at every beat."""
    import wfdb

    random = np.random.default_rng(record)
    signal = random.normal(0, 0.1, (LENGTH, len(leads)))
    beats = SPACE + SPACE * np.arange(len(symbols))
    signal[beats, 0] += 1 + 0.2 * (np.arange(len(symbols)) % 3)
    wfdb.wrsamp(str(record), rate, ["mV"] * len(leads), list(leads), signal, fmt=["16"] * len(leads), write_dir=str(folder))
    wfdb.wrann(str(record), "atr", beats, list(symbols), write_dir=str(folder))


@pytest.fixture
def small(bare: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six short records in place of 48."""
    monkeypatch.setattr(ecg, "DS1", TRAINING)
    monkeypatch.setattr(ecg, "DS2", TESTING)
    monkeypatch.setattr(_mitdb, "RECORDS", TRAINING + TESTING)
    monkeypatch.setattr(ecg_beat_wise, "RECORDS", TRAINING + TESTING)
    (bare / "mitdb").mkdir()
    for record in TRAINING + TESTING:
        write_record(bare / "mitdb", record, leads=("V5", "MLII") if record == 114 else ("MLII", "V1"))
    return bare


def test_windows_classes_and_records(small: Path):
    arrays = ecg.data_set.load(small)
    labels = [0, 0, 2, 3, 1, 0, 0, 2, 1, 0, 2, 0]  # N L V F a N N E J N V N
    assert arrays.train_y.tolist() == labels * 4
    assert sorted(arrays.test_y.tolist()) == sorted(labels * 2)
    assert arrays.train_groups is not None
    assert arrays.train_groups.tolist() == [record for record in TRAINING for _ in labels]
    assert (arrays.train_x.shape, arrays.train_x.dtype) == ((48, 100, 2), np.float32)
    import wfdb

    signal = wfdb.rdrecord(str(small / "mitdb" / "101")).p_signal
    z = (signal - signal.mean(0)) / signal.std(0)
    beat = SPACE + 2 * SPACE  # the third annotation, V
    assert np.allclose(arrays.train_x[2], z[beat - 100 : beat + 100 : 2], atol=1e-6)
    assert arrays.train_x[2, :, 0].argmax() == 50  # the beat stands in the middle


def test_leads_of_record_114_are_put_back(small: Path):
    arrays = ecg.data_set.load(small)
    of_114 = arrays.train_x[36:]
    assert of_114[:, 50, 1].mean() > 3 > abs(of_114[:, 50, 0].mean())  # our small record has its beats in the first lead, V5


def test_beats_at_the_edges_are_left_out(small: Path):
    import wfdb

    wfdb.wrann("101", "atr", np.array([99, 100, 5901, 5902]), list("NVFN"), write_dir=str(small / "mitdb"))
    arrays = ecg.data_set.load(small)
    assert arrays.train_groups is not None
    assert arrays.train_y[arrays.train_groups == 101].tolist() == [2, 3]


def test_no_record_is_in_two_splits(small: Path):
    seen = set()
    for seed in range(6):
        splits = data.load("ecg", folder=small, seed=seed, validation=0.25)
        whole = ecg.data_set.load(small)
        assert whole.train_groups is not None
        record = {tuple(x[:, 0]): int(group) for x, group in zip(whole.train_x, whole.train_groups, strict=True)}
        held, kept = ({record[tuple(x[:, 0].numpy())] for x in split.x} for split in (splits.validation, splits.train))
        assert len(held) == 1
        assert held.isdisjoint(kept)
        assert held | kept == set(TRAINING)
        seen |= held
    assert len(seen) > 1


def test_warm_load_needs_neither_wfdb_nor_the_signals_again(small: Path, monkeypatch: pytest.MonkeyPatch):
    first = ecg.data_set.load(small)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_mitdb, "read_record", lambda *a: pytest.fail("it was read"))
    assert np.array_equal(ecg.data_set.load(small).train_x, first.train_x)


def test_without_wfdb(small: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "data is 'ecg': wfdb, which reads it, is not installed; run pip install 'noiseproof[ecg]'" in refused("ecg", small)


@pytest.mark.parametrize("packing", ["mitdb.tar.xz", "mitdb.zip", "mit-bih-arrhythmia-database-1.0.0.zip"])
def test_archives(packing: str, small: Path, tmp_path: Path):
    expected = ecg.data_set.load(small)
    place = tmp_path / "packed" / packing
    place.parent.mkdir()
    if packing.endswith(".zip"):
        with zipfile.ZipFile(place, "w") as archive:
            for path in (small / "mitdb").iterdir():
                archive.write(path, f"{place.stem}/{path.name}")
            archive.writestr(f"{place.stem}/old/annotations/100.atr", b"something else")
    else:
        with tarfile.open(place, "w:xz") as archive:
            archive.add(small / "mitdb", "./mitdb")
    assert data.where("ecg", place.parent) == place
    found = ecg.data_set.load(place.parent)
    assert np.array_equal(found.train_x, expected.train_x)
    assert np.array_equal(found.test_y, expected.test_y)


def test_beat_wise(small: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]):
    monkeypatch.setattr(ecg_beat_wise, "CLASSES", ("N", "L", "F", "V"))  # our small records have no R
    assert "have 30 beats 'N': 3,350 are needed" in refused("ecg-beat-wise", small)
    monkeypatch.setattr(ecg_beat_wise, "EACH", 5)
    monkeypatch.setattr(ecg_beat_wise, "TEST", 2)
    splits, other = (data.load("ecg-beat-wise", folder=small, seed=seed, validation=2) for seed in (0, 1))
    assert [len(split) for split in (splits.train, splits.validation, splits.test)] == [10, 2, 8]
    assert splits.test.y.bincount().tolist() == [2] * 4
    assert bool((splits.test.x == other.test.x).all())
    assert "patients leak" in ecg_beat_wise.data_set.title
    assert "not the paper's classes" in ecg_beat_wise.data_set.title


def overwrite(ending: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / f"106.{ending}").write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no annotation file": (
        lambda folder: (folder / "106.atr").unlink(),
        "record 106 of mitdb is without annotations: 106.atr is missing in",
    ),
    "no signals": (lambda folder: (folder / "106.dat").unlink(), "record 106 of mitdb is without signals: 106.dat is missing"),
    "no record": (lambda folder: [path.unlink() for path in folder.glob("106.*")], "record 106 of mitdb is without header"),
    "no annotation": (overwrite("atr", bytes(2)), "record 106 of mitdb is without annotations: no beat is marked"),
    "empty annotations": (overwrite("atr", b""), "record 106 of mitdb"),
    "signals cut off": (overwrite("dat", bytes(100)), "record 106 of mitdb has damaged signals"),
    "bad header": (overwrite("hea", b"hello"), "record 106 of mitdb has damaged signals"),
    "another rate": (lambda folder: write_record(folder, 106, rate=250), "record 106 of mitdb has 2 leads at 250 Hz"),
    "one lead": (lambda folder: write_record(folder, 106, leads=("MLII",)), "record 106 of mitdb has 1 leads at 360 Hz"),
    "flat": (overwrite("dat", bytes(LENGTH * 4)), "record 106 of mitdb has a lead with gaps or without any signal"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_records_are_named(case: str, small: Path, refused: Callable[..., str]):
    damage, says = DAMAGE[case]
    damage(small / "mitdb")
    assert says in refused("ecg", small)


def test_nowhere_and_damaged_archive(bare: Path, refused: Callable[..., str]):
    assert "run noiseproof data fetch ecg-beat-wise, or set NOISEPROOF_DATA" in refused("ecg-beat-wise", bare)
    (bare / "mitdb.zip").write_bytes(b"PK")
    assert "mitdb.zip is cut off, damaged or no such archive" in refused("ecg", bare)
    with pytest.raises(NoiseproofError, match="augment is True: no augmentation is published for ecg"):
        data.load("ecg", folder=bare, augment=True)


def test_fetch_checks_content(small: Path, tmp_path: Path, server: tuple[Path, str], monkeypatch: pytest.MonkeyPatch):
    file = f"{_mitdb.OFFICIAL}.zip"
    monkeypatch.setattr(_mitdb, "ADDRESS", server[1] + file)
    with zipfile.ZipFile(server[0] / file, "w") as archive:
        for path in (small / "mitdb").iterdir():
            archive.write(path, f"{_mitdb.OFFICIAL}/{path.name}")
    with pytest.raises(NoiseproofError, match=r"cannot fetch .* wrong checksum: its records are not those that PhysioNet publishes"):
        data.fetch("ecg", tmp_path / "new")
    monkeypatch.setattr(_mitdb, "check_content", lambda path: None)
    assert data.fetch("ecg", tmp_path / "new") == tmp_path / "new" / "mitdb"
    assert len(ecg.data_set.load(tmp_path / "new").train_y) == 48


def test_published_records():
    assert len(_mitdb.RECORDS) == 48
    assert len(ecg.DS1) == len(ecg.DS2) == 22
    assert set(_mitdb.RECORDS) - set(ecg.DS1) - set(ecg.DS2) == {102, 104, 107, 217}


def test_real_records(real: Callable[..., data.Splits]):
    splits = real("ecg", seed=1)
    counts = [split.y.bincount(minlength=4) for split in (splits.train, splits.validation, splits.test)]
    assert (counts[0] + counts[1]).tolist() == [45_852, 944, 3_788, 414]
    assert counts[2].tolist() == [44_245, 1_837, 3_220, 388]
    assert float(counts[2][0] / counts[2].sum()) == pytest.approx(0.890, abs=5e-4)  # what always saying N reaches
    assert 0.05 < len(splits.validation) / 50_998 < 0.15
    for split in (splits.train, splits.test):  # the beat stands out in the middle of the window
        assert int(split.x[:, 25:75, 0].abs().mean(0).argmax()) in range(23, 28)
        assert -20 < float(split.x.min()) < float(split.x.max()) < 20


def test_real_beats(real: Callable[..., data.Splits]):
    splits = real("ecg-beat-wise")
    assert (splits.train.y.bincount() + splits.validation.y.bincount()).tolist() == [2680] * 4
    assert splits.test.y.bincount().tolist() == [670] * 4
