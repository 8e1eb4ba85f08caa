"""Operations and energies, held against counts by hand: eqs. (7) and (8) of Kundu et al., and their Tables 6 and 7."""

from collections import OrderedDict
from pathlib import Path

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Split, Splits
from noiseproof.evaluation import OperationCosts, energy, operation_costs
from noiseproof.evaluation.operations import Operations, operations
from noiseproof.networks import CNN, LSNN, MLP, ResNet12, SpikingNetwork
from noiseproof.networks._base import Architecture
from noiseproof.networks._spiking import Readout, Residual
from noiseproof.neurons import LIF
from noiseproof.randomness import generator, stochastic
from noiseproof.records import Record

SAMPLES = 30


def made(digits: Splits, architecture: Architecture) -> nn.Module:
    return architecture.build(digits.task, generator("weights", 0))


@torch.no_grad()
def spikes(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    return network.run(x, record=("spikes",)).traces["spikes"]  # pyright: ignore[reportCallIssue]


def value(records: list[Record], metric: str, layer: str = "", costs: str = "") -> float:
    (found,) = (
        r for r in records
        if r.metric == metric and r.perturbation.get("layer", "") == layer and r.perturbation.get("costs", "") == costs
    )  # fmt: skip
    return found.value


def test_a_dense_network_by_hand(digits: Splits) -> None:
    network = made(digits, MLP(hidden=(20, 15), neuron="lif", steps=5, threshold=0.5))
    records = energy(network, digits.test, samples=SAMPLES)
    s = spikes(network, digits.test.x[:SAMPLES])
    ac = float(s["lif1"].sum()) / SAMPLES * 15 + float(s["lif2"].sum()) / SAMPLES * 10
    mac = 5 * 784 * 20
    assert ac > 0
    assert value(records, "energy_pj", costs="fp32") == pytest.approx(0.9 * ac + 4.6 * mac)
    assert value(records, "energy_pj", costs="int32") == pytest.approx(0.1 * ac + 3.2 * mac)
    assert value(records, "plain_energy_pj", costs="fp32") == pytest.approx(4.6 * (784 * 20 + 20 * 15 + 15 * 10))
    assert value(records, "input_activity", "fc1") == 5
    assert value(records, "input_activity", "fc2") == pytest.approx(float(s["lif1"].sum()) / SAMPLES / 20)
    once = energy(network, digits.test, samples=SAMPLES, first_layer="once")
    assert value(once, "energy_pj", costs="fp32") == pytest.approx(0.9 * ac + 4.6 * mac / 5)


def test_every_spike_meets_the_weights_behind_the_pooling(digits: Splits) -> None:
    """A spike under a pooling window of four counts as one addition at every weight, not as a quarter of one."""
    network = made(digits, CNN(neuron="lif", steps=3, threshold=0.3))
    found = operations(network, digits.test.x[:SAMPLES])
    s = spikes(network, digits.test.x[:SAMPLES])
    assert found["conv2"].flops == 4 * 4 * 11 * 11 * 64 * 64
    assert found["conv2"].activity == pytest.approx(float(s["lif1"].sum()) / SAMPLES / (64 * 14 * 14), rel=1e-5)
    # 11 × 11 spikes, of which pooling by two leaves out the last row and column
    assert found["fc1"].activity == pytest.approx(float(s["lif2"][..., :10, :10].sum()) / SAMPLES / (64 * 5 * 5), rel=1e-5)
    assert [layer.spikes for layer in found.values()] == [False, True, True, True, True]


def test_a_shortcut_begins_where_its_block_does(digits: Splits) -> None:
    found = operations(made(digits, ResNet12(neuron="lif", width=0.05, threshold=0.2, steps=3)), digits.test.x[:5])
    assert found["block2.shortcut"].activity == found["block2.body.conv1"].activity > 0
    assert found["block2.shortcut"].flops == 14 * 14 * 3 * 6
    assert not found["conv1"].spikes
    assert all(layer.spikes for name, layer in found.items() if name != "conv1")


def test_a_shortcut_behind_a_pooling_counts_every_spike(digits: Splits) -> None:
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(1, 4, 5), act=LIF(leak=0.9, threshold=0.3), pool=nn.AvgPool2d(4),
        block=Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), LIF(leak=0.9), nn.Conv2d(4, 8, 1)), nn.Conv2d(4, 8, 1), LIF(leak=0.9)),
        flatten=nn.Flatten(), out=Readout(288, 10, "rate"),
    )  # fmt: skip
    torch.manual_seed(0)
    network = SpikingNetwork(digits.task, layers, steps=3, sequence=False)
    found, s = operations(network, digits.test.x[:SAMPLES]), spikes(network, digits.test.x[:SAMPLES])
    assert found["block.shortcut"].activity == pytest.approx(float(s["act"].sum()) / SAMPLES / (4 * 6 * 6), rel=1e-5)
    assert found["block.shortcut"].activity == found["block.body.0"].activity > 0


