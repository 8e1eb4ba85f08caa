import itertools
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from noiseproof.certificates import _time_relaxations, spiking_backward
from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates.spiking import spiking_margins
from noiseproof.certificates.spiking_backward import _Cases, _forward, backward, spiking_backward_margins
from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.networks import LSNN, MLP, SpikingNetwork, WideResNet
from noiseproof.networks._spiking import Readout, Residual
from noiseproof.neurons import LIF, Recurrent
from noiseproof.parameters import select

IMAGES = Task("images", (1, 4, 4), 3, (0.3,), (0.5,), (0.0, 1.0))
SEQUENCES = Task("sequences", (6, 4), 3, (0.0,) * 4, (1.0,) * 4, (-3.0, 3.0))
ALIF = {"neuron": "alif", "tau": 3.0, "leak": 0.9, "tau_adaptation": 5.0, "beta": 0.8, "threshold": 0.2}
NETWORKS = {
    "soft": (MLP(hidden=(8, 6), neuron="lif", steps=5), IMAGES),
    "soft, three": (MLP(hidden=(8, 6, 6), neuron="lif", steps=4, readout="last", readout_leak=0.8), IMAGES),
    "soft, one": (MLP(hidden=(8,), neuron="lif", steps=6, readout="sum"), IMAGES),
    "next": (MLP(hidden=(8, 6), neuron="lif", reset="soft-next", steps=5), IMAGES),
    "hard": (MLP(hidden=(8, 6), neuron="lif", reset="hard", steps=5), IMAGES),
    "if": (MLP(hidden=(8, 6), neuron="if", steps=5), IMAGES),
    "dlif": (MLP(hidden=(8, 6), neuron="dlif", reset="hard", steps=5), IMAGES),
    "dlif, input": (MLP(hidden=(8, 6), neuron="dlif", dlif_on="input", reset="soft", steps=5), IMAGES),
    "dead steps": (MLP(hidden=(8, 6), neuron="lif", refractory=2, steps=6), IMAGES),
    "max": (MLP(hidden=(8, 6), neuron="lif", readout="max", steps=4), IMAGES),
    "alif": (MLP(hidden=(8, 6), steps=6, **ALIF), IMAGES),
    "alif, dead": (MLP(hidden=(8, 6), refractory=1, steps=6, **ALIF), IMAGES),
    "latency": (MLP(hidden=(8, 6), neuron="lif", coding="latency", steps=5), IMAGES),
    "lsnn": (LSNN(units=6, tau=3.0, threshold=0.05), SEQUENCES),
    "lsnn, lif": (LSNN(units=6, neuron="lif", tau=3.0, threshold=0.1), SEQUENCES),
}
BUILT = {
    "convolutions": lambda: convolutions(),
    "still shortcut": lambda: still_shortcut(LIF(leak=0.9)),
    "still shortcut, recurrent": lambda: still_shortcut(Recurrent(LIF(leak=0.9, reset="hard"), 4)),
    "readout of both signs": lambda: readout_of_both_signs(),
}
NETWORKS |= dict.fromkeys(BUILT, (None, IMAGES))


def convolutions(steps=3):
    """Convolutions, batch norm, a residual sum, pooling."""
    body = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 3, 3, padding=1), norm=nn.BatchNorm2d(3)))
    body.norm.running_mean.uniform_(-0.3, 0.3)
    body.norm.running_var.uniform_(0.2, 2.0)
    layers = OrderedDict(
        first=nn.Conv2d(1, 3, 3, padding=1), lif1=LIF(leak=0.8), block=Residual(body, nn.Identity(), LIF(leak=0.9)),
        pool=nn.AvgPool2d(2), second=nn.Conv2d(3, 4, 2), lif2=LIF(leak=0.9, reset="hard"), flatten=nn.Flatten(), out=Readout(4, 3, "rate"),
    )  # fmt: skip
    return SpikingNetwork(IMAGES, layers, steps=steps, sequence=False)


def still_shortcut(neurons):
    """A still node that a still layer takes, and a sum that changes in time: the shortcut."""
    body = nn.Sequential(OrderedDict(a=nn.Linear(4, 4), neurons=neurons, b=nn.Linear(4, 4)))
    layers = OrderedDict(
        flatten=nn.Flatten(), first=nn.Linear(16, 4), block=Residual(body, nn.Identity(), LIF(leak=0.9)), out=Readout(4, 3, "sum")
    )
    return SpikingNetwork(IMAGES, layers, steps=6, sequence=False)


def readout_of_both_signs():
    """Batch norm before the readout."""
    layers = OrderedDict(
        flatten=nn.Flatten(), first=nn.Linear(16, 6), lif=LIF(leak=0.9), norm=nn.BatchNorm1d(6), out=Readout(6, 3, "last", leak=0.8)
    )
    layers["norm"].running_mean.uniform_(0.2, 0.8)
    return SpikingNetwork(IMAGES, layers, steps=6, sequence=False)


