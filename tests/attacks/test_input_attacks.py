"""One battery for every attack on inputs: a new attack is one more row."""

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import snntorch
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof import _names
from noiseproof.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    RFGSM,
    Attack,
    AutoAttack,
    Ensemble,
    GradientAttack,
    Members,
    RandomNoise,
    RateGradient,
    Square,
    Transfer,
    TunedSurrogate,
)
from noiseproof.config import spelled_attacks
from noiseproof.data import Splits, Task
from noiseproof.evaluation.robustness import spelled
from noiseproof.networks import LSNN, MLP
from noiseproof.randomness import generator

ATTACKS: dict[str, Attack] = {
    "fgsm": FGSM(),
    "r-fgsm": RFGSM(),
    "pgd": PGD(steps=2, restarts=2),
    "pgd, without labels": PGD(steps=2, loss="kl"),
    "pgd, to the end": PGD(steps=3, momentum=0.9, survivors_only=False),
    "apgd": APGD(steps=6),
    "apgd, targeted": APGD(steps=3, loss="dlr", targets=2),
    "apgd, to the end": APGD(steps=6, loss="margin", survivors_only=False),
    "square": Square(queries=9, restarts=2),
    "fab": FAB(steps=3, targets=2, restarts=2),
    "rate-gradient": RateGradient(steps=2),
    "tuned-surrogate": TunedSurrogate(shapes=("atan",), sharpness=(2.0,), screening=1, steps=2),
    "transfer": Transfer(source="another network", attack="pgd(steps=2)"),
    "random-noise": RandomNoise(draws=2),
    "ensemble": Ensemble(steps=2, screening=1, queries=3, draws=2),
    "autoattack": AutoAttack(steps=2, targets=2, queries=4),
}
STILL = Task("still", (1, 6, 6), 4, (0.5,), (0.3,), (0.0, 1.0))
SEQUENCES = Task("sequences", (7, 5), 4, (0.0,) * 5, (1.0,) * 5, (-3.0, 3.0))
FRAMES = Task("frames", (3, 2, 6, 6), 4, (0.5,) * 2, (1.0,) * 2, (0.0, 9.0))
KINDS = ("outside", "images", "sequences", "frames", "poisson", "snntorch")
every_attack = pytest.mark.parametrize("name", ATTACKS)


def spiking(task: Task, seed: int, **settings) -> nn.Module:
    return MLP(hidden=(12,), neuron="lif", steps=3, threshold=0.3, readout="max", **settings).build(task, generator("weights", seed))


class Outside(nn.Module):
    """A user's own, whose output depends on the mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.norm(self.conv(x)).relu(), 0.3, self.training)
        return self.out(hidden.flatten(1))


def network_of(kind: str, seed: int = 0) -> tuple[nn.Module, Task]:
    """A network in training mode, with a mode of its own in the last layer, and the task whose inputs it takes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "outside":
            network, task = Outside(), STILL
        elif kind == "snntorch":
            node = snntorch.Leaky(beta=0.8, threshold=0.3, init_hidden=True)
            last = snntorch.Leaky(beta=0.8, init_hidden=True, output=True)
            own = nn.Sequential(nn.Flatten(), nn.Linear(36, 12), node, nn.Linear(12, 4), last)
            network, task = npf.adapt(own, steps=3, output=1, readout="mean"), STILL
        elif kind == "sequences":
            network, task = LSNN(units=12).build(SEQUENCES, generator("weights", seed)), SEQUENCES
        else:
            task = FRAMES if kind == "frames" else STILL
            network = spiking(task, seed, coding="poisson" if kind == "poisson" else "direct")
    network.train()
    list(network.modules())[-1].training = False
    return network, task


def inputs_of(task: Task, n: int = 6) -> Tensor:
    low, high = task.bounds
    x = low + (high - low) * torch.rand(n, *task.shape, generator=torch.Generator().manual_seed(1))
    x[0].flatten()[:4] = low  # at the edges of the range
    x[1].flatten()[:4] = high
    return x


def made(name: str, kind: str, **settings) -> Attack:
    """The attack of a row for the networks of a kind."""
    attack = ATTACKS[name]
    if isinstance(attack, Transfer):
        settings["source"] = network_of(kind, seed=1)[0]
    return replace(attack, **settings | ({"eot": 2} if kind == "poisson" else {}))


