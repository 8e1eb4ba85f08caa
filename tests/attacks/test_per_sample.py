"""The attack on each sample by itself: exact where the worst is known, inside the box to the last digit, one by one as together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from noiseproof.attacks import PerSampleWeightAttack, WeightAttack
from noiseproof.attacks.per_sample import box_edges, inside_box
from noiseproof.data import Splits, Task
from noiseproof.errors import NoiseproofError
from noiseproof.networks import CNN, LSNN, MLP, VGG5, Network, adapt
from noiseproof.parameters import parameters_of
from noiseproof.randomness import generator

COLOUR = Task("colour", (3, 16, 16), 4, (0.5,) * 3, (0.25,) * 3, (0.0, 1.0))
SEQUENCE = Task("sequences", (12, 4), 3, (0.0,) * 4, (1.0,) * 4, (-5.0, 5.0))


def labelled(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs with the network's own predictions as their classes: all are right from the start."""
    with torch.no_grad():
        return x, network.eval()(x).argmax(-1)


def some(name: str, digits: Splits) -> tuple[Network, Tensor]:
    draw = generator("weights", 1)
    if name == "lsnn":
        return LSNN(units=16).build(SEQUENCE, draw), torch.rand(8, 12, 4, generator=generator("x", 0)) * 4
    if name == "vgg5":
        return VGG5(neuron="relu", width=0.05, dense=8).build(COLOUR, draw), torch.rand(8, 3, 16, 16, generator=generator("x", 0))
    kinds = {"mlp": MLP(hidden=(16,)), "cnn": CNN(), "lif": MLP(hidden=(16, 12), neuron="lif", steps=4)}
    return kinds[name].build(digits.task, draw), digits.test.x[:8]


@given(z=st.floats(1e-9, 0.99), theta=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5))
def test_edges_of_the_box_are_the_last_numbers_inside(z: float, theta: list[float]) -> None:
    weights = torch.tensor(theta)
    for edge, beyond in zip(box_edges(weights, z), (-torch.inf, torch.inf), strict=True):
        assert inside_box(edge, weights, z)
        further = torch.nextafter(edge, torch.tensor(beyond))
        assert bool(((further.double() - weights.double()).abs() > z * weights.double().abs()).all())


def test_linear_network_of_two_classes_is_broken_exactly_where_it_can_be() -> None:
    """min over the box of (W'_y − W'_c)·x = (W_y − W_c)·x − z(|W_y| + |W_c|)·|x| is known."""
    draw = torch.Generator().manual_seed(0)
    layer = nn.Linear(30, 2, bias=False)
    weight = layer.weight.data.copy_(torch.randn(2, 30, generator=draw))
    network = nn.Sequential(layer)
    x, y = labelled(network, torch.rand(200, 30, generator=draw))
    for z in (0.0, 0.01, 0.1, 0.3):
        worst = ((weight[y] - weight[1 - y]) * x).sum(-1) - z * ((weight[y].abs() + weight[1 - y].abs()) * x.abs()).sum(-1)
        found = PerSampleWeightAttack(z=z, steps=1, restarts=0)(network, x, y, draw)
        clear = worst.abs() > 1e-4
        assert torch.equal(found.broken[clear], worst[clear] < 0), z
        assert z == 0 or bool(found.broken.any())


@pytest.mark.parametrize("name", ["mlp", "cnn", "vgg5", "lif", "lsnn"])
def test_found_chips_are_in_the_box_and_break_the_network_and_many_at_once_find_the_same(name: str, digits: Splits) -> None:
    network, x = some(name, digits)
    x, y = labelled(network, x)
    z = {"mlp": 0.02, "cnn": 0.08, "vgg5": 0.3, "lif": 0.05, "lsnn": 0.2}[name]
    attack = PerSampleWeightAttack(z=z, steps=4)
    keep = torch.arange(len(x)) % 2 == 0
    together = attack(network, x, y, generator("attack", 0), keep=keep)
    alone = attack(network, x, y, generator("attack", 0), keep=keep, most_bytes=1)
    assert bool(together.broken.any())
    assert torch.equal(together.broken, alone.broken)
    assert set(together.params) == set((together.broken & keep).nonzero().flatten().tolist())
    nominal = parameters_of(network)
    for i, params in together.params.items():
        for parameter, p in nominal.items():
            inside = (params[parameter].double() - p.double()).abs() <= (z if p.ndim >= 2 else 0) * p.double().abs()
            assert bool(inside.all()), parameter
        with torch.no_grad():
            assert int(torch.func.functional_call(network, params, (x[i : i + 1],)).argmax()) != int(y[i])


