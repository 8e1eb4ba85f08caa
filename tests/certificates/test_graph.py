"""Graphs of our own networks, held against the networks themselves; and the ends of the neurons' constants over a box."""

import copy
import math
from typing import Any

import pytest
import torch
from _nominal import nominal_logits, nominal_values
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import Builder, graph_of
from noiseproof.certificates._graph import MaxPool, Neurons
from noiseproof.certificates._rounding import Rounding
from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.networks import CNN, LSNN, MLP, VGG5, VGG11, Network, ResNet12, ResNet32, SpikingNetwork, WideResNet
from noiseproof.neurons import ALIF, DLIF, LIF, Neuron
from noiseproof.neurons.neuron import _Spread

IMAGES = Task("images", (1, 28, 28), 10, (0.28,), (0.35,), (0.0, 1.0))
PHOTOS = Task("photos", (3, 32, 32), 10, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), (0.0, 1.0))
SEQUENCES = Task("sequences", (12, 5), 4, (0.1, 0.0, 0.2, 0.3, 0.1), (0.9, 0.8, 0.7, 1.0, 1.2), (-5.0, 5.0))
FRAMES = Task("frames", (4, 2, 32, 32), 5, (0.1, 0.2), (0.5, 0.4), (0.0, 1.0))
VECTORS = Task("vectors", (9,), 3, (0.1,), (0.9,), (-1.0, 1.0))

