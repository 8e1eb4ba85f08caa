"""Adversarial bit flips against brute force and random flips."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks import BitFlips, WeightAttack
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation import attack_curves
from noiseproof.networks import CNN, MLP
from noiseproof.noise import BitErrors, Quantisation
from noiseproof.randomness import generator
from noiseproof.training import train


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    network = MLP(hidden=(32,)).build(digits.task, generator("weights", 0))
    train(network, digits, epochs=10, batch_size=20, progress=False)
    return network


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def words(params: dict[str, torch.Tensor], nominal: dict[str, torch.Tensor], bits: int) -> dict[str, torch.Tensor]:
    """Return the stored words (two's complement) of parameters on the grid of the nominal ones."""
    steps = {name: p.abs().max() / (2 ** (bits - 1) - 1) for name, p in nominal.items()}
    return {name: (params[name] / step).round().long() & (2**bits - 1) for name, step in steps.items()}


@pytest.mark.parametrize("bits", [3, 8])
@pytest.mark.parametrize("objective", ["ce", "kl", "dlr"])
def test_it_flips_at_most_so_many_bits_and_says_which(objective, bits, trained, digits) -> None:
    params = {name: p.detach() for name, p in trained.named_parameters() if p.ndim >= 2}
    whole = {name: p.detach() for name, p in trained.named_parameters()}
    attack = BitFlips(flips=6, bits=bits, objective=objective, at_once=4)
    found = attack(trained, whole, [(digits.train.x, digits.train.y)], stream())
    clean = words(Quantisation(bits=bits)(params, stream()), params, bits)
    after = words(found.params, params, bits)
    differ = {(name, int(p), i) for name in params for i in range(bits) for p in ((clean[name] ^ after[name]).flatten() >> i & 1).nonzero()}
    assert differ == set(found.flips)
    assert 0 < len(found.flips) <= 6
    assert len(set(found.flips)) == len(found.flips)
    for name, p in whole.items():
        assert torch.equal(found.params[name], p) if p.ndim < 2 else torch.equal(found.delta[name], found.params[name] - p)


def test_the_first_flip_is_the_best_of_all_by_brute_force() -> None:
    """On a linear layer with a loss near linear in each weight the gradient ranks the flips rightly."""
    network = nn.Linear(3, 2, bias=False)
    torch.manual_seed(0)
    nn.init.normal_(network.weight)
    params = {"weight": network.weight.detach()}
    batch = (0.01 * torch.randn(40, 3), torch.randint(2, (40,)))
    attack = BitFlips(flips=1, bits=4)
    found = attack(network, params, [batch], stream())
    clean = Quantisation(bits=4)(params, stream())["weight"]
    codes, stored = attack.grid.encode(params["weight"], stream())
    losses = {}
    for place, bit in itertools.product(range(6), range(4)):
        mask = torch.zeros_like(codes)
        mask.view(-1)[place] = 1 << bit
        losses["weight", place, bit] = float(cross_entropy(batch[0] @ stored.decode(stored.flip(codes, mask, "signed"), clean).T, batch[1]))
    best = max(losses, key=losses.__getitem__)
    assert found.flips == (best,)
    assert found.objective == pytest.approx(losses[best], rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"encoding": "unsigned", "range": "asymmetric"}, {"per": "channel"}, {"bits": 4}])
def test_a_few_aimed_flips_do_what_as_many_random_ones_do_not(settings, trained, digits) -> None:
    params = {name: p.detach() for name, p in trained.named_parameters()}
    x, y = digits.test.x, digits.test.y
    attack = BitFlips(flips=12, **settings)
    found = attack(trained, params, [(x, y)], stream())

    def accuracy(at: dict[str, torch.Tensor]) -> float:
        return float((torch.func.functional_call(trained, at, (x,)).argmax(-1) == y).float().mean())

    random = [accuracy(attack.random_point(trained, params, torch.Generator().manual_seed(i))) for i in range(5)]
    assert accuracy(found.params) < min(random) - 0.2
    assert found.objective > 1


