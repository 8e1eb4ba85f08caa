"""Noise of the size of an attack: where it may go, how large it is, and that many draws are a search."""

import pytest
import torch
from torch import nn

from noiseproof.attacks import RandomNoise
from noiseproof.attacks._ball import Ball
from noiseproof.data import Splits
from noiseproof.errors import NoiseproofError
from noiseproof.randomness import generator


@pytest.fixture
def ball() -> Ball:
    return Ball(torch.full((200, 3, 4), 0.5), torch.full((200,), 0.1), "linf", (0.0, 1.0))


def test_corner_is_epsilon_away_everywhere_and_uniform_fills_the_ball(ball: Ball) -> None:
    corner = RandomNoise(eps=0.1)._draw(ball, generator("test", 0)) - 0.5
    assert corner.abs().sub(0.1).abs().max() < 1e-6
    assert corner.mean().abs() < 0.01
    uniform = RandomNoise(eps=0.1, kind="uniform")._draw(ball, generator("test", 0)) - 0.5
    assert uniform.abs().max() <= 0.1
    assert uniform.std() == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_corner_in_l2_lies_on_the_sphere() -> None:
    ball = Ball(torch.full((50, 12), 0.5), torch.full((50,), 0.3), "l2", (0.0, 1.0))
    change = RandomNoise(eps=0.3, norm="l2")._draw(ball, generator("test", 0)) - 0.5
    assert torch.allclose(change.norm(dim=1), torch.full((50,), 0.3), rtol=1e-5)


def test_gaussian_has_its_standard_deviation_and_keeps_to_the_range_alone(digits: Splits, mlp: nn.Module) -> None:
    x, y = digits.test.x, mlp(digits.test.x).argmax(1)
    found = RandomNoise(eps=0.05, kind="gaussian")(mlp, x, y, generator("test", 0))
    change = (found.x - x)[(x > 0.3) & (x < 0.7)]
    assert change.std() == pytest.approx(0.05, rel=0.1)
    assert change.abs().max() > 0.1
    assert found.x.min() >= 0
    assert found.x.max() <= 1


def test_more_draws_find_more_and_only_survivors_are_asked_again(digits: Splits, mlp: nn.Module) -> None:
    x, y = digits.test.x, mlp(digits.test.x).argmax(1)
    one, many = (RandomNoise(eps=0.2, draws=draws)(mlp, x, y, generator("test", 0)) for draws in (1, 30))
    assert many.accuracy < one.accuracy
    assert bool((many.success | ~one.success).all())
    assert many.budget.gradient_evaluations == 0
    assert many.budget.queries < 30 * len(x)


@pytest.mark.parametrize(("settings", "message"), [({"kind": "salt"}, "kind is 'salt'"), ({"draws": 0}, "draws is 0")])
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(NoiseproofError, match=message):
        RandomNoise(**settings)  # type: ignore[arg-type]
