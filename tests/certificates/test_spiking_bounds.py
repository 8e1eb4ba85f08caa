"""Bounds of spiking networks, attacked: no chip of the box may leave them, in float32 as in float64."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._graph import Graph
from noiseproof.certificates._interval import Interval
from noiseproof.certificates._spikes import SpikeBounds
from noiseproof.certificates.intervals import interval_logits, interval_margins, interval_spikes
from noiseproof.certificates.spiking import spiking_layers, spiking_logits, spiking_margins
from noiseproof.certificates.spiking_backward import _Cases, _forward, backward
from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.networks import CNN, LSNN, MLP, VGG5, ResNet12, SpikingNetwork
from noiseproof.networks._spiking import Readout, Residual
from noiseproof.neurons import ALIF, DLIF, IF, LIF, Neuron, Recurrent
from noiseproof.neurons.equation import RESETS

STEPS = 7
STILL = Task("still", (1, 4, 4), 3, (0.3,), (0.6,), (0.0, 1.0))
SEQUENCES = Task("sequences", (STEPS, 5), 3, (0.1,) * 5, (0.5,) * 5, (-3.0, 3.0))
NEURONS: dict[str, Callable[[], Neuron]] = {
    **{f"lif {reset}": lambda reset=reset: LIF(leak=0.8, reset=reset) for reset in RESETS},
    **{f"if {reset}": lambda reset=reset: IF(reset=reset) for reset in RESETS},
    **{f"dlif {on}": lambda on=on: _uneven(DLIF(steps=STEPS, on=on)) for on in ("leak", "input")},
    "dlif soft": lambda: _uneven(DLIF(steps=STEPS, reset="soft")),
    "lif dead": lambda: LIF(leak=0.9, reset="soft", refractory=2),
    "lif hard dead": lambda: LIF(leak=0.9, reset="hard", refractory=1),
    "lif decaying input": lambda: LIF(tau=3.0, threshold=0.3, decay_input=True),
    "alif": lambda: ALIF(tau=5.0, tau_adaptation=8.0, beta=1.8, threshold=0.3, refractory=1),
    "alif alive": lambda: ALIF(tau=5.0, tau_adaptation=8.0, beta=0.5, threshold=0.3, refractory=0),
}
KINDS = ("one", "two", "convolution", "residual", "sequence", "recurrent")


def _uneven(neuron: DLIF) -> DLIF:
    neuron.a.data = torch.linspace(0.4, 1.1, STEPS)
    return neuron


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(kind: str, neuron: Callable[[], Neuron], how: str = "rate", seed: int = 0) -> SpikingNetwork:
    """A small network whose neurons fire now and then."""
    torch.manual_seed(seed)
    layers: dict[str, nn.Module]
    if kind in ("sequence", "recurrent"):
        first = Recurrent(neuron(), 6) if kind == "recurrent" else neuron()
        layers = {"in": nn.Linear(5, 6), "first": first, "mid": nn.Linear(6, 5), "second": neuron()}
    elif kind == "convolution":
        layers = {"in": nn.Conv2d(1, 3, 3, padding=1), "norm": nn.BatchNorm2d(3), "first": neuron(), "pool": nn.AvgPool2d(2)}
        layers |= {"mid": nn.Conv2d(3, 2, 3, padding=1), "second": neuron(), "max": nn.MaxPool2d(2), "flat": nn.Flatten()}
    elif kind == "residual":
        body = nn.Sequential(OrderedDict(a=nn.Linear(8, 8), b=neuron(), c=nn.Linear(8, 8)))
        layers = {"flat": nn.Flatten(), "in": nn.Linear(16, 8), "first": neuron(), "block": Residual(body, nn.Identity(), neuron())}
    else:
        layers = {"flat": nn.Flatten(), "in": nn.Linear(16, 8), "first": neuron()}
        layers |= {"mid": nn.Linear(8, 6), "second": neuron()} if kind == "two" else {}
    units = {"one": 8, "two": 6, "convolution": 2, "residual": 8}.get(kind, 5)
    layers["readout"] = Readout(units, 3, how, leak=0.9)  # pyright: ignore[reportArgumentType]
    task = SEQUENCES if kind in ("sequence", "recurrent") else STILL
    network = SpikingNetwork(task, OrderedDict(layers), steps=STEPS, sequence=task is SEQUENCES)
    for name, parameter in network.named_parameters():
        if parameter.ndim >= 2 and "readout" not in name:
            parameter.data *= 2.5
    return network.eval()


def inputs(network: SpikingNetwork, seed: int = 0, samples: int = 3) -> Tensor:
    low, high = network.bounds
    shape = (STEPS, 5) if network.sequence else (1, 4, 4)
    return low + (high - low) * torch.rand(samples, *shape, generator=seeded(seed))


def chips(network: SpikingNetwork, box: Box, x: Tensor, y: Tensor, draws: int, seed: int = 0) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Parameters and inputs in the box: its corners, points inside, and the corners that gradients point to."""
    generator = seeded(seed)
    widths = box.half_widths(dict(network.named_parameters()))
    found = []
    for _ in range(draws):
        params = {name: value.detach().clone() for name, value in network.named_parameters()}
        way, target = torch.randint(0, 3, (), generator=generator).item(), torch.randint(0, 3, (len(y),), generator=generator)
        for name, z in widths.items():
            move = 2 * torch.rand(params[name].shape, generator=generator) - 1
            params[name] *= 1 + z * (move if way == 0 else move.sign()).to(params[name])
        shift = box.eps * (2 * torch.rand(x.shape, generator=generator) - 1).sign()
        if way == 2:
            free = {name: value.requires_grad_(name in widths) for name, value in params.items()}
            logits = network.run(x, params=free).logits
            (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).sum().backward()
            nominal = dict(network.named_parameters())
            for name, z in widths.items():
                way_up = free[name].grad
                up = torch.zeros_like(nominal[name]) if way_up is None else way_up.sign()
                params[name] = nominal[name].detach() + z * nominal[name].detach().abs() * up
        params = {name: value.detach() for name, value in params.items()}
        # rounding the draw may bring it outside by one unit in the last place
        for name, z in widths.items():
            middle = dict(network.named_parameters())[name].detach()
            room = z * middle.abs() * (1 - 1e-6)
            params[name] = middle + (params[name] - middle).clamp(-room, room)
        found.append((params, (x + shift.to(x)).clamp(*network.bounds)))
    return found