def labels_of(attack: Attack, network: nn.Module, x: Tensor) -> Tensor | None:
    """What the network says itself: there is something to attack in every sample."""
    if not attack.needs_labels:
        return None
    with torch.no_grad(), npf.randomness.stochastic(0), npf.parameters.inference_mode(network):
        return npf.adapt(network)(x).argmax(-1)


@contextlib.contextmanager
def untouched(network: nn.Module, *tensors: Tensor | None) -> Iterator[None]:
    """Nothing of the caller's is changed while this is open."""
    state, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    trained = [p.requires_grad for p in network.parameters()]
    given, seed = [None if t is None else t.clone() for t in tensors], torch.get_rng_state()
    yield
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == trained
    assert all(p.grad is None for p in network.parameters())
    assert all(t is None or (torch.equal(t, g) and not t.requires_grad) for t, g in zip(tensors, given, strict=True))
    assert torch.equal(torch.get_rng_state(), seed), "the global generator moved"


def test_the_table_is_complete() -> None:
    assert {key.partition(",")[0] for key in ATTACKS} == set(_names.available("attacks", "attack"))


@every_attack
@pytest.mark.parametrize(("kind", "norm"), [*((kind, "linf") for kind in KINDS), ("outside", "l2"), ("sequences", "l2"), ("frames", "l2")])
def test_every_radius_and_the_range_hold_in_float64_and_nothing_else_changes(name: str, kind: str, norm: str) -> None:
    network, task = network_of(kind)
    attack, x = made(name, kind, norm=norm), inputs_of(task)
    y = labels_of(attack, network, x)
    width = (task.bounds[1] - task.bounds[0]) * (x[0].numel() ** 0.5 if norm == "l2" else 1.0)
    radii = width * torch.tensor([0.3, 0.1, 0.03, 0.01, 1e-4, 0.0], dtype=torch.float64)
    with untouched(network, x, y, radii):
        if name == "rate-gradient" and kind in ("outside", "snntorch"):
            with pytest.raises(npf.NoiseproofError, match=r"neurons|surrogate|spik"):
                attack(network, x, y, torch.Generator().manual_seed(0), eps=radii)
            return
        found = attack(network, x, y, torch.Generator().manual_seed(0), eps=radii)
    change = (found.x.double() - x.double()).flatten(1)
    size = change.norm(dim=1) if norm == "l2" else change.abs().amax(1)
    assert (size <= radii).all(), (size - radii).tolist()
    # these keep only what fools
    assert change[:4].any() or isinstance(attack, FAB | Members), "it moved nothing"
    assert task.bounds[0] <= float(found.x.min()) <= float(found.x.max()) <= task.bounds[1]
    if kind != "poisson":  # whose draws differ
        calls = labels_of(replace(FGSM()), network, found.x), labels_of(FGSM(), network, x) if y is None else y
        assert torch.equal(found.success, calls[0] != calls[1])