SPIKING = {"hidden": (30, 20), "steps": 5, "threshold": 0.4}
ARCHITECTURES = {
    "mlp": (MLP(hidden=(30, 20)), IMAGES),
    "mlp of vectors": (MLP(hidden=(30,)), VECTORS),
    "cnn": (CNN(), IMAGES),
    "vgg5": (VGG5(neuron="relu", width=0.1, dense=16, batch_norm=True), PHOTOS),
    "resnet32": (ResNet32(), PHOTOS),
    "if": (MLP(**SPIKING, neuron="if", readout="sum"), IMAGES),
    "if, refractory": (MLP(**SPIKING, neuron="if", refractory=2), IMAGES),
    "lif": (MLP(**SPIKING, neuron="lif"), IMAGES),
    "lif, hard": (MLP(**SPIKING, neuron="lif", reset="hard", readout="last", readout_leak=0.8), IMAGES),
    "lif, soft-next": (MLP(**SPIKING, neuron="lif", reset="soft-next", readout="max", readout_leak=0.9), IMAGES),
    "lif, tau": (MLP(**SPIKING, neuron="lif", tau=4.0, decay_input=True, trainable=("tau",), per="neuron"), IMAGES),
    "lif, latency": (MLP(**SPIKING, neuron="lif", coding="latency"), IMAGES),
    "dlif": (CNN(neuron="dlif", steps=4, threshold=0.4, per="channel"), IMAGES),
    "dlif, input": (MLP(**SPIKING, neuron="dlif", dlif_on="input"), IMAGES),
    "frames": (VGG5(neuron="lif", width=0.1, dense=16, threshold=0.3), FRAMES),
    "lsnn": (LSNN(units=20), SEQUENCES),
    "spiking vgg5": (VGG5(neuron="lif", width=0.1, dense=16, steps=3, threshold=0.3), PHOTOS),
    "spiking vgg11": (VGG11(neuron="if", width=0.05, steps=2, threshold=0.3, batch_norm=True), PHOTOS),
    "resnet12": (ResNet12(width=0.05, steps=3, threshold=0.3), PHOTOS),
    "wide resnet": (WideResNet(depth=10, widen=1, steps=3, threshold=0.3), PHOTOS),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(name: str) -> tuple[Network, Tensor]:
    """A network whose parameters and statistics all differ, in float64, and inputs."""
    architecture, task = ARCHITECTURES[name]
    network, draw = architecture.build(task, seeded()).eval(), seeded(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter *= 1 + 0.3 * torch.rand(parameter.shape, generator=draw)
            parameter += 0.01 * torch.rand(parameter.shape, generator=draw) if parameter.ndim == 1 else 0
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.copy_(torch.rand(layer.running_mean.shape, generator=draw) - 0.5)
                layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=draw) + 0.2)
    low, high = task.bounds
    return network.double(), low + (high - low) * torch.rand(3, *task.shape, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_graph_gives_the_logits_of_its_network(name: str) -> None:
    network, x = built(name)
    graph = graph_of(network, Box(0.0), arithmetic="exact")
    with torch.no_grad():
        values, logits = nominal_values(graph, x), network(x)
    assert torch.allclose(values[-1], logits, rtol=1e-9, atol=1e-9), (values[-1] - logits).abs().max()
    for node, value in zip(graph.nodes, values, strict=True):
        if isinstance(node.op, Neurons):  # or there would be nothing to compare
            assert 0 < value.mean() < 1, node.name


@pytest.mark.parametrize("name", ["cnn", "lif, tau", "lsnn", "resnet12"])
def test_graph_takes_other_parameters_and_names_how_far_they_move(name: str) -> None:
    network, x = built(name)
    params = {n: 1.1 * p.detach() for n, p in network.named_parameters()}
    graph = graph_of(network, Box(0.01), params=params, arithmetic="exact")
    with torch.no_grad():
        assert torch.allclose(nominal_logits(graph, x), torch.func.functional_call(network, params, (x,)), rtol=1e-9, atol=1e-9)
    ops: list[Any] = [node.op for node in graph.nodes]
    moved = [op.z for op in ops if getattr(op, "z", 0.0)]
    matrices = [n for n, p in network.named_parameters() if p.ndim >= 2]
    recurrent = [node.op.recurrent for node in graph.nodes if isinstance(node.op, Neurons) and node.op.recurrent]
    readout = 1 if graph.spiking else 0
    assert set(moved) == {0.01}
    assert len(moved) + len(recurrent) + readout == len(matrices)


def test_gradients_reach_the_parameters() -> None:
    network, x = built("cnn")
    params = {n: p.detach().clone().requires_grad_() for n, p in network.named_parameters()}
    found = torch.autograd.grad(nominal_logits(graph_of(network, Box(), params=params), x).sum(), list(params.values()))
    expected = torch.autograd.grad(torch.func.functional_call(network, params, (x,)).sum(), list(params.values()))
    assert all(torch.allclose(a, b) for a, b in zip(found, expected, strict=True))


def test_latency_is_in_the_arithmetic_of_the_network() -> None:
    """A spike time is rounded: the same x in float32 and in float64 may spike at different steps."""
    task = Task("vectors", (2000,), 3, (0.0,), (1.0,), (-0.3, 0.9))
    network = MLP(**SPIKING, neuron="lif", coding="latency").build(task, seeded())
    assert isinstance(network, SpikingNetwork)
    x = -0.3 + 1.2 * torch.arange(2000).remainder(9)[None] / 8  # between two steps
    expected, other = (network._in_time(values, None, None)[0].double() for values in (x, x.double()))
    assert not torch.equal(expected, other)
    assert torch.equal(graph_of(network, Box(0.0)).encode(x.double()), expected)


# --- constants of neurons over a box

NEURONS = {
    "lif": lambda: LIF(leak=0.9, threshold=0.7, decay_input=True, per="channel", shape=(3, 2)),
    "lif at the ends": lambda: LIF(leak=1.0, threshold=0.001),
    "lif, euler": lambda: LIF(tau=1.2, decay="euler", decay_input=True, per="neuron", shape=(3, 2)),
    "lif, exponential": lambda: LIF(tau=50.0, decay="exponential", decay_input=True, v_reset=0.2),
    "dlif": lambda: DLIF(steps=4, leak=0.9),
    "dlif, input": lambda: DLIF(steps=4, leak=0.9, on="input", decay_input=True),
    "alif": lambda: ALIF(threshold=0.05, tau=200.0, beta=1.7, tau_adaptation=1000.0, per="channel", shape=(3, 2)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NEURONS)
@settings(max_examples=15, deadline=None)
@given(z=st.sampled_from([1e-5, 0.01, 0.3, 0.9]), seed=st.integers(0, 2**31), corner=st.booleans())
def test_ends_hold_the_constants_of_every_chip(name: str, dtype: torch.dtype, z: float, seed: int, corner: bool) -> None:
    network = nn.Sequential(NEURONS[name]()).to(dtype)
    builder = Builder(network, Box(z, "all"), None, Rounding("float32" if dtype == torch.float32 else "float64"), (3, 2), 4)
    builder.children("", network, 0)
    op, chip = builder.nodes[-1].op, copy.deepcopy(network[0])
    assert isinstance(op, Neurons)
    assert isinstance(chip, Neuron)
    draw = seeded(seed)
    with torch.no_grad():
        for parameter in chip.parameters():
            change = 2 * torch.rand(parameter.shape, generator=draw, dtype=dtype) - 1
            parameter *= 1 + z * (change.sign() if corner else change)
        drawn = chip.constants(4, _Spread(chip.per, torch.zeros(1, 1, 3, 2)))
    for low, value, high in zip(op.low, drawn, op.high, strict=True):
        assert (low is None) == (value is None) == (high is None)
        if low is not None and value is not None and high is not None:
            assert bool((low <= value).all())
            assert bool((value <= high).all())


def test_constants_that_do_not_move_are_those_of_the_network() -> None:
    network, _ = built("lsnn")
    for box in (Box(0.1), Box(0.0, "all")):
        ops = [node.op for node in graph_of(network, box).nodes if isinstance(node.op, Neurons)]
        assert ops
        assert all(low is high for op in ops for low, high in zip(op.low, op.high, strict=True))


# --- pooling, and what is refused


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.MaxPool2d((2, 3), stride=(2, 1), padding=(1, 0)),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        nn.MaxPool2d(3, stride=3, padding=1, ceil_mode=True),
        nn.MaxPool2d((3, 2), stride=(2, 3), dilation=(1, 3), padding=(1, 1), ceil_mode=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 7, 9), (3, 5, 6)])
