"""Bounds of spiking networks against 10⁵ chips: uniform draws, corners, and corners that gradients point to."""

from collections import OrderedDict
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates.spiking import spiking_layers, spiking_logits, spiking_margins
from noiseproof.certificates.spiking_backward import _Cases, _forward, backward, spiking_backward_margins
from noiseproof.data import Task
from noiseproof.networks import SpikingNetwork
from noiseproof.networks._spiking import Readout, Residual
from noiseproof.neurons import ALIF, LIF, Recurrent

STEPS, SAMPLES = 5, 4
STILL = Task("still", (4,), 3, (0.2,) * 4, (0.6,) * 4, (0.0, 1.0))
SEQUENCES = Task("sequences", (STEPS, 4), 3, (0.0,) * 4, (1.0,) * 4, (-2.0, 2.0))
LAYERS = {
    "soft": lambda: [nn.Linear(4, 5), LIF(leak=0.9, threshold=0.5), nn.Linear(5, 4), LIF(leak=0.8, threshold=0.3)],
    "hard": lambda: [nn.Linear(4, 5), LIF(tau=2.0, threshold=0.3, reset="hard"), nn.Linear(5, 4), LIF(leak=0.9, reset="soft-next")],
    "shortcut": lambda: [
        nn.Linear(4, 4),
        Residual(nn.Sequential(nn.Linear(4, 4), LIF(leak=0.9, threshold=0.5), nn.Linear(4, 4)), nn.Identity(), LIF(leak=0.9)),
    ],
    "both signs": lambda: [nn.Linear(4, 4), LIF(leak=0.9, threshold=0.4), _centred(nn.BatchNorm1d(4))],
    # under vmap one chip after the other
    "recurrent": lambda: [nn.Linear(4, 4), Recurrent(ALIF(tau=3.0, tau_adaptation=4.0, beta=0.5, threshold=0.1), 4)],
}

CHIPS = {name: 800 if name == "recurrent" else 12_400 for name in LAYERS}


def _centred(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    assert norm.running_mean is not None
    norm.running_mean.fill_(0.5)
    return norm


def built(name: str) -> SpikingNetwork:
    torch.manual_seed(0)
    layers = OrderedDict((f"layer{k}", layer) for k, layer in enumerate(LAYERS[name]()))
    layers["out"] = Readout(4, 3, "sum")
    task = SEQUENCES if name == "recurrent" else STILL
    network = SpikingNetwork(task, layers, steps=STEPS, sequence=task is SEQUENCES).eval()
    for parameter in network.parameters():
        parameter.data *= 2 if parameter.ndim > 1 else 1
    return network


def chips(params: dict[str, Tensor], box: Box, margins, rows: Tensor, many: int, generator: torch.Generator) -> Iterator[dict[str, Tensor]]:
    """Give chips of the box, in four groups."""
    moving = box.half_widths(params)
    count = many // 4

    def at(shifts: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = {}
        for name, shift in shifts.items():
            centre, radius = params[name].double(), box.z * params[name].double().abs()
            value = (centre + shift * radius).to(params[name].dtype)
            beyond = (value.double() - centre).abs() > radius  # rounding took it out of the box
            moved[name] = torch.where(beyond, torch.nextafter(value, params[name]), value)
        return {name: moved.get(name, value.expand(count, *value.shape)) for name, value in params.items()}

    uniform = {name: 2 * torch.rand(count, *params[name].shape, generator=generator).double() - 1 for name in moving}
    yield at(uniform)
    found = at({name: shift.sign() for name, shift in uniform.items()})
    yield found
    for _ in range(2):
        slopes = vmap(grad(lambda chip, row: (margins(chip) * row).sum()))(found, rows[torch.arange(count) % len(rows)])
        found = at({name: -slopes[name].sign().double() for name in moving})
        yield found


@pytest.mark.parametrize(("dtype", "arithmetic"), [(torch.float32, "float32"), (torch.float64, "float64")])
@pytest.mark.parametrize("name", LAYERS)
def test_no_chip_of_many_leaves_the_bounds(name: str, dtype: torch.dtype, arithmetic: str) -> None:
    network, generator = built(name).to(dtype), torch.Generator().manual_seed(1)
    low, high = network.bounds
    x = (low + (high - low) * torch.rand(SAMPLES, *network.shape, generator=generator)).to(dtype)
    y = network(x).argmax(1)
    box = Box(0.04, "all") if dtype == torch.float32 else Box(0.08)
    graph = graph_of(network, box, arithmetic=arithmetic)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        logits, layers = spiking_logits(graph, x), spiking_layers(graph, x).values()
        classes = torch.arange(3)[:, None].expand(3, SAMPLES)
        walks = [backward(_forward(_Cases(graph, x, {})), y, classes, always=always)[0].mT for always in (False, True)]
        least = torch.maximum(spiking_margins(graph, x, y), spiking_backward_margins(graph, x, y, parts=8))
        least = torch.stack((least.masked_fill(least == torch.inf, 0.0), *walks)).amax(0)

    def run(chip: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = functional_call(network, chip, (x, {"record": ("spikes",)}))
        return (found.logits, *found.traces["spikes"].values())

    def margins(chip: dict[str, Tensor]) -> Tensor:
        found = run(chip)[0]
        return found[torch.arange(SAMPLES), y][:, None] - found

    params = {name: value.detach() for name, value in network.named_parameters()}
    rows = torch.eye(3 * SAMPLES, dtype=dtype).unflatten(1, (SAMPLES, 3))
    seen = 0
    for group in chips(params, box, margins, rows, CHIPS[name], generator):
        with torch.no_grad():
            found, *trains = vmap(run)(group)
        values = found.double()
        assert bool(((logits.low <= values) & (values <= logits.high)).all())
        own = values[:, torch.arange(SAMPLES), y][..., None] - values
        assert bool((own >= least).all())
        for train, bounds in zip(trains, layers, strict=True):
            assert bool(((bounds.spikes.low <= train) & (train <= bounds.spikes.high)).all())
            counts = train.sum(1)
            assert bool(((bounds.counts.low <= counts) & (counts <= bounds.counts.high)).all())
        seen += len(found)
    assert seen == CHIPS[name]
    assert 2 * sum(CHIPS.values()) >= 10**5
    assert any(bool((bounds.spikes.low != bounds.spikes.high).any()) for bounds in layers), "no spike was left open: this says nothing"
