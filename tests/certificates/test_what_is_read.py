"""What stands between a network and what is read of it is refused: hooks, other forwards, modes, short numbers, other names."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import prune

import noiseproof as npf
from noiseproof.attacks._ball import Ball
from noiseproof.certificates import Box, bounds, certified, margins
from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation.ladder import Rungs, check_certifiable
from noiseproof.networks import MLP, Network
from noiseproof.networks.adapt import Adapted

TASK = Task("vectors", (4,), 3, (0.1,), (0.9,), (0.0, 1.0))
X = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))


def own(neuron: Literal["relu", "lif"] = "relu") -> Any:
    return MLP(hidden=(6,), neuron=neuron, steps=3).build(TASK, torch.Generator().manual_seed(0))


def outside() -> Any:
    torch.manual_seed(0)
    return npf.adapt(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))


def refused(named: str, call: Callable[[], object]) -> None:
    with pytest.raises(NoiseproofError, match=named) as error:
        call()
    assert "\n" not in str(error.value)


# --- inputs within ε


def test_a_sample_outside_the_bounds_of_the_data_is_itself_in_the_box() -> None:
    network = outside()
    x = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    for eps in (0.05, 10.0):
        found = bounds(network, x, Box(0.0, eps=eps))
        for inside in (x, Ball(x, torch.full((200,), eps), "linf", (0.0, 1.0)).random(torch.Generator().manual_seed(1))):
            logits = network(inside).double()
            assert bool((found.low <= logits).all())
            assert bool((logits <= found.high).all())
    # classes at the rim, where the sample does not lie
    y = network(x.clamp(0, 1)).argmax(-1)
    assert not bool((certified(network, x, y, Box(0.0, eps=0.05)) & (network(x).argmax(-1) != y)).any())


# --- hooks, other forwards, modes


def doubled(*given: Any) -> Tensor:
    return 2 * given[-1]


def with_forward(module: Any, part: str = "forward") -> None:
    before = getattr(module, part)
    setattr(module, part, lambda *given: before(*given))


def to_subclass(network: Any) -> None:
    class Own(type(network)):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    network.__class__ = Own


def layer(network: Any) -> Any:
    return next(m for m in network.modules() if isinstance(m, nn.Linear))


class KeepsTraining(nn.Sequential):
    def train(self, mode: bool = True) -> KeepsTraining:
        return super().train(True)


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "hook on a layer": (lambda n: layer(n).register_forward_hook(doubled), "forward hook"),
    "hook on the network": (lambda n: n.register_forward_hook(doubled), "the network has a forward hook"),
    "pre-hook": (lambda n: layer(n).register_forward_pre_hook(lambda *_: None), "forward hook"),
    "pruned": (lambda n: prune.l1_unstructured(layer(n), "weight", 0.5), "prune.remove"),
    "forward of a layer": (lambda n: with_forward(layer(n)), "is Linear with another forward"),
    "forward of the network": (with_forward, "with another forward"),
    "class above": (to_subclass, "class of your own"),
    "not a parameter": (lambda n: (delattr(layer(n), "weight"), setattr(layer(n), "weight", torch.ones(6, 4))), "is no parameter"),
    "half": (lambda n: n.half(), "float16: bounds are known for float32"),
    "bfloat16": (lambda n: n.bfloat16(), "bfloat16"),
    "one layer half": (lambda n: layer(n).bfloat16(), "bfloat16"),
}


@pytest.mark.parametrize("build", [own, lambda: own("lif"), outside], ids=["own", "own, spiking", "outside"])
@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES)
def test_what_changes_a_network_unseen_is_refused(build: Callable[[], Any], change: Callable[[Any], object], named: str) -> None:
    network = build()
    bounds(network, X, Box())
    change(network)
    refused(named, lambda: bounds(network, X, Box()))


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
@pytest.mark.parametrize("build", [own, outside])
def test_hooks_on_all_modules_are_refused(build: Callable[[], Any], register: Any) -> None:
    handle = register(lambda *_: None)
    try:
        refused("all modules", lambda: bounds(build(), X, Box()))
    finally:
        handle.remove()


def test_a_pruned_network_is_read_once_the_pruning_is_made_permanent() -> None:
    for network in (own(), outside()):
        prune.l1_unstructured(layer(network), "weight", 0.5)
        logits = network(X).double()
        prune.remove(layer(network), "weight")
        found = bounds(network, X, Box(0.0))
        assert bool(((found.low <= logits) & (logits <= found.high)).all())


def test_neurons_of_the_user_in_a_recurrent_layer_are_refused() -> None:
    class Own(npf.neurons.ALIF):
        pass

    network = npf.networks.LSNN(units=3).build(Task("sequences", (3, 4), 3, (0.1,) * 4, (0.9,) * 4, (0.0, 1.0)), torch.Generator())
    next(m for m in network.modules() if isinstance(m, npf.neurons.ALIF)).__class__ = Own
    refused("is Own", lambda: bounds(network, torch.rand(2, 3, 4), Box()))


@pytest.mark.parametrize("part", [nn.Dropout(), nn.BatchNorm1d(6)], ids=["dropout", "batch norm"])
def test_modules_that_stay_in_train_mode_are_refused(part: nn.Module) -> None:
    module = KeepsTraining(nn.Linear(4, 6), part, nn.Linear(6, 3))
    refused("stays in train mode", lambda: bounds(npf.adapt(module), X, Box()))
    module = nn.Sequential(nn.Linear(4, 6), part, nn.Linear(6, 3)).train()
    bounds(npf.adapt(module), X, Box())
    assert all(m.training for m in module.modules())


# --- forwards that torch.fx sees in another way


class Forward(nn.Module):
    """A module whose forward is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.a, self.none, self.body = nn.Linear(4, 3), nn.Parameter(torch.rand(3)), nn.Parameter(torch.zeros(3)), forward
        self.count: Tensor
        self.register_buffer("count", torch.zeros(()))
        self.plain, self.generator, self.list = torch.zeros(()), torch.Generator().manual_seed(0), [torch.zeros(())]
        object.__setattr__(self, "alias", self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def counted(where: Callable[[Any], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    return lambda m, x: m.fc(x) + where(m).add_(1)


READS: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "state_dict": (lambda m, x: F.linear(x, m.fc.state_dict()["weight"], m.fc.bias), "reads a parameter past"),
    "_parameters": (lambda m, x: m.fc(x) + m._parameters["a"].data, "reads a parameter past"),
    "_parameters, of zeros": (lambda m, x: m.fc(x) + m._parameters["none"].data, "reads a parameter past"),
    "parameters()": (lambda m, x: m.fc(x) * float(next(iter(m.parameters())).detach().sum()), "reads a parameter past"),
    "another name": (lambda m, x: F.linear(x, m.alias), "reads a parameter past"),
    "buffer": (counted(lambda m: m.count), "keeps count from call to call"),
    "tensor": (counted(lambda m: m.plain), "keeps plain from call to call"),
    "tensor in a list": (counted(lambda m: m.list[0]), "keeps list from call to call"),
    "small draws": (lambda m, x: m.fc(x) + 1e-7 * torch.randn(3), "draws by chance"),
    "draws of Python": (lambda m, x: m.fc(x) * (1 + 1e-6 * random.random()), "draws by chance"),
    "draws of its own": (lambda m, x: m.fc(x) + 1e-6 * torch.rand(3, generator=m.generator), "two results"),
    "asks, for little": (lambda m, x: m.fc(x) + (1e-6 if isinstance(x, Tensor) else 0.0), "something else than torch.fx sees"),
    "NaN": (lambda m, x: m.fc(x) * float("nan"), "NaN"),
}


@pytest.mark.parametrize(("forward", "named"), READS.values(), ids=READS)
def test_forwards_that_are_read_in_another_way_are_refused_and_left_as_they_were(forward: Any, named: str) -> None:
    torch.manual_seed(0)
    module = Forward(forward)
    state, stream, plain = copy.deepcopy(module.state_dict()), torch.get_rng_state(), random.getstate()
    refused(named, lambda: bounds(npf.adapt(module), X, Box(0.01, "all")))
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert module.plain.item() == module.list[0].item() == 0
    assert torch.equal(stream, torch.get_rng_state())
    assert random.getstate() == plain
    assert [name for name, _ in module.named_parameters()] == ["a", "none", "fc.weight", "fc.bias"]


class Permitted(nn.Module):
    """Constants computed from buffers in float32, a layer of two names and a weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.tied, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.again, self.tied.weight = self.fc, self.fc.weight
        self.spread: Tensor
        self.register_buffer("spread", torch.tensor([0.1, 0.7, 1.3, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.tied(self.again(self.fc(x) * (1 / self.spread.sqrt())).relu()).relu())


def test_what_may_be_read_is_read_and_left_as_it_was() -> None:
    module = Permitted()
    before = dict(module.named_parameters(remove_duplicate=False))
    found, logits = bounds(npf.adapt(module), X, Box(0.0)), module(X).double()
    assert bool(((found.low <= logits) & (logits <= found.high)).all())
    assert all(p is before[name] for name, p in module.named_parameters(remove_duplicate=False))


# --- arithmetic


@pytest.mark.parametrize("build", [own, outside])
def test_arithmetic_may_not_be_finer_than_the_network(build: Callable[[], Any]) -> None:
    network, y = build(), torch.zeros(5, dtype=torch.int64)
    refused("arithmetic is 'float64'", lambda: bounds(network, X, Box(), arithmetic="float64"))
    refused("arithmetic is 'float64'", lambda: check_certifiable(network, X, y, [Box()], Rungs(arithmetic="float64")))
    bounds(network, X, Box(), arithmetic="exact")
    bounds(network.double(), X.double(), Box(), arithmetic="float64")


# --- parameters, samples and classes that do not fit


def halved(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p.detach() / 2) for name, p in network.named_parameters())


def test_parameters_answer_to_both_names_of_an_adapted_network() -> None:
    network = outside()
    full = dict(halved(network))
    plain = {name.removeprefix("module."): p for name, p in full.items()}
    first, second, unchanged = (bounds(network, X, Box(), params=p) for p in (full, plain, None))
    assert torch.equal(first.low, second.low)
    assert not torch.equal(first.low, unchanged.low)
    refused("twice", lambda: bounds(network, X, Box(), params=full | {"0.weight": torch.zeros(6, 4)}))


def test_parameters_that_do_not_fit_are_refused() -> None:
    for network, name in ((own(), "fc1.weight"), (outside(), "module.0.weight")):
        refused("params is 'fc9.weight'", lambda network=network: bounds(network, X, Box(), params={"fc9.weight": torch.zeros(6, 4)}))
        refused("give shape", lambda network=network, name=name: bounds(network, X, Box(), params={name: torch.zeros(6, 5)}))
        refused("float16", lambda network=network, name=name: bounds(network, X, Box(), params={name: torch.zeros(6, 4).half()}))


def test_samples_that_do_not_fit_are_refused() -> None:
    for network in (own(), own("lif")):
        refused(r"x is of shape \[B, 7\]: give \[B, 4\]", lambda network=network: bounds(network, torch.rand(5, 7), Box()))
    refused("layer module.0 cannot take samples of shape \\(7,\\)", lambda: bounds(outside(), torch.rand(5, 7), Box()))
    for network in (own(), outside()):
        refused("one too: x\\[None\\]", lambda network=network: bounds(network, X[0], Box()))
        refused("tensor of samples", lambda network=network: bounds(network, X.tolist(), Box()))  # pyright: ignore[reportArgumentType]
        refused("box is 0.1", lambda network=network: bounds(network, X, 0.1))  # pyright: ignore[reportArgumentType]
        refused("bounds is", lambda network=network: bounds(network, X, Box(), ["intervals"]))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("y", "named"),
    [
        (torch.rand(5), "y is float32"),
        (torch.ones(5, dtype=torch.bool), "y is bool"),
        (torch.zeros(5, 3, dtype=torch.int64), "y is of shape"),
        (torch.full((5,), 7), "y has classes 7 to 7"),
        ([0, 1, 2, 0, 1], "y is 'list'"),
    ],
)
def test_classes_that_do_not_fit_are_refused(y: Any, named: str) -> None:
    for network in (own(), own("lif"), outside()):
        refused(named, lambda network=network: margins(network, X, y, Box()))


def test_settings_of_the_wrong_kind_are_refused() -> None:
    data: Any = None
    refused(r"boxes is 0.01: give half-widths, as \[0.01\]", lambda: npf.certify(own(), data, boxes=0.01))  # pyright: ignore
    refused(r"bounds is 'intervals': give names", lambda: npf.certify(own(), data, bounds="intervals"))
    refused("bounds is 'intervals': give names", lambda: Rungs(bounds="intervals"))  # pyright: ignore[reportArgumentType]


class OfParameters(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return F.relu(value)


def test_functions_of_parameters_and_surrogates_that_draw_are_refused() -> None:
    dense = nn.Linear(4, 3)
    nn.utils.parametrize.register_parametrization(dense, "weight", OfParameters())
    refused("is given the parameter or constant", lambda: bounds(npf.adapt(nn.Sequential(dense)), X, Box()))
    drawing = nn.Sequential(nn.Linear(4, 3), snn.Leaky(0.9, init_hidden=True, spike_grad=surrogate.LSO()))
    refused("spike_grad", lambda: bounds(npf.adapt(drawing, steps=3), X, Box()))
    assert isinstance(npf.adapt(drawing, steps=3), Adapted)
    assert isinstance(own(), Network)


def test_torchscript_is_refused() -> None:
    refused("TorchScript", lambda: bounds(npf.adapt(torch.jit.trace(nn.Linear(4, 3), X)), X, Box()))  # pyright: ignore
