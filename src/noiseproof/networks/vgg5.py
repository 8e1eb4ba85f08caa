from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from noiseproof.networks._vgg import POOL, VGG


@dataclass(frozen=True)
class VGG5(VGG):
    """conv 64, pool, conv 128, conv 128, pool, 4096, 4096, classes: 50.6 M parameters for CIFAR-10; settings as in `VGG`.

    Source: Kundu et al., ICCV 2021, supplement; Ding et al., ICML 2024, Table 2.
    """

    channels: ClassVar = (64, POOL, 128, 128, POOL)


network = VGG5