def test_random_flips_are_so_many_different_bits_anywhere(trained) -> None:
    params = {name: p.detach() for name, p in trained.named_parameters()}
    attack = BitFlips(flips=200, parameters="weights")
    matrices = {name: p for name, p in params.items() if p.ndim >= 2}
    clean = words(Quantisation(bits=8)(matrices, stream()), matrices, 8)
    counts = torch.zeros(8)
    for seed in range(20):
        after = words(attack.random_point(trained, params, torch.Generator().manual_seed(seed)), matrices, 8)
        flipped = [((clean[name] ^ after[name]).flatten()[:, None] >> torch.arange(8) & 1).sum(0) for name in matrices]
        assert int(sum(f.sum() for f in flipped)) == 200
        counts += sum(flipped)
    assert ((counts - 500).abs() < 5 * (4000 / 8 * 7 / 8) ** 0.5).all()
    few = BitFlips(flips=3, per_layer=True).random_point(trained, params, stream())
    changed = [int((few[n] != Quantisation(bits=8)(matrices, stream())[n]).sum()) for n in matrices]
    assert changed == [3] * len(matrices)


def test_layers_have_a_budget_each_and_nothing_else_changes(digits) -> None:
    network = CNN().build(digits.task, generator("weights", 1))
    params = {name: p.detach() for name, p in network.named_parameters()}
    network.train()
    before = {name: p.clone() for name, p in network.state_dict().items()}
    found = BitFlips(flips=2, per_layer=True, at_once=2)(network, params, [(digits.test.x[:20], digits.test.y[:20])], stream())
    layers = [name for name, _, _ in found.flips]
    assert {name: layers.count(name) for name in set(layers)} == dict.fromkeys([n for n, p in params.items() if p.ndim >= 2], 2)
    assert network.training
    assert all(torch.equal(p, before[name]) for name, p in network.state_dict().items())
    whole = BitFlips(flips=2, at_once=2)(network, params, [(digits.test.x[:20], digits.test.y[:20])], stream())
    assert len(whole.flips) == 2


def test_no_flips_is_quantisation_and_batches_are_one_whole(trained, digits) -> None:
    params = {name: p.detach() for name, p in trained.named_parameters()}
    x, y = digits.test.x, digits.test.y
    none = BitFlips(flips=0)(trained, params, [(x, y)], stream())
    plain = BitErrors(p=0.0)(params, stream())
    assert all(torch.equal(none.params[name], plain[name]) for name in params)
    halves = list(zip(x.split(50), y.split(50), strict=True))
    assert BitFlips(flips=3)(trained, params, halves, stream()).flips == BitFlips(flips=3)(trained, params, [(x, y)], stream()).flips


def test_patience_finds_flips_that_the_first_offers_hide(trained, digits) -> None:
    params = {name: p.detach() for name, p in trained.named_parameters()}
    batch = [(digits.test.x, digits.test.y)]
    hasty, patient = (BitFlips(flips=40, objective="dlr", patience=k)(trained, params, batch, stream()) for k in (1, 20))
    assert patient.flips[: len(hasty.flips)] == hasty.flips
    assert len(patient.flips) > len(hasty.flips)
    assert patient.objective > hasty.objective


def test_attack_curves_take_them_beside_attacks_in_a_box(trained, digits) -> None:
    attacks = [BitFlips(flips=k) for k in (0, 4)]
    records = attack_curves(trained, digits.test, [*attacks, WeightAttack(zeta=0.1, steps=2, objective="ce")], restarts=1, samples=100)
    losses = {(r.perturbation["name"], r.perturbation.get("flips")): r.value for r in records if r.metric == "cross_entropy"}
    assert losses["bit-flips", 4] > losses["random-bit-flips", 4]
    assert losses["bit-flips", 0] == losses["random-bit-flips", 0]
    assert {name for name, _ in losses} == {"bit-flips", "random-bit-flips", "weight-attack", "random-point"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitFlips(flips=-1), "flips is -1: give a whole number of at least 0"),
        (lambda: BitFlips(bits=0), "bits is 0: give a whole number of at least 1 and at most 16"),
        (lambda: BitFlips(at_once=0), "at_once is 0"),
        (lambda: BitFlips(patience=0), "patience is 0"),
        (lambda: BitFlips(objective="mse"), "objective is 'mse': give ce, kl or dlr"),  # pyright: ignore
        (lambda: BitFlips(encoding="gray"), "encoding is 'gray'"),  # pyright: ignore
        (
            lambda: BitFlips()(nn.Linear(2, 2), dict(nn.Linear(2, 2).named_parameters()), [(torch.ones(1, 2), None)], stream()),
            "objective is 'ce' without labels",
        ),
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()
