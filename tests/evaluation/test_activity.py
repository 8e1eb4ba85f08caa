"""Spikes per neuron and anytime answers, held against traces and against runs of fewer steps."""

import pytest
import snntorch as snn
import torch
from torch import nn

import noiseproof as npf
from noiseproof.data import Splits
from noiseproof.evaluation import Ledger, activity, latency
from noiseproof.evaluation.latency import anytime_logits
from noiseproof.networks import LSNN, MLP, SpikingNetwork
from noiseproof.networks._architecture import Kind
from noiseproof.randomness import generator


def spiking(digits: Splits, neuron: Kind = "lif", **settings) -> SpikingNetwork:
    network = MLP(hidden=(20, 15), neuron=neuron, threshold=0.5, **{"steps": 5, **settings}).build(digits.task, generator("weights", 0))
    assert isinstance(network, SpikingNetwork)
    return network


def outside() -> nn.Module:
    torch.manual_seed(0)
    leaky = {"beta": 0.9, "init_hidden": True}
    layers = (nn.Linear(784, 20), snn.Leaky(threshold=0.5, **leaky), nn.Linear(20, 10), snn.Leaky(threshold=0.2, **leaky))
    return npf.adapt(nn.Sequential(nn.Flatten(), *layers), steps=4)


@pytest.mark.parametrize("make", [spiking, lambda _: outside()])
def test_activity_is_that_of_the_traces(make, digits: Splits) -> None:
    network = make(digits)
    records = activity(network, digits.test, samples=70)  # more than one block
    with torch.no_grad():
        traces = network.run(digits.test.x[:70], record=("spikes",)).traces["spikes"]
    for place, (layer, spikes) in enumerate(traces.items()):
        total, rate = [r for r in records if r.perturbation == {"layer": layer}]
        assert (total.metric, rate.metric) == ("spiking_activity", "spiking_activity_per_step")
        assert total.value == pytest.approx(float(spikes.sum()) / (70 * spikes[0, 0].numel()), rel=1e-6)
        assert rate.value == pytest.approx(total.value / len(spikes))
        assert (rate.at, rate.n) == ({"layer": place}, 70)
    assert sum(r.value for r in records) > 0


def test_what_is_there_is_not_measured_again(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    network, ledger = spiking(digits).train(), Ledger()
    first = activity(network, digits.test, samples=60, ledger=ledger)
    sizes: list[int] = []
    run = network.run
    monkeypatch.setattr(network, "run", lambda x, **options: (sizes.append(len(x)), run(x, **options))[1])
    assert activity(network, digits.test, samples=60, ledger=ledger) == first
    assert sizes == [1]  # one sample tells which records there are
    assert len(ledger.records) == len(first) == 4
    assert network.training


@pytest.mark.parametrize("readout", ["rate", "sum", "last", "max"])
def test_answers_after_t_steps_are_those_of_a_run_of_t_steps(readout, digits: Splits) -> None:
    network, x = spiking(digits, readout=readout), digits.test.x[:20]
    logits = anytime_logits(network, x)
    torch.testing.assert_close(logits, torch.stack([network.run(x, steps=t).logits for t in range(1, 6)]))


def test_latency_of_neurons_that_run_for_one_number_of_steps_and_of_sequences(digits: Splits) -> None:
    network = spiking(digits, "dlif")
    torch.testing.assert_close(anytime_logits(network, digits.test.x[:9])[-1], network(digits.test.x[:9]))
    task = npf.data.Task("sequences", (12, 3), 4, (0.0,), (1.0,), (-3.0, 3.0))
    recurrent = LSNN(units=10).build(task, generator("weights", 0))
    x = torch.randn(5, 12, 3, generator=generator("inputs", 0))
    assert anytime_logits(recurrent, x).shape == (12, 5, 4)
    torch.testing.assert_close(anytime_logits(recurrent, x)[-1], recurrent(x))


@pytest.mark.parametrize("make", [spiking, lambda _: outside()])
def test_latency_counts_who_is_right_and_who_was(make, digits: Splits) -> None:
    network, test = make(digits), digits.test
    records = latency(network, test, samples=100)
    right = {r.at["steps"]: r.value for r in records if r.metric == "accuracy_after_steps"}
    ever = [r.value for r in records if r.metric == "right_by_step"]
    assert right[len(right)] == pytest.approx(float((network(test.x).argmax(-1) == test.y).double().mean()))
    assert ever == sorted(ever)
    assert all(e >= r for e, r in zip(ever, right.values(), strict=True))
    assert ever[0] == right[1]


def test_refused_without_spikes_or_steps(mlp: nn.Module, digits: Splits) -> None:
    for measured in (activity, latency):
        with pytest.raises(npf.NoiseproofError, match="no spiking neurons"):
            measured(mlp, digits.test)
    with pytest.raises(npf.NoiseproofError, match="samples is 0"):
        activity(spiking(digits), digits.test, samples=0)
