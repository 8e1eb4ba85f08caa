"""Fashion-MNIST: 70,000 grey images of articles of clothing, 28×28, ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from noiseproof.data import _files
from noiseproof.data._data_set import Arrays, DataSet
from noiseproof.data._idx import parse_idx, read_content
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np

NAME = "fashion-mnist"
CHECKSUMS = {  # sha256 of the decompressed files, the same for every way of packing them
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MIRRORS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


class FashionMNIST(DataSet):
    """Xiao, Rasul, Vollgraf, arXiv:1708.07747: 60,000 training and 10,000 test images, every class equally often.

    Four IDX files, gzipped or not, looked for in the given folder and its sub-folder `fashion-mnist`, the same of
    $NOISEPROOF_DATA, /usr/share/datasets/fashion-mnist (Debian's dataset-fashion-mnist), the user's cache (`fetch`).
    """

    def load(self, folder: Path | None = None) -> Arrays:
        """Read the four files, uint8 0 … 255, and hold their content against the published checksums.

        Raises `NoiseproofError` for a file that is missing, cut off, not gzip, not IDX or has another content.
        """
        place = self.where(folder)
        if place is None:
            raise not_found(folder)
        train_x, train_y, test_x, test_y = (read(place, file) for file in CHECKSUMS)
        return Arrays(train_x[:, None], train_y, test_x[:, None], test_y)

    def where(self, folder: Path | None = None) -> Path | None:
        """Return the first folder that has all four files; they are not opened."""
        return _files.locate(NAME, CHECKSUMS, folder)

    def fetch(self, folder: Path | None = None) -> Path:
        """Download about 31 MB into `folder`/fashion-mnist, or into the user's cache."""
        return _files.download(NAME, CHECKSUMS, MIRRORS, folder)


def not_found(folder: Path | None) -> NoiseproofError:
    """Return the error for files that are nowhere."""
    remedy = f"run noiseproof data fetch {NAME}, or apt-get install dataset-{NAME}"
    return _files.not_found(NAME, _files.places(NAME, folder), remedy)


def read(place: Path, file: str) -> np.ndarray:
    """Return the array of one file of `CHECKSUMS`, plain or gzipped, verified."""
    path = _files.in_folder(place, file)
    if path is None:  # it vanished since it was located
        raise not_found(place)
    content = read_content(path)
    array = parse_idx(content, path)  # first: "cut off" says more than "wrong checksum"
    _files.verify(content, CHECKSUMS[file], path)
    return array


data_set = FashionMNIST(
    title="Fashion-MNIST, 28×28 grey",
    train=60_000,
    test=10_000,
    classes=10,
    shape=(1, 28, 28),
    bounds=(0.0, 1.0),
    licence="MIT",
    augmentation="rotated copies",
    citation="Xiao, Rasul, Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, arXiv:1708.07747",
)
