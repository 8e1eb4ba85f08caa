import pytest
import torch
from torch.nn.functional import cross_entropy

import noiseproof as npf
from noiseproof.data import Splits
from noiseproof.methods import Context, WeightAdversary
from noiseproof.networks import MLP
from noiseproof.neurons.rates import RatePenalty
from noiseproof.randomness import generator


def network(digits: Splits) -> torch.nn.Module:
    return MLP(hidden=(30, 20), neuron="lif", steps=5, threshold=0.3).build(digits.task, generator("weights", 0))


def test_the_penalty_is_that_of_the_first_pass_and_has_its_gradient(digits: Splits) -> None:
    net, x, y = network(digits), digits.train.x[:8], digits.train.y[:8]
    run = net.run(x, record=("spikes",))
    expected = 1e-3 * sum((s.mean((0, 1)) - 0.01).square().sum() for s in run.traces["spikes"].values())
    method = WeightAdversary(steps=2)
    with RatePenalty(net, 1e-3, 0.01) as rates:
        for _ in range(2):  # it begins anew after every `take`
            method.loss(net, dict(net.named_parameters()), (x, y), Context(torch.Generator().manual_seed(0)))
            found = rates.take()
            assert torch.allclose(found, expected)
    one, other = (torch.autograd.grad(value, net.fc1.weight)[0] for value in (found, expected))
    assert one.any()
    assert torch.allclose(one, other)
    assert torch.isfinite(cross_entropy(net(x), y))


def test_passes_without_gradient_do_not_count_and_none_at_all_is_an_error(digits: Splits) -> None:
    net, x = network(digits), digits.train.x[:8]
    with RatePenalty(net, 1e-3, 0.01) as rates:
        with torch.no_grad():
            net(x[:1])
        with pytest.raises(npf.NoiseproofError, match="no spikes were seen in this step"):
            rates.take()
        net(x)
        assert rates.take().requires_grad


def test_training_with_it_brings_rates_down(digits: Splits) -> None:
    rates = []
    for weight in (0.0, 1.0):
        net = network(digits)
        npf.train(net, digits, epochs=4, batch_size=20, progress=False, rate_penalty=weight)
        spikes = net.run(digits.test.x, record=("spikes",)).traces["spikes"]
        rates.append(float(torch.cat([s.mean((0, 1)) for s in spikes.values()]).detach().mean()))
    assert rates[1] < 0.7 * rates[0]


def test_a_network_without_spikes_is_refused_before_any_work(digits: Splits) -> None:
    with pytest.raises(npf.NoiseproofError, match="rate_penalty is 0.1: the network has no spiking neurons"):
        npf.train(MLP().build(digits.task, generator("weights", 0)), digits, epochs=1, progress=False, rate_penalty=0.1)
