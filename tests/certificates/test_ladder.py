"""The ladder: its order, the theorem that is checked, nothing measured twice; `noiseproof.certify` and bounds by name."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import PerSampleWeightAttack
from noiseproof.certificates import Box, bounds, certified, margins
from noiseproof.certificates._graph import Graph
from noiseproof.certificates.certify import certifiable, chosen_bounds, fitting, margins_by, usual
from noiseproof.data import Split, Splits, Task
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation import Ledger, Measures, Rungs, check_measures, ladder
from noiseproof.networks import LSNN, MLP, ResNet32
from noiseproof.parameters import parameters_of
from noiseproof.randomness import generator
from noiseproof.records import Record

# the modules, whose names are those of functions too
LADDER, EVALUATE = (importlib.import_module(f"noiseproof.evaluation.{name}") for name in ("ladder", "evaluate"))
SEQUENCE = Task("sequences", (8, 4), 3, (0.0,) * 4, (1.0,) * 4, (-5.0, 5.0))
QUICK = Rungs(steps=3, points=2)
_trained: dict[str, tuple[nn.Module, Split]] = {}


def trained(name: str, digits: Splits) -> tuple[nn.Module, Split]:
    """A small network after a few steps of training, and the samples that it is measured on."""
    if name not in _trained:
        draw = generator("weights", 0)
        if name == "lsnn":
            x = torch.rand(60, 8, 4, generator=generator("x", 0)) * 3
            split = Split(x, x.mean(1)[:, :3].argmax(-1))
            network: nn.Module = LSNN(units=12).build(SEQUENCE, draw)
        else:
            split = digits.train
            torch.manual_seed(0)
            network = {
                "mlp": lambda: MLP(hidden=(16,)).build(digits.task, draw),
                "lif": lambda: MLP(hidden=(12, 10), neuron="lif", steps=4).build(digits.task, draw),
                "outside": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 12), nn.ReLU(), nn.Linear(12, 10)),
                "snntorch": _snntorch,
            }[name]()
        optimiser = torch.optim.Adam(network.parameters(), 1e-2)
        for _ in range(80 if name == "snntorch" else 25):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(split.x), split.y).backward()
            optimiser.step()
        _trained[name] = (network, Split(split.x[:20], split.y[:20]))
    return _trained[name]


def _snntorch() -> nn.Module:
    snn = pytest.importorskip("snntorch")
    layers = (nn.Linear(784, 12), snn.Leaky(0.9, init_hidden=True), nn.Linear(12, 10), snn.Leaky(0.9, init_hidden=True))
    return npf.adapt(nn.Sequential(nn.Flatten(), *layers), steps=4)


def of(records: list[Record], metric: str, z: float) -> dict[str, float]:
    key = "attack" if metric == "survived" else "bounds"
    return {r.perturbation[key]: r.value for r in records if r.metric == metric and r.perturbation["z"] == z}


@pytest.mark.parametrize("name", ["mlp", "lif", "lsnn", "outside", "snntorch"])
def test_rungs_are_in_order_and_at_zero_they_meet(name: str, digits: Splits, tmp_path: Path) -> None:
    network, split = trained(name, digits)
    levels = (0.0, 0.002, 0.05)
    records = ladder(network, split, [Box(z=z) for z in levels], samples=20, rungs=QUICK, save_folder=tmp_path)
    known = (
        ("intervals", "spiking", "spiking-backward") if name in ("lif", "lsnn", "snntorch") else ("intervals", "backward", "backward-full")
    )
    for z in levels:
        survived, proved, seconds = (of(records, metric, z) for metric in ("survived", "certified", "seconds_certifying"))
        assert list(survived) == ["none", "random", "shared", "per-sample"]
        assert set(proved) == set(seconds)
        assert "intervals" in proved
        assert set(proved) <= set(known)
        assert max(proved.values()) <= survived["per-sample"] <= min(survived["random"], survived["shared"])
        assert max(survived["random"], survived["shared"]) <= survived["none"] > 0.3
        assert all(value >= 0 for value in seconds.values())
    assert len(set(of(records, "survived", 0.0).values())) == 1
    # counts of spikes may tie: right by argmax, with a margin of zero
    assert of(records, "certified", 0.0)["intervals"] == of(records, "survived", 0.0)["none"] or name == "snntorch"
    assert of(records, "certified", 0.002)["intervals"] > 0 or name == "lsnn"
    assert of(records, "survived", 0.05)["per-sample"] < of(records, "survived", 0.05)["none"]
    assert {r.n for r in records} == {20}
    counted = next(r.value for r in records if r.metric == "box_parameters")
    assert counted == sum(int((p != 0).sum()) for p in parameters_of(network).values() if p.ndim >= 2)


def test_records_say_what_was_done(digits: Splits) -> None:
    network, split = trained("mlp", digits)
    records = ladder(network, split, [Box(0.01, "all", 0.001)], samples=10, rungs=Rungs(("intervals",), "exact", 2, 1, 1), seed=3)
    box = {"name": "box", "z": 0.01, "parameters": "all", "eps": 0.001}
    proved = next(r for r in records if r.metric == "certified")
    assert proved.perturbation == {**box, "bounds": "intervals", "arithmetic": "exact"}
    assert proved.seed is None
    attacked = next(r for r in records if r.perturbation.get("attack") == "per-sample")
    assert attacked.perturbation == {**box, "attack": "per-sample", "steps": 2, "restarts": 1, "points": 1}
    assert attacked.seed == 3
    assert json.loads(attacked.key)


def test_nothing_is_measured_twice(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    network, split = trained("mlp", digits)
    saved: list[Record] = []
    ledger = Ledger(save=saved.extend)
    rungs = Rungs(bounds=("intervals",), steps=2, points=1)
    first = ladder(network, split, [Box(0.01)], samples=10, rungs=rungs, ledger=ledger)
    assert saved == first
    # a second box is measured, the first one is not
    both = ladder(network, split, [Box(0.01), Box(0.02)], samples=10, rungs=rungs, ledger=ledger)
    assert both[: len(first)] == first
    assert len(saved) == 2 * len(first)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(PerSampleWeightAttack, "__call__", refuse)
    monkeypatch.setattr(LADDER, "margins_by", refuse)
    assert ladder(network, split, [Box(0.01), Box(0.02)], samples=10, rungs=rungs, ledger=Ledger(records=saved)) == both


def test_another_bound_is_held_against_the_attacks_and_adds_its_records_alone(digits: Splits) -> None:
    network, split = trained("mlp", digits)
    saved: list[Record] = []
    ledger = Ledger(save=saved.extend)
    ladder(network, split, [Box(0.01)], samples=10, rungs=Rungs(("intervals",), steps=2, points=1), ledger=ledger)
    before = len(saved)
    ladder(network, split, [Box(0.01)], samples=10, rungs=Rungs(("backward",), steps=2, points=1), ledger=ledger)
    assert [(r.metric, r.perturbation["bounds"]) for r in saved[before:]] == [
        ("certified", "backward"),
        ("seconds_certifying", "backward"),
    ]


@pytest.mark.parametrize("z", [0.0, 0.2])
def test_broken_proof_stops_the_run_and_saves_the_sample(z: float, digits: Splits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network, split = trained("mlp", digits)

    def wrong(graph: object, name: str, x: Tensor, y: Tensor) -> Tensor:
        return torch.ones(len(y), 10)

    monkeypatch.setattr(LADDER, "margins_by", wrong)
    if z == 0:
        y = split.y.clone()
        y[3] = (y[3] + 1) % 10
        split = Split(split.x, y)
    ledger = Ledger()
    with pytest.raises(NoiseproofError, match=r"is certified by intervals and broken all the same at z = ") as stopped:
        ladder(network, split, [Box(z)], rungs=Rungs(("intervals",), steps=3, points=1), ledger=ledger, save_folder=tmp_path)
    assert not ledger.records
    assert "\n" not in str(stopped.value)
    (path,) = tmp_path.glob(f"violation-z{z:g}-sample*.safetensors")
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["box"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a file is no dict)
    assert described["z"] == z
    assert torch.equal(tensors["x"][0], split.x[described["sample"]])
    assert int(tensors["y"]) == int(split.y[described["sample"]])
    params = {name.removeprefix("parameter."): p for name, p in tensors.items() if name.startswith("parameter.")}
    for name, p in parameters_of(network).items():
        assert bool(((params[name].double() - p.double()).abs() <= (z if p.ndim >= 2 else 0) * p.double().abs()).all())
    with torch.no_grad():
        assert int(torch.func.functional_call(network, params, (tensors["x"],)).argmax()) != int(tensors["y"])


def test_bound_that_is_no_number_proves_nothing(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    network, split = trained("mlp", digits)
    monkeypatch.setattr(LADDER, "margins_by", lambda graph, name, x, y: torch.full((len(y), 10), torch.nan))
    records = ladder(network, split, [Box(0.01)], samples=5, rungs=Rungs(("intervals",), steps=1, points=0))
    assert of(records, "certified", 0.01) == {"intervals": 0.0}


def test_bounds_that_do_not_know_the_network_are_left_out_unless_asked_for(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    network, split = trained("mlp", digits)
    from noiseproof.certificates import certify

    def some(graph: object, name: str, x: Tensor, y: Tensor) -> Tensor:
        if name != "intervals":
            raise NoiseproofError("not this layer")
        return certify.margins_by(graph, name, x, y)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(LADDER, "margins_by", some)
    records = ladder(network, split, [Box(0.01)], samples=5, rungs=Rungs(steps=1, points=0))
    assert set(of(records, "certified", 0.01)) == {"intervals"}
    with pytest.raises(NoiseproofError, match="not this layer"):
        ladder(network, split, [Box(0.01)], samples=5, rungs=Rungs(("backward",), steps=1, points=0))


def test_what_cannot_be_certified_is_refused_before_any_training(digits: Splits) -> None:
    unknown = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.GELU(), nn.Linear(10, 10)))
    with pytest.raises(NoiseproofError, match="GELU"):
        check_measures(unknown, digits, Measures(mismatch=(), box=(0.01,)))
    poisson = MLP(hidden=(8,), neuron="lif", coding="poisson").build(digits.task, generator("weights", 0))
    with pytest.raises(NoiseproofError, match="coding is 'poisson'"):
        check_measures(poisson, digits, Measures(mismatch=(), box=(0.01,)))
    network, _ = trained("mlp", digits)
    with pytest.raises(NoiseproofError, match="bounds is 'spiking': the network has no spiking neurons"):
        check_measures(network, digits, Measures(mismatch=(), box=(0.01,), box_bounds=("spiking",)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box": (1.0,)}, "z is 1.0: give a half-width below 1"),
        ({"box": (0.1,), "box_bounds": ("interval",)}, "box_bounds is 'interval': did you mean 'intervals'"),
        ({"box": (0.1,), "box_arithmetic": "float16"}, "arithmetic is 'float16'"),
        ({"box_samples": 0}, "box_samples is 0"),
        ({"box_steps": 0}, "box_steps is 0"),
        ({"box": (0.1,), "box_eps": -1.0}, "eps is -1.0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(NoiseproofError, match=message):
        Measures(**settings)


def test_certify_gives_an_evaluation_with_the_ladder(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = trained("outside", digits)
    asked = []
    real = EVALUATE.ladder
    monkeypatch.setattr(EVALUATE, "ladder", lambda *given, **named: asked.append(given) or real(*given, **named))
    result = npf.certify(network, digits, boxes=[0.001], samples=10, bounds=["intervals"], box_steps=2, progress=False)
    assert [box.z for box in asked[0][2]] == [0.001]
    assert {r.metric for r in result.records()} == {
        "accuracy", "cross_entropy", "box_parameters", "survived", "certified", "seconds_certifying",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "lif", "outside"])
def test_bounds_by_name_hold_and_the_best_is_the_best_of_them(name: str, digits: Splits) -> None:
    network, split = trained(name, digits)
    x, y, box = split.x[:6], split.y[:6], Box(0.005)
    best, logits = margins(network, x, y, box), bounds(network, x, box)
    names = ("intervals", "spiking", "spiking-backward") if name == "lif" else ("intervals", "backward", "backward-full")
    each = torch.stack([margins(network, x, y, box, how) for how in names])
    assert torch.equal(best, each.amax(0))
    assert torch.equal(certified(network, x, y, box), (best > 0).all(-1))
    nominal = parameters_of(network)
    draw = torch.Generator().manual_seed(0)
    for _ in range(50):
        corner = {n: p * (1 + 0.004999 * torch.randn(p.shape, generator=draw).sign()) for n, p in nominal.items() if p.ndim >= 2}
        with torch.no_grad():
            z = torch.func.functional_call(network, {**nominal, **corner}, (x,)).double()
        assert bool(((logits.low <= z) & (z <= logits.high)).all())
        assert bool((best <= z.gather(1, y[:, None]) - z).masked_fill(torch.isinf(best), True).all())


def test_full_backward_bounds_of_many_units_are_computed_when_they_are_asked_for(digits: Splits) -> None:
    network = ResNet32().build(digits.task, generator("weights", 0))
    graph = certifiable(network, digits.test.x, Box(0.01))
    assert "backward-full" in fitting(graph)
    assert usual(graph) == ("intervals", "backward")
    assert chosen_bounds(graph, "backward-full") == ("backward-full",)


def test_full_backward_bounds_are_never_below_the_others_and_only_for_what_these_leave_open(digits: Splits) -> None:
    network = MLP(hidden=(24, 24, 24)).build(digits.task, generator("weights", 0))
    x = digits.test.x[:40]
    y = network(x).argmax(-1)
    plain, full = (margins(network, x, y, Box(0.003), how) for how in ("backward", "backward-full"))
    left = ~(plain > 0).all(-1)
    assert 0 < int(left.sum()) < 40
    assert bool((full >= plain).all())
    assert bool((full[left] > plain[left]).any())
    assert torch.equal(full[~left], plain[~left])


def test_costly_bounds_are_not_asked_about_wrong_samples(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    network, split = trained("mlp", digits)
    split = Split(split.x, torch.where(torch.arange(20) < 5, (split.y + 1) % 10, split.y))
    asked: dict[str, int] = {}

    def seen(graph: Graph, name: str, x: Tensor, y: Tensor) -> Tensor:
        asked[name] = asked.get(name, 0) + len(x)
        return margins_by(graph, name, x, y)

    monkeypatch.setattr(LADDER, "margins_by", seen)
    records = ladder(network, split, [Box(0.01)], rungs=Rungs(("backward", "backward-full"), steps=1), samples=20)
    clean = next(r.value for r in records if r.perturbation.get("attack") == "none")
    assert clean <= 0.75
    assert asked == {"backward": 20, "backward-full": round(20 * clean)}


def test_unknown_bound_and_one_of_margins_alone_are_refused(digits: Splits) -> None:
    network, split = trained("lif", digits)
    with pytest.raises(NoiseproofError, match="bounds is 'backwards': did you mean 'backward'"):
        margins(network, split.x, split.y, Box(0.01), "backwards")
    with pytest.raises(NoiseproofError, match="how is 'spiking-backward': it bounds margins alone"):
        bounds(network, split.x, Box(0.01), "spiking-backward")


def test_public_names_come_without_torch() -> None:
    code = "import sys, noiseproof.certificates as c; c.failure_rate_bound(0, 100); assert 'torch' not in sys.modules; c.devices; dir(c)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert all(hasattr(npf.certificates, name) for name in npf.certificates.__all__)
