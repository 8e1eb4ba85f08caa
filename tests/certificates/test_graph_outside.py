"""Graphs of outside networks: what they say is what the library's own code does."""

from collections.abc import Callable
from typing import Any

import pytest
import sinabs.activation as spiking
import sinabs.layers as sinabs
import snntorch as snn
import torch
from _nominal import nominal_logits, nominal_values
from snntorch import surrogate
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import noiseproof as npf
from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._graph import Neurons, Readout
from noiseproof.certificates.intervals import interval_logits

T = 5
IMAGE, VECTOR = (1, 8, 8), (7,)


class Residual(nn.Module):
    """Most functions that a forward may call, with settings at their defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.again = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.scale, self.kernel = nn.Parameter(torch.rand(4, 1, 1)), nn.Parameter(torch.randn(2, 4, 1, 1))
        self.relu, self.fc = nn.ReLU(inplace=True), nn.Linear(12, 3)
        self.offset: Tensor
        self.register_buffer("offset", torch.tensor(0.3))

    def forward(self, x: Tensor, double: Tensor | None = None, checked: bool = True) -> Tensor:
        if double is not None:
            x = x * 2
        if checked:
            torch._assert(x.shape[1] == 1, "one channel")
        x = F.relu(self.norm(self.conv(x)))
        y = self.again(x)
        y += x * self.scale
        y = torch.cat([self.relu(y), F.conv2d(x, self.kernel) - self.offset], dim=1)
        y = F.avg_pool2d(F.max_pool2d(y, 2), kernel_size=2, ceil_mode=True)
        y = F.adaptive_avg_pool2d(y, (2, 2)).mean((2, 3), keepdim=True).squeeze(-1).flatten(1)
        y = torch.cat((y, torch.relu(-y)), 1)
        batch, units = y.shape
        y = F.dropout(y.reshape(batch, units), training=self.training)
        y = F.linear(y.unsqueeze(1), self.fc.weight, self.fc.bias).squeeze(1).contiguous()
        return 1 - y.view(-1, 3) / 2


class Twice(nn.Module):
    """One layer that is used twice, and known by two names."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(7, 7)
        self.same, self.out = self.fc, nn.Sequential(nn.Dropout(), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.same(self.fc(x).relu()).relu().sub(0.1).add(x))


class OwnStep(nn.Module):
    """As snnTorch's users write one step, with the state inside the neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(7, 20), snn.Leaky(beta=0.9, threshold=0.3)
        self.fc2, self.lif2 = nn.Linear(20, 5), snn.Leaky(beta=torch.linspace(0.5, 1.2, 5), threshold=0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = self.lif1(self.fc1(x))
        return self.lif2(self.fc2(spikes))


def leaky(**settings: Any) -> nn.Module:
    return snn.Leaky(**{"beta": 0.9, "threshold": 0.3, "init_hidden": True, **settings})


def snntorch_conv() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), leaky(learn_beta=True, beta=torch.rand(4, 1, 1)), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(36, 10), leaky(learn_threshold=True, output=True)),
    )


def snntorch_dense(**settings: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), leaky(**settings), nn.Linear(20, 10))


def spikingjelly(neurons: Callable[[], nn.Module], mode: str) -> nn.Module:
    network = nn.Sequential(
        *(layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), neurons(), layer.MaxPool2d(2), layer.Dropout(), layer.Flatten()),
        *(layer.Linear(36, 10), neurons()),
    )
    functional.set_step_mode(network, mode)
    return network


def spikingjelly_containers() -> nn.Module:
    first = layer.SeqToANNContainer(nn.Conv2d(1, 4, 3), nn.AvgPool2d(2), nn.Flatten())
    second = layer.MultiStepContainer(nn.Linear(36, 10), neuron.LIFNode(v_threshold=0.3, v_reset=None))
    return nn.Sequential(first, neuron.IFNode(v_threshold=0.3, step_mode="m"), second)


SINGLE: dict[str, Any] = {"spike_fn": spiking.SingleSpike, "spike_threshold": torch.tensor(0.3)}


def sinabs_dense() -> nn.Module:
    tau = torch.linspace(2.0, 9.0, 20)
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 20), sinabs.LIF(tau_mem=tau, **SINGLE), nn.Linear(20, 10), sinabs.IAF(**SINGLE))


def sinabs_repeated() -> nn.Module:
    lif = sinabs.LIF(tau_mem=5.0, train_alphas=True, norm_input=False, **SINGLE)
    return nn.Sequential(sinabs.Repeat(nn.Conv2d(1, 4, 3)), lif, nn.Flatten(2), nn.Linear(144, 10))


def sinabs_squeezed() -> nn.Module:
    lif = sinabs.LIFSqueeze(tau_mem=5.0, num_timesteps=T, reset_fn=spiking.MembraneReset(), **SINGLE)
    return nn.Sequential(nn.Conv2d(1, 4, 3), lif, nn.Flatten(), nn.Linear(144, 10), sinabs.IAFSqueeze(num_timesteps=T, **SINGLE))


class Squeezed(nn.Module):
    """sinabs' layers for [B·T, …] inside a module of the user, built for another batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(36, 10)
        self.lif = sinabs.LIFSqueeze(tau_mem=5.0, batch_size=7, **SINGLE)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.lif(self.conv(x))
        return self.fc(spikes.reshape(spikes.shape[0], -1))


