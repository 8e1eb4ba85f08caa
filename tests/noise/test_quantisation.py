"""Quantisation against plain arithmetic, bit by bit."""

import pytest
import torch

from noiseproof.errors import NoiseproofError
from noiseproof.noise import BitErrors, Mismatch, Noise, Quantisation, compose
from noiseproof.randomness import chip_generator


def on(noise: Noise, w: torch.Tensor, chip: int = 0) -> torch.Tensor:
    return noise({"w": w}, chip_generator(0, chip))["w"]


def weights() -> torch.Tensor:
    return torch.randn(30, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_it_is_the_nearest_of_the_numbers_that_bits_can_hold(bits, per) -> None:
    w, found = weights(), on(Quantisation(bits=bits, per=per), weights())
    for row, rounded in zip(w, found, strict=True):
        largest = float((row if per == "channel" else w).abs().max())
        steps = 2 ** (bits - 1) - 1
        levels = torch.arange(-steps, steps + 1, dtype=torch.float64) * (largest / steps)
        off = (row.double()[:, None] - levels).abs().amin(1) if bits <= 10 else torch.full((20,), 0.5 * largest / steps)
        assert ((row - rounded).abs() <= off + 1e-6 * largest).all()
        # each is a level, and there are no more than 2^b − 1
        codes = rounded.double() / largest * steps
        assert torch.allclose(codes, codes.round(), atol=1e-2)
    assert len(found.unique()) <= (2**bits - 1) * (30 if per == "channel" else 1)


@pytest.mark.parametrize("bits", [1, 2, 8, 16])
@pytest.mark.parametrize("noise", [Quantisation(), Quantisation(per="channel"), Quantisation(rounding="toward-zero")])
def test_zero_and_the_largest_stay_and_twice_is_once(noise: Quantisation, bits: int) -> None:
    noise = Quantisation(bits=bits, per=noise.per, rounding=noise.rounding)
    w = weights()
    w[:, 0] = 0
    once = on(noise, w)
    assert (once[:, 0] == 0).all()
    if bits > 1:
        assert once.abs().max() == w.abs().max()
        if noise.rounding == "nearest":
            assert torch.equal(on(noise, once), once)
    assert torch.equal(on(noise, torch.zeros(3, 3)), torch.zeros(3, 3))


def test_one_bit_is_the_sign_at_the_scale_of_least_squared_error() -> None:
    w = weights()
    found = on(Quantisation(bits=1, per="channel"), w)
    for row, rounded in zip(w, found, strict=True):
        assert torch.equal(rounded.sign(), row.sign())
        scale = float(rounded.abs().max())
        errors = [float((row - s * row.sign()).square().sum()) for s in (0.98 * scale, scale, 1.02 * scale)]
        assert errors[1] == min(errors)


def test_toward_zero_never_grows() -> None:
    w = weights()
    found = on(Quantisation(bits=5, rounding="toward-zero"), w)
    assert (found.abs() <= w.abs() + 1e-6).all()
    assert (found * w >= 0).all()


def test_stochastic_rounding_is_right_on_average_and_one_of_the_two_neighbours() -> None:
    w, noise = weights(), Quantisation(bits=4, rounding="stochastic")
    draws = torch.stack([on(noise, w, chip) for chip in range(2000)])
    step = float(w.abs().max()) / 7
    assert ((draws - w).abs() < step * 1.001).all()
    # a choice between two neighbours has at most half a step of standard deviation
    assert ((draws.mean(0) - w).abs() < 5 * 0.5 * step / 2000**0.5).all()


def test_bit_errors_without_errors_and_composition_in_order() -> None:
    w = weights()
    assert torch.equal(on(BitErrors(p=0.0, bits=6, per="channel"), w), on(Quantisation(bits=6, per="channel"), w))
    first = on(compose([Quantisation(bits=3), Mismatch(zeta=0.1)]), w)
    last = on(compose([Mismatch(zeta=0.1), Quantisation(bits=3)]), w)
    assert len(last.unique()) <= 7 < len(first.unique())


def test_the_gradient_goes_straight_through() -> None:
    w = weights().requires_grad_()
    on(Quantisation(bits=2), w).square().sum().backward()
    assert w.grad is not None
    assert torch.allclose(w.grad, 2 * on(Quantisation(bits=2), w).detach())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantisation(bits=0), "bits is 0: give a whole number of at least 1 and at most 16"),
        (lambda: Quantisation(bits=17), "bits is 17: give a whole number of at least 1 and at most 16"),
        (lambda: Quantisation(bits=2.5), "bits is 2.5"),  # pyright: ignore
        (lambda: Quantisation(per="layer"), "per is 'layer': give tensor or channel"),  # pyright: ignore
        (lambda: Quantisation(rounding="up"), "rounding is 'up': give nearest, toward-zero or stochastic"),  # pyright: ignore
        (lambda: Quantisation(bits=1, rounding="stochastic"), "one bit is the sign; give 2 bits or more"),
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()