def within(values: Tensor, bounds: Interval) -> bool:
    values = values.double()
    return bool(((bounds.low <= values) & (values <= bounds.high)).all())


def name_of(graph: Graph, at: int) -> str:
    return graph.nodes[at].name.removesuffix(".neuron")


def attacked(network: SpikingNetwork, box: Box, draws: int, seed: int = 0, arithmetic: str = "float32") -> None:
    """Hold all bounds of a network against chips of its box."""
    dtype = next(network.parameters()).dtype
    x = inputs(network, seed).to(dtype)
    y = network(x).argmax(1)
    graph = graph_of(network, box, arithmetic=arithmetic)  # pyright: ignore[reportArgumentType]
    layers, logits, margins = spiking_layers(graph, x), spiking_logits(graph, x), spiking_margins(graph, x, y)
    never_looser(graph, layers, logits, margins, x, y)
    for params, shown in chips(network, box, x, y, draws, seed):
        with torch.no_grad():
            run = network.run(shown, params=params, record=("spikes", "membrane"))
        for at, found in layers.items():
            spikes = run.traces["spikes"][name_of(graph, at)]
            assert within(spikes, found.spikes)
            assert within(spikes.sum(0), found.counts)
            assert within(run.traces["membrane"][name_of(graph, at)], found.potential)
        assert within(run.logits, logits)
        own = run.logits.double()
        own = own.gather(1, y[:, None]) - own
        assert bool((own.scatter(1, y[:, None], torch.inf) >= margins - 1e-6 * own.abs().amax()).all())