def test_rate_coding_pays_additions_from_the_first_layer_on(digits: Splits) -> None:
    network, x = made(digits, MLP(hidden=(20,), neuron="lif", steps=50, coding="poisson")), digits.test.x[:SAMPLES]
    with stochastic(0):
        found = operations(network, x)
    assert found["fc1"].spikes
    # in expectation T spikes times the intensity
    assert found["fc1"].activity == pytest.approx(50 * float(x.mean()), rel=0.02)


def test_recurrent_weights_meet_the_spikes_of_the_step_before() -> None:
    task = npf.data.Task("sequences", (12, 3), 4, (0.0,), (1.0,), (-3.0, 3.0))
    network = LSNN(units=10).build(task, generator("weights", 0))
    x = torch.randn(8, 12, 3, generator=generator("inputs", 0))
    found = operations(network, x)
    s = spikes(network, x)["recurrent"]
    assert (found["input"].activity, found["input"].spikes) == (12, False)
    assert (found["recurrent"].flops, found["recurrent"].spikes) == (10 * 9, True)
    assert found["recurrent"].activity == pytest.approx(float(s[:-1].sum()) / 80)
    assert found["recurrent"].activity > 0
    assert found["out"].activity == pytest.approx(float(s.sum()) / 80)


def test_a_plain_network_multiplies(cnn: nn.Module, digits: Splits) -> None:
    records = energy(cnn, digits.test, samples=SAMPLES)
    flops = sum(r.value for r in records if r.metric == "flops")
    assert flops == 4 * 4 * 28 * 28 * 64 + 4 * 4 * 11 * 11 * 64 * 64 + 1600 * 256 + 256 * 64 + 64 * 10
    assert value(records, "energy_pj", costs="fp32") == pytest.approx(4.6 * flops)
    assert not cnn.conv1._forward_pre_hooks  # pyright: ignore[reportAttributeAccessIssue]


def test_networks_of_others(digits: Splits) -> None:
    torch.manual_seed(0)
    leaky = {"beta": 0.9, "threshold": 0.5, "init_hidden": True}
    module = nn.Sequential(
        nn.Conv2d(1, 4, 5), snn.Leaky(**leaky), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 12 * 12, 10), snn.Leaky(**leaky)
    )
    network = npf.adapt(module, steps=4)
    found = operations(network, digits.test.x[:SAMPLES])
    s = spikes(network, digits.test.x[:SAMPLES])
    assert list(found) == ["0", "4"]
    assert (found["0"].activity, found["0"].spikes) == (4, False)
    assert (found["4"].activity, found["4"].spikes) == (pytest.approx(float(s["1"].sum()) / SAMPLES / (4 * 12 * 12), rel=1e-5), True)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_network_of_spikingjelly_is_counted_in_both_its_modes(mode: str, digits: Splits) -> None:
    """Its layers are subclasses of those of PyTorch; in mode "m" they take all steps at once, [T, B, C, H, W]."""
    torch.manual_seed(0)
    spiking = [neuron.LIFNode(tau=2.0, v_threshold=0.2, surrogate_function=surrogate.ATan(), step_mode=mode) for _ in range(2)]
    convolution, pool = layer.Conv2d(1, 4, 5, step_mode=mode), layer.AvgPool2d(2, step_mode=mode)
    module = nn.Sequential(
        convolution, spiking[0], pool, layer.Conv2d(4, 6, 3, step_mode=mode), spiking[1], layer.Flatten(step_mode=mode), nn.Linear(600, 10)
    )
    network = npf.adapt(module, steps=4)
    found, s = operations(network, digits.test.x[:SAMPLES]), spikes(network, digits.test.x[:SAMPLES])
    assert found["0"] == Operations(5 * 5 * 24 * 24 * 4, 4, False)
    assert (found["3"].flops, found["3"].spikes) == (3 * 3 * 10 * 10 * 4 * 6, True)
    assert found["3"].activity == pytest.approx(float(s["1"].sum()) / SAMPLES / (4 * 12 * 12), rel=1e-5)
    assert found["6"].activity == pytest.approx(float(s["4"].sum()) / SAMPLES / 600, rel=1e-5)
    assert found["6"].activity > 0


