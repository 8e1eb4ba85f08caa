"""Plain intervals of one layer of spiking neurons, attacked: chips at the corners, ties at the threshold, rounding."""

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._graph import Graph, Linear, Neurons, Node
from noiseproof.certificates._interval import Interval
from noiseproof.certificates._rounding import Rounding
from noiseproof.certificates.intervals import interval_spikes
from noiseproof.data import Task
from noiseproof.networks import SpikingNetwork
from noiseproof.networks._spiking import Readout
from noiseproof.neurons import LIF
from noiseproof.neurons.equation import Constants, Form, Reset, State, reference


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def within(values: Tensor, bounds: Interval) -> bool:
    return bool(((bounds.low <= values.double()) & (values.double() <= bounds.high)).all())


def layer_of(form: Form, low: Constants, high: Constants, shape: tuple[int, ...], steps: int, slack: float, w: Linear | None) -> Graph:
    """A graph of nothing but one layer of neurons, on currents [B, T, …]."""
    nodes = (Node("input", None, (), shape), Node("neurons", Neurons(form, low, high, w, slack), (0,), shape))
    return Graph(nodes, lambda x: x.transpose(0, 1), (-10.0, 10.0), 0.0, torch.float64, steps)


@st.composite
def constants(draw: st.DrawFn, form: Form, steps: int) -> tuple[Constants, Constants]:
    """Ends of constants, many of them of few binary digits, so that potentials meet thresholds."""
    width = draw(st.sampled_from([0.0, 0.0625, 0.25]))

    def ends(low: float, high: float, moves: bool = False) -> tuple[Tensor, Tensor]:
        size = steps if moves else 1
        values = draw(st.lists(st.integers(int(low * 16), int(high * 16)), min_size=size, max_size=size))
        value = torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1) / 16
        return (value, value) if not width else (value, (value + width).clamp(max=high + 1))

    leak, theta = ends(0, 0.75, draw(st.booleans())), ends(0.125, 1)
    gain = ends(-0.5, 1, draw(st.booleans())) if draw(st.booleans()) else (None, None)
    beta, rho = (ends(-0.5, 1), ends(0, 0.75)) if form.adaptive else ((None, None), (None, None))
    return tuple(Constants(*side) for side in zip(leak, theta, gain, beta, rho, strict=True))  # pyright: ignore


@settings(max_examples=60, deadline=None)
@given(
    form=st.builds(Form, st.sampled_from(["hard", "soft", "soft-next"]), st.booleans(), st.integers(0, 2)),
    seed=st.integers(0, 2**20), steps=st.integers(1, 6), z=st.sampled_from([0.0, 0.05, 0.25]), recurrent=st.booleans(), data=st.data(),
)  # fmt: skip
def test_no_neuron_leaves_its_bounds(form: Form, seed: int, steps: int, z: float, recurrent: bool, data: st.DataObject) -> None:
    draw = torch.Generator().manual_seed(seed)
    low, high = data.draw(constants(form, steps))
    x = torch.randint(-16, 33, (2, steps, 3), generator=draw).double() / 16
    weight = torch.randint(-8, 9, (3, 3), generator=draw).double() / 8 * (1 - torch.eye(3)).double()
    own = Linear(lambda a, w: a @ w.mT, weight, None, z) if recurrent else None  # pyright: ignore
    (found,) = interval_spikes(layer_of(form, low, high, (3,), steps, 0.0, own), x).values()
    corners = seed % 2
    for _ in range(40):

        def between(a: Tensor, b: Tensor) -> Tensor:
            part = torch.rand(a.shape, generator=draw).double()
            return a + (b - a) * (part.round() if corners else part)

        chip = Constants(*(None if a is None or b is None else between(a, b) for a, b in zip(low, high, strict=True)))  # pyright: ignore
        shift = z * weight.abs()
        rest = torch.zeros(2, 3).double()
        state = State(rest, rest, rest if form.adaptive else None, rest if form.refractory else None)
        out = reference(x.transpose(0, 1), state, chip, form, steps, between(weight - shift, weight + shift) if recurrent else None)
        assert within(out.spikes, found.spikes)
        assert within(out.membrane, found.potential)  # pyright: ignore
        assert within(out.spikes.sum(0), found.counts)
    if z == 0 and all(a is b for a, b in zip(low, high, strict=True)):
        assert torch.equal(found.spikes.low, found.spikes.high)


