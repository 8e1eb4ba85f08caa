"""Augmentation: what it adds, what it leaves alone, that rotations are rotations and crops crops, and that training repeats it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate as scipy_rotate

from noiseproof import data
from noiseproof.config import Experiment
from noiseproof.data import _augment
from noiseproof.data._augment import CropAndFlip
from noiseproof.errors import NoiseproofError
from noiseproof.networks import MLP
from noiseproof.randomness import generator
from noiseproof.records import RunFolder
from noiseproof.training import train, train_experiment


def test_training_split_alone_grows_by_two_copies():
    plain, more = data.load("digits", seed=3, limit_train=200), data.load("digits", seed=3, limit_train=200, augment=True)
    assert len(more.train) == 3 * 200
    assert torch.equal(more.train.x[:200], plain.train.x)
    assert torch.equal(more.train.y, plain.train.y.repeat(3))
    assert torch.equal(more.validation.x, plain.validation.x)
    assert torch.equal(more.test.x, plain.test.x)
    assert more.task == plain.task  # mean and std are of the images as they are
    assert 0.0 <= float(more.train.x.min()) <= float(more.train.x.max()) <= 1.0


def test_seed_decides_and_copies_differ():
    first, again, other = (data.load("digits", seed=s, limit_train=50, augment=True).train.x for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first[50:], other[50:])
    assert not torch.equal(first[50:100], first[100:])


def test_half_of_the_copies_are_flipped_and_angles_fill_the_range():
    x = torch.zeros(4000, 1, 21, 21)
    x[:, :, 10, 11:] = 1  # a ray from the centre to the right
    task = data.Task("rays", (1, 21, 21), 2, (0.0,), (1.0,), (0.0, 1.0))
    grown = _augment.augmented(data.Split(x, torch.zeros(4000, dtype=torch.long)), task, torch.Generator().manual_seed(0)).x[4000:, 0]
    flipped = grown[..., :10].sum((1, 2)) > grown[..., 11:].sum((1, 2))
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=0.03)
    column = torch.where(flipped, grown[..., 1].argmax(1), grown[..., -2].argmax(1))  # nine pixels from the centre
    angles = torch.rad2deg(torch.atan((10 - column) / 9))
    assert float(angles.abs().max()) <= 13  # whole pixels: half of one is 3 degrees here
    assert float(angles.min()) < -5 < 5 < float(angles.max())


@pytest.mark.parametrize("shape", [(20, 20), (18, 30)])
@pytest.mark.parametrize("degrees", [-10.0, 4.0, 35.0])
def test_rotation_agrees_with_scipy(shape: tuple[int, int], degrees: float):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    ours = _augment.rotate(torch.from_numpy(image)[None, None], torch.tensor([math.radians(degrees)]))[0, 0].numpy()
    theirs = scipy_rotate(image, degrees, reshape=False, order=1, mode="nearest")
    assert np.abs(ours - theirs)[5:-5, 8:-8].max() < 1e-4
    assert np.abs(ours - theirs).max() < 1e-3


def test_angle_zero_changes_nothing():
    x = torch.rand(3, 2, 7, 9)
    assert torch.allclose(_augment.rotate(x, torch.zeros(3)), x, atol=1e-6)


def test_only_images():
    split = data.Split(torch.rand(4, 10, 2), torch.zeros(4, dtype=torch.long))
    task = data.Task("beats", (10, 2), 2, (0.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    with pytest.raises(NoiseproofError, match=r"augment is True: only images \[C, H, W\] can be augmented, beats has \(10, 2\)"):
        _augment.augmented(split, task, torch.Generator())


IMAGES = torch.rand(300, 3, 12, 10, generator=torch.Generator().manual_seed(0))


def crops_of(image: torch.Tensor, margin: int) -> list[torch.Tensor]:
    """All crops of an image with a margin of zeros, each as it is and flipped, one after the other."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2 * margin, width + 2 * margin)
    padded[:, margin : margin + height, margin : margin + width] = image
    crops = [padded[:, i : i + height, j : j + width] for i in range(2 * margin + 1) for j in range(2 * margin + 1)]
    return [picture for crop in crops for picture in (crop, crop.flip(-1))]


def test_every_image_becomes_one_of_its_crops_each_about_as_often():
    found = CropAndFlip(margin=2)(IMAGES, torch.Generator().manual_seed(1))
    assert found.shape == IMAGES.shape
    assert found.is_contiguous()
    which = []
    for before, after in zip(IMAGES, found, strict=True):
        same = [i for i, crop in enumerate(crops_of(before, 2)) if torch.equal(crop, after)]
        assert len(same) == 1
        which += same
    assert len(set(which)) > 45  # of 50
    assert float(np.mean([i % 2 for i in which])) == pytest.approx(0.5, abs=0.1)


def test_cutout_blanks_one_square():
    alter = CropAndFlip(margin=0, cutout=4, blank=(2.0, 3.0, 4.0))
    found = alter(IMAGES, torch.Generator().manual_seed(2))
    blank = found >= 2
    assert torch.equal(found[:, 0] == 2, found[:, 2] == 4)
    assert torch.equal(blank.all(dim=1), blank.any(dim=1))
    areas, rows, columns = blank[:, 0].sum((1, 2)), blank[:, 0].any(2).sum(1), blank[:, 0].any(1).sum(1)
    assert torch.equal(areas, rows * columns)  # a rectangle
    assert (int(rows.max()), int(columns.max())) == (4, 4)
    assert int(areas.min()) < 16  # some lie partly outside
    assert int(areas.min()) >= 4


