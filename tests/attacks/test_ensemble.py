"""Attacks of several: the worst case per sample, its budget, what is left out and said; and stochastic networks."""

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import APGD, PGD, Attack, Ensemble, Members, RandomNoise, RateGradient, Square, TunedSurrogate
from noiseproof.attacks._ball import Ball
from noiseproof.attacks._view import View
from noiseproof.attacks.tuned_surrogate import sharp
from noiseproof.data import Split, Splits
from noiseproof.errors import NoiseproofError
from noiseproof.networks import UnderNoise
from noiseproof.neurons.surrogates import SURROGATES
from noiseproof.randomness import generator

SMALL: dict[str, Any] = {"steps": 6, "screening": 2, "queries": 20, "draws": 4}


def trained(data: Splits, **settings: Any) -> nn.Module:
    network = npf.networks.MLP(**{"hidden": (64,), "neuron": "lif", "steps": 4, **settings}).build(data.task, generator("weights", 0))
    npf.train(network, data, epochs=6, batch_size=20, learning_rate=3e-3, progress=False)
    return network


@pytest.fixture(scope="module")
def data(digits: Splits) -> Splits:
    """The same digits, fewer of them for the test."""
    return replace(digits, test=Split(digits.test.x[:50], digits.test.y[:50]))


@pytest.fixture(scope="module")
def spiking(data: Splits) -> nn.Module:
    return trained(data)


@dataclass(frozen=True)
class Several(Members):
    """Whatever attacks it is given."""

    of: tuple[Attack, ...] = ()

    def members(self, network: nn.Module) -> tuple[Attack, ...]:
        return self.of


@dataclass(frozen=True)
class Failing(Attack):
    """An attack that finds a setting wrong while it searches."""

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        raise NoiseproofError("loss is 'hinge': give ce")


