"""What holds for every named data set: it is described, found or not found without a sound, and asked for in one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from noiseproof import data
from noiseproof.data import _files, _named
from noiseproof.errors import NoiseproofError

BUNDLED = {"digits"}
NAMES = data.available()


@pytest.mark.parametrize("name", NAMES)
def test_described(name: str):
    data_set = _named.find(name)
    assert data_set.title
    assert data_set.licence
    assert data_set.citation
    assert (type(data_set).__doc__ or "").strip()
    assert data_set.train > data_set.test > 0
    assert data_set.bounds[0] < data_set.bounds[1]
    assert data_set.augmentation in ("none", "rotated copies", "crop and flip")
    assert (data_set.augmentation == "none") == (len(data_set.shape) != 3)  # every set of images has one


@pytest.mark.parametrize("name", sorted(set(NAMES) - BUNDLED))
def test_on_a_machine_without_it(name: str, bare: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    def offline(*arguments: object) -> Path:
        raise NoiseproofError("no connection")

    monkeypatch.setattr(_files, "_retrieve", offline)
    assert data.where(name) is None
    assert data.where(name, bare) is None
    message = refused(name, bare)
    assert message.startswith(f"data is '{name}'")
    assert "are in none of" in message
    assert str(bare) in message
    with pytest.raises(NoiseproofError, match=r"cannot fetch") as caught:
        data.fetch(name, bare)
    assert "\n" not in str(caught.value)
    with pytest.raises(NoiseproofError, match="there is no such folder"):
        data.where(name, bare / "typo")


@pytest.mark.parametrize("name", NAMES)
def test_options_are_checked_before_files_are_looked_for(name: str, bare: Path):
    with pytest.raises(NoiseproofError, match="^limit_train is 0"):
        data.load(name, folder=bare, limit_train=0)
    with pytest.raises(NoiseproofError, match="^cutout is 4"):
        data.load(name, folder=bare, cutout=4)