def test_breaks_more_than_the_shared_attack_that_it_starts_from(digits: Splits) -> None:
    network, x = some("mlp", digits)
    x, y = labelled(network, digits.test.x[:60])
    shared = WeightAttack(zeta=0.01)(network, parameters_of(network), [(x, y)], generator("attack", 0)).params
    with torch.no_grad():
        by_all = torch.func.functional_call(network, shared, (x,)).argmax(-1) != y
    found = PerSampleWeightAttack(z=0.01, steps=4)(network, x, y, generator("attack", 0), starts=[shared])
    assert bool(found.broken[by_all].all())
    assert int(found.broken.sum()) > int(by_all.sum())


def test_given_start_outside_the_box_is_brought_to_its_rim() -> None:
    network = nn.Sequential(nn.Linear(1, 2, bias=False))
    network[0].weight.data = torch.tensor([[2.0], [1.0]])
    far = {"module.0.weight": torch.tensor([[0.0], [9.0]])}
    x, y, keep = torch.ones(1, 1), torch.tensor([0]), torch.tensor([True])
    attack = PerSampleWeightAttack(z=0.5, steps=1, restarts=0)
    found = attack(network, x, y, generator("attack", 0), starts=[far], keep=keep)
    assert found.params[0]["module.0.weight"].flatten().tolist() == [1.0, 1.5]
    assert not bool(PerSampleWeightAttack(z=0.3)(network, x, y, generator("attack", 0), starts=[far]).broken.any())


@pytest.mark.parametrize("most_bytes", [2**28, 1])
def test_inputs_move_within_eps_and_their_bounds(most_bytes: int, digits: Splits) -> None:
    network, x = some("mlp", digits)
    x, y = labelled(network, x)
    found = PerSampleWeightAttack(z=0.0, eps=0.1, steps=4)(
        network, x, y, generator("attack", 0), keep=torch.ones(8, dtype=torch.bool), most_bytes=most_bytes
    )
    assert found.x
    for i, moved in found.x.items():
        assert float((moved[0].double() - x[i].double()).abs().max()) <= 0.1
        assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
        assert all(torch.equal(p, found.params[i][name]) for name, p in parameters_of(network).items())


def test_outside_network_is_left_as_it_was(outside: nn.Module, digits: Splits) -> None:
    before = {name: value.clone() for name, value in outside.state_dict().items()}
    with torch.no_grad():
        y = outside.eval()(digits.test.x[:4]).argmax(-1)
    outside.train()
    found = PerSampleWeightAttack(z=0.5, steps=2, parameters="all", loss="ce")(outside, digits.test.x[:4], y, generator("attack", 0))
    assert bool(found.broken.any())
    assert all(module.training for module in outside.modules())
    assert all(torch.equal(value, before[name]) for name, value in outside.state_dict().items())
    assert all(p.grad is None for p in outside.parameters())


def test_snntorch_network() -> None:
    snn = pytest.importorskip("snntorch")
    torch.manual_seed(0)
    network = adapt(nn.Sequential(nn.Linear(6, 12), snn.Leaky(0.9, init_hidden=True), nn.Linear(12, 3)), steps=5)
    x, y = labelled(network, torch.rand(6, 6) * 3)
    assert bool(PerSampleWeightAttack(z=0.4, steps=3)(network, x, y, generator("attack", 0)).broken.any())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z": 1.0}, "z is 1.0"),
        ({"z": -0.1}, "z is -0.1"),
        ({"eps": -1.0}, "eps is -1.0"),
        ({"loss": "kl"}, "loss is 'kl'"),
        ({"steps": 0}, "steps is 0"),
        ({"restarts": -1}, "restarts is -1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(NoiseproofError, match=message):
        PerSampleWeightAttack(**settings)
