"""Distances of clean and perturbed runs, held against their definitions written out."""

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import FGSM, PGD
from noiseproof.data import Splits
from noiseproof.evaluation import distance_after_lif, perturbation
from noiseproof.evaluation.perturbation import normalised_map, pair_figures, perturbed
from noiseproof.networks import MLP, SpikingNetwork
from noiseproof.networks._architecture import Kind
from noiseproof.neurons import LIF
from noiseproof.neurons.dynamics import layer_dynamics
from noiseproof.randomness import generator
from noiseproof.tracking import last_ms_mppd


def spiking(digits: Splits, neuron: Kind = "lif", **settings) -> SpikingNetwork:
    network = MLP(hidden=(20, 15), neuron=neuron, threshold=0.5, **{"steps": 5, **settings}).build(digits.task, generator("weights", 0))
    assert isinstance(network, SpikingNetwork)
    return network


def norm(x: Tensor) -> float:
    """Return the mean over samples of the l2 norm, in float64."""
    return float(x.double().flatten(1).square().sum(1).sqrt().mean())


@pytest.mark.parametrize("neuron", ["lif", "dlif"])
@torch.no_grad()
def test_every_distance_is_its_definition(neuron: Kind, digits: Splits) -> None:
    network, x = spiking(digits, neuron), digits.test.x[:20]
    leak = torch.full((5,), 0.9 if neuron == "lif" else 0.99, dtype=torch.float64)
    if neuron == "dlif":
        network.dlif2.a.data.copy_(torch.linspace(0.5, 1.2, 5))  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        network.dlif2.leak.data.fill_(0.8)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        leak = torch.full((5,), 0.8, dtype=torch.float64)  # λ alone, without a[t]: eq. (11)
    else:
        network.lif2.leak.data.fill_(0.9)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    moved = (x + 0.1 * torch.randn(x.shape, generator=generator("noise", 0))).clamp(0, 1)
    found = {(f.metric, f.perturbation["layer"], f.at.get("step")): f.value for f in pair_figures(network, x, moved, {}, ())}
    clean, other = (network.run(z, record=("spikes", "current")).traces for z in (x, moved))
    layer = f"{neuron}2"
    s, t = clean["spikes"][layer].double(), other["spikes"][layer].double()
    assert found["perturbation_distance", "input", None] == pytest.approx(norm(x - moved))
    assert found["tasad", layer, None] == pytest.approx(norm(s.mean(0) - t.mean(0)))
    assert found["spike_train_distance", layer, None] == pytest.approx(norm((s - t).transpose(0, 1)))
    maps = (z.sum(0) / z.sum(0).amax(1, keepdim=True).clamp_min(1) for z in (s, t))
    assert found["spike_perturbation_distance", layer, None] == pytest.approx(norm(next(maps) - next(maps)))
    epsilon, square = torch.zeros(20, 15, dtype=torch.float64), 0.0
    for step in range(5):
        epsilon = leak[step] * epsilon + (clean["current"][layer] - other["current"][layer])[step].double()
        square += float(epsilon.square().mean()) / 5
        assert found["mppd", layer, step + 1.0] == pytest.approx(norm(epsilon), rel=1e-5)
    assert found["ms_mppd", layer, None] == pytest.approx(square, rel=1e-5)
    assert float(last_ms_mppd(network, x, moved).double().mean()) == pytest.approx(square, rel=1e-5)
    assert square > 0


def test_maps_are_scaled_by_their_largest_count() -> None:
    spikes = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]]])
    assert normalised_map(spikes).tolist() == [[1.0, 0.5], [0.0, 0.0]]


def test_all_samples_are_perturbed_within_eps_and_nothing_is_changed(digits: Splits) -> None:
    network = spiking(digits).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = digits.test.x.clone()
    part = npf.data.Split(x[:30], digits.test.y[:30])
    wrong = network(part.x).argmax(-1) != part.y
    moved = perturbed(network, part, PGD(eps=0.1, steps=3), generator("attack", 0))
    change = (moved - part.x).flatten(1).abs().amax(1)
    assert wrong.any()
    assert bool((change[wrong] > 0).all())
    assert float(change.max()) <= 0.1 + 1e-6
    assert torch.equal(x, digits.test.x)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_records_hold_attack_layer_and_place_and_without_eps_there_is_no_distance(digits: Splits) -> None:
    for coding in ("direct", "poisson"):  # both runs of a pair draw the same spikes
        network = spiking(digits, coding=coding)
        records = perturbation(network, digits.test, [FGSM(eps=0.0)], samples=20, seed=3)
        assert {r.value for r in records} == {0.0}
        assert {(r.n, r.seed) for r in records} == {(20, 3)}
        assert {r.perturbation["layer"]: r.at["layer"] for r in records} == {"input": -1, "lif1": 0, "lif2": 1}
        assert {r.perturbation["name"] for r in records} == {"fgsm"}


