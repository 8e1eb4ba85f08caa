"""Chips, attacks, landscape and the inverse question, held against plain loops."""

import copy
import itertools

import pytest
import torch
from torch import nn

import noiseproof as npf
from noiseproof.data import Splits
from noiseproof.evaluation import Ledger, attack_curves, landscape, monte_carlo, tolerated_mismatch
from noiseproof.evaluation.chips import Chip, _measure_group, measurer
from noiseproof.noise import Gaussian, Mismatch
from noiseproof.randomness import chip_generator


@pytest.fixture(scope="module")
def network(digits: Splits) -> nn.Module:
    made = npf.networks.MLP(hidden=(32,)).build(digits.task, chip_generator(0, 0))
    npf.train(made, digits, epochs=8, batch_size=20, progress=False)
    return made


def deep_copy_loop(network: nn.Module, noise: npf.noise.Noise, data: Splits, chips: int) -> list[float]:
    """What anybody would write: copy the network, add the noise, count."""
    found = []
    for i in range(chips):
        twin = copy.deepcopy(network).eval()
        chip = noise({n: p.detach() for n, p in network.named_parameters()}, chip_generator(0, i))
        with torch.no_grad():
            for name, p in twin.named_parameters():
                p.copy_(chip[name])
            found.append((twin(data.test.x).argmax(-1) == data.test.y).double().mean().item())
    return found


@pytest.mark.parametrize("noise", [Mismatch(zeta=0.5), Gaussian(std=0.1, parameters="all")])
def test_chips_equal_a_deep_copy_loop_in_any_number_of_processes(network, digits, noise) -> None:
    plain = deep_copy_loop(network, noise, digits, 20)
    for processes, block in ((1, 7), (2, 20), (2, 1000)):
        records = monte_carlo(network, digits.test, noise, chips=20, processes=processes, block=block)
        assert [r.chip for r in records] == list(range(20))
        # blocks round differently: at most one sample may lie on the border
        assert all(abs(r.value - p) <= 1.001 / len(digits.test) for r, p in zip(records, plain, strict=True))
        assert records[0].perturbation == noise.describe()


def test_batched_chips_equal_a_loop(network, digits) -> None:
    noise = Mismatch(zeta=0.5)
    nominal = {n: p.detach() for n, p in network.named_parameters()}
    chips = [Chip(noise, 0, i) for i in range(5)]
    group = [chip.params(nominal) for chip in chips]
    batched = list(_measure_group(network, {n: torch.stack([g[n] for g in group]) for n in nominal}, digits.test))
    with measurer(network, digits.test, processes=1) as measure:
        looped = list(measure(chips))
    assert [b.correct for b in batched] == [one.correct for one in looped]
    assert [b.loss for b in batched] == pytest.approx([one.loss for one in looped], rel=1e-5)


def test_half_width_stops_when_the_mean_is_certain(network, digits) -> None:
    from noiseproof.statistics import mean_interval

    records = monte_carlo(network, digits.test, Mismatch(zeta=0.5), half_width=2.0, processes=1)
    values = [r.value for r in records]
    assert len(values) >= 32
    assert len(values) % 16 == 0
    widths = [mean_interval(values[:n])[1] for n in range(16, len(values) + 1, 16)]
    assert max(widths[-2:]) <= 0.02
    assert all(max(pair) > 0.02 for pair in itertools.pairwise(widths[:-1]))
    assert len(monte_carlo(network, digits.test, Mismatch(zeta=0.5), half_width=1e-6, max_chips=40, processes=1)) == 40


def test_a_noise_of_size_zero_has_one_chip(network, digits) -> None:
    (record,) = monte_carlo(network, digits.test, Mismatch(zeta=0.0), chips=50)
    assert record.value == deep_copy_loop(network, Mismatch(zeta=0.0), digits, 1)[0]


