from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import GradientAttack
from noiseproof.attacks._view import View
from noiseproof.errors import require_number


@dataclass(frozen=True)
class RFGSM(GradientAttack):
    """FGSM after a small random step: z = x + α·ξ, x′ = Π(z + s·sign(∇_z L)), ξ ~ N(0, 1) per entry. One gradient evaluation.

    Π projects into the ball of radius ε around x. Source: Ding et al., ICML 2024, section 4.1 (α 0.001, ε 4/255 in training), after
    Tramèr et al., arXiv:1705.07204, and Wong et al., arXiv:2001.03994. The public code of the former does not project, and
    exceeds the ε that it states.

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> RFGSM(eps=4 / 255).describe()["name"]
        'r-fgsm'
    """

    # α: standard deviation of the random step, in the unit of the data
    start: float = 0.001
    # s: size of the step along the gradient, in the unit of the data; 0: eps
    step: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("start", self.start, 0)
        require_number("step", self.step, 0)
        if not self.start:
            self._refuse_kl("without a random step its gradient is zero; give start above 0")

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x)
        z = ball.project(x + self.start * noise)
        slope = view.gradient(z, self.values(self.reference(view, x, y)))
        size = torch.full_like(ball.eps, self.step) if self.step else ball.eps
        return ball.project(z + ball.ascent(slope.gradient, size))


attack = RFGSM
