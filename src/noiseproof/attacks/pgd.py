from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import GradientAttack
from noiseproof.attacks._view import View
from noiseproof.errors import require_number


@dataclass(frozen=True)
class PGD(GradientAttack):
    """Projected gradient descent, upwards: x_{k+1} = Π(x_k + s·sign(g_k)), in l2 s·g/‖g‖, from a random start inside the ball.

    g_k = μ·g_{k−1} + ∇_x L(x_k)/‖∇_x L(x_k)‖₁ with momentum μ > 0, else the gradient itself. `steps` gradient evaluations a start.
    A sample that is fooled at some x_k keeps it; with `survivors_only=False` all take every step, as in other libraries.
    Source: Madry et al., arXiv:1706.06083; Kundu et al., ICCV 2021, eq. (4); momentum: Dong et al., arXiv:1710.06081, eq. (6).

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(0))
        >>> found = PGD(eps=0.1, steps=5)(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> found.budget.gradient_evaluations <= 5 * 20
        True
    """

    # gradient steps K
    steps: int = 20
    # size of a step, in the unit of the data; 0: 2.5·eps/steps, with which every point of the ball can be reached
    step: float = 0.0
    # independent starts; only samples that survive one begin the next
    restarts: int = 1
    # begin at a random point of the ball; otherwise at x itself
    random_start: bool = True
    # μ of the accumulated gradient; 0: none
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("steps", self.steps, 1, whole=True)
        require_number("step", self.step, 0)
        require_number("restarts", self.restarts, 1, whole=True)
        require_number("momentum", self.momentum, 0)
        if not self.random_start:
            self._refuse_kl("without a random start its gradient is zero; set random_start")

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found = self._climb(view, x, y, ball, generator)
        left = torch.arange(len(x), device=x.device)
        for _ in range(self.restarts - 1):
            left = left[~view.fooled(found[left], y[left])]
            if not len(left):
                break
            found[left] = self._climb(view, x[left], y[left], ball[left], generator)
        return found

    def _climb(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        """Return where one start ends."""
        z = ball.random(generator) if self.random_start else x
        found, index = z.clone(), torch.arange(len(x), device=x.device)
        size = torch.full_like(ball.eps, self.step) if self.step else ball.eps * (2.5 / self.steps)
        reference, speed = self.reference(view, x, y), torch.zeros(())
        for _ in range(self.steps):
            slope = view.gradient(z, self.values(reference))
            gradient = slope.gradient
            if self.momentum:
                speed = gradient = self.momentum * speed + gradient / _mean_norms(gradient)
            if self.leaves(view) and bool((fooled := slope.logits.argmax(-1) != y).any()):
                found[index[fooled]] = z[fooled]
                kept = (~fooled).nonzero().squeeze(1)
                if not len(kept):
                    return found
                index, y, z, size, gradient, reference = (v[kept] for v in (index, y, z, size, gradient, reference))
                ball, speed = ball[kept], gradient
            z = ball.project(z + ball.ascent(gradient, size))
        found[index] = z
        return found


def _mean_norms(gradient: Tensor) -> Tensor:
    """Return the mean absolute entry of every sample, [B, 1, …]: the l1 norm, but for a constant; never zero."""
    found = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return found.reshape(-1, *[1] * (gradient.ndim - 1))


attack = PGD