def test_what_was_measured_is_not_measured_again(network, digits) -> None:
    ledger = Ledger()
    monte_carlo(network, digits.test, Mismatch(zeta=0.3), chips=5, processes=1, ledger=ledger)
    asked = []

    def measure(chips):
        chips = list(chips)
        asked.extend(chip.index for chip in chips)
        with measurer(network, digits.test, processes=1) as run:
            yield from run(chips)

    monte_carlo(network, digits.test, Mismatch(zeta=0.3), chips=8, measure=measure, ledger=ledger)
    assert asked == [5, 6, 7]
    assert [r.chip for r in ledger.records] == list(range(8))


def test_attack_curves_fall_and_beat_chance(network, digits) -> None:
    attacks = [npf.attacks.WeightAttack(zeta=z, objective=o) for o in ("kl", "ce") for z in (0.0, 0.1, 0.3)]
    records = attack_curves(network, digits.test, attacks, restarts=2)

    def accuracy(name: str, zeta: float) -> float:
        found = [r.value for r in records if r.metric == "accuracy" and r.perturbation["name"] == name and r.perturbation["zeta"] == zeta]
        return min(found)

    clean = deep_copy_loop(network, Mismatch(zeta=0.0), digits, 1)[0]
    assert accuracy("weight-attack", 0.0) == accuracy("random-point", 0.0) == clean
    assert accuracy("weight-attack", 0.3) < accuracy("weight-attack", 0.1) < clean
    assert accuracy("weight-attack", 0.1) < accuracy("random-point", 0.1)
    kl = [r for r in records if r.metric == "kl"]
    assert all(r.value >= 0 for r in kl)
    assert {r.metric for r in records} == {"accuracy", "cross_entropy", "kl"}
    again = attack_curves(network, digits.test, attacks, restarts=2)
    assert [r.value for r in again] == [r.value for r in records]


def test_landscape_passes_through_the_network(network, digits) -> None:
    records = landscape(network, digits.test, directions=2, processes=1)
    assert len(records) == 42
    params = {n: p.detach() for n, p in network.named_parameters()}
    middle = [r.value for r in records if r.at["alpha"] == 0]
    with torch.no_grad():
        clean = nn.functional.cross_entropy(network(digits.test.x), digits.test.y).item()
    assert middle == pytest.approx([clean, clean], rel=1e-5)
    end = next(r for r in records if r.at == {"alpha": -2.0, "direction": 1.0})
    from noiseproof.randomness import generator

    v = {n: c - params[n] for n, c in Mismatch(zeta=0.2)(params, generator("direction", 0, 1)).items()}
    with torch.no_grad():
        there = torch.func.functional_call(network, {n: p - 2 * v[n] for n, p in params.items()}, (digits.test.x,))
    assert end.value == pytest.approx(nn.functional.cross_entropy(there, digits.test.y).item(), rel=1e-5)


def test_landscapes_on_training_data_are_of_training_data(network, digits) -> None:
    result = npf.evaluate(
        network, digits, mismatch=(), landscape=1, landscape_splits=("test", "train"), processes=1, progress=False
    )  # fmt: skip
    by_split = {s: {r.at["alpha"]: r for r in result.records() if "alpha" in r.at and r.split == s} for s in ("test", "train")}
    assert {len(points) for points in by_split.values()} == {21}
    # as many as there are for the test, drawn from all
    assert {r.n for points in by_split.values() for r in points.values()} == {len(digits.test)}
    drawn = torch.randperm(len(digits.train), generator=npf.randomness.generator("samples", 0))[: len(digits.test)]
    with torch.no_grad():
        clean = nn.functional.cross_entropy(network(digits.train.x[drawn]), digits.train.y[drawn]).item()
    assert by_split["train"][0.0].value == pytest.approx(clean, rel=1e-5)
    assert by_split["train"][0.0].value < by_split["test"][0.0].value