def never_looser(graph: Graph, layers: dict[int, SpikeBounds], logits: Interval, margins: Tensor, x: Tensor, y: Tensor) -> None:
    """Hold the bounds against plain intervals."""
    tiny = 1e-9  # sums in another order
    for at, plain in interval_spikes(graph, x).items():
        assert bool((layers[at].spikes.low >= plain.spikes.low).all())
        assert bool((layers[at].spikes.high <= plain.spikes.high).all())
        rounding = 1e-5 * (1 + plain.potential.high.abs().max())  # the first layer takes one error for both ends
        assert bool((layers[at].potential.low >= plain.potential.low - rounding).all())
        assert bool((layers[at].potential.high <= plain.potential.high + rounding).all())
    plain = interval_logits(graph, x)
    assert bool((logits.low >= plain.low - tiny).all())
    assert bool((logits.high <= plain.high + tiny).all())
    assert bool((margins >= interval_margins(graph, x, y) - tiny).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neuron", NEURONS)
def test_no_chip_of_the_box_leaves_the_bounds(kind: str, neuron: str) -> None:
    how = ("rate", "sum", "last", "max")[(KINDS.index(kind) + list(NEURONS).index(neuron)) % 4]
    network = built(kind, NEURONS[neuron], how)
    attacked(network, Box(z=0.03), 6)
    attacked(network, Box(z=0.02, parameters="all", eps=0.01), 4, 1)
    attacked(network.double(), Box(z=0.01), 4, 2, "float64")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("neuron", NEURONS)
def test_without_a_box_the_bounds_are_the_run(kind: str, neuron: str) -> None:
    network = built(kind, NEURONS[neuron], ("max", "last", "sum", "rate")[KINDS.index(kind) % 4]).double()
    x = inputs(network).double()
    exactly(network, x)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        (MLP(hidden=(30, 20), neuron="lif", steps=4), Task("images", (1, 12, 12), 4, (0.3,), (0.3,), (0.0, 1.0))),
        (CNN(neuron="dlif", steps=3), Task("images", (1, 28, 28), 10, (0.3,), (0.3,), (0.0, 1.0))),
        (LSNN(units=20), Task("sequences", (12, 5), 4, (0.0,) * 5, (1.0,) * 5, (-5.0, 5.0))),
        (VGG5(width=0.1, dense=16, steps=3), Task("photos", (3, 32, 32), 10, (0.5,) * 3, (0.2,) * 3, (0.0, 1.0))),
        (ResNet12(width=0.1, steps=3), Task("photos", (3, 32, 32), 10, (0.5,) * 3, (0.2,) * 3, (0.0, 1.0))),
    ],
)
def test_every_architecture_is_bounded(architecture: MLP, task: Task) -> None:
    network = architecture.build(task, seeded(0)).eval().double()
    assert isinstance(network, SpikingNetwork)
    x = torch.rand(2, *task.shape, generator=seeded(1)).double()
    exactly(network, x)
    graph, y = graph_of(network, Box(z=0.001)), torch.tensor([0, 3])
    never_looser(graph, spiking_layers(graph, x), spiking_logits(graph, x), spiking_margins(graph, x, y), x, y)