def test_a_stronger_attack_moves_the_network_farther(digits: Splits) -> None:
    network = spiking(digits)
    records = perturbation(network, digits.test, [FGSM(eps=eps) for eps in (0.02, 0.2)], samples=60, leaks=(0.5,))
    for metric in ("perturbation_distance", "tasad", "spike_train_distance", "ms_mppd", "distance_after_lif"):
        weak, strong = (
            [r.value for r in records if r.metric == metric and r.perturbation["eps"] == eps] for eps in (0.02, 0.2)
        )  # fmt: skip
        assert all(a < b for a, b in zip(weak, strong, strict=True)), metric
    # the pairs of a second call are the same
    assert records == perturbation(network, digits.test, [FGSM(eps=eps) for eps in (0.02, 0.2)], samples=60, leaks=(0.5,))


def test_networks_of_others_have_no_dynamics_that_we_know(digits: Splits) -> None:
    torch.manual_seed(0)
    leaky = snn.Leaky(beta=0.9, threshold=0.5, init_hidden=True)
    network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 20), leaky, nn.Linear(20, 10)), steps=4)
    records = perturbation(network, digits.test, [FGSM(eps=0.1)], samples=10)
    assert [r.metric for r in records] == ["perturbation_distance", "spike_perturbation_distance", "tasad", "spike_train_distance"]
    assert all(r.value > 0 for r in records)


def test_distance_after_a_layer_of_lif_neurons_by_hand(digits: Splits) -> None:
    x = digits.test.x[:20]
    moved = (x + 0.1).clamp(0, 1)

    def rate(current: Tensor, leak: float) -> Tensor:
        u, s, total = torch.zeros_like(current), torch.zeros_like(current), torch.zeros_like(current)
        for _ in range(10):
            u = leak * u + current - 0.8 * s
            s = (u > 0.8).to(current)
            total += s
        return total / 10

    for leak, found in zip((0.1, 0.7, 1.0), distance_after_lif(x, moved, (0.1, 0.7, 1.0)), strict=True):
        assert found == pytest.approx(norm(rate(x, leak) - rate(moved, leak)), rel=1e-6)
    with pytest.raises(npf.NoiseproofError, match="leak"):
        distance_after_lif(x, moved, (0.0,))


def test_the_dynamics_are_smooth_where_the_difference_of_potentials_jitters() -> None:
    """Fig. 1(a) of Ding et al.: a constant current of 0.3 and of 0.4 thresholds, with its closed form."""
    layer, clean, moved = LIF(leak=0.9, reset="hard"), *(torch.full((30, 1, 1), current) for current in (0.3, 0.4))
    with torch.no_grad():
        difference = torch.stack([layer(z, membrane=True).membrane for z in (moved, clean)])  # pyright: ignore[reportArgumentType]
    difference = (difference[0] - difference[1]).flatten()
    epsilon = layer_dynamics(layer, moved - clean, effective=True).flatten().detach()
    t = torch.arange(1, 31)
    torch.testing.assert_close(epsilon, 0.1 * (1 - 0.9**t) / (1 - 0.9))
    turns = difference.diff().sign().diff().abs() > 0
    assert int(turns.sum()) > 5
    assert bool((epsilon.diff() > 0).all())


def test_refused(mlp: nn.Module, digits: Splits) -> None:
    with pytest.raises(npf.NoiseproofError, match="no spiking neurons"):
        perturbation(mlp, digits.test, [FGSM(eps=0.1)])
    several = npf.evaluation.Measures(perturbed_by=("ensemble(eps=0.1)",), chips=1)
    ledger = npf.evaluation.Ledger()
    with pytest.raises(npf.NoiseproofError, match="several members"):  # before any work
        npf.evaluation.measure_all(spiking(digits), digits, several, ledger, progress=False)
    assert not ledger.records
    with pytest.raises(npf.NoiseproofError, match="eps is 20"):
        perturbation(spiking(digits), digits.test, [FGSM(eps=20.0)])
    for wrong in (
        {"perturbed_by": ("pgd(epsilon=1)",)},
        {"perturbed_leaks": (0.5,)},
        {"perturbed_by": ("fgsm",), "perturbed_leaks": (1.5,)},
    ):
        with pytest.raises(npf.NoiseproofError):
            npf.evaluation.Measures(**wrong)