def made(name, samples=4):
    """A network whose neurons fire, samples, and the classes that it gives them."""
    architecture, task = NETWORKS[name]
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    network = (architecture.build(task, generator) if architecture else BUILT[name]()).eval()
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
            elif parameter_name.endswith(".a"):
                parameter.uniform_(0.7, 1.0, generator=generator)
    low, high = task.bounds
    x = low + (high - low) * torch.rand(samples, *task.shape, generator=generator)
    with torch.no_grad():
        return network, x, network(x).argmax(1)


def chips(network, x, y, box, generator, draws=8):
    """Parameters and inputs in the box: uniform, corners, and corners along the gradient of the margins, one sample at a time."""
    params = {name: value.detach() for name, value in network.named_parameters()}
    moving = select(params, box.parameters)
    for draw in range(draws):
        signs = {name: 2 * torch.rand(params[name].shape, generator=generator, dtype=params[name].dtype) - 1 for name in moving}
        if draw % 2:
            signs = {name: value.sign() for name, value in signs.items()}
        change = box.eps * (2 * torch.rand(x.shape, generator=generator).to(x) - 1)
        yield within(params, signs, box), (x + change).clamp(*network.bounds)
    for i in range(len(x)):
        at = {name: value.clone().requires_grad_() for name, value in params.items()}
        given = x.clone().requires_grad_()
        logits = network.run(given, params=at).logits[i]
        loss = logits[y[i]] - logits.logsumexp(-1)
        found = torch.autograd.grad(loss, [at[name] for name in moving] + [given], allow_unused=True)
        signs = {
            name: torch.zeros_like(params[name]) if g is None else -g.sign() * params[name].sign()
            for name, g in zip(moving, found, strict=False)
        }
        step = 0 if found[-1] is None else found[-1].sign()
        yield within(params, signs, box), (x - box.eps * step).clamp(*network.bounds)


def within(params, signs, box):
    return {name: value * (1 + box.z * signs[name]) if name in signs else value for name, value in params.items()}


def margins(network, params, x, y):
    with torch.no_grad():
        logits = network.run(x, params=params).logits.double()
    return (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], math.inf)


def bounds(graph, x, y, *, always=False):
    """The backward bounds alone, all rows."""
    classes = graph.nodes[-1].shape[0]
    rows = torch.arange(classes)[:, None].expand(classes, len(x))
    return backward(_forward(_Cases(graph, x, {})), y, rows, always=always)[0].mT.scatter(1, y[:, None], math.inf)


CASES = [(name, Box(z)) for name in NETWORKS for z in (0.01, 0.06)]
CASES += [(name, Box(0.03, "all")) for name in NETWORKS]
CASES += [(name, Box(0.01, eps=0.02)) for name in NETWORKS if name != "latency"]


@pytest.mark.parametrize(("name", "box"), CASES, ids=str)
def test_backward_bounds_hold_for_chips_of_the_box(name, box):
    network, x, y = made(name)
    for dtype in (torch.float64, torch.float32):
        at, given = network.to(dtype), x.to(dtype)
        graph = graph_of(at, box, arithmetic="float32" if dtype == torch.float32 else "float64")
        with torch.no_grad():
            found = [spiking_backward_margins(graph, given, y, parts=16)]
            if name != "max":
                found += [bounds(graph, given, y), bounds(graph, given, y, always=True)]
        for params, moved in chips(at, given, y, box, torch.Generator().manual_seed(2)):
            real = margins(at, params, moved, y)
            assert all(bool((bound <= real).all()) for bound in found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["soft", "soft, three", "next", "hard", "dead steps", "alif", "alif, dead", "lsnn", "lsnn, lif"])
def test_every_weight_that_a_step_hands_on_is_sound(name, seed, monkeypatch):
    generator = torch.Generator().manual_seed(seed)

    def anything(silent, firing, spike, step):
        size = (1 + spike.abs()) * 10 ** torch.empty(()).uniform_(-2, 0.5, generator=generator)
        return size * torch.randn(spike.shape, generator=generator, dtype=spike.dtype)

    monkeypatch.setattr(_time_relaxations, "_hull_slope", anything)
    network, x, y = made(name)
    box = Box(0.05, "all" if seed % 2 else "weights")
    with torch.no_grad():
        found = bounds(graph_of(network, box), x, y, always=True)
    for params, moved in chips(network, x, y, box, generator):
        assert bool((found <= margins(network, params, moved, y)).all())


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "max"])
def test_without_a_box_the_backward_bound_is_the_margin(name):
    network, x, y = made(name)
    network, x = network.double(), x.double()
    graph = graph_of(network, Box(0.0), arithmetic="exact")
    real = margins(network, dict(network.named_parameters()), x, y)
    with torch.no_grad():
        for found in (bounds(graph, x, y), bounds(graph, x, y, always=True), spiking_backward_margins(graph, x, y)):
            torch.testing.assert_close(found, real, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["soft, three", "hard", "alif", "convolutions"])
