from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from noiseproof.networks._vgg import POOL, VGG


@dataclass(frozen=True)
class VGG11(VGG):
    """conv 64, pool, 128, 256, pool, 512 ×3, pool, 512 ×2, 4096, 4096, classes: 61.4 M parameters; settings as in `VGG`.

    Source: Kundu et al., ICCV 2021, supplement; Ding et al., ICML 2024, Table 1.
    """

    channels: ClassVar = (64, POOL, 128, 256, POOL, 512, 512, 512, POOL, 512, 512)


network = VGG11
