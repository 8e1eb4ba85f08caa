from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import Attack
from noiseproof.attacks._view import View
from noiseproof.errors import require, require_number


@dataclass(frozen=True)
class RandomNoise(Attack):
    """Noise of the size of an attack: what chance does inside the same ball. Queries only; each draw after the first for survivors alone.

        uniform: x + ε·u, u ~ U(−1, 1) per entry (l2: a random direction, U(0, 1)·ε far)
        corner: x ± ε, random signs (l2: a random direction, ε far), the strongest noise of that size
        gaussian: x + ε·ξ, ξ ~ N(0, 1) per entry, confined to the range of the data but not to the ball

    With many draws this is the random search of the checklist against obfuscated gradients. Labels say which samples are fooled.
    Source: Athalye et al., arXiv:1802.00420, section 3.1; gaussian: Ding et al., ICML 2024, section 5.

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(0))
        >>> found = RandomNoise(eps=0.1, draws=3)(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> found.budget.gradient_evaluations
        0
    """

    # uniform, corner or gaussian
    kind: Literal["uniform", "corner", "gaussian"] = "corner"
    # tries a sample; it counts as fooled when one of them fools
    draws: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind in ("uniform", "corner", "gaussian"), "kind", self.kind, "give uniform, corner or gaussian")
        require_number("draws", self.draws, 1, whole=True)

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found = self._draw(ball, generator)
        left = torch.arange(len(x), device=x.device)
        for _ in range(self.draws - 1):
            left = left[~view.fooled(found[left], y[left])]
            if not len(left):
                break
            found[left] = self._draw(ball[left], generator)
        return found

    def _draw(self, ball: Ball, generator: torch.Generator) -> Tensor:
        if self.kind == "uniform":
            return ball.random(generator)
        xi = torch.randn(ball.x.shape, generator=generator, device=generator.device).to(ball.x)
        if self.kind == "corner":
            return ball.project(ball.x + ball.ascent(xi, ball.eps))
        radius = ball.eps.reshape(-1, *[1] * (ball.x.ndim - 1)).to(ball.x)
        return (ball.x + radius * xi).clamp(*ball.bounds)

    def settle(self, found: Tensor, ball: Ball) -> Tensor:
        return found if self.kind == "gaussian" else super().settle(found, ball)


attack = RandomNoise