def test_never_below_the_forward_bounds_and_never_below_fewer_parts(name):
    network, x, y = made(name, samples=8)
    graph = graph_of(network, Box(0.02))
    with torch.no_grad():
        found = [spiking_margins(graph, x, y)] + [spiking_backward_margins(graph, x, y, parts=parts) for parts in (1, 4, 32)]
    for less, more in itertools.pairwise(found):
        assert bool((more >= less).all())


def test_parts_of_the_box_prove_more():
    network, x, y = made("soft, three", samples=60)
    graph = graph_of(network, Box(0.01))
    with torch.no_grad():
        forward, parts = spiking_margins(graph, x, y), spiking_backward_margins(graph, x, y, parts=64)
    assert int((parts.amin(1) > 0).sum()) > int((forward.amin(1) > 0).sum())


def test_the_walk_back_proves_more_for_leaks_that_change_in_time():
    network, x, y = made("dlif", samples=20)
    graph = graph_of(network, Box(0.005))
    with torch.no_grad():
        forward, backward_alone = spiking_margins(graph, x, y), bounds(graph, x, y)
    assert int((backward_alone.amin(1) > 0).sum()) > int((forward.amin(1) > 0).sum())


def test_few_bytes_make_small_blocks_and_the_same_bounds():
    network, x, y = made("soft", samples=6)
    graph = graph_of(network, Box(0.05))
    with torch.no_grad():
        torch.testing.assert_close(spiking_backward_margins(graph, x, y, most_bytes=1), spiking_backward_margins(graph, x, y))


def test_the_sum_over_time_comes_before_the_absolute_value():
    # one weight, spikes (1, 1), weights in time (1, −1): the box cannot move the sum, rounding can
    linear = spiking_backward.Linear(spiking_backward.dense, torch.tensor([[2.0]], dtype=torch.float64), z=0.1)
    sure = torch.ones(2, 1, 1, dtype=torch.float64)
    a = torch.tensor([1.0, -1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    value = spiking_backward.Interval(sure, sure)
    handed, constant = spiking_backward.through_linear(linear, value, a)
    assert float((handed * value.low[:, None]).sum() + constant) == pytest.approx(0.0, abs=1e-12)
    rounded = spiking_backward.Linear(spiking_backward.dense, linear.weight, slack=0.1)
    handed, constant = spiking_backward.through_linear(rounded, value, a)
    assert float((handed * value.low[:, None]).sum() + constant) == pytest.approx(-0.4)


def test_a_still_shortcut_of_a_wide_resnet_is_counted_once_a_step():
    task = Task("images", (1, 8, 8), 3, (0.0,), (1.0,), (0.0, 1.0))
    settings = {"neuron": "lif", "steps": 8, "depth": 10, "widen": 1, "readout": "sum", "leak": 1.0}
    for seed in (0, 3):
        network = WideResNet(**settings).build(task, torch.Generator().manual_seed(seed)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5 if parameter.ndim > 1 else 1.0)
            torch.manual_seed(seed)
            x = torch.rand(2, 1, 8, 8)
            y = network(x).argmax(1)
            found = bounds(graph_of(network, Box(1e-3, "*threshold")), x, y, always=True)
        assert bool((found <= margins(network, dict(network.named_parameters()), x, y)).all())


def test_the_input_of_a_recurrent_layer_is_rounded_in_the_sum_over_its_spikes():
    # at step 1 a float32 sum that starts with the input of 1024 loses a thousand small products, one by one
    units, driven, small = 2001, slice(1, 1001), torch.tensor(0.45 * 2.0**-15)
    total = torch.tensor(1024.0)
    for _ in range(1000):
        total = total + small
    assert total == 1024
    task = Task("sequences", (2, 2), 2, (0.0, 0.0), (1.0, 1.0), (0.0, 2.0))
    neurons = Recurrent(LIF(leak=1.0, threshold=1.0, per="neuron", shape=(units,)), units)
    layers = OrderedDict(first=nn.Linear(2, units, bias=False), act=neurons, out=Readout(units, 2, "sum"))
    network = SpikingNetwork(task, layers, steps=2, sequence=True).eval()
    with torch.no_grad():
        params = dict(network.named_parameters())
        for name in ("first.weight", "act.weight", "out.weight", "out.bias"):
            params[name].zero_()
        params["first.weight"][0, 0], params["first.weight"][driven, 1] = 1024.0, 8.0
        params["act.weight"][0, driven] = small
        params["act.neuron.threshold"][0] = 1024.0  # in real numbers it fires
        params["out.weight"][0, 0] = 1.0
        x = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        assert float(bounds(graph_of(network, Box(0.0), arithmetic="exact"), x, torch.tensor([0]))[0, 1]) == pytest.approx(1.0)
        assert float(bounds(graph_of(network, Box(0.0)), x, torch.tensor([0]), always=True)[0, 1]) <= 0


def test_parts_below_one_are_refused():
    network, x, y = made("soft")
    with pytest.raises(NoiseproofError, match="parts is 0"):
        spiking_backward_margins(graph_of(network, Box(0.01)), x, y, parts=0)