@pytest.mark.parametrize(
    "settings", [{"norm": "l2", "l2_radius": 30.0}, {"norm": "l2-euclidean", "l2_radius": 30.0}, {"parameters": "all"}]
)
def test_attack_curves_in_other_sets(settings, network, digits) -> None:
    attacks = [npf.attacks.WeightAttack(zeta=0.2, objective=o, steps=s, **settings) for o in ("kl", "ce") for s in (1, 5)]
    records = attack_curves(network, digits.test, attacks, restarts=1)
    # three numbers an attack, and three at the random point that all four share
    assert len(records) == 3 * 4 + 3
    for objective in ("kl", "ce"):
        metric = {"kl": "kl", "ce": "cross_entropy"}[objective]
        found = {r.perturbation["steps"]: r.value for r in records if r.metric == metric and r.perturbation.get("objective") == objective}
        chance = next(r.value for r in records if r.metric == metric and r.perturbation["name"] == "random-point")
        assert found[5] > found[1] > 0
        assert found[5] > chance


def test_tolerated_mismatch_is_where_the_yield_falls_short(network, digits) -> None:
    record = tolerated_mismatch(network, digits.test, 0.7, required_yield=0.9, chips=40, processes=1)

    def passing(zeta: float) -> float:
        values = [r.value for r in monte_carlo(network, digits.test, Mismatch(zeta=zeta), chips=40, processes=1)]
        return sum(v >= 0.7 for v in values) / len(values)

    assert 0 < record.value < 2
    assert passing(record.value) >= 0.9
    assert passing(record.value + 0.01) < 0.9
    assert tolerated_mismatch(network, digits.test, 1.0, chips=4, processes=1).value == 0.0


def test_evaluate_measures_everything_and_leaves_the_network_alone(network, digits, tmp_path) -> None:
    before = copy.deepcopy(network.state_dict())
    result = npf.evaluate(
        network, digits, [Mismatch(zeta=0.3), Gaussian(std=0.05)], chips=4, attack=(0.1,), attack_restarts=1, landscape=1,
        required_accuracy=0.5, tolerated=("gaussian(std=0.001|1)",), layer_noise=("mismatch(zeta=0.5)",), processes=2, progress=False,
        name="mine",
    )  # fmt: skip
    assert all(torch.equal(v, before[n]) for n, v in network.state_dict().items())
    metrics = {(r.metric, r.perturbation.get("name")) for r in result.records()}
    assert {("accuracy", None), ("accuracy", "mismatch"), ("accuracy", "gaussian"), ("kl", "weight-attack")} <= metrics
    assert {("accuracy", "random-point"), ("cross_entropy", "direction"), ("tolerated_zeta", "mismatch")} <= metrics
    assert ("tolerated_std", "gaussian") in metrics
    assert {r.perturbation["layer"] for r in result.records() if "layer" in r.perturbation} == {"fc1", "out"}
    result.report(tmp_path / "report.html")
    assert "mine" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mismatch": (-0.1,)}, "zeta is -0.1"),
        ({"chips": 0}, "chips is 0"),
        ({"chips": 2.5}, "chips is 2.5: give a whole number"),
        ({"half_width": -1}, "half_width is -1"),
        ({"attack_objectives": ("kll",)}, "did you mean 'kl'"),
        ({"required_accuracy": 90}, "required_accuracy is 90"),
        ({"chpis": 3}, "did you mean 'chips'"),
        ({"membranes": 5}, "no spiking neurons"),
        ({"layer_noise": ("mismtach",)}, "did you mean 'mismatch'"),
        ({"layer_noise": ("mismatch(parameters=conv*)",)}, "parameters is 'conv"),
        ({"landscape_splits": ("tset",)}, "did you mean 'test'"),
        ({"landscape_splits": ()}, "landscape_splits is"),
        ({"parameters": "conv*"}, "parameters is 'conv"),
    ],
)
def test_wrong_settings_are_named_before_any_work(settings, message, network, digits) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        npf.evaluate(network, digits, progress=False, **settings)