JELLY = {
    "if, soft": lambda: neuron.IFNode(v_threshold=0.3, v_reset=None),
    "lif, hard": lambda: neuron.LIFNode(tau=3.0, v_threshold=0.2),
    "lif, soft, input not decayed": lambda: neuron.LIFNode(tau=1.2, v_threshold=0.4, v_reset=None, decay_input=False),
    "plif": lambda: neuron.ParametricLIFNode(init_tau=3.0, v_threshold=0.3),
    "lif, tau near 1": lambda: neuron.LIFNode(tau=1.01, v_threshold=0.3, v_reset=None),
}
STEPS: dict[str, Any] = {"steps": T}
PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "sequential": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 4)), IMAGE, {}),
    "one layer": (lambda: nn.Linear(7, 3), VECTOR, {}),
    "residual": (Residual, IMAGE, {}),
    "used twice": (Twice, VECTOR, {}),
}
SPIKING: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]] = {
    "snntorch conv": (snntorch_conv, IMAGE, STEPS),
    "snntorch to zero": (lambda: snntorch_dense(reset_mechanism="zero"), IMAGE, {**STEPS, "readout": "mean"}),
    "snntorch last": (snntorch_dense, IMAGE, {**STEPS, "readout": "last"}),
    "snntorch max": (lambda: snntorch_dense(spike_grad=surrogate.fast_sigmoid()), IMAGE, {**STEPS, "readout": "max"}),
    "snntorch pooled": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), leaky(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(IMAGE, {**STEPS, "readout": "mean"}),
    ),
    "snntorch sequence": (OwnStep, (9, 7), {"sequence": True, "readout": "mean"}),
    **{f"spikingjelly {n}, {m}": (lambda n=n, m=m: spikingjelly(JELLY[n], m), IMAGE, STEPS) for n in JELLY for m in "sm"},
    "spikingjelly containers": (spikingjelly_containers, IMAGE, STEPS),
    "sinabs dense": (sinabs_dense, IMAGE, STEPS),
    "sinabs repeated": (sinabs_repeated, IMAGE, {**STEPS, "readout": "mean"}),
    "sinabs squeezed": (sinabs_squeezed, IMAGE, STEPS),
    "sinabs squeezed, inside": (Squeezed, IMAGE, {**STEPS, "readout": "max"}),
}


def built(build: Callable[[], nn.Module], shape: tuple[int, ...], settings: dict[str, Any]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3)  # so that all layers spike
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2)
    return npf.adapt(module, bounds=(-1.0, 2.0), **settings).eval(), 3 * torch.rand(6, *shape) - 1


@pytest.mark.parametrize("case", PLAIN.values(), ids=PLAIN)
def test_graph_of_a_plain_module(case: Any) -> None:
    network, x = built(*case)
    before = {name: dict(vars(m)) for name, m in network.named_modules()}
    network, x = network.double(), x.double()
    graph = graph_of(network, Box(0.0), arithmetic="exact", shape=x.shape[1:])
    with torch.no_grad():
        assert torch.allclose(nominal_logits(graph, x), network(x), rtol=1e-9, atol=1e-9)
    assert {name: vars(m).keys() for name, m in network.named_modules()} == {name: d.keys() for name, d in before.items()}