@every_attack
@pytest.mark.parametrize("kind", ["images", "poisson"])
def test_equal_generators_find_the_same(name: str, kind: str) -> None:
    network, task = network_of(kind)
    attack, x = made(name, kind, eps=0.02), inputs_of(task)
    y = labels_of(attack, network, x)
    first, again, other = (attack(network, x, y, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x)
    assert first.budget == again.budget
    if kind == "images":
        assert torch.equal(first.x, other.x) == (name == "fgsm") or bool(first.success.all())


@every_attack
def test_samples_that_are_wrong_stay_as_they_are(name: str) -> None:
    network, task = network_of("images")
    attack, x = made(name, "images", eps=0.05), inputs_of(task)
    y = labels_of(attack, network, x)
    if y is None:
        return  # without labels nothing is wrong
    y[::2] = (y[::2] + 1) % 4
    found = attack(network, x, y, torch.Generator().manual_seed(0))
    assert found.success[::2].all()
    assert torch.equal(found.x[::2], x[::2])
    assert found.budget.queries >= len(x)


@every_attack
def test_no_sample_is_no_work(name: str) -> None:
    network, task = network_of("images")
    attack, x = made(name, "images"), inputs_of(task)[:0]
    found = attack(network, x, torch.zeros(0, dtype=torch.int64) if attack.needs_labels else None, torch.Generator())
    assert found.x.shape == x.shape
    assert found.budget.gradient_evaluations == 0


@every_attack
def test_what_is_crafted_for_training_is_inside_too(name: str) -> None:
    network, task = network_of("images")
    attack, x = made(name, "images", eps=0.1), inputs_of(task)
    y, params = torch.arange(len(x)) % 4, dict(network.named_parameters())
    with untouched(network, x, y):
        if isinstance(attack, Members):
            with pytest.raises(npf.NoiseproofError, match="several members"):
                attack.craft(network, params, x, y, torch.Generator().manual_seed(0))
            return
        if isinstance(attack, Transfer | TunedSurrogate):
            return  # on networks of their own, with views of their own
        found = attack.craft(network, params, x, y, torch.Generator().manual_seed(0))
    assert ((found - x).abs() <= 0.1 + 1e-6).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad


@every_attack
def test_records_say_every_setting(name: str) -> None:
    attack = made(name, "images")
    said = attack.describe()
    assert said["name"] == name.partition(",")[0]
    assert {f.name for f in fields(attack)} - {"label", "identity"} <= said.keys()


@pytest.mark.parametrize(
    "attack",
    [
        *ATTACKS.values(),
        PGD(surrogate="atan", surrogate_settings=(2.0,)),
        PGD(surrogate="triangle", surrogate_settings=(0.3, 1.0)),
        Transfer(source="runs/one", attack='pgd(steps=5, surrogate=triangle, surrogate_settings="0.3 1.0")'),
        TunedSurrogate(rules=()),
    ],
)
def test_every_attack_is_read_as_it_is_spelled(attack: Attack) -> None:
    source = {"source": attack.source} if isinstance(attack, Transfer) else {}
    if source:  # records name a source, of which they hold no folder
        attack = replace(attack, label="one", identity="0")
    (again,) = spelled_attacks(spelled(attack), "attack")
    assert replace(again, **source, **({"label": "one", "identity": "0"} if source else {})) == attack


@every_attack
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 1.5}, r"eps is 1.5: the data runs from 0 to 1"),
        ({"eps": torch.tensor([0.1, 0.2])}, r"eps is \(2,\): give one number, or one a sample, \[6\]"),
        ({"x": 255 * inputs_of(STILL)}, r"x runs from 0 to 255 and the network's bounds are 0 to 1"),
        ({"x": inputs_of(STILL) + torch.nan}, r"x runs from nan"),
        ({"y": torch.zeros(3, dtype=torch.int64)}, r"y is \(3,\): give one class a sample"),
    ],
)
def test_what_does_not_fit_is_one_line(name: str, change: dict, message: str) -> None:
    network, task = network_of("images")
    attack, x = made(name, "images"), inputs_of(task)
    if "y" in change and not attack.needs_labels:
        return
    given = {"x": x, "y": labels_of(attack, network, x), "eps": None} | change
    with pytest.raises(npf.NoiseproofError, match=message) as error:
        attack(network, given["x"], given["y"], torch.Generator(), eps=given["eps"])
    assert "\n" not in str(error.value)


@every_attack
def test_labels_are_given_where_they_are_needed_and_only_there(name: str) -> None:
    network, task = network_of("images")
    attack, x = made(name, "images"), inputs_of(task)
    wrong, message = (None, "needs the right classes") if attack.needs_labels else (torch.zeros(6, dtype=torch.int64), "takes none")
    with pytest.raises(npf.NoiseproofError, match=message):
        attack(network, x, wrong, torch.Generator())


