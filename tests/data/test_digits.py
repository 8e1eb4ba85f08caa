"""The bundled digits: their fixed split and their way to 28×28."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits

from noiseproof import data
from noiseproof.data.digits import data_set, enlarged


def test_split_is_fixed_and_stratified():
    arrays = data_set.load()
    assert (len(arrays.train_y), len(arrays.test_y)) == (data_set.train, data_set.test) == (1437, 360)
    assert np.bincount(arrays.test_y).min() >= 35
    # the split is ours alone: if this changes, no accuracy measured before can be compared any more
    assert hashlib.sha256(arrays.test_y.astype(np.uint8).tobytes()).hexdigest()[:16] == "70ee2850bb25b543"
    assert len(set(arrays.test_y[:30].tolist())) == 10  # mixed, so that --limit-test sees all classes


def test_task():
    splits = data.load("digits")
    assert splits.task.shape == (1, 28, 28) == tuple(splits.test.x.shape[1:])
    assert (splits.task.name, splits.task.classes, splits.task.bounds) == ("digits", 10, (0.0, 1.0))
    assert (float(splits.train.x.min()), float(splits.train.x.max())) == (0.0, 1.0)


def test_enlarging_keeps_the_picture():
    counts = load_digits().images
    x = torch.from_numpy(enlarged(counts))
    assert float(x[..., :2, :].abs().sum() + x[..., -2:, :].abs().sum() + x[..., :2].abs().sum() + x[..., -2:].abs().sum()) == 0
    # the middle of every 3×3 block is the pixel itself
    middle = x[:, 0, 3:-2:3, 3:-2:3]
    assert torch.allclose(middle, torch.from_numpy(counts).float() / 16, atol=1e-6)


def test_listing_imports_nothing_heavy():
    code = """import sys, noiseproof.data as d
for name in d.available():
    d.where(name)
print([m for m in ("torch", "numpy", "scipy", "sklearn", "requests", "wfdb", "soundfile", "pandas") if m in sys.modules])"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