@pytest.mark.parametrize("case", SPIKING.values(), ids=SPIKING)
def test_graph_of_a_spiking_network(case: Any) -> None:
    network, x = built(*case)
    graph = graph_of(network, Box(0.0), shape=x.shape[1:])
    with torch.no_grad():
        values, logits = nominal_values(graph, x), network(x)
    assert isinstance(graph.last, Readout)
    assert torch.allclose(values[-1].float(), logits, rtol=1e-4, atol=1e-4), (values[-1] - logits).abs().max()
    spikes = [value for node, value in zip(graph.nodes, values, strict=True) if isinstance(node.op, Neurons)]
    assert spikes
    assert all(0 < value.mean() < 1 for value in spikes)


@pytest.mark.parametrize("case", [*PLAIN.values(), *SPIKING.values()], ids=[*PLAIN, *SPIKING])
def test_no_chip_leaves_the_intervals(case: Any) -> None:
    """The library's own code, in float32, at random and at corner values of every parameter."""
    network, x = built(*case)
    for z in (0.0, 1e-4, 0.02):
        low, high = interval_logits(graph_of(network, Box(z, "all"), shape=x.shape[1:]), x)
        for draw in range(10):
            torch.manual_seed(draw)
            moves = {n: 2 * torch.rand_like(p) - 1 for n, p in network.named_parameters()}
            chip = {n: p * (1 + z * (moves[n].sign() if draw % 2 else moves[n])) for n, p in network.named_parameters()}
            with torch.no_grad():
                logits = functional_call(network, chip, (x,)).double()
            assert bool((low <= logits).all() and (logits <= high).all())


def at_threshold(kind: str) -> nn.Module:
    """One neuron that is brought exactly to its threshold, 0.5 + 0.5, in the second step."""
    dense = nn.Linear(1, 1, bias=False)
    nn.init.constant_(dense.weight, 0.5)
    match kind:
        case "snntorch":
            return nn.Sequential(dense, snn.Leaky(beta=1.0, init_hidden=True))
        case "spikingjelly":
            return nn.Sequential(dense, neuron.IFNode(v_reset=None))
        case _:
            return nn.Sequential(dense, sinabs.IAF(spike_fn=spiking.SingleSpike))


@pytest.mark.parametrize(("kind", "spikes"), [("snntorch", 1.0), ("spikingjelly", 2.0), ("sinabs", 2.0)])
@pytest.mark.parametrize("arithmetic", ["float32", "float64", "exact"])
def test_ties_at_the_threshold(kind: str, spikes: float, arithmetic: Any) -> None:
    network, x = npf.adapt(at_threshold(kind), steps=4), torch.ones(1, 1)
    if arithmetic == "float64":
        network, x = network.double(), x.double()
    assert network(x).item() == spikes
    graph = graph_of(network, Box(0.0), arithmetic=arithmetic, shape=(1,))
    assert nominal_logits(graph, x).item() == spikes
    low, high = interval_logits(graph, x)
    assert low.item() <= spikes <= high.item()


def test_parameters_of_two_names_move_by_both() -> None:
    shared = nn.Linear(7, 7)
    network, x = built(lambda: nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(7, 3)), VECTOR, {})
    graph = graph_of(network, Box(0.1), shape=VECTOR)
    ops: list[Any] = [node.op for node in graph.nodes]
    assert [op.z for op in ops if getattr(op, "weight", None) is not None] == [0.1, 0.1, 0.1]
    assert torch.allclose(nominal_logits(graph, x).float(), network(x), atol=1e-5)


def test_box_reaches_the_constants_of_the_neurons() -> None:
    network, x = built(snntorch_conv, IMAGE, STEPS)
    first, last = (n.op for n in graph_of(network, Box(0.1, "all"), shape=x.shape[1:]).nodes if isinstance(n.op, Neurons))
    assert bool((first.low.leak < first.high.leak).all())
    assert torch.equal(first.low.threshold, first.high.threshold)
    assert bool((last.low.threshold < last.high.threshold).all())
    assert torch.equal(last.low.leak, last.high.leak)
    jelly, _ = built(lambda: spikingjelly(JELLY["plif"], "s"), IMAGE, STEPS)
    found = next(n.op for n in graph_of(jelly, Box(0.1, "*.w"), shape=x.shape[1:]).nodes if isinstance(n.op, Neurons))
    gain = torch.sigmoid(torch.tensor([0.9, 1.1]) * -torch.log(torch.tensor(2.0)))  # 1/τ = σ(w), w = −log(τ − 1)
    assert found.low.gain is not None
    assert found.high.gain is not None
    assert torch.allclose(torch.stack((found.low.gain, found.high.gain)).flatten(), gain.sort().values.double(), atol=1e-6)