def outside(pool: nn.Module, features: int, *between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    leaky = {"beta": 0.9, "threshold": 0.5, "init_hidden": True}
    return npf.adapt(nn.Sequential(nn.Conv2d(1, 4, 5), snn.Leaky(**leaky), pool, nn.Flatten(), *between, nn.Linear(features, 10)), steps=4)


def test_every_average_says_itself_over_how_many_values_it_is_taken(digits: Splits) -> None:
    x = digits.test.x[:SAMPLES]
    for pool, features in ((nn.AvgPool2d(3, 2, 1), 576), (nn.AdaptiveAvgPool2d(6), 144), (nn.AdaptiveAvgPool2d((1, 24)), 96)):
        network = outside(pool, features)
        s = spikes(network, x)["1"]
        ones = torch.ones(1, 1, 24, 24, requires_grad=True)
        pool(ones).sum().backward()
        assert ones.grad is not None
        largest = {576: 9, 144: 16, 96: 24}[features]
        # every spike counts once for every window in which it lies
        met = (s.sum((0, 1)) * (ones.grad[0] * largest).round()).sum()
        assert operations(network, x)["4"].activity == pytest.approx(float(met) / SAMPLES / features, rel=1e-5)


@pytest.mark.parametrize("pool", [nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(5), nn.AvgPool2d(5, ceil_mode=True)])
def test_spikes_in_windows_of_unequal_size_are_refused_and_numbers_are_not(pool: nn.Module, digits: Splits) -> None:
    x = digits.test.x[:5]
    features = pool(torch.zeros(1, 4, 24, 24)).numel()
    with pytest.raises(npf.NoiseproofError, match=rf"layer 2 \({type(pool).__name__}\) averages spikes over windows of unequal size"):
        operations(outside(pool, features), x)
    plain = npf.adapt(nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU(), pool, nn.Flatten(), nn.Linear(features, 10)))
    assert operations(plain, x)["4"] == Operations(features * 10.0, 1, False)


def test_a_sample_without_spikes_does_not_say_what_comes_into_a_layer(digits: Splits) -> None:
    """Numbers between two layers without bias are zero for it, as spikes would be."""
    network = outside(nn.Identity(), 8, nn.Linear(4 * 24 * 24, 8, bias=False))
    network.module[0].bias.data.zero_()  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    x, y = digits.test.x[:60].clone(), digits.test.y[:60]
    x[0] = x[51:] = 0.0
    records = energy(network, Split(x, y))
    kinds = {r.perturbation["layer"]: r.perturbation["operation"] for r in records if r.metric == "input_activity"}
    assert kinds == {"0": "mac", "4": "ac", "5": "mac"}
    # also in the steps in which nothing spikes yet
    assert value(records, "input_activity", "5") == 4
    silent = energy(network, Split(torch.zeros_like(x), y))
    assert value(silent, "plain_energy_pj", costs="fp32") == value(records, "plain_energy_pj", costs="fp32")


def test_two_tables_of_one_name_are_kept_apart(digits: Splits) -> None:
    network = made(digits, MLP(hidden=(20,), neuron="lif", steps=2))
    costs = (OperationCosts("mine", 1.0, 1.0), OperationCosts("mine", 1.0, 3.0))
    totals = {
        r.perturbation["mac"]: r.value for r in energy(network, digits.test, samples=5, costs=costs) if r.metric == "energy_pj" and not r.at
    }
    assert totals[3.0] - totals[1.0] == pytest.approx(2 * 2 * 784 * 20)


def test_costs_by_name_and_from_a_file(tmp_path: Path, digits: Splits) -> None:
    assert operation_costs("int32") == [OperationCosts("int32", 0.1, 3.2)]
    toml, csv = tmp_path / "costs.toml", tmp_path / "costs.csv"
    toml.write_text("[mine]\nac = 0.05\nmac = 1.2\n")
    csv.write_text("name,ac,mac\nmine,0.05,1.2\nyours,1,2\n")
    assert operation_costs(str(toml)) == [OperationCosts("mine", 0.05, 1.2)] == operation_costs(str(csv))[:1]
    measures = npf.evaluation.Measures(operation_costs=("fp32", str(csv)))
    assert [costs.name for costs in measures.costs()] == ["fp32", "mine", "yours"]
    network = made(digits, MLP(hidden=(20,), neuron="lif", steps=2))
    records = energy(network, digits.test, samples=5, costs=measures.costs())
    assert value(records, "energy_pj", "fc1", "mine") == pytest.approx(1.2 * 2 * 784 * 20)


@pytest.mark.parametrize("text", ["[mine]\nac = 0.05\n", "[mine]\nac = 'a'\nmac = 1\n", "[mine]\nac = -1\nmac = 1\n", "", "mine = 3\n"])
def test_what_is_wrong_with_costs_is_said_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "costs.toml"
    path.write_text(text)
    with pytest.raises(npf.NoiseproofError, match="operation_costs"):
        npf.evaluation.Measures(operation_costs=(str(path),))
    for name in ("fp16", str(tmp_path / "none.csv")):
        with pytest.raises(npf.NoiseproofError, match="operation_costs"):
            operation_costs(name)
