"""CIFAR-100: 60,000 colour images, 32×32, a hundred classes (the fine labels)."""

from __future__ import annotations

from functools import partial

from noiseproof.data._cifar import Cifar, Layout, read_binary, read_pickle


class CIFAR100(Cifar):
    """Krizhevsky, 2009: 50,000 training and 10,000 test images, every class equally often; the 20 coarse labels are not used.

    Read from the python version (`cifar-100-python`, pickles, of which nothing is executed) or the binary version
    (`cifar-100-binary`), each as a folder or as its official .tar.gz, looked for in the given folder and its sub-folder
    `cifar-100`, the same of $NOISEPROOF_DATA, and the user's cache (`fetch`).
    """


data_set = CIFAR100(
    title="CIFAR-100, 32×32 colour",
    train=50_000,
    test=10_000,
    classes=100,
    shape=(3, 32, 32),
    bounds=(0.0, 1.0),
    licence="none stated by its authors",
    citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, University of Toronto, 2009",
    augmentation="crop and flip",
    name="cifar-100",
    layouts=(
        Layout("cifar-100-python", "cifar-100-python.tar.gz", ("train",), ("test",), partial(read_pickle, labels="fine_labels")),
        Layout("cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), ("test.bin",), partial(read_binary, label_bytes=2)),
    ),
    md5="eb9058c3a382ffc7106e4002c42a8d85",
)
