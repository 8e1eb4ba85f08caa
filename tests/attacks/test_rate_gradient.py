"""Gradients through firing rates: spikes stay exact, and the gradient is that of the rate as a function of the mean current."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseproof import networks
from noiseproof.attacks import PGD, RateGradient
from noiseproof.data import Splits
from noiseproof.errors import NoiseproofError
from noiseproof.neurons import ALIF, DLIF, IF, LIF, Neuron, Recurrent
from noiseproof.neurons.rate_rules import BPTR, RGA, RateRule, through_rates
from noiseproof.randomness import generator

LAYERS: list[Neuron] = [IF(), LIF(leak=0.8), LIF(leak=0.8, reset="hard", refractory=1), ALIF(threshold=0.3), DLIF(steps=8)]


def name(layer: Neuron) -> str:
    return f"{type(layer).__name__}-{layer.form.reset}"


@pytest.mark.parametrize("rule", [RGA(), BPTR()], ids=["rga", "bptr"])
@pytest.mark.parametrize("layer", LAYERS, ids=name)
def test_spikes_are_exactly_those_of_the_layer(layer: Neuron, rule: RateRule) -> None:
    current = torch.rand(8, 3, 5, generator=generator("test", 0))
    out = through_rates(layer, current, rule, steps=8)
    assert torch.equal(out.spikes, layer(current).spikes)
    assert torch.equal(out.state.v, layer(current).state.v)


@pytest.mark.parametrize("leak", [1.0, 0.8])
def test_rga_is_a_line_up_to_the_rheobase_and_one_up_to_the_highest_rate(leak: float) -> None:
    """The slopes of public implementations: γ below 1 − λ, (1 − γ + γλ)/(λ + 1) from there to 2, none outside."""
    drive = torch.tensor([-0.5, 0.5 * (1 - leak) + 1e-9, 0.7, 1.5, 2.5], dtype=torch.float64, requires_grad=True)
    rate = RGA(gamma=0.2).rate(drive, torch.tensor([leak], dtype=torch.float64), torch.zeros(()), 1.0)
    (slope,) = torch.autograd.grad(rate.sum(), drive)
    steep = (1 - 0.2 + 0.2 * leak) / (leak + 1)
    assert torch.allclose(slope, torch.tensor([0.0, 0.2 if leak < 1 else steep, steep, steep, 0.0], dtype=torch.float64))
    assert float(rate[-1].detach()) == pytest.approx(1.0)


def test_bptr_goes_straight_through_neurons_that_spiked() -> None:
    layer, current = IF(threshold=2.0), torch.tensor([[[0.1, 3.0]]]).repeat(4, 1, 1).requires_grad_()
    (slope,) = torch.autograd.grad(through_rates(layer, current, BPTR(), steps=4).spikes.sum(), current)
    # Σ_t s[t] = 4·f(mean current / θ)
    assert torch.allclose(slope, torch.tensor([0.0, 1 / 2.0]).expand(4, 1, 2))


def test_a_recurrent_layer_counts_its_own_spikes_in_the_mean_current() -> None:
    layer = Recurrent(LIF(leak=0.5), 6).double()
    current = torch.rand(5, 2, 6, generator=generator("test", 0), dtype=torch.float64).requires_grad_()
    out = through_rates(layer, current, RGA(), steps=5)
    (found,) = torch.autograd.grad(out.spikes.sum(), current)
    mean = (current + out.spikes.detach().mean(0) @ (layer.weight * layer.mask).mT).mean(0, keepdim=True)
    rate = RGA().rate(mean, torch.full((1, 1, 1), 0.5, dtype=torch.float64), torch.zeros(()), 1.0)
    (expected,) = torch.autograd.grad(5 * rate.sum(), current)
    assert torch.allclose(found, expected)


def by_hand(network: Any, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the right logit of two layers of IF neurons: W3·D2·W2·D1·W1, D = 1/2 where 0 < mean current < 2 thresholds."""
    first = network.fc1(network.normalise(x).flatten(1)).expand(8, -1, -1)
    second = network.fc2(network.if1(first).spikes)
    d1, d2 = (0.5 * ((mean > 0) & (mean < 2)) for mean in (first.mean(0), second.mean(0)))
    gradient = network.out.weight[y] * d2 @ network.fc2.weight * d1 @ network.fc1.weight
    return gradient.reshape(x.shape) / network.normalise.std


def test_the_gradient_of_a_network_is_the_product_of_its_layers(digits: Splits) -> None:
    network = networks.MLP(hidden=(20, 15), neuron="if", steps=8, readout="rate").build(digits.task, generator("weights", 0)).double()
    x, y = digits.test.x[:5].double().requires_grad_(), digits.test.y[:5]
    logits = network.run(x, surrogate=RGA()).logits
    assert torch.equal(logits, network(x))
    (found,) = torch.autograd.grad(logits.gather(1, y[:, None]).sum(), x)
    assert torch.allclose(found, by_hand(network, x.detach(), y), atol=1e-12)


@pytest.mark.parametrize("rule", ["rga", "bptr"])
def test_it_attacks_where_a_surrogate_is_masked(digits: Splits, rule: str) -> None:
    """A needle of a surrogate lets nothing through, and PGD finds little; rates do not ask for it."""
    masked = networks.MLP(hidden=(32,), neuron="lif", surrogate="rectangle", surrogate_settings=(1e-4,))
    network = masked.build(digits.task, generator("weights", 0))
    x, y = digits.test.x, network(digits.test.x).argmax(1)
    found = RateGradient(eps=0.1, steps=10, rule=rule)(network, x, y, generator("test", 0))  # type: ignore[arg-type]
    assert found.budget.zero_gradients == 0
    try:
        plain = PGD(eps=0.1, steps=10)(network, x, y, generator("test", 0)).accuracy
    except NoiseproofError:
        plain = 1.0
    assert found.accuracy < plain - 0.2


def test_networks_without_spikes_and_other_neurons_are_refused(digits: Splits, mlp: nn.Module) -> None:
    with pytest.raises(NoiseproofError, match="no spiking neurons"):
        RateGradient()(mlp, digits.test.x, digits.test.y, generator("test", 0))
    snn = pytest.importorskip("snntorch")
    outside = networks.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), snn.Leaky(0.9, init_hidden=True)), steps=3)
    with pytest.raises(NoiseproofError, match="need neurons of noiseproof"):
        RateGradient()(outside, digits.test.x, digits.test.y, generator("test", 0))
    with pytest.raises(NoiseproofError, match="leave it out, or take pgd"):
        RateGradient(surrogate="atan")