def test_windows_are_those_of_the_pool(pool: nn.MaxPool2d, shape: tuple[int, ...]) -> None:
    op = alone(pool, shape)
    assert isinstance(op, MaxPool)
    a = torch.randn(4, *shape, generator=seeded(), dtype=torch.float64)
    windows = op.windows(a)
    assert torch.equal(windows.amax(-1), pool(a))
    assert torch.equal(op.apply(a), pool(a))
    # every input that counts is a member: raised above all others, it is the largest where it stands
    for at in range(math.prod(shape)):
        raised = a.clone()
        raised.view(4, -1)[:, at] = 100.0
        assert torch.equal(op.windows(raised).amax(-1), pool(raised))


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        nn.AvgPool2d((2, 3), divisor_override=4),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.ZeroPad2d((1, 2, 0, 1)),
        nn.Conv2d(2, 4, 3, stride=2, padding="valid", dilation=2, groups=2),
    ],
    ids=str,
)
def test_linear_layers_are_those_of_torch(pool: nn.Module) -> None:
    a = torch.rand(3, 2, 8, 8, generator=seeded(), dtype=torch.float64)
    op = alone(pool.double(), (2, 8, 8))
    out = op.apply(a, op.weight)
    assert torch.allclose(out if op.bias is None else out + op.bias, pool(a))


def alone(layer: nn.Module, shape: tuple[int, ...]) -> Any:
    builder = Builder(nn.Sequential(layer, nn.Linear(2, 2)), Box(0.1), None, Rounding(), shape, None)
    return builder.nodes[builder.child("0", layer, 0)].op


@pytest.mark.parametrize(
    ("layer", "shape", "named"),
    [
        (nn.GELU(), (3,), "layer 0 is GELU"),
        (nn.MaxPool2d(2, return_indices=True), (1, 4, 4), "indices"),
        (nn.AvgPool2d(2, divisor_override=-3), (1, 4, 4), "divisor_override"),
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 4, 4), "padding_mode"),
        (nn.Conv2d(3, 2, 3), (4, 4), "one dimension of samples"),
        (nn.MaxPool2d(2), (4, 4), "one dimension of samples"),
        (nn.BatchNorm2d(2, track_running_stats=False), (2, 4, 4), "running statistics"),
        (nn.ConstantPad2d(1, 0.5), (1, 4, 4), "pads with 0.5"),
        (nn.Flatten(0), (1, 4), "mixes samples"),
    ],
)
def test_what_is_not_known_is_refused(layer: nn.Module, shape: tuple[int, ...], named: str) -> None:
    with pytest.raises(NoiseproofError, match=named) as refused:
        alone(layer, shape)
    assert "\n" not in str(refused.value)


def test_chance_and_jumps_are_refused() -> None:
    with pytest.raises(NoiseproofError, match="poisson"):
        graph_of(MLP(neuron="if", coding="poisson").build(IMAGES, seeded()), Box())
    with pytest.raises(NoiseproofError, match="eps"):
        graph_of(MLP(neuron="if", coding="latency").build(IMAGES, seeded()), Box(eps=0.1))
    with pytest.raises(NoiseproofError, match="z is 1"):
        Box(1.0)
    with pytest.raises(NoiseproofError, match="parameters"):
        graph_of(MLP().build(IMAGES, seeded()), Box(parameters="nothing"))
