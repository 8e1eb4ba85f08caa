from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import GradientAttack
from noiseproof.attacks._view import View


@dataclass(frozen=True)
class FGSM(GradientAttack):
    """Fast gradient sign method: x′ = x + ε·sign(∇_x L), inside the range of the data; in l2 ε·∇/‖∇‖. One gradient evaluation.

    Source: Goodfellow et al., arXiv:1412.6572; Kundu et al., ICCV 2021, eq. (3); Ding et al., ICML 2024, eq. (3).

    Raises `NoiseproofError` when a setting is out of its range, and for loss "kl", whose gradient is zero at x itself.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(0))
        >>> found = FGSM(eps=0.1)(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> bool(((found.x.double() - data.test.x.double()).abs() <= 0.1).all()), found.success.shape
        (True, torch.Size([20]))
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_kl("its gradient is zero at x itself, where this attack begins; take pgd")

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        slope = view.gradient(x, self.values(self.reference(view, x, y)))
        return ball.project(x + ball.ascent(slope.gradient, ball.eps))


attack = FGSM
