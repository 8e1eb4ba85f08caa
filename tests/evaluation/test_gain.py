"""The exact gain of the perturbation dynamics: never below what is measured, reached at the singular vector, above the claimed bound."""

import copy

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Split, Splits
from noiseproof.evaluation import Ledger, claimed_gain, dynamics_bound, dynamics_gain, l2_gain, spectral_norm
from noiseproof.evaluation.gain import _gains, _Into, dynamics_matrix, layers_with_gain
from noiseproof.networks import MLP, ResNet12, SpikingNetwork, WideResNet
from noiseproof.networks._base import Architecture
from noiseproof.neurons.dynamics import layer_dynamics, perturbation_dynamics
from noiseproof.randomness import generator

STREAM = "gain"


def made(digits: Splits, architecture: Architecture) -> SpikingNetwork:
    network = architecture.build(digits.task, generator("weights", 0))
    assert isinstance(network, SpikingNetwork)
    return network


def ratio(delta: Tensor, leak: Tensor | float) -> float:
    """Return ‖ε‖/‖Δ‖ over all steps, written out."""
    epsilon = torch.zeros_like(delta[0])
    total = 0.0
    for t, change in enumerate(delta):
        epsilon = (leak[t] if isinstance(leak, Tensor) else leak) * epsilon + change
        total += float(epsilon.square().sum())
    return (total / float(delta.square().sum())) ** 0.5


@pytest.mark.parametrize("leak", [0.0, 0.5, 0.99, 1.0, torch.linspace(0.2, 1.1, 8, dtype=torch.float64)])
def test_no_perturbation_is_enlarged_more_and_the_worst_one_as_much(leak: Tensor | float) -> None:
    steps, stream = 8, generator(STREAM, 0)
    gain, M = dynamics_gain(leak, steps), dynamics_matrix(leak, steps)
    measured = [ratio(torch.randn(steps, 5, dtype=torch.float64, generator=stream), leak) for _ in range(200)]
    assert max(measured) <= gain
    worst = torch.linalg.svd(M).Vh[0]
    assert ratio(worst[:, None] * torch.randn(1, 5, dtype=torch.float64, generator=stream), leak) == pytest.approx(gain, rel=1e-12)
    assert gain <= dynamics_bound(leak, steps) * (1 + 1e-12)


def test_the_matrix_is_written_out_for_a_leak_that_changes() -> None:
    leak, gain = torch.tensor([9.0, 0.5, 2.0]), torch.tensor([1.0, 3.0, 1.0])
    assert dynamics_matrix(leak, 3, gain).tolist() == [[1, 0, 0], [0.5, 3, 0], [1, 6, 1]]
    toeplitz = [[0.7 ** (t - s) if s <= t else 0.0 for s in range(4)] for t in range(4)]
    torch.testing.assert_close(dynamics_matrix(0.7, 4), torch.tensor(toeplitz, dtype=torch.float64))


def test_the_claimed_bound_is_violated_and_the_other_one_holds() -> None:
    """Theorem 3.1 of Ding et al., ICML 2024, says (1/(1 − λ))^½."""
    assert dynamics_gain(0.5, 4) == pytest.approx(1.593, abs=5e-4)
    assert claimed_gain(0.5) == pytest.approx(1.414, abs=5e-4)
    excess = [dynamics_gain(0.99, steps) / claimed_gain(0.99) for steps in (8, 16, 20, 100, 1000)]
    assert excess == sorted(excess)
    assert excess[1] < 1 < excess[2]  # at the paper's T = 8 it happens to hold
    assert 9.5 < excess[-1] < 10  # towards (1/(1 − λ))^½, the bound that holds by the one that does not
    for leak in (0.1, 0.5, 0.9, 0.99):
        for steps in (1, 2, 8, 100):
            assert dynamics_gain(leak, steps) <= dynamics_bound(leak, steps) * (1 + 1e-12)
            assert dynamics_bound(leak, steps) == pytest.approx((1 - leak**steps) / (1 - leak))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(12, 7),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 3, 3, stride=2, padding=1, bias=False),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2)),
    ],
)
@torch.no_grad()
def test_norms_of_layers_are_those_of_their_matrices(layer: nn.Module) -> None:
    layer, shape = copy.deepcopy(layer).double(), (1, 12) if isinstance(layer, nn.Linear) else (1, 2, 7, 6)
    size = int(torch.tensor(shape).prod())
    norm, v = spectral_norm(lambda z: layer(z.reshape(shape)), size)
    offset = layer(torch.zeros(shape, dtype=torch.float64)).flatten()
    matrix = torch.stack([layer(row.reshape(shape)).flatten() - offset for row in torch.eye(size, dtype=torch.float64)], 1)
    assert norm == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-9)
    assert float(torch.linalg.vector_norm(matrix @ v)) == pytest.approx(norm, rel=1e-12)


def test_norms_of_nothing_and_of_one_number() -> None:
    assert spectral_norm(lambda v: 0 * v + 3, 5)[0] == 0
    assert spectral_norm(lambda v: -4 * v, 1)[0] == pytest.approx(4)


