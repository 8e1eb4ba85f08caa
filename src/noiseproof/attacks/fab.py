from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from noiseproof.attacks._ball import Ball, Norm
from noiseproof.attacks._base import GradientAttack
from noiseproof.attacks._view import View
from noiseproof.attacks.apgd import likely_wrong, targeted_values
from noiseproof.errors import require, require_number


@dataclass(frozen=True)
class FAB(GradientAttack):
    """Fast adaptive boundary attack, targeted: the least change that crosses the boundary to each of the most likely wrong classes.

    The boundary between the classes y and t is replaced by the plane π_k on which z_t − z_y, linear around x_k, is zero:

        x_{k+1} = (1 − α)·(x_k + η·δ(x_k)) + α·(x + η·δ(x)),   α = min(‖δ(x_k)‖/(‖δ(x_k)‖ + ‖δ(x)‖), α_max)

    where δ(u) is the shortest way from u to π_k inside the range of the data. A point that fools the network is kept if it is the nearest
    yet, and the next x_k lies between it and x: x + β·(x_k − x). `steps` gradient evaluations and as many queries a target and start.
    A sample is done once a change within ε is found; with `survivors_only=False` the search for the least goes on to the end.
    Source: Croce and Hein 2020, arXiv:1907.02044, Algorithm 1 and equations (4) to (9), without its final search, which changes no success.

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> FAB(targets=3).describe()["loss"]
        'margin'
    """

    # gradient steps a target and start
    steps: int = 100
    # the most likely wrong classes that are approached, one after the other
    targets: int = 9
    # independent starts; the first at x itself, the others at random points half as far as the ball is wide
    restarts: int = 1
    # α_max: largest pull back to x
    alpha_max: float = 0.1
    # η: how far beyond the plane
    overshoot: float = 1.05
    # β: where on the way from x to a point that fools the network the search goes on
    beta: float = 0.9
    # fixed: the boundary is where the margin between two classes is zero
    loss: Literal["margin"] = field(default="margin", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.loss == "margin", "loss", self.loss, "leave it out, fab follows the margin")
        require_number("steps", self.steps, 1, whole=True)
        require_number("targets", self.targets, 1, whole=True)
        require_number("restarts", self.restarts, 1, whole=True)
        require_number("alpha_max", self.alpha_max, 0, 1)
        require_number("overshoot", self.overshoot, 1)
        require_number("beta", self.beta, 0, 1)

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found, distance = x.clone(), ball.eps.new_full(y.shape, torch.inf)
        left = torch.arange(len(x), device=x.device)
        for aim in likely_wrong(view, x, y, self.targets):
            for turn in range(self.restarts):
                part = ball[left]
                start = part.x if turn == 0 else part.x + 0.5 * (part.random(generator) - part.x)
                near, far = self._approach(view, start, y[left], aim[left], part)
                closer = far < distance[left]
                found[left[closer]], distance[left[closer]] = near[closer], far[closer]
                if self.leaves(view):
                    left = left[distance[left] > ball.eps[left]]
                if not len(left):
                    return found
        return found

    def _approach(self, view: View, start: Tensor, y: Tensor, aim: Tensor, ball: Ball) -> tuple[Tensor, Tensor]:
        """Return the nearest point that fools the network [B, …] and its distance [B], infinite where there is none."""
        index, z = torch.arange(len(y), device=y.device), start
        nearest, distance = start.clone(), ball.eps.new_full(y.shape, torch.inf)
        for _ in range(self.steps):
            slope = view.gradient(z, targeted_values("margin", y, aim))
            z = self._step(z, slope.gradient, slope.values, ball)
            fooled, far = view.fooled(z, y), length(z - ball.x, self.norm)
            rows = index[closer := fooled & (far < distance[index])]
            nearest[rows], distance[rows] = z[closer], far[closer]
            z = torch.where(_wide(fooled, z), ball.x + self.beta * (z - ball.x), z)
            if self.leaves(view) and bool((done := distance[index] <= ball.eps).any()):
                kept = (~done).nonzero().squeeze(1)
                if not len(kept):
                    break
                index, z, y, aim = (v[kept] for v in (index, z, y, aim))
                ball = ball[kept]
        return nearest, distance

    def _step(self, z: Tensor, gradient: Tensor, margin: Tensor, ball: Ball) -> Tensor:
        """Return x_{k+1}, equations (8) and (9)."""
        x = ball.x
        margin_at_x = margin + (gradient * (x - z)).flatten(1).sum(1)
        from_z = to_plane(z, gradient, -margin, self.norm, ball.bounds)
        from_x = to_plane(x, gradient, -margin_at_x, self.norm, ball.bounds)
        here, there = (length(way, self.norm).clamp_min(1e-8) for way in (from_z, from_x))
        alpha = _wide((here / (here + there)).clamp_max(self.alpha_max), z).to(z)
        moved = (1 - alpha) * (z + self.overshoot * from_z) + alpha * (x + self.overshoot * from_x)
        return moved.clamp(*ball.bounds)


def to_plane(x: Tensor, w: Tensor, gap: Tensor, norm: Norm, bounds: tuple[float, float]) -> Tensor:
    """Return the smallest δ [B, …] with ⟨w, δ⟩ = gap and low ≤ x + δ ≤ high; as far as one can go where no δ reaches the plane.

    Every entry goes its way until it meets the bounds: |δ_i| = min(λ·v_i, room_i), v_i = 1 in l∞ and |w_i| in l2. ⟨w, δ⟩ grows with λ
    along straight lines between the values room_i/v_i; the one that holds the gap is found by sorting them.
    Source: Croce and Hein 2020, arXiv:1907.02044, equations (4) to (6) and appendix A.
    """
    start, slope = x.flatten(1).double(), w.flatten(1).double()
    way = slope.sign() * gap.double().sign()[:, None]
    room = torch.where(way > 0, bounds[1] - start, start - bounds[0]).clamp_min(0)
    pace = torch.ones_like(slope) if norm == "linf" else slope.abs()
    full = torch.where(slope != 0, room / pace.clamp_min(torch.finfo(pace.dtype).tiny), torch.inf)  # λ at which the bounds are met
    ends, order = full.sort(dim=1)
    met = (slope.abs() * room).gather(1, order).cumsum(1)  # gained by the entries at their bounds
    gain = (slope.abs() * pace).gather(1, order)
    moving = gain.sum(1, keepdim=True) - gain.cumsum(1)  # gained for each λ by those that still move
    reached = met + torch.where(moving > 0, ends * moving, 0.0) >= gap.double().abs()[:, None]
    place = torch.where(reached.any(1), reached.double().argmax(1), reached.shape[1] - 1)[:, None]
    gained = torch.where(place > 0, met.gather(1, (place - 1).clamp_min(0)), 0.0)
    rate = gain.gather(1, place) + moving.gather(1, place)
    level = (gap.double().abs()[:, None] - gained) / rate.clamp_min(torch.finfo(rate.dtype).tiny)
    return (way * torch.minimum(level * pace, room)).reshape(x.shape).to(x)


def length(change: Tensor, norm: Norm) -> Tensor:
    """Return the size of the change of every sample in float64, [B]."""
    flat = change.flatten(1).double()
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


attack = FAB
