"""Membrane potentials around the threshold, held against the traces of a run and the equations written out."""

import itertools

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Split, Splits, Task
from noiseproof.evaluation import Ledger, membranes
from noiseproof.networks import LSNN, MLP, SpikingNetwork
from noiseproof.networks._architecture import Kind
from noiseproof.networks.adapt import Adapted
from noiseproof.plan import run_plan
from noiseproof.plan_file import load_plan
from noiseproof.randomness import generator
from noiseproof.records import Record


def shares(distance: Tensor) -> dict[float, float]:
    """Return the histogram of (V − B)/B as it is defined, bin by bin."""
    edges = torch.arange(-60, 61, dtype=torch.float64) / 20
    z = distance.double()
    pairs = itertools.pairwise(edges.tolist())
    return {round((low + high) / 2, 6): float(((z >= low) & (z < high)).double().mean()) for low, high in pairs}


def check(records: list[Record], layer: str, distance: Tensor) -> None:
    mine = [r for r in records if r.perturbation == {"layer": layer}]
    found = {r.at["bin"]: r.value for r in mine if r.metric == "membrane_share"}
    # a potential on the edge of two bins may round to either
    assert found == pytest.approx(shares(distance), abs=2.5 / distance.numel())
    (near,) = [r for r in mine if r.metric == "membrane_near_threshold"]
    assert near.at == {"within": 0.1}
    assert near.value == pytest.approx(float((distance.double().abs() <= 0.1).double().mean()), abs=2.5 / distance.numel())


@pytest.mark.parametrize("neuron", ["lif", "if", "dlif"])
def test_shares_are_those_of_the_traces(neuron: Kind, digits: Splits) -> None:
    network = MLP(hidden=(20, 15), neuron=neuron, steps=5, threshold=0.4).build(digits.task, generator("weights", 0))
    records = membranes(network, digits.test, samples=30)
    assert {r.n for r in records} == {30}
    run = network.run(digits.test.x[:30], record=("membrane",))
    assert list(run.traces["membrane"]) == [f"{neuron}1", f"{neuron}2"]
    for layer, v in run.traces["membrane"].items():
        check(records, layer, (v - 0.4) / 0.4)
    assert any(r.value for r in records if r.metric == "membrane_near_threshold")


def test_an_adaptive_threshold_moves_with_the_spikes() -> None:
    task, stream = Task("sequences", (30, 3), 4, (0.0,), (1.0,), (-3.0, 3.0)), generator("inputs", 0)
    split = Split(torch.randn(25, 30, 3, generator=stream), torch.zeros(25, dtype=torch.int64))
    network = LSNN(units=20).build(task, stream)
    records = membranes(network, split)
    run = network.run(split.x, record=("membrane", "spikes"))
    v, s = run.traces["membrane"]["recurrent"].double(), run.traces["spikes"]["recurrent"].double()
    assert 0 < s.mean() < 0.5
    b, thresholds = torch.zeros_like(s[0]), []
    rho = torch.exp(torch.tensor(-1 / 98.0, dtype=torch.float64))
    for t in range(30):
        b = rho * b + (1 - rho) * (s[t - 1] if t else 0)
        thresholds.append(0.01 + 2.0 * b)
    B = torch.stack(thresholds)
    z = (v - B) / B
    mine = [r.value for r in records if r.metric == "membrane_share"]
    # the potentials of float32 beside the thresholds of float64
    assert mine == pytest.approx(list(shares(z).values()), abs=1e-3)
    assert sum(mine) < 1


def test_snntorchs_neurons_show_theirs(digits: Splits) -> None:
    torch.manual_seed(0)
    leaky = snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True)
    network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 20), leaky, nn.Linear(20, 10)), steps=4)
    records = membranes(network, digits.test, samples=10)
    assert isinstance(network, Adapted)
    v = network.run(digits.test.x[:10], record=("membrane",)).traces["membrane"]["2"]
    check(records, "2", (v - 0.5) / 0.5)


def test_refused_where_there_are_none(mlp: nn.Module, outside: nn.Module, digits: Splits) -> None:
    with pytest.raises(npf.NoiseproofError, match="no spiking neurons"):
        membranes(mlp, digits.test)
    with pytest.raises(npf.NoiseproofError, match="no spiking neurons"):
        membranes(outside, digits.test)
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), snn.Leaky(beta=0.9, init_hidden=True, reset_delay=False))
    with pytest.raises(npf.NoiseproofError, match="does not show the potential"):
        membranes(npf.adapt(hidden, steps=3), digits.test)
    # before any chip is measured
    ledger = Ledger()
    with pytest.raises(npf.NoiseproofError, match="no spiking neurons"):
        npf.evaluation.measure_all(mlp, digits, npf.evaluation.Measures(membranes=5, chips=1), ledger, progress=False)
    assert not ledger.records


def test_measured_once_and_the_network_stays_as_it_was(digits: Splits) -> None:
    network = MLP(hidden=(20,), neuron="lif", steps=3, coding="poisson").build(digits.task, generator("weights", 0)).train()
    assert isinstance(network, SpikingNetwork)
    ledger = Ledger()
    records = membranes(network, digits.test, samples=30, ledger=ledger)
    assert membranes(network, digits.test, samples=30) == records
    saved = len(ledger.records)
    assert membranes(network, digits.test, samples=30, ledger=ledger) == records
    assert len(ledger.records) == saved
    assert network.training


def test_a_plan_refuses_before_it_trains(tmp_path) -> None:
    plan = tmp_path / "plan.toml"
    defaults, training = '[defaults]\ndata = "digits"\nnetwork = "mlp"\nepochs = 1', '[[training]]\nmethod = "standard"'
    plan.write_text(f"{defaults}\n{training}\n[evaluation]\nmembranes = 10\n")
    with pytest.raises(npf.NoiseproofError, match="no spiking neurons"):
        run_plan(load_plan(plan), tmp_path / "out", progress=False)
    assert not list(tmp_path.glob("out/*/weights.safetensors"))
