"""The ascent engine: search for the worst parameters inside a set around the nominal ones.

Everything is written in relative coordinates δ: θ* = θ + δ·r with the radius r = ζ|θ| + c of each parameter. The box
|θ* − θ| ≤ r is then |δ| ≤ 1, the ellipsoid Σ ((θ* − θ)/r)² ≤ ρ² is the ball ‖δ‖₂ ≤ ρ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from noiseproof.parameters import Params
from noiseproof.randomness import draw_normal


def radii(params: Params, zeta: float, zeta_const: float = 0.0) -> Params:
    """Return r = ζ|θ| + c for every parameter."""
    return {name: zeta * p.abs() + zeta_const for name, p in params.items()}


def displace(params: Params, delta: Params, zeta: float, zeta_const: float = 0.0, *, constant: bool = False) -> Params:
    """Return θ* = θ + δ·(ζ|θ| + c) for the parameters in `delta`, all others as they are.

    Autograd holds δ constant and gives the exact Jacobian of θ*(θ): 1 + δ·ζ·sign(θ), and 1 at θ = 0. With `constant` the
    whole displacement is a constant (Jacobian 1). Source: Büchel et al., arXiv:2106.05009, Algorithm 1.
    """
    chosen = {name: params[name] for name in delta}
    moved = {name: delta[name] * r for name, r in radii(chosen, zeta, zeta_const).items()}
    if constant:
        moved = {name: m.detach() for name, m in moved.items()}
    return params | {name: params[name] + m for name, m in moved.items()}


class Shape(Protocol):
    """The set that the search stays in, and what steepest ascent means in it."""

    def step(self, delta: Params, gradient: Params, radius: Params, size: float) -> Params:
        """Return δ moved by `size` (1 = the whole set) along the steepest ascent; `gradient` is ∂objective/∂θ*."""
        ...

    def project(self, delta: Params, radius: Params) -> Params:
        """Return the point of the set that is nearest to δ."""
        ...

    def spread(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        """Return a random δ about as large as the set: the start of a search is a small multiple of it."""
        ...

    def random(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        """Return a random point on the rim of the set."""
        ...


@dataclass(frozen=True)
class Box:
    """l∞: |δ| ≤ 1 for every parameter; steepest ascent is the sign of the gradient, projection the clip."""

    def step(self, delta: Params, gradient: Params, radius: Params, size: float) -> Params:
        # where r = 0 the parameter cannot move, whatever δ says; δ stays as it is there
        return {name: d + size * (gradient[name] * radius[name]).sign() for name, d in delta.items()}  # A Algorithm 1

    def project(self, delta: Params, radius: Params) -> Params:
        return {name: d.clamp(-1, 1) for name, d in delta.items()}

    def spread(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        return {name: draw_normal(r, streams[name]) for name, r in radius.items()}

    def random(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        return {name: draw.sign() for name, draw in self.spread(radius, streams).items()}


@dataclass(frozen=True)
class Ellipsoid:
    """l2 in the ellipsoid's own metric: ‖δ‖₂ ≤ ρ over all parameters together; both operations are closed-form."""

    rho: float = 1.0

    def step(self, delta: Params, gradient: Params, radius: Params, size: float) -> Params:
        slope = {name: gradient[name] * r for name, r in radius.items()}
        norm = _norm(slope)
        return {name: d + self.rho * size * (slope[name] / norm) for name, d in delta.items()}

    def project(self, delta: Params, radius: Params) -> Params:
        shrink = (self.rho / _norm(delta)).clamp_max(1.0)
        return {name: d * shrink for name, d in delta.items()}

    def random(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        draw = {name: draw_normal(r, streams[name]) for name, r in radius.items()}
        norm = _norm(draw)
        return {name: self.rho * (d / norm) for name, d in draw.items()}

    def spread(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        return self.random(radius, streams)


@dataclass(frozen=True)
class EuclideanEllipsoid(Ellipsoid):
    """l2 with the Euclidean metric of θ: steepest ascent follows the gradient itself, projection is the nearest point in θ.

    The nearest point of the ellipsoid Σ (d/r)² ≤ ρ² to z is d = z·r²/(r² + λ), λ ≥ 0 the root of Σ (z·r/(r² + λ))² = ρ².
    Every step is as long as the longest half-axis, whatever `size`: the set is thin in most directions, where shorter steps
    along the gradient would get nowhere before the projection takes them back.
    """

    def step(self, delta: Params, gradient: Params, radius: Params, size: float) -> Params:
        length, norm = self.rho * torch.stack([r.amax() for r in radius.values()]).amax(), _norm(gradient)
        # (θ* − θ)/r; parameters with r = 0 cannot move
        return {name: d + torch.where(radius[name] > 0, length * (gradient[name] / norm) / radius[name], 0.0) for name, d in delta.items()}

    def project(self, delta: Params, radius: Params) -> Params:
        flat = torch.cat([d.flatten() for d in delta.values()]).double()
        squares = torch.cat([r.flatten() for r in radius.values()]).double().mul_(self.rho).square_()
        parts = flat.mul_(_nearest(flat / self.rho, squares)).split([d.numel() for d in delta.values()])
        return {name: part.view_as(d).to(d) for (name, d), part in zip(delta.items(), parts, strict=True)}


@dataclass(frozen=True)
class GradientBall(Ellipsoid):
    """The same ball, climbed in steps as long as `size` times the gradient itself: δ moves by size·r·∇, as AMP has it."""

    def step(self, delta: Params, gradient: Params, radius: Params, size: float) -> Params:
        return {name: d + size * (gradient[name] * radius[name]) for name, d in delta.items()}


@dataclass(frozen=True)
class Layerwise:
    """A ball for every tensor by itself: ‖δ_l‖₂ ≤ 1 in each, so that no layer's gradient decides how far another one goes."""

    ball: Ellipsoid = Ellipsoid()

    def step(self, delta: Params, gradient: Params, radius: Params, size: float) -> Params:
        return _one_by_one(lambda d, g, r: self.ball.step(d, g, r, size), delta, gradient, radius)

    def project(self, delta: Params, radius: Params) -> Params:
        return _one_by_one(self.ball.project, delta, radius)

    def random(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        return _one_by_one(lambda r: self.ball.random(r, streams), radius)

    def spread(self, radius: Params, streams: dict[str, torch.Generator]) -> Params:
        return self.random(radius, streams)


def project_ellipsoid(z: Tensor, axes: Tensor) -> Tensor:
    """Return the point nearest to `z` in the Euclidean norm with Σ (d_i/a_i)² ≤ 1; O(n) by a safeguarded Newton search.

    `z`, `axes` ≥ 0: vectors [n] of float64; an axis of length 0 gives 0.

    Example:
        >>> project_ellipsoid(torch.tensor([4.0, 0.0]).double(), torch.tensor([2.0, 1.0]).double()).tolist()
        [2.0, 0.0]
    """
    return z * _nearest(torch.where(axes > 0, z / axes, 0.0), axes.square())


def _nearest(relative: Tensor, squares: Tensor) -> Tensor:
    """Return by what z must be multiplied, a²/(a² + λ), to be the nearest point; `relative`: z/a, `squares`: a²; 0 where a = 0.

    The function F(λ) = Σ (a·z/(a² + λ))² falls and is convex for λ ≥ 0, so Newton's method from the left climbs to its root
    without overshooting. Its error is about the square of its last step: after one of less than 1e-8, relative to λ, nothing is left
    of it in float64.
    """
    free = squares > 0
    if not bool(free.all()):
        shrink = torch.zeros_like(squares)
        shrink[free] = _nearest(relative[free], squares[free])
        return shrink
    if bool(torch.dot(relative, relative) <= 1):
        return torch.ones_like(squares)
    products = relative * squares  # a·z
    # every term alone is at least its share of F, so F(low) ≥ 1: a start left of the root
    root = torch.clamp((products.abs() - squares).amax(), min=0.0)
    sums, term, quotient = torch.empty_like(products), torch.empty_like(products), torch.empty_like(products)
    for _ in range(100):
        torch.add(squares, root, out=sums)
        torch.div(products, sums, out=term)
        value = torch.dot(term, term)
        # Newton on 1 − F^(−1/2), which is nearly linear, instead of on F: a few steps for any conditioning
        change = value * (value.sqrt() - 1) / torch.dot(torch.div(term, sums, out=quotient), term)
        root = root + change
        if bool(change <= 1e-8 * root):
            break
    return squares / (squares + root)


def start_near(shape: Shape, radius: Params, zeta: float, std: float, streams: dict[str, torch.Generator]) -> Params:
    """Return the δ of θ*_0 = θ + (r/ζ)·σ0·R: at θ itself the gradient of the KL is zero.

    R ~ N(0, 1) for the box. For an ellipsoid R is a random direction as long as its radius: independent normal numbers
    would lie far outside, √n from the centre, and the projection would put the start on the rim.

    For c = 0 this is |θ|·σ0·R, as in A Algorithm 1. With c > 0 the start scales with the radius, as step and box do, so that
    δ does not depend on θ and the Jacobian of `displace` is exact there too.
    """
    relative = std / zeta if zeta > 0 else std
    return {name: relative * r for name, r in shape.spread(radius, streams).items()}


def ascend(
    gradient_at: Callable[[Params], Params],
    params: Params,
    radius: Params,
    delta: Params,
    shape: Shape,
    steps: int,
    size: float | None = None,
) -> Params:
    """Return δ after `steps` projected steps of steepest ascent, each `size` of the set wide, 1/`steps` where it is not given.

    θ*_t = Π(θ*_{t−1} + (r/N)·sign(∇_{θ*} objective)) for the box. Source: Büchel et al., arXiv:2106.05009, Algorithm 1.
    """
    delta = shape.project(delta, radius)
    for _ in range(steps):
        gradient = gradient_at({name: p + delta[name] * radius[name] for name, p in params.items()})
        delta = shape.project(shape.step(delta, gradient, radius, 1 / steps if size is None else size), radius)
    return delta


def _one_by_one(change: Callable[..., Params], *values: Params) -> Params:
    """Return what `change` makes of each tensor alone, given as a dict of one."""
    return {name: change(*({name: value[name]} for value in values))[name] for name in values[0]}


def _norm(values: Params) -> Tensor:
    """Return the l2 norm over all tensors together; never zero, so that one can divide by it."""
    squares = torch.stack([v.square().sum() for v in values.values()])
    return squares.sum().sqrt().clamp_min(torch.finfo(squares.dtype).tiny)
