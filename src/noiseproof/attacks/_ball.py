"""What an attacker may do to inputs: all points within ε of each, inside the valid range of the data."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]


class Ball:
    """The inputs x′ with ‖x′ − x‖ ≤ ε, low ≤ x′ ≤ high, for every sample by itself.

    `x` [B, …] inside the range; `eps` [B]; `norm` "linf" (largest entry) or "l2" (of all entries of a sample together).
    """

    def __init__(self, x: Tensor, eps: Tensor, norm: Norm, bounds: tuple[float, float]) -> None:
        self.x, self.norm, self.bounds = x, norm, bounds
        self.eps = eps.to(x.device, torch.float64)
        if norm == "linf":
            self.low, self.high = self._edge(-1.0), self._edge(1.0)

    def __getitem__(self, index: Tensor) -> Ball:
        """Return the balls of some of the samples."""
        part = object.__new__(Ball)
        part.x, part.eps, part.norm, part.bounds = self.x[index], self.eps[index], self.norm, self.bounds
        if self.norm == "linf":
            part.low, part.high = self.low[index], self.high[index]
        return part

    def project(self, z: Tensor) -> Tensor:
        """Return the nearest point of the ball; in l2 first the nearest of the sphere, then of the range of the data."""
        if self.norm == "linf":
            return torch.clamp(z, self.low, self.high)
        change = z - self.x
        shrink = (self._per_sample(self.eps).to(z) / norms(change)).clamp_max(1.0)
        return (self.x + change * shrink).clamp(*self.bounds)

    def settle(self, z: Tensor) -> Tensor:
        """Return `z` projected such that not even the last digit is outside: ‖x′ − x‖ ≤ ε holds in float64."""
        z = self.project(z)
        if self.norm == "linf":
            return z
        change = z.double() - self.x.double()
        shrink = self._per_sample(self.eps) / norms(change)
        return torch.where(shrink < 1, self._rounded_inwards(change * (shrink * (1 - 1e-12))), z)

    def random(self, stream: torch.Generator) -> Tensor:
        """Return random points: uniform in the box; in l2 in a random direction, U(0, 1)·ε away."""
        if self.norm == "linf":
            u = torch.rand(self.x.shape, generator=stream, device=stream.device).to(self.x)
            return self.project(self.x + (2 * u - 1) * self._per_sample(self.eps).to(self.x))
        direction = torch.randn(self.x.shape, generator=stream, device=stream.device).to(self.x)
        u = torch.rand(len(self.x), generator=stream, device=stream.device).to(self.x)
        return self.project(self.x + direction * self._per_sample(u * self.eps.to(u)) / norms(direction))

    def ascent(self, gradient: Tensor, size: Tensor) -> Tensor:
        """Return the step of length `size` [B] that climbs most steeply: its sign in l∞, its direction in l2."""
        size = self._per_sample(size).to(gradient)
        if self.norm == "linf":
            return size * gradient.sign()
        # first to a largest entry of 1: the squares of what a saturated network lets through underflow
        largest = gradient.flatten(1).abs().amax(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        gradient = gradient / self._per_sample(largest)
        return size * (gradient / norms(gradient))

    def _edge(self, side: float) -> Tensor:
        """Return x + side·ε inside the range, rounded inwards; an x that is a last digit outside the range may stay there."""
        low, high = self.bounds
        change = side * self._per_sample(self.eps).expand_as(self.x)
        return torch.clamp(self._rounded_inwards(change), self.x.clamp_max(low), self.x.clamp_min(high))

    def _rounded_inwards(self, change: Tensor) -> Tensor:
        """Return x + change (float64) in the type of x, no entry farther from x than `change` says."""
        exact = self.x.double()
        rounded = (exact + change).to(self.x)
        outside = (rounded.double() - exact).abs() > change.abs()
        return torch.where(outside, torch.nextafter(rounded, self.x), rounded)

    def _per_sample(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (self.x.ndim - 1))


def norms(change: Tensor) -> Tensor:
    """Return the l2 norm of every sample, [B, 1, …]; never zero, so that one can divide by it."""
    found = change.flatten(1).norm(dim=1).clamp_min(torch.finfo(change.dtype).tiny)
    return found.reshape(-1, *[1] * (change.ndim - 1))
