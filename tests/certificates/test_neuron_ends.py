"""The ends of the constants of neurons over a box: no chip whose parameters float32 can hold lies beyond."""

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._graph import Graph, Neurons
from noiseproof.certificates._rounding import Arithmetic, Rounding
from noiseproof.certificates._time_relaxations import constants_of
from noiseproof.certificates.intervals import interval_margins
from noiseproof.certificates.spiking import spiking_margins
from noiseproof.certificates.spiking_backward import spiking_backward_margins
from noiseproof.data import Task
from noiseproof.networks import SpikingNetwork
from noiseproof.networks._spiking import Readout
from noiseproof.neurons import ALIF, DLIF, LIF, Neuron
from noiseproof.neurons.equation import Constants, Form
from noiseproof.neurons.neuron import _Spread

STEPS = 16
ONE = Task("one", (1,), 2, (0.0,), (1.0,), (0.0, 100.0))


def network_of(neuron: Neuron, steps: int = STEPS) -> SpikingNetwork:
    layers: dict[str, nn.Module] = {"first": nn.Linear(1, 1, bias=False), "act": neuron, "out": Readout(1, 2, "sum")}
    return SpikingNetwork(ONE, OrderedDict(layers), steps=steps, sequence=False).eval()


def neurons_of(graph: Graph) -> Neurons:
    (op,) = (node.op for node in graph.nodes if isinstance(node.op, Neurons))
    return op


def outermost(value: Tensor, z: float, side: int) -> Tensor:
    """The last number of the box on one side, of those that the dtype has."""
    centre = value.double()
    found = (centre * (1 + side * z)).to(value.dtype)
    for _ in range(3):
        found = torch.where((found.double() - centre).abs() > z * centre.abs(), torch.nextafter(found, value), found)
    return found


def negative(on: str, settings: dict[str, float | bool]) -> DLIF:
    neuron = DLIF(steps=STEPS, on=on, **settings)  # pyright: ignore[reportArgumentType]
    neuron.a.data = -(50 + 100 * torch.rand(STEPS, generator=torch.Generator().manual_seed(0)))
    return neuron


NEURONS = {
    "reset at -55": lambda: LIF(leak=0.9, threshold=-54.0, v_reset=-55.0),
    "reset at -75": lambda: LIF(leak=0.9, threshold=-52.0, v_reset=-75.0),
    "reset at 60": lambda: LIF(tau=20.0, threshold=60.01, v_reset=60.0, decay_input=True),
    "long": lambda: LIF(tau=5000.0, decay="exponential", decay_input=True),
    "alif": lambda: ALIF(tau=300.0, tau_adaptation=5000.0),
    "negative, input": lambda: negative("input", {}),
    "negative, leak": lambda: negative("leak", {}),
    "negative, long": lambda: negative("input", {"tau": 5000.0, "decay_input": True}),
}


@pytest.mark.parametrize(("dtype", "arithmetic"), [(torch.float32, "float32"), (torch.float64, "float64")])
@pytest.mark.parametrize("name", NEURONS)
def test_no_chip_lies_beyond_the_ends(name: str, dtype: torch.dtype, arithmetic: Arithmetic) -> None:
    network = network_of(NEURONS[name]()).to(dtype)
    neuron, spread = network.get_submodule("act"), _Spread("layer", torch.zeros(1, 1, 1))
    assert isinstance(neuron, Neuron)
    own = {part: value.detach().clone() for part, value in neuron.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    for z in [1e-7, 1e-4, 0.5, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99, *torch.rand(20, generator=generator).div(50).tolist()]:
        op = neurons_of(graph_of(network, Box(z, "act.*"), arithmetic=arithmetic))
        for _ in range(4):
            for part, parameter in neuron.named_parameters():
                parameter.data = outermost(own[part], z, 1 if torch.rand((), generator=generator) < 0.5 else -1)
            with torch.no_grad():
                chip = neuron.constants(STEPS, spread)
            for part, parameter in neuron.named_parameters():
                parameter.data = own[part]
            for value, low, high in zip(chip, op.low, op.high, strict=True):
                if value is not None:
                    assert bool((low <= value.double()).all())  # pyright: ignore[reportOptionalOperand]
                    assert bool((value.double() <= high).all())  # pyright: ignore[reportOperatorIssue]


def test_a_threshold_near_the_potential_that_is_reset_to_is_not_certified_beyond_its_box() -> None:
    # θ − v_reset is 1, and a box of 0.26 % around −54 mV moves it by 14 %: to one last digit of −54
    z, network = 0.0026, network_of(LIF(leak=1.0, threshold=-54.0, v_reset=-55.0), steps=1)
    params = {name: value.detach().clone() for name, value in network.named_parameters()}
    for name, values in (("first.weight", [[1.0]]), ("out.weight", [[1.0], [-1.0]]), ("out.bias", [-0.25, 0.25])):
        params[name] = torch.tensor(values)
    moved = params | {"act.threshold": outermost(params["act.threshold"], z, 1)}
    level = moved["act.threshold"] + 55
    graph = graph_of(network, Box(z, "act.threshold"), params=params)
    for steps in range(1, 60, 6):
        x = (level + steps * 2.0**-24).reshape(1, 1)
        real = network.run(x, params=moved).logits[0]
        for bounds in (interval_margins, spiking_margins, spiking_backward_margins):
            for label in (0, 1):
                assert bounds(graph, x, torch.tensor([label]))[0, 1 - label] <= real[label] - real[1 - label]


def test_the_middle_and_the_radius_of_a_constant_reach_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    low = -(1 + torch.rand(4000, generator=generator, dtype=torch.float64)).reshape(-1, 1, 1)
    for part in (1e-3, 1e-6, -0.1):
        high, theta = part * low, torch.ones(1, 1, 1, dtype=torch.float64)
        op = Neurons(Form(), Constants(theta, theta, low), Constants(theta, theta, high), slack=Rounding("float64").of_step)
        gain = constants_of(op).gain
        assert bool((gain.middle - gain.radius <= low[:, None]).all())
        assert bool((gain.middle + gain.radius >= high[:, None]).all())
