"""What an attacker may do: never more than ε, in exact arithmetic, and never outside the range of the data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noiseproof.attacks._ball import Ball


def drawn(seed: int, n: int = 5, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, torch.Generator]:
    stream = torch.Generator().manual_seed(seed)
    x = low + (high - low) * torch.rand(n, 2, 7, generator=stream)
    x[0], x[1] = low, high  # at the edges of the range
    return x, stream


def check_inside(ball: Ball, z: Tensor, x: Tensor, eps: Tensor) -> None:
    change = z.double() - x.double()
    size = change.abs().flatten(1).amax(1) if ball.norm == "linf" else change.flatten(1).norm(dim=1)
    assert (size <= eps).all(), float((size - eps).max())
    assert z.min() >= ball.bounds[0]
    assert z.max() <= ball.bounds[1]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1000), eps=st.floats(1e-6, 1.0), norm=st.sampled_from(["linf", "l2"]), scale=st.sampled_from([1.0, 255.0, 6.0]))
def test_what_is_settled_is_inside_in_float64(seed: int, eps: float, norm, scale: float) -> None:
    x, stream = drawn(seed, high=scale)
    radii = eps * scale * torch.tensor([1.0, 0.5, 0.1, 0.0, 1.0], dtype=torch.float64)
    ball = Ball(x, radii, norm, (0.0, scale))
    far = x + scale * torch.randn(x.shape, generator=stream)
    for z in (far, ball.random(stream), x + ball.ascent(far - x, radii)):
        check_inside(ball, ball.settle(z), x, radii)
    few = torch.tensor([4, 1])
    check_inside(ball[few], ball[few].settle(far[few]), x[few], radii[few])


def test_projection_is_the_nearest_point() -> None:
    x, stream = drawn(0)
    z = x + 0.3 * torch.randn(x.shape, generator=stream)
    box = Ball(x, torch.full((5,), 0.1), "linf", (0.0, 1.0)).project(z)
    assert torch.allclose(box, torch.minimum(torch.maximum(z, x - 0.1), x + 0.1).clamp(0, 1), atol=1e-6)
    # inside the range the l2 ball is a sphere: the nearest point lies on the line to its centre
    x, z = x * 0.0 + 0.5, 0.5 + 0.05 * (z - x)
    on_sphere = Ball(x, torch.full((5,), 0.01), "l2", (0.0, 1.0)).project(z)
    assert torch.allclose(on_sphere, x + 0.01 * (z - x) / (z - x).flatten(1).norm(dim=1)[:, None, None], atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_ascent_has_the_size_that_it_is_given_and_climbs(norm) -> None:
    x, stream = drawn(1)
    ball = Ball(x, torch.full((5,), 0.1), norm, (0.0, 1.0))
    gradient = torch.randn(x.shape, generator=stream)
    step = ball.ascent(gradient, torch.full((5,), 0.02))
    size = step.abs().flatten(1).amax(1) if norm == "linf" else step.flatten(1).norm(dim=1)
    assert torch.allclose(size, torch.full((5,), 0.02))
    assert ((step * gradient).flatten(1).sum(1) > 0).all()


def test_no_gradient_makes_no_step() -> None:
    x, _ = drawn(2)
    for norm in ("linf", "l2"):
        assert not Ball(x, torch.full((5,), 0.1), norm, (0.0, 1.0)).ascent(torch.zeros_like(x), torch.full((5,), 0.1)).any()