@pytest.mark.parametrize("per", ["layer", "channel"])
@pytest.mark.parametrize("neuron", ["lif", "dlif"])
def test_gain_of_a_layer_bounds_what_is_measured_and_is_reached(neuron, per, digits: Splits) -> None:
    network = made(digits, MLP(hidden=(20, 15), neuron=neuron, steps=4, per=per))
    stream = generator(STREAM, 1)
    for layer in layers_with_gain(network).values():
        layer.leak.data.copy_(torch.rand(layer.leak.shape, generator=stream))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        if neuron == "dlif":
            layer.a.data.copy_(0.5 + torch.rand(4, generator=stream))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    exact, name = copy.deepcopy(network).double(), f"{neuron}2"
    layer, into = layers_with_gain(exact)[name], _Into(exact, name)
    gain = _gains(exact, name, 4)["l2_gain"]
    offset = into(torch.zeros(into.size(4), dtype=torch.float64), 4)

    def enlarged(v: Tensor) -> float:
        return float(
            torch.linalg.vector_norm(layer_dynamics(layer, into(v, 4) - offset, effective=True)).detach() / torch.linalg.vector_norm(v)
        )

    measured = [enlarged(torch.randn(into.size(4), dtype=torch.float64, generator=stream)) for _ in range(50)]
    assert max(measured) <= gain
    _, worst = spectral_norm(lambda v: layer_dynamics(layer, into(v, 4), effective=True), into.size(4))
    assert enlarged(worst) == pytest.approx(gain, rel=1e-6)


def test_a_t_on_the_input_enlarges_as_its_gain_does(digits: Splits) -> None:
    network = made(digits, MLP(hidden=(20,), neuron="dlif", steps=4, dlif_on="input"))
    layer = layers_with_gain(network)["dlif1"]
    layer.a.data.fill_(2.0)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    found = {r.metric: r.value for r in l2_gain(network)}
    assert found["l2_gain"] == pytest.approx(2 * found["weight_norm"] * dynamics_gain(layer.leak, 4))  # pyright: ignore[reportArgumentType]


@torch.no_grad()
def test_gain_bounds_the_dynamics_of_real_pairs(digits: Splits) -> None:
    """What an attack does to the spikes before a layer comes out enlarged by at most the gain."""
    network, x = made(digits, ResNet12(neuron="lif", width=0.05, steps=3, threshold=0.2, leak=0.8)), digits.test.x[:10]
    moved = (x + 0.2 * torch.randn(x.shape, generator=generator(STREAM, 2))).clamp(0, 1)
    gains = {r.perturbation["layer"]: r.value for r in l2_gain(network) if r.metric == "l2_gain"}
    clean, other = (network.run(z, record=("spikes", "current")).traces for z in (x, moved))
    before = {"lif1": (x - moved).expand(3, *x.shape), "block1.body.act": clean["spikes"]["lif1"] - other["spikes"]["lif1"]}
    for layer, delta in before.items():
        epsilon = perturbation_dynamics(clean["current"][layer] - other["current"][layer], 0.8)
        enlarged = [float(torch.linalg.vector_norm(epsilon[:, i]) / torch.linalg.vector_norm(delta[:, i])) for i in range(10)]
        assert 0 < max(enlarged) <= gains[layer]


def test_what_lies_between_layers_is_taken_as_one_map(digits: Splits) -> None:
    residual = made(digits, ResNet12(neuron="lif", width=0.03, steps=2))
    assert _Into(residual, "block2.out").sources == ["block1.out", "block2.body.act"]
    assert _Into(residual, "lif1").sources == ["input"]
    wide = made(digits, WideResNet(depth=10, widen=1, steps=2))
    # batch norm in inference is part of the map
    names = [name for name, module in wide.named_modules() if isinstance(module, nn.BatchNorm2d)]
    before = _gains(copy.deepcopy(wide).double().eval(), "dlif1", 2)["weight_norm"]
    wide.get_submodule(names[-1]).running_var.fill_(0.25 - 1e-5)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    assert _gains(copy.deepcopy(wide).double().eval(), "dlif1", 2)["weight_norm"] == pytest.approx(2 * before, rel=1e-4)


def test_records(digits: Splits) -> None:
    network, ledger = made(digits, MLP(hidden=(20, 15), neuron="dlif", steps=4)), Ledger()
    network.train()
    records = l2_gain(network, ledger=ledger)
    assert [r.metric for r in records[:7]] == ["weight_norm", "l2_gain", "l2_gain_bound", *["dlif_a"] * 4]
    assert [r.at for r in records[3:5]] == [{"layer": 0, "step": 1}, {"layer": 0, "step": 2}]
    saved = ledger.records
    assert l2_gain(network, ledger=ledger) == records
    assert ledger.records == saved
    assert network.training
    assert all(p.dtype == torch.float32 for p in network.parameters())
    claimed = [r.metric for r in l2_gain(made(digits, MLP(hidden=(20,), neuron="lif", steps=4)))]
    assert claimed == ["weight_norm", "l2_gain", "l2_gain_bound", "l2_gain_claimed"]
    with pytest.raises(npf.NoiseproofError, match="gain is asked for"):
        l2_gain(MLP(hidden=(20,)).build(digits.task, generator("weights", 0)))


def test_all_measures_of_spikes_from_one_call(digits: Splits) -> None:
    network = made(digits, MLP(hidden=(20,), neuron="lif", steps=3))
    settings = {"activity": 10, "latency": 10, "energy": 10, "perturbed_by": ("fgsm(eps=0.1)",), "perturbed_samples": 10, "gain": True}
    few = Splits(digits.task, digits.train, digits.validation, Split(digits.test.x[:20], digits.test.y[:20]))
    found = npf.evaluate(network, few, noise=[], processes=1, progress=False, **settings)
    metrics = {r.metric for r in found.records()}
    assert {"spiking_activity", "accuracy_after_steps", "energy_pj", "tasad", "l2_gain"} <= metrics
    with pytest.raises(npf.NoiseproofError, match="gain is asked for"):
        npf.evaluate(npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))), few, noise=[], gain=True, progress=False)
