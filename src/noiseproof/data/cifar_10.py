"""CIFAR-10: 60,000 colour images of animals and vehicles, 32×32, ten classes."""

from __future__ import annotations

from functools import partial

from noiseproof.data._cifar import Cifar, Layout, read_binary, read_pickle

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


class CIFAR10(Cifar):
    """Krizhevsky, 2009: 50,000 training and 10,000 test images, every class equally often.

    Read from the python version (`cifar-10-batches-py`, pickles, of which nothing is executed) or the binary version
    (`cifar-10-batches-bin`), each as a folder or as its official .tar.gz, looked for in the given folder and its sub-folder
    `cifar-10`, the same of $NOISEPROOF_DATA, and the user's cache (`fetch`).
    """


data_set = CIFAR10(
    title="CIFAR-10, 32×32 colour",
    train=50_000,
    test=10_000,
    classes=10,
    shape=(3, 32, 32),
    bounds=(0.0, 1.0),
    licence="none stated by its authors",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, University of Toronto, 2009",
    augmentation="crop and flip",
    name="cifar-10",
    layouts=(
        Layout("cifar-10-batches-py", "cifar-10-python.tar.gz", BATCHES, ("test_batch",), partial(read_pickle, labels="labels")),
        Layout(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            tuple(f"{batch}.bin" for batch in BATCHES),
            ("test_batch.bin",),
            partial(read_binary, label_bytes=1),
        ),
    ),
    md5="c58f30108f718f92721af3b95e74349a",
)
