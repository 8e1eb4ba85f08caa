"""Accuracy under attacks on the inputs: the figures, what is measured twice (nothing), and whether the checks see masked gradients."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import FGSM, PGD, AutoAttack, Ensemble, RandomNoise, Square, Transfer
from noiseproof.checklist import Verdict, verdicts
from noiseproof.data import Split, Splits
from noiseproof.evaluation import Evaluation, Ledger, Measures, check_measures, robustness
from noiseproof.evaluation.robustness import Figures, spelled
from noiseproof.evaluation.sources import with_source
from noiseproof.plan import run_plan
from noiseproof.plan_file import load_plan
from noiseproof.randomness import generator
from noiseproof.records import Record
from noiseproof.report import attacked

EPS = 0.1


class Masked(nn.Module):
    """A network that sees four shades, so that it has no gradient, and another one, a thousandth as large, that has one and misleads."""

    def __init__(self, honest: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.honest, self.other = honest, other

    def forward(self, x: Tensor) -> Tensor:
        return self.honest((4 * x).round() / 4) + 1e-3 * self.other(x)


class Blind(Masked):
    def forward(self, x: Tensor) -> Tensor:
        return self.honest((4 * x).round() / 4)


@dataclass(frozen=True)
class Counted(FGSM):
    """FGSM that counts the blocks which it is given."""

    blocks = 0

    def on_block(self, *args, **kwargs):
        Counted.blocks += 1
        return super().on_block(*args, **kwargs)


@pytest.fixture(scope="module")
def data() -> Splits:
    return npf.data.load("digits", limit_train=600, limit_test=150)


def trained(data: Splits, seed: int = 0, **settings) -> nn.Module:
    made = npf.networks.MLP(hidden=(64,), **settings).build(data.task, generator("weights", seed))
    npf.train(made, data, epochs=6, batch_size=20, progress=False)
    return made


@pytest.fixture(scope="module")
def network(data: Splits) -> nn.Module:
    return trained(data)


@pytest.fixture(scope="module")
def other(data: Splits) -> nn.Module:
    return npf.networks.MLP(hidden=(64,)).build(data.task, generator("weights", 1))


def value(records: list[Record], metric: str, name: str, **settings) -> float:
    found = [
        r.value for r in records if r.metric == metric and r.perturbation.get("name") == name and settings.items() <= r.perturbation.items()
    ]
    assert len(found) == 1, found
    return found[0]


def judged(records: list[Record]) -> dict[str, Verdict]:
    return {v.key: v for v in verdicts(records, EPS, "linf")}


def test_figures_are_those_of_the_attack_block_by_block(network, data) -> None:
    attack = PGD(eps=EPS / 2, steps=5)
    clean, *records = robustness(network, data.test, attack, checks=False, seed=3)
    with torch.no_grad():
        assert clean.value == float((network(data.test.x).argmax(-1) == data.test.y).double().mean())
    assert (clean.perturbation, clean.n, clean.seed) == ({}, 150, None)
    blocks = [
        attack(network, x, y, generator("input attack", 3, i))
        for i, (x, y) in enumerate(zip(data.test.x.split(100), data.test.y.split(100), strict=True))
    ]
    right = sum(int((~b.success).sum()) for b in blocks)
    assert {r.metric: r.value for r in records} == {
        "accuracy": right / 150,
        "gradient_evaluations": sum(b.budget.gradient_evaluations for b in blocks) / 150,
        "queries": sum(b.budget.queries for b in blocks) / 150,
        "zero_gradient_share": 0.0,
    }
    assert {(r.n, r.seed, r.chip, tuple(r.at)) for r in records} == {(150, 3, None, ())}
    assert all(r.perturbation == attack.describe() for r in records)


def test_the_first_samples_do_not_depend_on_how_many_follow(network, data) -> None:
    attack = PGD(eps=EPS / 2, steps=3)
    few, all_of_them = (Figures(network, Split(data.test.x[:n], data.test.y[:n]), Ledger()).fooled(attack, 0) for n in (100, 150))
    assert torch.equal(few, all_of_them[:100])


def test_nothing_is_measured_twice_and_an_interrupted_one_goes_on(network, data) -> None:
    Counted.blocks = 0
    saved: list[Record] = []
    ledger = Ledger(save=saved.extend)
    records = robustness(network, data.test, Counted(eps=EPS), seeds=2, checks=False, ledger=ledger)
    assert Counted.blocks == 4
    assert robustness(network, data.test, Counted(eps=EPS), seeds=2, checks=False, ledger=ledger) == records
    assert Counted.blocks == 4
    # killed before the accuracy, the last record of the first seed, was written
    rest = [r for r in saved if not (r.metric == "accuracy" and r.seed == 0) and r.metric != "accuracy_over_seeds"]
    again = robustness(network, data.test, Counted(eps=EPS), seeds=2, checks=False, ledger=Ledger(records=rest))
    assert {r.key: r.value for r in again} == {r.key: r.value for r in records}


def test_checks_are_found_again_and_shared(network, data) -> None:
    saved: list[Record] = []
    ledger = Ledger(save=saved.extend)
    first = robustness(network, data.test, PGD(eps=EPS, steps=5), samples=40, ledger=ledger)
    assert len({r.key for r in saved}) == len(saved)
    count = len(saved)
    second = robustness(network, data.test, PGD(eps=EPS, steps=10), samples=40, ledger=ledger)
    assert len(saved) == count  # of the steps curve already
    # killed in between: it goes on to the same values
    half = Ledger(records=saved[: count // 2])
    again = robustness(network, data.test, PGD(eps=EPS, steps=5), samples=40, ledger=half)
    assert {r.key: r.value for r in again} == {r.key: r.value for r in first}
    assert {r.key for r in second} <= {r.key for r in saved}


def test_of_several_seeds_the_worst_case_counts_sample_by_sample(network, data) -> None:
    attack = RandomNoise(eps=0.5)
    records = robustness(network, data.test, attack, seeds=3, seed=5, checks=False)
    alone = {r.seed: r.value for r in records if r.metric == "accuracy" and r.perturbation}
    assert list(alone) == [5, 6, 7]
    assert len(set(alone.values())) > 1
    figures = Figures(network, data.test, Ledger())
    together = torch.stack([figures.fooled(attack, seed) for seed in alone]).any(0)
    (worst,) = [r for r in records if r.metric == "accuracy_over_seeds"]
    assert worst.value == pytest.approx(1 - float(together.double().mean()))
    assert worst.value < min(alone.values())
    assert (worst.seed, worst.at) == (5, {"seeds": 3.0})


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_perturbed_inputs_are_saved_and_are_what_they_say(network, data, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"inputs.{suffix}"
    eps = torch.linspace(0, 0.2, 120, dtype=torch.float64)
    ledger = Ledger()
    records = robustness(network, data.test, PGD(steps=5), samples=120, eps=eps, save=path, ledger=ledger)
    assert len(ledger.records) == len(records) == 5  # one measurement, no checks
    assert records[1].perturbation["eps"] == pytest.approx(0.2)
    assert records[1].perturbation["eps_per_sample"]
    saved = {k: torch.from_numpy(v) for k, v in np.load(path).items()} if suffix == "npz" else safetensors.torch.load_file(path)
    assert torch.equal(saved["eps"], eps)
    assert torch.equal(saved["x"], data.test.x[:120])
    size = (saved["perturbed"].double() - saved["x"].double()).abs().flatten(1).amax(1)
    assert bool((size <= eps).all())
    with torch.no_grad():
        assert torch.equal(network(saved["perturbed"]).argmax(-1), saved["predictions"])
    assert torch.equal(saved["success"], saved["predictions"] != saved["y"])
    assert value(records, "accuracy", "pgd") == pytest.approx(float((~saved["success"]).double().mean()))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_without_labels_what_is_right_still_counts_as_right(network, data) -> None:
    attack = PGD(eps=EPS / 2, steps=5, loss="kl")
    records = robustness(network, data.test, attack, checks=False)
    moved = torch.cat([attack(network, x, None, generator("input attack", 0, i)).x for i, x in enumerate(data.test.x.split(100))])
    with torch.no_grad():
        right = [(network(x).argmax(-1) == data.test.y).double() for x in (data.test.x, moved)]
    assert value(records, "accuracy", "pgd") == pytest.approx(float((right[0] * right[1]).mean()))


def test_what_an_attack_without_labels_puts_right_was_wrong_before(network, data) -> None:
    attack = PGD(eps=0.5, steps=5, loss="kl")
    found = attack(network, data.test.x[:40], None, generator("input attack", 0, 0))
    moved = found.after != found.before
    assert moved.sum() > 20
    # labels by which these samples are wrong, and put right
    split = Split(data.test.x[:40], found.after)
    records = robustness(network, split, attack, checks=False)
    assert value(records, "accuracy", "pgd") == pytest.approx(float((~moved).double().mean()))


@pytest.mark.filterwarnings("ignore:the network is stochastic")
def test_what_is_saved_of_a_stochastic_network_agrees_with_itself(data, tmp_path: Path) -> None:
    poisson = trained(data, neuron="lif", steps=3, coding="poisson")
    path = tmp_path / "inputs.npz"
    records = robustness(poisson, data.test, PGD(eps=0.02, steps=2), save=path, checks=False)
    saved = np.load(path)
    assert ((saved["predictions"] != saved["y"]) == saved["success"]).all()
    assert value(records, "accuracy", "pgd") == pytest.approx(1 - saved["success"].mean())


def test_members_are_recorded_in_the_order_in_which_they_ran(network, data) -> None:
    attack = AutoAttack(eps=EPS / 2, steps=3, queries=20, targets=2)
    records = robustness(network, data.test, attack, checks=False)
    left = [r for r in records if r.metric == "surviving"]
    assert [r.at for r in left] == [{"place": float(i)} for i in range(1, 5)]
    assert [r.perturbation["member"].partition("(")[0] for r in left] == ["apgd", "apgd", "fab", "square"]
    values = [r.value for r in left]
    assert values == sorted(values, reverse=True)
    assert values[-1] == value(records, "accuracy", "autoattack")
    assert {k: v for k, v in left[0].perturbation.items() if k != "member"} == attack.describe()
    asked = sum(r.value for r in records if r.metric == "member_gradient_evaluations")
    assert asked == pytest.approx(value(records, "gradient_evaluations", "autoattack"))


def test_an_honest_network_passes(network, data) -> None:
    records = robustness(network, data.test, PGD(eps=EPS), samples=120)
    records += robustness(network, data.test, Ensemble(eps=EPS), samples=120, checks=False)
    assert {key: v.outcome for key, v in judged(records).items()} == dict.fromkeys(judged([]), "pass")
    names = {r.perturbation["name"] for r in records if r.perturbation}
    assert names == {"fgsm", "pgd", "random-noise", "square", "ensemble"}
    steps = {r.perturbation["steps"] for r in records if r.perturbation.get("name") == "pgd" and r.perturbation["eps"] == EPS}
    assert steps == {1, 2, 5, 10, 20, 40}


def test_masked_gradients_are_seen_and_other_attacks_find_more(network, other, data) -> None:
    masked = npf.adapt(Masked(network, other), bounds=(0.0, 1.0))
    ledger = Ledger()
    robustness(masked, data.test, PGD(eps=EPS), samples=100, ledger=ledger)
    robustness(masked, data.test, Ensemble(eps=EPS), samples=100, checks=False, ledger=ledger)
    found = judged(ledger.records)
    assert {key for key, v in found.items() if v.outcome == "fail"} >= {"black-box", "ensemble"}
    pgd = value(ledger.records, "accuracy", "pgd", eps=EPS, steps=20)
    assert value(ledger.records, "accuracy", "square") < pgd - 0.3
    assert value(ledger.records, "accuracy", "ensemble") < pgd - 0.3


def test_a_spiking_network_with_a_surrogate_far_too_sharp_is_seen(data) -> None:
    spiking = trained(data, neuron="lif", steps=4, surrogate="atan")
    sharp = npf.networks.MLP(hidden=(64,), neuron="lif", steps=4, surrogate="rectangle", surrogate_settings=(0.002,))
    masked = sharp.build(data.task, generator("weights", 0))
    masked.load_state_dict(spiking.state_dict())
    records = robustness(masked, data.test, PGD(eps=EPS), samples=100)
    assert judged(records)["zero-gradients"].outcome == "fail"
    wider = robustness(masked, data.test, PGD(eps=EPS, surrogate="atan"), samples=100, checks=False)
    assert value(wider, "accuracy", "pgd") < value(records, "accuracy", "pgd", eps=EPS, steps=20) - 0.3


def test_no_gradient_is_not_robust(network, other, data) -> None:
    blind = npf.adapt(Blind(network, other), bounds=(0.0, 1.0))
    ledger = Ledger()
    with pytest.raises(npf.NoiseproofError, match="not the same as robust"):
        robustness(blind, data.test, PGD(eps=EPS), ledger=ledger)
    assert not [r for r in ledger.records if r.perturbation]
    records = robustness(blind, data.test, Square(eps=EPS, queries=50), samples=50, ledger=ledger)
    assert [r.metric for r in records if r.perturbation.get("name") == "pgd"] == ["stochastic", "zero_gradient_share"]
    outcomes = {key: v.outcome for key, v in judged(records).items() if v.outcome != "undecided"}
    assert outcomes == {"zero-gradients": "fail", "draws": "pass"}
    assert robustness(blind, data.test, Square(eps=EPS, queries=50), samples=50, ledger=ledger) == records


def test_members_that_say_nothing_are_recorded_and_shown(network, other, data) -> None:
    blind, attack, ledger = npf.adapt(Blind(network, other), bounds=(0.0, 1.0)), AutoAttack(eps=EPS, steps=2, queries=9), Ledger()
    with pytest.warns(UserWarning, match="no gradient says anything"):
        records = robustness(blind, data.test, attack, samples=40, checks=False, ledger=ledger)
    skipped = {r.at["place"]: r.perturbation["member"].partition("(")[0] for r in records if r.metric == "skipped"}
    assert skipped == {1.0: "apgd", 2.0: "apgd", 3.0: "fab"}
    assert [r.at["place"] for r in records if r.metric == "surviving"] == [4.0]
    assert judged(records)["ensemble"].sentence.startswith("No gradient says anything to the autoattack")
    _, members = attacked.tables([Evaluation({}, ledger.records)], [attack.describe()], 40)
    assert [row[2].text.partition(":")[0] for row in members.rows][:3] == ["left out"] * 3


@pytest.mark.filterwarnings("ignore:the network is stochastic")
def test_one_draw_of_a_stochastic_network_fails_the_check(data) -> None:
    poisson = npf.networks.MLP(hidden=(20,), neuron="lif", steps=3, coding="poisson").build(data.task, generator("weights", 0))
    for eot, outcome in ((1, "fail"), (2, "pass")):
        assert judged(robustness(poisson, data.test, FGSM(eps=EPS, eot=eot), samples=10))["draws"].outcome == outcome


def test_bad_input_is_refused_before_any_work(network, data, tmp_path: Path) -> None:
    for options, message in (
        ({"save": tmp_path / "x.csv"}, r"save is .*x.csv': give a file that ends in .npz or .safetensors"),
        ({"save": tmp_path / "x.npz", "seeds": 2}, "give seeds=1"),
        ({"eps": [0.1, 0.2]}, r"eps is \(2,\): give one number a sample, \[150\]"),
        ({"samples": 0}, "samples is 0"),
    ):
        ledger = Ledger()
        with pytest.raises(npf.NoiseproofError, match=message):
            robustness(network, data.test, PGD(eps=EPS), ledger=ledger, **options)
        assert not ledger.records
    for attacks, message in (
        (("pgd(eps=8)",), "eps is 8: the data runs from 0 to 1"),
        (("pgd(surrogate=atan)",), "no spiking neurons"),
        (("rate-gradient",), "spik"),
    ):
        with pytest.raises(npf.NoiseproofError, match=message):
            check_measures(network, data, Measures(mismatch=(), input_attacks=attacks))
    with pytest.raises(npf.NoiseproofError, match="did you mean 'pgd'"):
        Measures(input_attacks=("pdg",))
    with pytest.raises(npf.NoiseproofError, match="transfer_from is given without input_attacks"):
        Measures(transfer_from="runs/one")


def test_a_stochastic_network_without_draws_is_warned_about(data) -> None:
    poisson = npf.networks.MLP(hidden=(20,), neuron="lif", steps=3, coding="poisson").build(data.task, generator("weights", 0))
    with pytest.warns(UserWarning, match="eot is 1"):
        robustness(poisson, data.test, FGSM(eps=EPS), samples=10, checks=False)
    robustness(poisson, data.test, FGSM(eps=EPS, eot=3), samples=10, checks=False)


def test_evaluate_attacks_inputs_and_leaves_the_network_as_it_was(network, data) -> None:
    before = {name: p.clone() for name, p in network.state_dict().items()}
    network.train()
    result = npf.evaluate(
        network, data, mismatch=(), input_attacks=("pgd(eps=0.05|0.1, steps=3)", "fgsm(eps=0.1)"), input_samples=30, input_checks=False,
        progress=False,
    )  # fmt: skip
    assert network.training
    assert all(torch.equal(p, before[name]) for name, p in network.state_dict().items())
    attacked = [(r.perturbation["name"], r.perturbation["eps"]) for r in result.records() if r.metric == "accuracy" and r.perturbation]
    assert attacked == [("pgd", 0.05), ("pgd", 0.1), ("fgsm", 0.1)]


def test_a_member_on_another_network_is_spelled_by_the_name_of_its_source(network, other) -> None:
    (transfer,) = (one for one in Ensemble(source=other, label="other, seed 1").members(network) if isinstance(one, Transfer))
    assert spelled(transfer) == 'transfer(source="other, seed 1", attack="pgd(steps=20, momentum=1)")'
    unnamed = (Ensemble(source=each).describe() for each in (network, other))
    assert len({one["identity"] for one in unnamed}) == 2


PLAN = """
seeds = [0, 1]
[defaults]
data = "digits"
network = { name = "mlp", hidden = [20] }
epochs = 1
limit_train = 100
limit_test = 40
[[training]]
name = "a"
[[training]]
name = "b"
method = "forward-noise"
[evaluation]
mismatch = []
input_attacks = ["fgsm(eps=0.1)", "square(eps=0.1, queries=5)"]
input_checks = false
"""


def test_a_plan_attacks_from_another_seed_or_training(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"

    def sources(transfer_from: str) -> dict[str, str]:
        path.write_text(PLAN + f'transfer_from = "{transfer_from}"\n')
        plan = load_plan(path)
        return {folder: m.transfer_from for folder, m in zip(plan.folders, plan.measures, strict=True)}

    assert sources("b") == {"a-seed0": "b-seed0", "a-seed1": "b-seed1", "b-seed0": "", "b-seed1": ""}
    assert sources("other-seed") == {"a-seed0": "a-seed1", "a-seed1": "a-seed0", "b-seed0": "b-seed1", "b-seed1": "b-seed0"}
    runs = run_plan(load_plan(path), tmp_path / "out", progress=False, processes=1)
    for run, source in zip(runs, ("a, seed 1", "a, seed 0", "b, seed 1", "b, seed 0"), strict=True):
        (record,) = [r for r in run.records() if r.perturbation.get("name") == "transfer" and r.metric == "accuracy"]
        assert (record.perturbation["source"], record.perturbation["attack"]) == (source, "fgsm")
    with pytest.raises(npf.NoiseproofError, match="transfer_from is 'c': known: a, b, other-seed"):
        sources("c")
    path.write_text(PLAN.replace("[0, 1]", "[0]") + 'transfer_from = "other-seed"\n')
    with pytest.raises(npf.NoiseproofError, match="a is trained with one seed only"):
        load_plan(path)


def test_a_source_of_other_classes_is_refused(network, data, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace("input_", "# ").replace("[0, 1]", "[0]"))
    (run, *_) = run_plan(load_plan(path), tmp_path / "out", progress=False, processes=1)
    measures = Measures(mismatch=(), input_attacks=("fgsm(eps=0.1)",), transfer_from=str(run.path))
    check_measures(network, data, measures)
    attacks = [Ensemble(eps=0.1), Square(eps=0.1), FGSM(eps=0.1), Ensemble(eps=0.1, source=str(run.path))]
    found = with_source(network, attacks, str(run.path), data, "cpu")
    assert [a.describe().get("source", "-") for a in found] == ["a, seed 0", "-", "-", "a, seed 0", "a, seed 0"]
    assert found[0].describe() == found[3].describe() == attacks[3].describe()
    assert any(member.describe().get("source") == "a, seed 0" for member in found[0].members(network))
    with pytest.raises(npf.NoiseproofError, match="none of the attacks can use it; add an ensemble"):
        with_source(network, [Square(eps=0.1)], str(run.path), data, "cpu")
    own = found[0].source
    with pytest.raises(npf.NoiseproofError, match="it is the network that is attacked"):
        with_source(own, [FGSM(eps=0.1)], str(run.path), data, "cpu")
    fewer = Splits(replace(data.task, classes=3), data.train, data.validation, data.test)
    three = npf.networks.MLP(hidden=(20,)).build(fewer.task, generator("weights", 0))
    with pytest.raises(npf.NoiseproofError, match="for other inputs or classes than this data has"):
        check_measures(three, fewer, measures)
    text = run.experiment_file.read_text()
    run.experiment_file.write_text(text.replace('"digits"', '"fashion-mnist"'))
    with pytest.raises(npf.NoiseproofError, match="it was trained on fashion-mnist, this is digits"):
        check_measures(network, data, measures)
