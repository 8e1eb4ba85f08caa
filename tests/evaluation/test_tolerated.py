"""The inverse question, for any noise: the largest level at which enough chips are good enough."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Splits
from noiseproof.evaluation import Ledger, Measures, monte_carlo, tolerated
from noiseproof.evaluation.tolerated import Range
from noiseproof.noise import Compose, Gaussian, Mismatch, Noise, Quantisation, Temperature
from noiseproof.randomness import chip_generator
from noiseproof.statistics import clopper_pearson


@dataclass(frozen=True)
class Drift(Noise):
    """Weights that shrink with time, and spread: a noise with a wide range of levels, for these tests."""

    time: float = 1.0

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        nu = 0.05 * torch.randn(theta.shape, generator=stream).abs()
        return theta * (1 + self.time) ** -nu


@dataclass(frozen=True)
class Repeated(Noise):
    """Mismatch a whole number of times, for these tests."""

    times: int = 1

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        return theta * (1 + 0.1 * self.times * torch.randn(theta.shape, generator=stream))


@pytest.fixture(scope="module")
def network(digits: Splits) -> nn.Module:
    made = npf.networks.MLP(hidden=(32,)).build(digits.task, chip_generator(0, 0))
    npf.train(made, digits, epochs=8, batch_size=20, progress=False)
    return made


def passing(network: nn.Module, data: Splits, noise: Noise, required: float) -> float:
    values = [r.value for r in monte_carlo(network, data.test, noise, chips=20, processes=1)]
    return sum(v >= required for v in values) / len(values)


@pytest.mark.parametrize(
    ("low", "high", "factor", "step"),
    [
        (Gaussian(std=0.0), Gaussian(std=1.0), 1.0, 1 / 400),
        (Gaussian(std=1e-4), Gaussian(std=10.0), 10 ** (5 / 400), 0.0),
        (Drift(time=25.0), Drift(time=1e12), 10 ** (10.61 / 400), 0.0),
        (Compose((Mismatch(zeta=0.1), Repeated(times=0))), Compose((Mismatch(zeta=0.1), Repeated(times=30))), 1.0, 1),
    ],
)
def test_the_yield_holds_at_the_answer_and_not_beyond(low, high, factor, step, network, digits) -> None:
    record = tolerated(network, digits.test, low, high, 0.6, required_yield=0.9, chips=20, processes=1)
    between = Range(low, high)
    assert record.metric == f"tolerated_{between.setting}"
    assert between.levels[0] < record.value < between.levels[1]
    level = type(between.levels[0])(record.value)
    assert passing(network, digits, between.at(level), 0.6) >= 0.9
    assert passing(network, digits, between.at(level * factor + step), 0.6) < 0.9
    assert between.setting not in record.perturbation
    assert record.at == {
        "required_accuracy": 0.6, "yield": 0.9, "chips": 20.0, "lowest": between.levels[0], "highest": between.levels[1],
    }  # fmt: skip


def test_the_ends_of_the_range(network, digits) -> None:
    missed = tolerated(network, digits.test, Gaussian(std=0.01), Gaussian(std=1.0), 1.0, chips=4, processes=1)
    assert (missed.metric, missed.value) == ("not_tolerated_std", 0.01)
    # the lower end counts even where the upper one holds
    cold = tolerated(network, digits.test, Temperature(kelvin=-290.0), Temperature(kelvin=0.0), 0.9, chips=4, processes=1)
    assert (cold.metric, cold.value) == ("not_tolerated_kelvin", -290.0)
    held = tolerated(network, digits.test, Gaussian(std=0.0), Gaussian(std=1e-6), 0.5, chips=4, processes=1)
    assert (held.metric, held.value) == ("tolerated_std", 1e-6)


def test_the_interval_ends_where_the_chips_decide(network, digits) -> None:
    ledger = Ledger()
    low, high = Gaussian(std=0.0), Gaussian(std=1.0)
    tolerated(network, digits.test, low, high, 0.6, required_yield=0.8, chips=20, processes=1, ledger=ledger)
    at = {record.metric: record.value for record in ledger.records}
    surely, answer, possibly = (at[f"{how}tolerated_std"] for how in ("surely_", "", "possibly_"))
    assert surely < answer < possibly

    def interval(level: float) -> tuple[float, float]:
        return clopper_pearson(round(20 * passing(network, digits, Gaussian(std=level), 0.6)), 20)

    assert interval(surely)[0] >= 0.8 > interval(surely + 1 / 400)[0]
    assert interval(possibly)[1] >= 0.8 > interval(possibly + 1 / 400)[1]


def test_few_chips_make_nothing_sure(network, digits) -> None:
    ledger = Ledger()
    tolerated(network, digits.test, Gaussian(std=0.01), Gaussian(std=1.0), 0.5, chips=4, processes=1, ledger=ledger)
    assert {record.metric for record in ledger.records} == {"tolerated_std", "not_surely_tolerated_std", "possibly_tolerated_std"}


def test_answered_once(network, digits) -> None:
    ledger = Ledger()
    first = tolerated(network, digits.test, Gaussian(std=0.0), Gaussian(std=1.0), 0.6, chips=4, processes=1, ledger=ledger)
    again = tolerated(network, digits.test, Gaussian(std=0.0), Gaussian(std=1.0), 0.6, chips=4, ledger=ledger, measure=lambda _: iter(()))
    assert again == first


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (Mismatch(zeta=0.1), Mismatch(zeta=0.1), "must differ in one number"),
        (Mismatch(zeta=0.1), Gaussian(std=0.2), "must differ in one number"),
        (Mismatch(zeta=0.1), Mismatch(zeta=0.2, parameters="all"), "must differ in one number"),
        (Mismatch(parameters="weights"), Mismatch(parameters="all"), "tolerated parameters is 'weights'"),
        (Mismatch(zeta=0.2), Mismatch(zeta=0.1), "give the smaller level first"),
        (Quantisation(bits=2), Quantisation(bits=8), r"tolerated bits is \(2, 8\): more bits are better"),
        (Mismatch(zeta=0.2), Compose((Mismatch(zeta=0.1), Mismatch(zeta=0.1))), "must differ in one number"),
    ],
)
def test_wrong_ranges_are_refused(low, high, message) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        Range(low, high)


def test_ranges_are_spelled() -> None:
    measures = Measures(required_accuracy=0.5, parameters="all", tolerated=("mismatch(zeta=0.1) > gaussian(std=1/1000|10)",))
    first, second = measures.ranges()
    assert first.at(0.5) == Mismatch(zeta=0.5, parameters="all")
    assert second.at(0.5) == Compose((Mismatch(zeta=0.1), Gaussian(std=0.5)))
    assert second.levels == (0.001, 10.0)
    assert Measures().ranges() == []
    with pytest.raises(npf.NoiseproofError, match="give one setting a lowest and a highest level"):
        Measures(required_accuracy=0.5, tolerated=("gaussian(std=0.1)",))
    with pytest.raises(npf.NoiseproofError, match="without required_accuracy"):
        Measures(tolerated=("gaussian(std=0.1|1)",))
