from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import GradientAttack, loss_values
from noiseproof.attacks._view import Slope, Values, View
from noiseproof.attacks.objectives import dlr_targeted_values
from noiseproof.errors import require_number


@dataclass(frozen=True)
class APGD(GradientAttack):
    """Auto-PGD: projected ascent with momentum and a step size of its own for every sample, halved when it brings no more.

        z = Π(x_k + η·sign(∇L(x_k))),   x_{k+1} = Π(x_k + α·(z − x_k) + (1 − α)·(x_k − x_{k−1})),   η = 2ε at first

    At the checkpoints w_j = ⌈p_j·K⌉, p_j = 0, .22, .41, .57, …, η is halved and the sample goes back to its best point, when its loss
    rose in fewer than ρ of the steps since w_{j−1}, or when neither η nor its best loss changed since then. `steps` gradient
    evaluations a start. With `targets` the loss is led to one wrong class: −CE, or equation (7) for "dlr" (four classes or more).
    Returned is the point of the largest loss among those that fool the network; where none does, among all.
    Source: Croce and Hein 2020, arXiv:2003.01690, Algorithm 1; α = .75, ρ = .75.

    Raises `NoiseproofError` when a setting is out of its range, and for loss "kl".

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(0))
        >>> found = APGD(eps=0.1, steps=10, loss="dlr")(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> found.budget.gradient_evaluations <= 10 * 20
        True
    """

    # gradient steps K of every start
    steps: int = 100
    # 0: away from the right class; k: towards each of the k most likely wrong ones in turn, with the targeted form of the loss
    targets: int = 0
    # independent starts (a target each); only samples that survive one begin the next
    restarts: int = 1
    # α: share of the new step, the rest is the one before
    alpha: float = 0.75
    # ρ: share of the steps that must raise the loss
    rho: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_kl("apgd climbs ce, dlr or margin; without labels take pgd")
        require_number("steps", self.steps, 1, whole=True)
        require_number("targets", self.targets, 0, whole=True)
        require_number("restarts", self.restarts, 1, whole=True)
        require_number("alpha", self.alpha, 0, 1, open_low=True)
        require_number("rho", self.rho, 0, 1)

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        found, left, first = x.clone(), torch.arange(len(x), device=x.device), True
        for aim in likely_wrong(view, x, y, self.targets) if self.targets else (None,):
            for _ in range(self.restarts):
                moved, fooled = self._climb(view, y[left], None if aim is None else aim[left], ball[left], generator)
                # what survives all keeps the first, towards the likeliest class
                kept = fooled | first
                found[left[kept]], left, first = moved[kept], left[~fooled], False
                if not len(left):
                    return found
        return found

    def _climb(self, view: View, y: Tensor, aim: Tensor | None, ball: Ball, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return where one start ends [B, …], and whether the network is fooled there [B]."""
        walk = _begin(ball.random(generator), y, y if aim is None else aim, 2 * ball.eps)
        found, fooled, worth = walk.z.clone(), torch.zeros_like(y, dtype=torch.bool), torch.full(y.shape, -torch.inf).to(walk.z)
        values, checkpoints = self._values(walk, aim is None), _checkpoints(self.steps)
        for k in range(self.steps + 1):
            slope = view.gradient(walk.z, values) if k < self.steps else _look(view, walk.z, values)
            wrong = slope.logits.argmax(-1) != walk.y
            better = wrong & (slope.values > worth[walk.places])
            rows = walk.places[better]
            found[rows], worth[rows], fooled[rows] = walk.z[better], slope.values[better], True
            if self.leaves(view) and bool(wrong.any()):
                kept = (~wrong).nonzero().squeeze(1)
                if not len(kept):
                    return found, fooled
                walk, ball, slope = _Walk(*(v[kept] for v in walk)), ball[kept], Slope(*(v[kept] for v in slope))
                values = self._values(walk, aim is None)
            walk = _seen(walk, slope)
            if k in checkpoints:
                walk = self._checked(walk, checkpoints[k])
            if k < self.steps:
                walk = self._moved(walk, ball, first=k == 0)
        rest = ~fooled[walk.places]
        found[walk.places[rest]] = walk.best[rest]
        # of a stochastic network one of many steps may have been luck; all samples are still there
        return found, view.fooled(found, walk.y) if view.stochastic else fooled

    def _values(self, walk: _Walk, untargeted: bool) -> Values:
        return loss_values(self.loss, walk.y) if untargeted else targeted_values(self.loss, walk.y, walk.aim)

    def _moved(self, walk: _Walk, ball: Ball, *, first: bool) -> _Walk:
        z = ball.project(walk.z + ball.ascent(walk.gradient, walk.size))
        if not first:
            z = ball.project(walk.z + self.alpha * (z - walk.z) + (1 - self.alpha) * (walk.z - walk.before))
        return walk._replace(z=z, before=walk.z)

    def _checked(self, walk: _Walk, window: int) -> _Walk:
        """Halve the step and go back to the best point where one of the two conditions of the checkpoint holds."""
        stuck = ~walk.halved & (walk.best_value == walk.mark)
        halved = (walk.rises < self.rho * window) | stuck
        here = halved.reshape(-1, *[1] * (walk.z.ndim - 1))
        return walk._replace(
            z=torch.where(here, walk.best, walk.z),
            gradient=torch.where(here, walk.best_gradient, walk.gradient),
            size=torch.where(halved, walk.size / 2, walk.size),
            rises=torch.zeros_like(walk.rises),
            mark=walk.best_value,
            halved=halved,
        )


class _Walk(NamedTuple):
    """The samples that are still climbed: the first dimension of all is theirs. `places`: where they stand among all samples."""

    places: Tensor
    y: Tensor
    aim: Tensor
    z: Tensor  # x_k
    before: Tensor  # x_{k−1}
    gradient: Tensor  # of the loss at x_k
    value: Tensor  # the loss there
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor
    size: Tensor  # η
    rises: Tensor  # steps since the last checkpoint that raised the loss
    mark: Tensor  # the best loss at the last checkpoint
    halved: Tensor  # whether η was halved there


def _begin(z: Tensor, y: Tensor, aim: Tensor, size: Tensor) -> _Walk:
    none = z.new_full(y.shape, torch.inf)
    rises = torch.zeros_like(y)
    # +∞ as the first loss: x_0 does not count as a rise
    return _Walk(torch.arange(len(y), device=y.device), y, aim, z, z, z, none, z, z, -none, size, rises, -none, rises > 0)


def _seen(walk: _Walk, slope: Slope) -> _Walk:
    """Return the walk once the loss and its gradient at x_k are known."""
    better = slope.values > walk.best_value
    here = better.reshape(-1, *[1] * (walk.z.ndim - 1))
    return walk._replace(
        gradient=slope.gradient,
        value=slope.values,
        best=torch.where(here, walk.z, walk.best),
        best_gradient=torch.where(here, slope.gradient, walk.best_gradient),
        best_value=torch.where(better, slope.values, walk.best_value),
        rises=walk.rises + (slope.values > walk.value),
    )


def _look(view: View, z: Tensor, values: Values) -> Slope:
    """Return logits and loss at the last point, from which no step follows; its gradient is not asked for."""
    logits = view.logits(z)
    return Slope(torch.zeros_like(z), logits, values(logits))


def _checkpoints(steps: int) -> dict[int, int]:
    """Return the checkpoints w_j ≤ K and the number of steps since the one before, p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06)."""
    found, percent, gap, last = {}, 22, 22, 0
    while percent <= 100:
        here = -(-percent * steps // 100)  # ⌈p_j·K⌉
        if here > last:
            found[here], last = here - last, here
        gap = max(gap - 3, 6)
        percent += gap
    return found


def likely_wrong(view: View, x: Tensor, y: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return the `count` most likely wrong classes of every sample, [B] each, the most likely first; all if there are fewer."""
    logits = view.logits(x).scatter(-1, y[:, None], -torch.inf)
    return logits.topk(min(count, logits.shape[-1] - 1), dim=-1).indices.unbind(-1)


def targeted_values(loss: str, y: Tensor, target: Tensor) -> Values:
    """Return the targeted form of a loss, logits [B, C] → [B]: large where the class is `target` [B] and not `y` [B].

    "ce": −CE(z, t); "margin": z_t − z_y; "dlr": equation (7) of arXiv:2003.01690, and "ce" with fewer than the four classes it needs.
    """
    if loss == "margin":
        return lambda logits: (logits.gather(-1, target[:, None]) - logits.gather(-1, y[:, None])).squeeze(-1)

    def values(logits: Tensor) -> Tensor:
        if loss == "ce" or logits.shape[-1] < 4:
            return -cross_entropy(logits, target, reduction="none")
        return dlr_targeted_values(logits, y, target)

    return values


attack = APGD