def exactly(network: SpikingNetwork, x: Tensor) -> None:
    """Hold the bounds of a box of no width against the run."""
    graph = graph_of(network, Box(z=0.0), arithmetic="exact")
    run = network.run(x, record=("spikes", "membrane"))
    for at, found in spiking_layers(graph, x).items():
        spikes, membrane = (run.traces[kind][name_of(graph, at)] for kind in ("spikes", "membrane"))
        assert torch.equal(found.spikes.low, spikes)
        assert torch.equal(found.spikes.high, spikes)
        assert torch.equal(found.counts.low, spikes.sum(0))
        assert torch.equal(found.counts.high, spikes.sum(0))
        torch.testing.assert_close(found.potential.low, membrane, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.potential.high, membrane, rtol=1e-9, atol=1e-9)
    logits = spiking_logits(graph, x)
    torch.testing.assert_close(logits.low, run.logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(logits.high, run.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("neuron", ["soft-next", "soft", "hard", "alif"])
def test_exact_bounds_round_in_the_order_of_the_network(neuron: str) -> None:
    # tenths, that float64 has not: λ·v + I − q meets the threshold in one order of the sum and not in the other; one current a step
    for seed in range(8):
        torch.manual_seed(seed)
        layers: dict[str, nn.Module] = {"in": nn.Linear(5, 16, bias=False)}
        if neuron == "alif":
            layers["act"] = ALIF(tau=3.0, tau_adaptation=2.0, beta=1.0, threshold=0.3, refractory=0)
        else:
            layers["act"] = LIF(leak=1.0, threshold=0.3, reset=neuron)  # pyright: ignore[reportArgumentType]
        layers["out"] = Readout(16, 3, "sum")
        task = Task("sequences", (STEPS, 5), 3, (0.0,) * 5, (1.0,) * 5, (0.0, 1.0))
        network = SpikingNetwork(task, OrderedDict(layers), steps=STEPS, sequence=True).eval().double()
        for name, value in network.named_parameters():
            value.data = (torch.randn(16, 5).double() * 3).round() / 10 if name == "in.weight" else value.detach()
        dict(network.named_parameters())["act.threshold"].data.fill_(0.3)
        x = torch.nn.functional.one_hot(torch.randint(5, (16, STEPS)), 5).double()
        exactly(network, x)
        (found,) = spiking_layers(graph_of(network, Box(z=0.0), arithmetic="exact"), x).values()
        assert torch.equal(found.potential.low, network.run(x, record=("membrane",)).traces["membrane"]["act"])


def test_a_membrane_that_was_large_may_differ_from_its_sum_over_time_by_what_it_was() -> None:
    x = torch.tensor([[[-1e8 / 3], [1e8 / 3 + 1]]], dtype=torch.float64)
    for seed in range(12):
        torch.manual_seed(seed)
        layers: dict[str, nn.Module] = {"in": nn.Linear(1, 1, bias=False), "act": LIF(leak=1.0), "out": Readout(1, 3, "sum")}
        task = Task("one", (2, 1), 3, (0.0,), (1.0,), (-1e9, 1e9))
        network = SpikingNetwork(task, OrderedDict(layers), steps=2, sequence=True).eval().double()
        params = dict(network.named_parameters())
        nn.init.uniform_(params["in.weight"], 0.1, 1.0)
        # at the second step h is the threshold, as the network rounds it: no spike
        params["act.threshold"].data = network.run(x, record=("membrane",)).traces["membrane"]["act"][1, 0, 0]
        graph = graph_of(network, Box(z=0.0), arithmetic="exact")
        (found,) = spiking_layers(graph, x).values()
        assert not bool(found.spikes.high.any())


@pytest.mark.parametrize("how", ["rate", "sum", "last"])
def test_a_readout_of_both_signs_is_rounded_by_its_terms(how: str) -> None:
    # half of the steps give one half, the others less one half: their sum is nothing, the rounding of its terms is not
    neuron = DLIF(steps=64, on="input", reset="hard", leak=1e-3, threshold=0.5)
    neuron.a.data = torch.ones(64)
    neuron.a.data[32:] = -1.0
    norm = nn.BatchNorm1d(1)
    torch.nn.init.constant_(norm.running_mean, 0.5)  # pyright: ignore[reportArgumentType]
    layers = {"in": nn.Linear(1, 1, bias=False), "act": neuron, "norm": norm, "out": Readout(1, 2, how, bias=False)}  # pyright: ignore
    network = SpikingNetwork(Task("one", (1,), 2, (0.0,), (1.0,), (0.0, 1.0)), OrderedDict(layers), steps=64, sequence=False).eval()
    torch.nn.init.constant_(layers["in"].weight, 1.0)  # pyright: ignore[reportArgumentType]
    torch.nn.init.constant_(layers["out"].weight, 1.0)  # pyright: ignore[reportArgumentType]
    x, y = torch.ones(1, 1), torch.tensor([0])
    slack = 64 * 2.0**-24 * (0.5 / 64 if how == "rate" else 0.5) * 64
    for z in (0.0, 0.25):
        graph = graph_of(network, Box(z, "out.weight"))
        with torch.no_grad():
            walked = backward(_forward(_Cases(graph, x, {})), y, torch.tensor([[1]]))[0]
            found = [interval_margins(graph, x, y)[0, 1], spiking_margins(graph, x, y)[0, 1], walked[0, 0]]
        # two sums, each off by this much, with weights up to 1 + z
        assert max(found) <= -2 * slack * (1 + z)
        assert min(found) >= -10 * slack


def with_ties(network: SpikingNetwork) -> SpikingNetwork:
    """Weights of quarters, so that potentials and thresholds meet exactly."""
    for name, value in network.named_parameters():
        if value.ndim >= 2 or name.endswith("bias"):
            value.data = torch.round(value.detach() * 4) / 4
    return network


@pytest.mark.parametrize("kind", ["one", "two", "recurrent"])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_at_the_threshold_fall_to_the_side_of_the_network(kind: str, reset: str, dtype: torch.dtype) -> None:
    network = with_ties(built(kind, lambda: LIF(leak=0.5, threshold=0.5, reset=reset))).to(dtype)  # pyright: ignore[reportArgumentType]
    shape = (5, STEPS, 5) if network.sequence else (5, 1, 4, 4)
    # after normalisation: whole halves
    task = SEQUENCES if network.sequence else STILL
    x = (torch.randint(0, 3, shape, generator=seeded(0)) / 2 * task.std[0] + task.mean[0]).to(dtype).clamp(*network.bounds)
    run = network.run(x, record=("spikes",))
    graph = graph_of(network, Box(z=0.0))
    for at, found in spiking_layers(graph, x).items():
        assert within(run.traces["spikes"][name_of(graph, at)], found.spikes)
    attacked(network, Box(z=0.25), 4)


def test_weights_of_zero_have_one_run() -> None:
    network = built("two", NEURONS["lif soft"])
    for value in network.parameters():
        value.data = torch.zeros_like(value) if value.ndim >= 2 else value.data
    x = inputs(network)
    graph = graph_of(network, Box(z=0.5), arithmetic="exact")
    logits = spiking_logits(graph, x)
    assert torch.equal(logits.low, logits.high)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(KINDS), neuron=st.sampled_from(list(NEURONS)), how=st.sampled_from(["rate", "sum", "last", "max"]),
    z=st.floats(0, 0.3), eps=st.sampled_from([0.0, 0.02]), parameters=st.sampled_from(["weights", "all"]), seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_no_chip_of_any_box_leaves_the_bounds(
    kind: str, neuron: str, how: str, z: float, eps: float, parameters: str, seed: int, dtype: torch.dtype
) -> None:
    network = built(kind, NEURONS[neuron], how, seed).to(dtype)
    attacked(network, Box(z=z, parameters=parameters, eps=eps), 3, seed)


def test_samples_in_blocks_have_the_same_bounds() -> None:
    network = built("two", NEURONS["lif soft"])
    x, graph = inputs(network, samples=5), graph_of(network, Box(z=0.02))
    y = network(x).argmax(1)
    torch.testing.assert_close(spiking_margins(graph, x, y), spiking_margins(graph, x, y, most_bytes=1))
    whole, parts = spiking_layers(graph, x), spiking_layers(graph, x, most_bytes=1)
    for at, found in whole.items():
        assert torch.equal(found.counts.high, parts[at].counts.high)
        assert torch.equal(found.spikes.low, parts[at].spikes.low)


def test_frozen_weights_make_the_second_layer_tighter() -> None:
    network = built("two", NEURONS["lif soft"])
    x, graph = inputs(network, samples=8), graph_of(network, Box(z=0.05))
    plain, ours = interval_spikes(graph, x), spiking_layers(graph, x)
    at = max(ours)
    unknown = [float((found[at].counts.high - found[at].counts.low).sum().detach()) for found in (plain, ours)]
    assert unknown[1] < 0.8 * unknown[0]


def test_what_cannot_be_bounded_is_refused() -> None:
    network = built("two", NEURONS["lif soft"])
    x, graph = inputs(network), graph_of(network, Box(z=0.02))
    with pytest.raises(NoiseproofError, match="y is of shape"):
        spiking_margins(graph, x, torch.tensor([0, 1, 3]))
    with pytest.raises(NoiseproofError, match="x is of shape"):
        spiking_layers(graph, x[..., :2])
    plain = graph_of(MLP(hidden=(4,)).build(STILL, seeded(0)), Box(z=0.02))
    with pytest.raises(NoiseproofError, match="no spiking neurons"):
        spiking_logits(plain, x)