def test_a_generator_decides_alone():
    alter = CropAndFlip(cutout=3)
    first, again, other = (alter(IMAGES, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: PyTorch finds none on this machine")
def test_on_a_gpu():
    alter = CropAndFlip(cutout=3, blank=(0.5, 0.5, 0.5))
    found = alter(IMAGES.cuda(), generator("augment batch", 0, device="cuda"))
    assert found.device.type == "cuda"
    # the same draws wherever the images are
    here = alter(IMAGES, torch.Generator().manual_seed(3))
    assert torch.equal(alter(IMAGES.cuda(), torch.Generator().manual_seed(3)).cpu(), here)


class Pictures(data.DataSet):
    """Small colour images of the user's own, augmented like CIFAR."""

    def load(self, folder: Path | None) -> data.Arrays:
        x = (IMAGES * 255).byte().numpy()
        y = np.arange(300) % 3
        return data.Arrays(x[:240], y[:240], x[240:], y[240:])

    def where(self, folder: Path | None) -> Path | None:
        return None

    def fetch(self, folder: Path | None) -> Path:
        return Path()


pictures = Pictures("pictures", 240, 60, 3, (3, 12, 10), (0.0, 1.0), "", "", augmentation="crop and flip")
plain = replace(pictures, augmentation="none")
NAME = f"{__name__}:pictures"


def test_crop_and_flip_leave_the_splits_as_they_are():
    as_they_are, altered = data.load(NAME, seed=1), data.load(NAME, seed=1, augment=True, cutout=6)
    assert as_they_are.augment_batch is None
    assert altered.augment_batch == CropAndFlip(4, 6, as_they_are.task.mean)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(as_they_are, split).x, getattr(altered, split).x)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("digits", {"augment": True, "cutout": 4}, "cutout is 4: digits is augmented by rotated copies; cutout is for crop and flip"),
        ("digits", {"cutout": 4}, "cutout is 4: it is a part of the augmentation; set augment too"),
        (NAME, {"cutout": 4}, "cutout is 4: it is a part of the augmentation; set augment too"),
        (NAME, {"augment": True, "cutout": -1}, "cutout is -1: give a whole number"),
        (NAME, {"augment": True, "cutout": 11}, "cutout is 11: images of .* are 12×10; give at most the shorter side"),
        (f"{__name__}:plain", {"augment": True}, "augment is True: no augmentation is published for"),
        ("ecg", {"augment": True}, "augment is True: no augmentation is published for ecg"),
    ],
)
def test_what_cannot_be_augmented(name: str, options: dict[str, Any], says: str):
    with pytest.raises(NoiseproofError, match=says):
        data.load(name, **options)


def test_experiments_with_cutout(tmp_path: Path):
    with pytest.raises(NoiseproofError, match="cutout is -1"):
        Experiment(cutout=-1)
    wrong = Experiment(data=NAME, network=MLP(hidden=(4,)), epochs=1, cutout=4)
    with pytest.raises(NoiseproofError, match="cutout is 4: it is a part of the augmentation; set augment too, or leave it out"):
        train_experiment(wrong, RunFolder(tmp_path / "wrong"), progress=False)
    assert not (tmp_path / "wrong").exists()
    right = replace(wrong, augment=True)
    network = train_experiment(right, RunFolder(tmp_path / "right"), progress=False)
    other = train_experiment(replace(wrong, cutout=0), RunFolder(tmp_path / "other"), progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_every_epoch_anew_and_the_same_after_an_interruption(tmp_path: Path):
    splits = data.load(NAME, augment=True)
    crop_and_flip = splits.augment_batch
    assert crop_and_flip is not None
    seen: list[torch.Tensor] = []

    def trained(folder: str, alter: Callable[..., torch.Tensor]) -> list[torch.Tensor]:
        network = MLP(hidden=(8,)).build(splits.task, generator("weights", 0))
        altered = replace(splits, augment_batch=alter)
        train(network, altered, folder=tmp_path / folder, epochs=3, batch_size=100, progress=False)
        return [p.detach() for p in network.parameters()]

    def alter(x: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        seen.append(crop_and_flip(x, source))
        return seen[-1]

    whole = trained("whole", alter)
    assert len(seen) == 9  # three batches an epoch
    batches = list(seen)

    def interrupted(x: torch.Tensor, source: torch.Generator) -> torch.Tensor:
        if len(seen) == 5:  # in the second batch of the second epoch
            raise KeyboardInterrupt
        return alter(x, source)

    seen.clear()
    interrupted.__qualname__ = alter.__qualname__
    with pytest.raises(KeyboardInterrupt):
        trained("broken", interrupted)
    seen.clear()
    assert all(torch.equal(a, b) for a, b in zip(whole, trained("broken", alter), strict=True))
    assert [torch.equal(a, b) for a, b in zip(seen, batches[3:], strict=True)] == [True] * 6  # from the second epoch on
    means = [torch.cat(batches[3 * epoch : 3 * epoch + 3]).mean().item() for epoch in range(3)]
    assert len(set(means)) == 3  # other crops in every epoch
