"""Noise in one layer at a time, held against copies of the network; and chips of composed noises."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.data import Splits
from noiseproof.evaluation import Ledger, layer_sensitivity, monte_carlo
from noiseproof.evaluation.layers import in_layer, layers_of
from noiseproof.noise import PCM, BitErrors, Compose, Drift, Gaussian, Measured, Mismatch, Noise, Program, Read, Stuck
from noiseproof.parameters import parameters_of
from noiseproof.randomness import chip_generator


@dataclass(frozen=True)
class Rounding(Noise):
    """A noise without random numbers, for these tests."""

    step: float = 0.1
    deterministic = True

    def draw(self, theta: Tensor, stream: torch.Generator) -> Tensor:
        return (theta / self.step).round() * self.step


def by_hand(network: nn.Module, noise: Noise, data: Splits, layer: str, chips: int) -> list[float]:
    """Draw the chip with the noise in all layers, and copy that one layer's parameters into a copy of the network."""
    found = []
    for i in range(chips):
        twin = copy.deepcopy(network).eval()
        chip = noise({n: p.detach() for n, p in network.named_parameters()}, chip_generator(0, i))
        with torch.no_grad():
            for name, p in twin.named_parameters():
                if name.rpartition(".")[0] == layer:
                    p.copy_(chip[name])
            found.append((twin(data.test.x).argmax(-1) == data.test.y).double().mean().item())
    return found


@pytest.mark.parametrize(
    "noise",
    [
        Mismatch(zeta=1.0),
        Gaussian(std=0.2, parameters="all"),
        Compose((Rounding(), Mismatch(zeta=0.8))),
        PCM(time=3e7, parameters="all"),
        Compose((Rounding(), Program(), Drift(time=1e9), Read(gdc=False))),
    ],
)
def test_noise_in_one_layer_equals_a_copy_with_that_layer_changed(noise, cnn, digits) -> None:
    npf.train(cnn, digits, epochs=2, batch_size=20, progress=False)
    records = layer_sensitivity(cnn, digits.test, [noise], chips=3, processes=1)
    assert [r.perturbation["layer"] for r in records[::3]] == ["conv1", "conv2", "fc1", "fc2", "out"]
    assert [r.at["layer"] for r in records[::3]] == [0, 1, 2, 3, 4]
    for start in range(0, len(records), 3):
        plain = by_hand(cnn, noise, digits, records[start].perturbation["layer"], 3)
        # blocks round differently: at most one sample may lie on the border
        assert all(abs(r.value - p) <= 1.001 / len(digits.test) for r, p in zip(records[start : start + 3], plain, strict=True))
    assert len({r.value for r in records}) > 1


def test_layers_in_which_the_noise_selects_nothing_are_left_out(digits) -> None:
    network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=3).build(digits.task, chip_generator(0, 0))

    def layers(which: str) -> list[str]:
        return [
            r.perturbation["layer"] for r in layer_sensitivity(network, digits.test, [Mismatch(parameters=which)], chips=1, processes=1)
        ]

    assert layers("weights") == ["fc1", "out"]
    assert layers("all") == ["fc1", "lif1", "out"]
    # vectors stay digital, so that of the neurons nothing is left to programme, to drift and to read
    for noise in (PCM(parameters="all"), Compose((Program(parameters="all"), Drift(time=3600.0), Read()))):
        found = layer_sensitivity(network, digits.test, [noise], chips=1, processes=1)
        assert [r.perturbation["layer"] for r in found] == ["fc1", "out"]
    with pytest.raises(npf.NoiseproofError, match="parameters is 'conv"):
        layers("conv*")


def test_of_two_steps_of_one_name_each_keeps_its_chips_where_the_other_does_nothing(mlp) -> None:
    params = {name: p.detach() for name, p in mlp.named_parameters()}
    noise = Compose((Mismatch(zeta=0.3, parameters="fc1.weight"), Mismatch(zeta=0.3, parameters="out.weight")))
    whole = noise(params, chip_generator(0, 0))
    for layer in ("fc1", "out"):
        inside = in_layer(mlp, noise, layers_of(mlp)[layer])
        assert inside is not None
        assert torch.equal(inside(params, chip_generator(0, 0))[f"{layer}.weight"], whole[f"{layer}.weight"])


def test_measured_noise_acts_in_layers_that_have_parameters_of_a_measured_kind(digits) -> None:
    network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=3).build(digits.task, chip_generator(0, 0))
    noise = Measured(fits="threshold: zeta 0.2")
    found = layer_sensitivity(network, digits.test, [noise], chips=1, processes=1)
    assert [r.perturbation["layer"] for r in found] == ["lif1"]


def test_a_record_says_what_the_noise_acts_on_in_all_layers(mlp, digits) -> None:
    noises = [Mismatch(), Mismatch(parameters="all"), Compose((Mismatch(), Gaussian(parameters="all")))]
    found = layer_sensitivity(mlp, digits.test, noises, chips=1, processes=1)
    assert [r.perturbation.get("of") for r in found[:3]] == [None, "all", "weights > all"]


def test_an_outside_network_is_measured_whole(outside, digits) -> None:
    ledger = Ledger()
    records = layer_sensitivity(outside, digits.test, [Mismatch(zeta=2.0)], chips=2, processes=1, ledger=ledger)
    assert [r.perturbation["layer"] for r in records] == ["conv", "conv", "out", "out"]
    saved = len(ledger.records)
    again = layer_sensitivity(outside, digits.test, [Mismatch(zeta=2.0)], chips=2, ledger=ledger, measure=lambda _: iter(()))
    assert len(ledger.records) == saved
    assert again == records


def test_chips_that_are_all_alike_are_measured_once(mlp, digits) -> None:
    def chips(noise: Noise) -> int:
        return len(monte_carlo(mlp, digits.test, noise, chips=5, processes=1))

    assert chips(Rounding()) == 1
    assert chips(Compose((Rounding(), Mismatch(zeta=0.0)))) == 1
    assert chips(Compose((Rounding(), Mismatch(zeta=0.1)))) == 5
    # of an event so rare that the first chips are free of it, no chip is like all others
    assert chips(Stuck(stuck_at_zero=1e-9)) == chips(BitErrors(p=1e-9)) == 5


def test_a_composition_at_zero_is_not_the_network_as_it_is(mlp, digits) -> None:
    (record,) = monte_carlo(mlp, digits.test, Compose((Rounding(step=100.0), Mismatch(zeta=0.0))), chips=5, processes=1)
    zeroed = {name: torch.zeros_like(p) if p.ndim > 1 else p for name, p in parameters_of(mlp).items()}
    with torch.no_grad():
        expected = (torch.func.functional_call(mlp, zeroed, (digits.test.x,)).argmax(-1) == digits.test.y).double().mean().item()
    assert record.value == expected
