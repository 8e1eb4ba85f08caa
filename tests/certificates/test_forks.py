"""Cases in time: they cover the box, keep to the parts that a sample may have, and prove more of recurrent networks."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._forks import fork
from noiseproof.certificates.spiking import spiking_margins
from noiseproof.certificates.spiking_backward import spiking_backward_margins
from noiseproof.data import Task
from noiseproof.networks import LSNN, Network
from noiseproof.parameters import parameters_of
from noiseproof.randomness import generator

SEQUENCE = Task("sequences", (20, 6), 3, (0.0,) * 6, (1.0,) * 6, (-5.0, 5.0))
NEURONS = ({}, {"neuron": "lif", "threshold": 0.3, "reset": "soft"}, {"neuron": "lif", "threshold": 0.3, "reset": "hard", "refractory": 0})


def recurrent(seed: int, **settings: object) -> tuple[Network, Tensor, Tensor]:
    draw = generator("weights", seed)
    network = LSNN(units=14, **settings).build(SEQUENCE, draw).eval()  # pyright: ignore[reportArgumentType]
    x = torch.randn(8, 20, 6, generator=draw)
    return network, x, network(x).argmax(-1)


def test_fork_doubles_rows_that_are_not_sure_and_decides_the_neuron_of_most_influence() -> None:
    neuron = torch.tensor([0, 0, 1, 2, 3, 4, 5, 5])  # two rows of three neurons; two states of the first and of the last
    unsure = torch.tensor([[True, False, True], [False, False, False]])
    found = fork(neuron, unsure, torch.tensor([0, 1]), 4, torch.tensor([1.0, 5.0, 2.0]))
    assert found is not None
    assert found.rows.tolist() == [0, 1, 0]
    assert found.neuron.tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 8]
    assert found.states.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert found.silent.nonzero().flatten().tolist() == [3]  # neuron 2 of row 0
    assert found.firing.nonzero().flatten().tolist() == [11]  # and of its twin


def test_fork_keeps_to_the_parts_of_every_sample() -> None:
    samples = torch.tensor([0, 1, 0, 1, 0])
    unsure = torch.ones(5, 2, dtype=torch.bool)
    found = fork(torch.arange(10), unsure, samples, 4, torch.ones(2))
    assert found is not None
    assert torch.bincount(samples[found.rows]).tolist() == [4, 4]
    assert fork(torch.arange(10), unsure, samples, 2, torch.ones(2)) is None
    assert fork(torch.arange(10), ~unsure, samples, 9, torch.ones(2)) is None


@pytest.mark.parametrize("settings", NEURONS, ids=["alif", "soft", "hard"])
@pytest.mark.parametrize("z", [0.01, 0.04])
def test_no_chip_of_the_box_breaks_what_the_cases_prove(settings: dict[str, object], z: float) -> None:
    network, x, y = recurrent(3, **settings)
    proved = spiking_backward_margins(graph_of(network, Box(z)), x, y, 32)
    draw = torch.Generator().manual_seed(0)
    nominal = parameters_of(network)
    for number in range(60):
        chip = {}
        for name, p in nominal.items():
            delta = torch.rand(p.shape, generator=draw) * 2 - 1
            chip[name] = p * (1 + z * (1 - 1e-6) * (delta.sign() if number % 2 else delta)) if p.ndim >= 2 else p
        for dtype in (torch.float32, torch.float64):
            with torch.no_grad():
                logits = functional_call(network.to(dtype), {name: p.to(dtype) for name, p in chip.items()}, (x.to(dtype),)).double()
            network.float()
            margin = (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], torch.inf)
            assert bool((proved <= margin).all())


def test_cases_prove_more_and_never_less() -> None:
    gained = 0
    for seed in range(3):
        network, x, y = recurrent(seed)
        graph = graph_of(network, Box(0.02))
        whole, cases = spiking_margins(graph, x, y), spiking_backward_margins(graph, x, y, 64)
        assert bool((cases >= whole).all())
        gained += int(((cases > 0).all(1) & ~(whole > 0).all(1)).sum())
    assert gained >= 5


def test_one_chip_has_one_case() -> None:
    network, x, y = recurrent(1)
    graph = graph_of(network, Box(0.0), arithmetic="exact")
    logits = network.double()(x.double())
    margin = (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], torch.inf)
    assert torch.allclose(spiking_backward_margins(graph, x, y, 16), margin, atol=1e-9)