class Masked(nn.Module):
    """A network whose gradient is broken on purpose."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.out = how, nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = x.detach() if self.how == "cut" else (20 * x).round() / 20
        return self.out(seen.flatten(1))


@every_attack
@pytest.mark.parametrize(("how", "message"), [("cut", "no gradient to its input"), ("rounded", "zero for every sample")])
def test_a_network_without_gradients_is_not_called_robust(name: str, how: str, message: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, x = Masked(how), inputs_of(STILL)
    attack = made(name, "outside", eps=0.5)
    y = labels_of(attack, network, x)
    if name == "rate-gradient":
        return  # refuses it, as every network without spikes
    if isinstance(attack, GradientAttack | TunedSurrogate):
        with pytest.raises(npf.NoiseproofError, match=message):
            attack(network, x, y, torch.Generator().manual_seed(0))
        return
    blind = pytest.warns(UserWarning, match="no gradient says anything") if isinstance(attack, Members) else contextlib.nullcontext()
    with blind:
        found = attack(network, x, y, torch.Generator().manual_seed(0))
    assert bool(found.success.any()) or isinstance(attack, Transfer), "queries alone fool a linear network"
    assert not isinstance(attack, Members) or any(message in member.skipped for member in found.members)


class Steep(nn.Module):
    """A network whose gradient is not finite where the input is zero: √x, as in a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(36, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.sqrt().flatten(1) + 0 * (x - x).sqrt().flatten(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_gradients_that_are_not_finite_lead_nowhere(norm: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, x = Steep(), inputs_of(STILL)
    y = labels_of(FGSM(), network, x)
    with pytest.raises(npf.NoiseproofError, match="zero for every sample"):
        PGD(eps=0.3, norm=norm, steps=3)(network, x, y, torch.Generator().manual_seed(0))


def test_inputs_that_are_not_finite_are_an_error() -> None:
    class Astray(FGSM):
        def settle(self, found: Tensor, ball: object) -> Tensor:
            return found + torch.nan

    network, task = network_of("images")
    x = inputs_of(task)
    with pytest.raises(npf.NoiseproofError, match="inputs that are not finite"):
        Astray()(network, x, labels_of(FGSM(), network, x), torch.Generator())


def test_the_output_that_kl_leads_away_from_is_asked_for_once() -> None:
    network, task = network_of("images")
    x = inputs_of(task)
    found = PGD(eps=0.3, steps=10, loss="kl")(network, x, None, torch.Generator().manual_seed(0))
    assert found.success.any(), "nobody leaves"
    # as they were, what it gave then, as they became
    assert found.budget.queries == 3 * len(x)


@every_attack
def test_a_stochastic_network_without_draws_is_warned_of(name: str) -> None:
    network, task = network_of("poisson")
    attack, x = replace(made(name, "poisson"), eot=1), inputs_of(task)
    with pytest.warns(UserWarning, match="eot is 1"):
        attack(network, x, labels_of(attack, network, x), torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network, _ = network_of("images")
        attack = made(name, "images")
        attack(network, x, labels_of(attack, network, x), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attacks_find_what_a_trained_network_has(norm: str, digits: Splits) -> None:
    """Handwritten digits: each leaves no more than noise of the same size, and the attacks of several no more than each of theirs."""
    network = MLP(hidden=(32,)).build(digits.task, generator("weights", 0))
    npf.train(network, digits, epochs=10, batch_size=20, progress=False)
    x, y = digits.test.x, digits.test.y
    left = {}
    for name in ("random-noise", "fgsm", "pgd", "apgd", "fab", "square", "autoattack"):
        settings = {"steps": 20} if name in ("pgd", "apgd", "fab", "autoattack") else {"queries": 60} if name == "square" else {}
        attack = replace(ATTACKS[name], eps=0.06 if norm == "linf" else 0.8, norm=norm, **settings)
        left[name] = attack(network, x, y, torch.Generator().manual_seed(0)).accuracy
    clean = float((labels_of(FGSM(), network, x) == y).double().mean())
    assert clean > 0.75
    assert left["pgd"] < clean - 0.2, left
    assert all(left[name] <= left["random-noise"] for name in left), left
    assert left["autoattack"] <= min(left["apgd"], left["pgd"]) + 0.02, left


def test_a_network_that_takes_views_of_its_maps_is_attacked_too(digits: Splits) -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.out = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(4 * 13 * 13, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.conv(x).relu().view(len(x), -1))

    network, x, y = Viewing(), digits.test.x[:6], digits.test.y[:6]
    flattening = nn.Sequential(network.conv, nn.ReLU(), nn.Flatten(), network.out)
    found = [PGD(eps=0.05, steps=3)(module, x, y, torch.Generator().manual_seed(0)).x for module in (network, flattening)]
    assert torch.allclose(*found, atol=1e-5)


@pytest.mark.parametrize(("y", "message"), [(11, "classes from 11 to 11: the network has 0 to 9"), (-1, "classes from -1 to -1")])
def test_classes_that_the_network_does_not_have_are_refused(y: int, message: str, digits: Splits, mlp: nn.Module) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        PGD(eps=0.1, steps=1)(mlp, digits.test.x[:2], torch.tensor([y, y]), torch.Generator().manual_seed(0))
    with pytest.raises(npf.NoiseproofError, match="y is torch.float32: give classes as a tensor of whole numbers"):
        PGD(eps=0.1, steps=1)(mlp, digits.test.x[:2], torch.tensor([1.0, 2.0]), torch.Generator().manual_seed(0))
