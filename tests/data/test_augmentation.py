"""Augmentation: what it adds, what it leaves alone, and that rotations are rotations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate as scipy_rotate

from noiseproof import data
from noiseproof.data import _augment
from noiseproof.errors import NoiseproofError


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
