"""Handwritten digits, bundled with scikit-learn: works offline everywhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from noiseproof.data._data_set import Arrays, DataSet
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np


class Digits(DataSet):
    """UCI "Optical Recognition of Handwritten Digits" (its test part, 1,797 images 8×8), brought to 28×28.

    Counts 0 … 16 become 0 … 1; each image is enlarged three times (bilinear) to 24×24 and gets a margin of two zeros on each
    side: strokes stay within the image as in MNIST and every network for 28×28 takes it. There is no official split:
    ours is fixed, stratified by class, 1,437 / 360. Writers occur in both, so accuracies are optimistic for new writers.

    >>> arrays = data_set.load(None)
    >>> arrays.train_x.shape, arrays.test_x.shape
    ((1437, 1, 28, 28), (360, 1, 28, 28))
    """

    def load(self, folder: Path | None = None) -> Arrays:
        """Read the bundled file; `folder` has no meaning here."""
        self.fetch()  # the error for a missing scikit-learn
        import numpy as np
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        counts, labels = load_digits(return_X_y=True)
        x, y = enlarged(np.asarray(counts).reshape(-1, 8, 8)), np.asarray(labels)
        train, test = train_test_split(range(len(y)), test_size=self.test, stratify=y, random_state=0)
        return Arrays(x[train], y[train], x[test], y[test])

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the file inside the installed scikit-learn."""
        found = importlib.util.find_spec("sklearn")  # imports nothing
        if found is None or found.origin is None:
            return None
        path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        return path if path.exists() else None

    def fetch(self, folder: Path | None = None) -> Path:
        """Return `where`: there is nothing to fetch."""
        path = self.where()
        if path is None:
            raise NoiseproofError("data is 'digits': scikit-learn, which carries it, is not installed; run pip install scikit-learn")
        return path


def enlarged(counts: np.ndarray) -> np.ndarray:
    """Bring images [N, 8, 8] of counts 0 … 16 to float32 [N, 1, 28, 28] in [0, 1]."""
    import torch
    from torch.nn.functional import interpolate, pad

    x = torch.from_numpy(counts).float().div(16).unsqueeze(1)
    return pad(interpolate(x, size=(24, 24), mode="bilinear", align_corners=False), (2, 2, 2, 2)).clamp(0, 1).numpy()


data_set = Digits(
    title="Handwritten digits (UCI, bundled with scikit-learn), 28×28 grey",
    train=1437,
    test=360,
    classes=10,
    shape=(1, 28, 28),
    bounds=(0.0, 1.0),
    licence="CC BY 4.0",
    augmentation="rotated copies",
    citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, doi:10.24432/C50P49",
)
