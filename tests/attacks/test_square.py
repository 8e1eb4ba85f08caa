"""Square: its geometry, its schedule, and that it finds what there is to find without a gradient."""

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import Square
from noiseproof.attacks._ball import Ball
from noiseproof.attacks.square import _bump, _bumps, _frames, _hill, _pattern, _share, _sides, _square, _stripes

SHAPES = [(3, 6, 5), (1, 6, 6), (9, 5), (5, 9), (30,), (4, 2, 5, 6)]
every_shape = pytest.mark.parametrize("shape", SHAPES)


def ball_of(shape: tuple[int, ...], norm: str, eps: float = 0.2, n: int = 5) -> Ball:
    x = 0.3 + 0.4 * torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    return Ball(x, torch.full((n,), eps, dtype=torch.float64), norm, (0.0, 1.0))


def test_the_share_is_halved_as_in_the_published_schedule() -> None:
    assert [_share(0.8, query, 10_000) for query in (10, 11, 50, 51, 201, 1001, 8001)] == [
        0.8, 0.4, 0.4, 0.2, 0.1, 0.8 / 32, 0.8 / 512
    ]  # fmt: skip
    assert _share(0.8, 500, 1000) == _share(0.8, 5000, 10_000)


@pytest.mark.parametrize(
    ("share", "picture", "sides"),
    [
        (0.25, (8, 8), (4, 4)), (0.01, (8, 8), (1, 1)), (0.5, (1, 30), (1, 15)),
        (0.5, (30, 1), (15, 1)), (0.8, (4, 25), (4, 20)), (1, (3, 7), (3, 7)),
    ],
)  # fmt: skip
def test_squares_become_rectangles_of_their_area_where_they_do_not_fit(share: float, picture: tuple, sides: tuple) -> None:
    assert _sides(share, *picture) == sides


@every_shape
def test_in_linf_one_square_moves_to_the_edges_of_the_ball(shape: tuple[int, ...]) -> None:
    ball, stream = ball_of(shape, "linf"), torch.Generator().manual_seed(0)
    z = _stripes(ball, stream).reshape(ball.x.shape)
    assert ((z == ball.low) | (z == ball.high)).all()
    new = _frames(_square(z, ball, 0.2, stream).reshape(z.shape))
    old, low, high = _frames(z), _frames(ball.low), _frames(ball.high)
    tall, wide = _sides(0.2, *old.shape[-2:])
    places = set()
    for i in range(len(z)):
        moved = (new[i] != old[i]).any(0).any(0)
        rows, columns = moved.any(1).nonzero(), moved.any(0).nonzero()
        if not len(rows):
            continue  # the same signs as before
        assert int(rows.max() - rows.min()) < tall
        assert int(columns.max() - columns.min()) < wide
        assert ((new[i] == low[i]) | (new[i] == high[i])).all()
        # one sign a channel, at all steps
        signs = (new[i] == high[i])[:, :, moved]
        assert all(len(signs[:, c, k].unique()) == 1 for c in range(signs.shape[1]) for k in range(signs.shape[2]))
        places.add((int(rows.min()), int(columns.min())))
    assert len(places) > 1, "every sample has a square of its own"


@every_shape
def test_in_l2_all_of_the_radius_is_used(shape: tuple[int, ...]) -> None:
    ball, stream = ball_of(shape, "l2"), torch.Generator().manual_seed(0)
    z = _bumps(ball, stream).reshape(ball.x.shape)
    for share in (0.8, 0.2, 0.05):
        z = _bump(z, ball, share, stream).reshape(ball.x.shape)
        assert torch.isfinite(z).all()
        torch.testing.assert_close((z - ball.x).flatten(1).norm(dim=1), torch.full((5,), 0.2), rtol=1e-4, atol=1e-6)


def test_mass_moves_from_two_windows_into_one() -> None:
    """Outside of the two windows nothing changes, and what they and the unused radius held is in the first."""
    ball, stream = ball_of((1, 20, 20), "l2", eps=1.0, n=4), torch.Generator().manual_seed(0)
    z = ball.x + 0.5 * (_bumps(ball, stream).reshape(ball.x.shape) - ball.x)
    new = _bump(z, ball, 0.04, stream).reshape(z.shape)
    changed = (new - z).abs() > 1e-6
    assert (changed.flatten(1).sum(1) <= 2 * 5 * 5).all()
    assert changed.flatten(1).any(1).all()


def test_hills_are_the_sums_of_the_paper() -> None:
    hill = _hill(5, 5)
    assert hill[2, 2] == pytest.approx(1 + 1 / 4 + 1 / 9)
    assert hill[2, 3] == hill[1, 1] == pytest.approx(1 / 4 + 1 / 9)
    assert hill[0, 2] == pytest.approx(1 / 9)
    pattern = _pattern(6, 6)
    assert pattern.norm() == pytest.approx(1)
    assert pattern.sum() == pytest.approx(0, abs=1e-9)
    assert torch.equal(_pattern(4, 7), _pattern(7, 4).T)


class Hidden(nn.Module):
    """A linear network that passes no gradient: the least change in l∞ that fools it is known."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("w", weights / weights.abs().sum())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        score = ((x - 0.5) * self.w).flatten(1).sum(1) + 0.1 * self.w.abs().sum()
        return torch.stack([10 * score, -10 * score], 1)


@every_shape
@pytest.mark.parametrize("loss", ["margin", "ce"])
def test_it_finds_the_boundary_of_a_network_without_gradients(shape: tuple[int, ...], loss: str) -> None:
    network, x, y = Hidden(shape), torch.full((3, *shape), 0.5), torch.zeros(3, dtype=torch.int64)
    # at x the score is .1·Σ|w|, and a change of d in every entry takes at most d·Σ|w| of it, in frames if w is the same at all steps
    if len(shape) == 4:
        network.w = network.w[:1].expand(shape)
    far = Square(0.35, queries=400, loss=loss)(network, x, y, torch.Generator().manual_seed(0))
    assert far.success.all()
    near = Square(0.099, queries=50, loss=loss, restarts=2)(network, x, y, torch.Generator().manual_seed(0))
    assert not near.success.any()
    assert near.budget.queries == 3 * (2 * 50 + 2)  # and once before, once after
    assert far.budget.queries < 3 * 402
    assert far.budget.gradient_evaluations == 0


@pytest.mark.parametrize("settings", [{"queries": 0}, {"p_init": 0.0}, {"p_init": 1.5}, {"loss": "dlr"}, {"restarts": 0}])
def test_settings_out_of_range_are_named(settings: dict) -> None:
    with pytest.raises(npf.NoiseproofError, match=f"{next(iter(settings))} is"):
        Square(**settings)