class Noisy(nn.Module):
    """A network with noise in its hidden layer, drawn anew at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(784, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.hidden(x.flatten(1)).relu()
        return self.out(hidden + 1.5 * torch.randn_like(hidden))


def attacked(attack: Attack, network: nn.Module, data: Splits, **options: Any) -> Any:
    return attack(network, data.test.x, data.test.y, generator("test", 0), **options)


def test_it_leaves_at_most_what_single_attacks_leave(spiking: nn.Module, data: Splits) -> None:
    left = attacked(Ensemble(eps=0.05, **SMALL), spiking, data).accuracy
    singles = [
        PGD(eps=0.05, steps=20), APGD(eps=0.05, steps=6), RateGradient(eps=0.05, rule="bptr"), Square(eps=0.05, queries=20),
        RandomNoise(eps=0.05, draws=4),
    ]  # fmt: skip
    alone = [attacked(attack, spiking, data).accuracy for attack in singles]
    assert left <= min(alone)
    assert left < alone[0]


def test_members_run_on_survivors_and_say_what_they_cost(spiking: nn.Module, data: Splits) -> None:
    found = attacked(Ensemble(eps=0.05, **SMALL), spiking, data)
    surviving = [member.surviving for member in found.members]
    assert surviving == sorted(surviving, reverse=True)
    assert surviving[-1] == round(found.accuracy * len(data.test.x))
    for member, before in zip(found.members[1:], surviving, strict=False):
        if isinstance(member.attack, PGD):
            assert member.budget.gradient_evaluations <= SMALL["steps"] * before
    # beside the members the whole asks about the inputs as they were and as they became
    asked = sum(member.budget.queries for member in found.members)
    right = round(float((spiking(data.test.x).argmax(1) == data.test.y).sum()))
    assert found.budget.queries == asked + len(data.test.x) + right
    assert found.budget.gradient_evaluations == sum(member.budget.gradient_evaluations for member in found.members)
    names = [member.attack.describe()["name"] for member in found.members]
    assert names[0] == "random-noise"
    assert names[-2:] == ["tuned-surrogate", "square"]


def test_epsilon_of_every_sample_holds_and_equal_seeds_give_equal_inputs(spiking: nn.Module, data: Splits) -> None:
    before, mode = copy.deepcopy(spiking.state_dict()), spiking.training
    radii = torch.linspace(0, 0.1, len(data.test.x), dtype=torch.float64)
    found, again = (attacked(Ensemble(**SMALL), spiking, data, eps=radii) for _ in range(2))
    change = (found.x.double() - data.test.x.double()).abs().flatten(1).amax(1)
    assert bool((change <= radii).all())
    assert torch.equal(found.x, again.x)
    assert spiking.training == mode
    assert all(torch.equal(value, spiking.state_dict()[name]) for name, value in before.items())


def test_plain_networks_have_no_members_for_spikes(data: Splits, mlp: nn.Module, spiking: nn.Module) -> None:
    def kinds(network: nn.Module) -> set[str]:
        return {member.describe()["name"] for member in Ensemble(source=mlp).members(network)}

    assert kinds(spiking) - kinds(mlp) == {"rate-gradient", "tuned-surrogate"}
    assert kinds(mlp) == {"random-noise", "pgd", "transfer", "apgd", "square"}
    npf.train(mlp, data, epochs=3, progress=False)
    assert attacked(Ensemble(eps=0.05, **SMALL), mlp, data).accuracy <= attacked(APGD(eps=0.05, steps=8), mlp, data).accuracy


def test_a_member_that_cannot_be_used_is_left_out_and_says_why(data: Splits, mlp: nn.Module) -> None:
    x, y = data.test.x, mlp(data.test.x).argmax(1)
    members = (RateGradient(eps=0.1), PGD(eps=0.1, surrogate="atan"), RandomNoise(eps=0.1))
    with pytest.warns(UserWarning, match="no gradient says anything about this network"):
        found = Several(eps=0.1, of=members)(mlp, x, y, generator("test", 0))
    assert ["no spiking neurons" in member.skipped for member in found.members] == [True, True, False]
    assert [member.surviving for member in found.members[:2]] == [50, 50]
    with pytest.raises(NoiseproofError, match="no attack can be used on this network; the first said: surrogate is RGA"):
        Several(of=members[:2])(mlp, x, y, generator("test", 0))
    # other errors are no reason to leave a member out
    with pytest.raises(NoiseproofError, match="loss is"):
        Several(of=(RandomNoise(), Failing()))(mlp, x, y, generator("test", 0))
    with pytest.raises(NoiseproofError, match="no single perturbation"):
        Ensemble().craft(mlp, dict(mlp.named_parameters()), x, y, generator("test", 0))


def test_a_network_without_gradient_is_left_to_the_black_boxes(data: Splits, mlp: nn.Module) -> None:
    class Rounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = mlp

        def forward(self, x: Tensor) -> Tensor:
            return self.inside((x * 16).round().detach() / 16)

    network = Rounded()
    x, y = data.test.x, network(data.test.x).argmax(1)
    with pytest.warns(UserWarning, match="what is left is what queries leave"):
        found = Ensemble(eps=0.1, **SMALL)(network, x, y, generator("test", 0))
    said = {member.attack.describe()["name"]: member.skipped for member in found.members}
    assert "no gradient to its input" in said["pgd"]
    assert said["square"] == said["random-noise"] == ""
    assert found.accuracy < 1


def test_outside_spiking_networks_have_what_can_be_done_there(data: Splits) -> None:
    snn = pytest.importorskip("snntorch")
    torch.manual_seed(0)
    network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), snn.Leaky(0.9, init_hidden=True)), steps=3)
    x, y = data.test.x[:30], network(data.test.x[:30]).argmax(1)
    found = Ensemble(eps=0.05, **SMALL)(network, x, y, generator("test", 0))
    said = {member.attack.describe()["name"]: member.skipped for member in found.members}
    assert "need neurons of noiseproof" in said["rate-gradient"]
    assert said["tuned-surrogate"] == ""


def test_a_masked_surrogate_is_replaced_sample_by_sample(data: Splits, spiking: nn.Module) -> None:
    """The same weights with a needle for a surrogate: PGD says nothing any more, the tuned attack as much as before."""
    needle = npf.networks.MLP(hidden=(64,), neuron="lif", steps=4, surrogate="rectangle", surrogate_settings=(1e-5,))
    masked = needle.build(data.task, generator("weights", 0))
    masked.load_state_dict(spiking.state_dict())
    tuned = TunedSurrogate(eps=0.05, steps=8)
    assert attacked(tuned, masked, data).accuracy <= attacked(PGD(eps=0.05), spiking, data).accuracy
    with pytest.raises(NoiseproofError, match="zero for every sample"):
        attacked(PGD(eps=0.05), masked, data)


@pytest.mark.parametrize("shape", SURROGATES)
def test_sharpness_is_the_inverse_of_the_width_at_half_height(shape: str) -> None:
    z = torch.tensor([0.0, 0.5 / 3 * 0.999, 0.5 / 3 * 1.001], dtype=torch.float64)
    peak, inside, outside = sharp(shape, 3.0).derivative(z).tolist()
    assert outside < 0.5 * peak <= inside * 1.0001


def test_bad_settings_are_refused() -> None:
    with pytest.raises(NoiseproofError, match="shapes is 'box'"):
        TunedSurrogate(shapes=("box",))
    with pytest.raises(NoiseproofError, match="rule is 'rgb': did you mean 'rga'"):
        TunedSurrogate(rules=("rgb",))
    with pytest.raises(NoiseproofError, match="sharpness is 0"):
        TunedSurrogate(sharpness=(0.0,))
    with pytest.raises(NoiseproofError, match="queries is 0"):
        Ensemble(queries=0)


class TestStochastic:
    """Networks of chance: one draw is warned of, several are averaged."""

    def test_one_draw_is_warned_of_and_deterministic_networks_are_not(self, data: Splits, spiking: nn.Module) -> None:
        noisy = UnderNoise(spiking, npf.noise.Mismatch(0.2))
        with pytest.warns(UserWarning, match="stochastic .* and eot is 1"):
            attacked(PGD(eps=0.05, steps=2), noisy, data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            attacked(PGD(eps=0.05, steps=2, eot=2), noisy, data)
            attacked(PGD(eps=0.05, steps=2), spiking, data)

    @pytest.fixture(scope="class")
    def noisy(self, data: Splits) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = Noisy()
            optimizer = torch.optim.Adam(network.parameters(), 1e-2)
            for _ in range(100):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(data.train.x), data.train.y).backward()
                optimizer.step()
        return npf.adapt(network)

    @pytest.mark.filterwarnings("ignore:the network is stochastic")
    @pytest.mark.parametrize("eot", [1, 2])
    def test_a_lucky_draw_ends_no_search(self, data: Splits, noisy: nn.Module, eot: int) -> None:
        for attack in (PGD(eps=0.05, steps=10, eot=eot), APGD(eps=0.05, steps=10, eot=eot)):
            found, through = attacked(attack, noisy, data), attacked(replace(attack, survivors_only=False), noisy, data)
            assert torch.equal(found.x, through.x)
        right = round(attacked(RandomNoise(eps=0.0, eot=eot), noisy, data).accuracy * len(data.test.x))
        square = attacked(Square(eps=0.05, queries=20, eot=eot), noisy, data).budget.queries
        assert square >= 20 * eot * 0.9 * right

    @pytest.mark.filterwarnings("ignore:the network is stochastic")
    def test_no_member_leaves_fewer_than_the_whole(self, data: Splits, noisy: nn.Module) -> None:
        for seed in range(4):
            found = Ensemble(eps=0.05, **SMALL)(noisy, data.test.x, data.test.y, generator("test", seed))
            surviving = [member.surviving for member in found.members]
            assert surviving == sorted(surviving, reverse=True)
            assert surviving[-1] >= round(found.accuracy * len(data.test.x))

    @pytest.mark.filterwarnings("ignore:the network is stochastic")
    def test_more_steps_find_no_less(self, data: Splits, noisy: nn.Module) -> None:
        one, twenty, whole = (
            sum(attack(noisy, data.test.x, data.test.y, generator("test", seed)).accuracy for seed in range(4)) / 4
            for attack in (PGD(eps=0.05, steps=1), PGD(eps=0.05, steps=20), Ensemble(eps=0.05, **SMALL))
        )
        assert twenty <= one + 0.05
        assert whole <= twenty + 0.05

    def test_dropout_that_an_outside_module_leaves_on_is_noticed(self, data: Splits) -> None:
        class Dropping(nn.Sequential):
            def forward(self, input: Tensor) -> Tensor:
                return nn.functional.dropout(super().forward(input), 0.5, training=True)

        torch.manual_seed(0)
        network = Dropping(nn.Flatten(), nn.Linear(784, 10))
        with pytest.warns(UserWarning, match="eot is 1"):
            attacked(PGD(eps=0.05, steps=2), network, data)

    def test_the_gradient_under_read_noise_is_the_mean_over_chips(self, data: Splits, mlp: nn.Module) -> None:
        from noiseproof.attacks._view import viewed
        from noiseproof.randomness import stochastic

        noise = npf.noise.Mismatch(0.2)
        x = data.test.x[:4].clone().requires_grad_()
        expected = torch.zeros_like(x)
        for draw in range(3):
            with stochastic(7, draw):
                chip = noise(dict(mlp.named_parameters()), generator("coding", 7, draw))
            expected += torch.autograd.grad(torch.func.functional_call(mlp, chip, (x,))[:, 0].sum(), x)[0] / 3
        with viewed(UnderNoise(mlp, noise), eot=3, seed=7) as view:
            assert torch.allclose(view.gradient(x.detach(), lambda logits: logits[:, 0]).gradient, expected, atol=1e-6)
        with pytest.raises(NoiseproofError, match="every pass draws a chip"):
            UnderNoise(mlp, noise)(x)

    def test_a_held_chip_of_memory_devices_is_read_anew(self, data: Splits, mlp: nn.Module) -> None:
        pcm = npf.noise.PCM(time=3600.0, adc_bits=8)
        found = attacked(Ensemble(eps=0.1, eot=2, steps=2, screening=1, queries=4, draws=2), UnderNoise(mlp, pcm), data)
        assert found.budget.gradient_evaluations % 2 == 0
        assert found.members[-1].skipped == ""

    def test_poisson_coding_by_draws_and_by_its_expected_input(self, data: Splits) -> None:
        network = trained(data, coding="poisson", steps=8, surrogate="atan")
        clean = attacked(RandomNoise(eps=0.0, eot=8), network, data).accuracy
        draws = attacked(PGD(eps=0.2, steps=5, eot=8), network, data)
        expected = attacked(PGD(eps=0.2, steps=5, eot=8, expected=True, survivors_only=False), network, data)
        assert max(draws.accuracy, expected.accuracy) < clean - 0.3
        # spikes decide, which differ from draw to draw, so that no sample leaves
        for attack in (PGD(eps=0.2, steps=5, eot=8, expected=True), APGD(eps=0.2, steps=5, eot=8, expected=True)):
            found, through = attacked(attack, network, data), attacked(replace(attack, survivors_only=False), network, data)
            assert torch.equal(found.x, through.x)
        assert any(getattr(member, "expected", False) for member in Ensemble(eot=4).members(network))
        with pytest.raises(NoiseproofError, match="expected is True"):
            attacked(PGD(expected=True), trained(data, hidden=(8,)), data)
