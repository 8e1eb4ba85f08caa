"""One battery for every noise: a new noise is one more row."""

import pytest
import torch

from noiseproof import _names
from noiseproof.errors import NoiseproofError
from noiseproof.noise import Gaussian, MaxRelativeGaussian, Mismatch, Noise
from noiseproof.randomness import chip_generator

NOISES = {
    "mismatch": Mismatch(zeta=0.3),
    "gaussian": Gaussian(std=0.05),
    "max-relative-gaussian": MaxRelativeGaussian(eta=0.1, per="channel"),
}
every_noise = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())


def params() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 3, 5, 5, generator=g),
        "fc.weight": torch.randn(40, 30, generator=g),
        "fc.bias": torch.randn(40, generator=g),
    }


def test_the_table_is_complete() -> None:
    assert set(NOISES) == set(_names.available("noise", "noise"))


@every_noise
def test_the_standard_deviation_is_the_one_of_the_equation(noise: Noise) -> None:
    nominal = params()
    draws = torch.stack([noise(nominal, chip_generator(0, i))["fc.weight"] - nominal["fc.weight"] for i in range(2000)])
    expected = noise.sigma(nominal["fc.weight"]).expand(40, 30)
    # 2,000 draws: a standard deviation is certain to 1.6 %; 1,200 of them, so the worst lies within 5 of those
    assert torch.allclose(draws.std(0), expected, rtol=0.08)
    assert (draws.mean(0).abs() < 5 * expected / 2000**0.5 + 1e-12).all()


@every_noise
def test_one_chip_whatever_the_selection_order_layout_and_precision(noise: Noise) -> None:
    nominal = params()
    chip = noise(nominal, chip_generator(3, 7))
    assert torch.equal(chip["fc.bias"], nominal["fc.bias"])

    def close(other: dict[str, torch.Tensor]) -> None:
        for name in ("conv.weight", "fc.weight"):
            assert torch.allclose(other[name].float(), chip[name], atol=1e-6)

    close(noise(dict(reversed(nominal.items())), chip_generator(3, 7)))
    close(type(noise)(**{**vars(noise), "parameters": "all"})(nominal, chip_generator(3, 7)))
    close(noise({name: p.double() for name, p in nominal.items()}, chip_generator(3, 7)))
    channels_last = {name: p.contiguous(memory_format=torch.channels_last) if p.ndim == 4 else p for name, p in nominal.items()}
    close(noise(channels_last, chip_generator(3, 7)))
    other = noise(nominal, chip_generator(3, 8))
    assert not torch.equal(other["fc.weight"], chip["fc.weight"])


@every_noise
def test_noise_is_a_constant_to_autograd(noise: Noise) -> None:
    leaves = {name: p.clone().requires_grad_() for name, p in params().items()}
    chip = noise(leaves, chip_generator(0, 0))
    (gradient,) = torch.autograd.grad(chip["fc.weight"].sum(), leaves["fc.weight"])
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_levels_share_their_draws() -> None:
    """Common random numbers: the same chip at two levels differs by the level alone."""
    nominal = params()
    weak, strong = (Mismatch(zeta=z)(nominal, chip_generator(0, 1))["fc.weight"] - nominal["fc.weight"] for z in (0.1, 0.5))
    assert torch.allclose(5 * weak, strong, atol=1e-6)


@pytest.mark.parametrize(("per", "shape"), [("kernel", (8, 3, 1, 1)), ("channel", (8, 1, 1, 1)), ("tensor", ())])
def test_the_maximum_is_taken_over_the_right_weights(per, shape) -> None:
    w = params()["conv.weight"]
    sigma = MaxRelativeGaussian(eta=0.1, per=per).sigma(w)
    assert sigma.shape == shape
    dims = {"kernel": (2, 3), "channel": (1, 2, 3), "tensor": (0, 1, 2, 3)}[per]
    assert torch.allclose(sigma.flatten(), 0.1 * w.abs().amax(dims).flatten())


def test_chips_of_one_seed_never_share_a_generator() -> None:
    assert len({chip_generator(0, i).initial_seed() for i in range(20000)}) == 20000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mismatch(zeta=-0.1), "zeta is -0.1: give a number of at least 0"),
        (lambda: Mismatch(zeta=float("nan")), "zeta is nan"),
        (lambda: Gaussian(std=float("inf")), "std is inf"),
        (lambda: MaxRelativeGaussian(per="layer"), "per is 'layer': give kernel, channel or tensor"),  # pyright: ignore
        (lambda: Mismatch(parameters="threshold*")(params(), chip_generator(0, 0)), "parameters is 'threshold\\*'"),
        (lambda: Mismatch()({}, chip_generator(0, 0)), "no floating-point parameters"),
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()
