"""One battery for every noise: a new noise is one more row."""

import math

import pytest
import torch

from noiseproof import _names
from noiseproof.errors import NoiseproofError
from noiseproof.noise import (
    PCM,
    Additive,
    BitErrors,
    Compose,
    Drift,
    Gaussian,
    LogNormal,
    MaxRelativeGaussian,
    Measured,
    Mismatch,
    Noise,
    Program,
    Quantisation,
    Read,
    Stuck,
    Temperature,
    Uniform,
)
from noiseproof.randomness import chip_generator

NOISES = {
    "mismatch": Mismatch(zeta=0.3),
    "gaussian": Gaussian(std=0.05),
    "max-relative-gaussian": MaxRelativeGaussian(eta=0.1, per="channel"),
    "uniform": Uniform(zeta=0.3),
    "log-normal": LogNormal(sigma=0.4, nominal="mean"),
    "temperature": Temperature(kelvin=-20, spread=0.001),
    "measured": Measured(fits="weight: gain 0.9 constant 0.02 zeta 0.1"),
    "quantisation": Quantisation(bits=4),
    "bit-errors": BitErrors(p=0.02, bits=5, per="channel"),
    "stuck": Stuck(stuck_at_zero=0.1, stuck_at_max=0.1),
    "pcm": PCM(time=3600, mapping="column", rows=20, columns=7),
    # three that are nothing by themselves
    "program": Compose((Program(rows=16, columns=16), Read())),
    "drift": Compose((Program(), Drift(time=3600), Drift(time=86400), Read())),
    "read": Compose((Mismatch(zeta=0.1), Program(), Read(gdc=False, noise_from="target"))),
}
every_noise = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
# without random numbers: all chips are one
CERTAIN = {"quantisation"}
# mean and standard deviation by their equations, of noise that is not additive and Gaussian
MOMENTS = {
    "uniform": lambda w: (w, 0.3 * w.abs()),
    "log-normal": lambda w: (w, (math.exp(0.16) - 1) ** 0.5 * w.abs()),
    "temperature": lambda w: (w * (1 - 20 / 300), 0.02 * w.abs()),
    "measured": lambda w: (0.9 * w, 0.9 * (0.02**2 + (0.1 * w) ** 2).sqrt()),
}


def params() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 3, 5, 5, generator=g),
        "fc.weight": torch.randn(40, 30, generator=g),
        "fc.bias": torch.randn(40, generator=g),
    }


def test_the_table_is_complete() -> None:
    assert set(NOISES) == set(_names.available("noise", "noise"))


@pytest.mark.parametrize("name", [name for name, noise in NOISES.items() if isinstance(noise, Additive) or name in MOMENTS])
def test_mean_and_standard_deviation_are_those_of_the_equation(name: str) -> None:
    noise, nominal = NOISES[name], params()["fc.weight"]
    draws = torch.stack([noise(params(), chip_generator(0, i))["fc.weight"] for i in range(2000)])
    mean, std = (nominal, noise.sigma(nominal).expand(40, 30)) if isinstance(noise, Additive) else MOMENTS[name](nominal)
    # 2,000 draws: a standard deviation is certain to 1.6 % (log-normal: 3 %); 1,200 of them, so the worst lies within 5 of those
    assert torch.allclose(draws.std(0), std, rtol=0.15 if name == "log-normal" else 0.08)
    assert ((draws.mean(0) - mean).abs() < 5 * std / 2000**0.5 + 1e-12).all()


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
    assert torch.equal(other["fc.weight"], chip["fc.weight"]) == (noise.describe()["name"] in CERTAIN)


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


def test_the_maximum_of_a_tile_is_that_of_its_inputs_and_outputs() -> None:
    noise = MaxRelativeGaussian(eta=0.1, per="tile", rows=20, columns=3)
    for w in (params()["fc.weight"], params()["conv.weight"]):
        matrix, sigma = w.flatten(1), noise.sigma(w).flatten(1)
        for out in range(0, matrix.shape[0], 3):
            for inside in range(0, matrix.shape[1], 20):
                where = (slice(out, out + 3), slice(inside, inside + 20))
                assert torch.equal(sigma[where], (0.1 * matrix[where].abs().max()).expand_as(sigma[where]))
    assert noise.describe()["rows"] == 20
    assert "rows" not in MaxRelativeGaussian(eta=0.1).describe()


def test_log_normal_keeps_sign_and_median() -> None:
    nominal = params()
    chips = [LogNormal(sigma=0.5)(nominal, chip_generator(0, i))["fc.weight"] for i in range(400)]
    ratio = torch.stack(chips) / nominal["fc.weight"]
    assert (ratio > 0).all()
    # 480,000 draws: a median is certain to 1.25·σ/√n of its logarithm
    assert abs(float(ratio.log().median())) < 5 * 1.25 * 0.5 / 480000**0.5
    assert float(ratio.mean()) == pytest.approx(math.exp(0.125), abs=0.01)


def test_a_chip_is_followed_through_temperature() -> None:
    nominal = params()["fc.weight"]
    warm, hot = (Temperature(kelvin=t, spread=0.002)(params(), chip_generator(0, 1))["fc.weight"] - nominal for t in (10.0, 40.0))
    assert torch.allclose(4 * warm, hot, atol=1e-6)


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
        (lambda: MaxRelativeGaussian(per="layer"), "per is 'layer': give kernel, channel, tile or tensor"),  # pyright: ignore
        (lambda: Uniform(zeta=-1), "zeta is -1"),
        (lambda: LogNormal(sigma=11), "sigma is 11: give a number of at least 0 and at most 10"),
        (lambda: LogNormal(nominal="mode"), "nominal is 'mode': give median or mean"),  # pyright: ignore
        (lambda: Temperature(kelvin=-400), "kelvin is -400: at 0.00333333 per kelvin the gain would be -0.333333"),
        (lambda: Temperature(kelvin=10, spread=-1), "spread is -1"),
        (lambda: MaxRelativeGaussian(per="tile", rows=0), "rows is 0: give a whole number of at least 1"),
        (lambda: Mismatch(parameters="threshold*")(params(), chip_generator(0, 0)), "parameters is 'threshold\\*'"),
        (lambda: Mismatch()({}, chip_generator(0, 0)), "no floating-point parameters"),
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()


def test_1_and_1_0_are_one_noise() -> None:
    assert repr(Mismatch(zeta=1).describe()) == repr(Mismatch(zeta=1.0).describe())
    assert Quantisation(bits=8).describe()["bits"] == 8