def still_neuron(current: float, threshold: float, z: float, arithmetic: str, leak: float = 1.0) -> tuple[SpikingNetwork, Graph, Tensor]:
    """One neuron with a current of one weight, on an input of 1."""
    task = Task("one", (1,), 2, (0.0,), (1.0,), (0.0, 1.0))
    layers = [("fc", nn.Linear(1, 1, bias=False)), ("act", LIF(leak=leak, threshold=threshold)), ("out", Readout(1, 2, "rate"))]
    network = SpikingNetwork(task, OrderedDict(layers), steps=4, sequence=False)
    nn.init.constant_(network.fc.weight, current)  # pyright: ignore
    network = network.double() if arithmetic == "float64" else network
    return network, graph_of(network, Box(z), arithmetic=arithmetic), torch.ones(1, 1)  # pyright: ignore


def test_a_potential_at_the_threshold_does_not_fire_and_may_once_it_moves() -> None:
    (tied,) = interval_spikes(*still_neuron(0.5, 0.5, 0.0, "exact")[1:]).values()
    assert tied.spikes.low[0].item() == tied.spikes.high[0].item() == 0
    for z, arithmetic in ((1e-9, "exact"), (0.0, "float32"), (0.0, "float64")):
        (found,) = interval_spikes(*still_neuron(0.5, 0.5, z, arithmetic)[1:]).values()
        assert (found.spikes.low[0].item(), found.spikes.high[0].item()) == (0, 1)


@pytest.mark.parametrize("current", [0.1, 0.2, 0.3, 0.7, 1 / 3])
@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_rounding_at_the_threshold_is_within_the_bounds(current: float, leak: float) -> None:
    # the threshold is the potential after three steps, in whatever order it is rounded
    threshold = current * (1 + leak + leak**2)
    for step in (-1, 0, 1):
        near = float(torch.nextafter(torch.tensor(threshold), torch.tensor(step * torch.inf))) if step else threshold
        network, graph, x = still_neuron(current, near, 0.0, "float32", leak)
        (found,) = interval_spikes(graph, x).values()
        assert within(network.run(x, record=("spikes",)).traces["spikes"]["act"], found.spikes)
        assert found.spikes.high[2].item() == 1
        assert found.spikes.low[2].item() == 0


@pytest.mark.parametrize("reset", ["hard", "soft", "soft-next"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_potentials_that_float32_rounds_are_within_the_bounds(reset: Reset, adaptive: bool) -> None:
    form, steps = Form(reset, adaptive), 12
    values = [torch.tensor(value).reshape(1, 1, 1) for value in (0.93, 0.31, 0.7, 0.11, 0.87)]
    chip = Constants(*values) if adaptive else Constants(*values[:3])
    # a large current, then none: what is left is the leak, the reset and the adaptation
    x = torch.zeros(50, steps, 3)
    x[:, 0] = torch.rand(50, 3, generator=seeded(6)) * 3
    rest = torch.zeros(50, 3)
    out = reference(x.transpose(0, 1), State(rest, rest, rest if adaptive else None), chip, form, steps)
    wide = Constants(*(None if value is None else value.double() for value in chip))  # pyright: ignore
    slacks = [(Rounding("float32").of_step, True), (0.0, False)]
    if reset == "hard" and not adaptive:
        slacks.append((1.001 * 2**-24, True))  # the least there can be: one rounding a step
    for slack, holds in slacks:
        (found,) = interval_spikes(layer_of(form, wide, wide, (3,), steps, slack, None), x).values()
        assert within(out.membrane, found.potential) == holds  # pyright: ignore
        assert not holds or within(out.spikes, found.spikes)


def test_the_threshold_after_a_spike_takes_both_ends_of_its_constants() -> None:
    low, high = (
        Constants(*(torch.full((1, 1, 1), end, dtype=torch.float64) for end in ends))
        for ends in ((0.5, 0.25, 1, 0.5, 0.25), (0.5, 0.25, 1, 1, 0.5))
    )
    (found,) = interval_spikes(layer_of(Form("soft", True), low, high, (1,), 2, 0.0, None), torch.ones(1, 2, 1)).values()
    assert found.spikes.low[0].item() == 1
    # B = θ + β·(1 − ρ)
    assert (found.threshold.low[1].item(), found.threshold.high[1].item()) == (0.25 + 0.5 * 0.5, 0.25 + 1 * 0.75)
