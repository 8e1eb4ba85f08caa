"""Surrogate gradients of outside networks: held against the same network of ours and against the libraries' own; no trace is left."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError
from noiseproof.networks import adapt
from noiseproof.neurons import LIF, Atan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Triangle
from noiseproof.neurons.rate_rules import RGA

T = 6


def dense() -> nn.Linear:
    layer = nn.Linear(5, 4)
    nn.init.normal_(layer.weight, std=0.7, generator=torch.Generator().manual_seed(0))
    nn.init.constant_(layer.bias, 0.3)
    return layer


def gradient(network: Any, x: Tensor, **options: Any) -> Tensor:
    """Return the gradient of the weighted spike counts to the input."""
    x = x.clone().requires_grad_()
    logits = network.run(x, **options).logits
    return torch.autograd.grad((logits * torch.arange(1.0, 5.0)).sum(), x)[0]


def ours(x: Tensor, surrogate: Surrogate, leak: float, threshold: float, *, reset: str = "soft", gain: float = 1.0) -> Tensor:
    """Return the same for the equation, by autograd."""
    x = x.clone().requires_grad_()
    layer = LIF(leak=leak, threshold=threshold, reset=reset, detach_reset=True, surrogate=surrogate)  # type: ignore[arg-type]
    spikes = layer(gain * dense()(x).expand(T, -1, -1)).spikes
    return torch.autograd.grad((spikes.sum(0) * torch.arange(1.0, 5.0)).sum(), x)[0]


def snntorch_like(**options: Any) -> nn.Module:
    snn = pytest.importorskip("snntorch")
    # its reset comes at the next step, by the threshold, and is detached
    return nn.Sequential(dense(), snn.Leaky(beta=0.8, threshold=0.7, init_hidden=True, **options))


def spikingjelly_like(**options: Any) -> nn.Module:
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    return nn.Sequential(dense(), neuron.LIFNode(tau=2.0, v_threshold=0.7, v_reset=None, decay_input=False, detach_reset=True, **options))


def sinabs_like(**options: Any) -> nn.Module:
    layers = pytest.importorskip("sinabs.layers")
    activation = pytest.importorskip("sinabs.activation")
    return nn.Sequential(dense(), layers.IAF(spike_threshold=0.7, spike_fn=activation.SingleSpike, **options))


X = torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
SURROGATES = [Triangle(0.5, 2.0), Atan(2.0), Sigmoid(4.0), FastSigmoid(3.0), Rectangle(1.5)]


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_spikingjelly_with_our_surrogate_is_our_network(surrogate: Surrogate) -> None:
    network = adapt(spikingjelly_like(), steps=T)
    found = gradient(network, X, surrogate=surrogate)
    assert found.abs().sum() > 0
    assert torch.allclose(found, ours(X, surrogate, 0.5, 0.7), atol=1e-6)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda s: type(s).__name__)
def test_snntorch_with_our_surrogate_is_our_network(surrogate: Surrogate) -> None:
    network = adapt(snntorch_like(), steps=T)
    found = gradient(network, X, surrogate=surrogate)
    assert found.abs().sum() > 0
    x = X.clone().requires_grad_()
    v, s, total = torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(3, 4)
    for _ in range(T):  # U[t+1] = β·U[t] + I − R·θ, as the library states it
        v = 0.8 * v + dense()(x) - 0.7 * s.detach()
        soft = surrogate.primitive((v - 0.7) / 0.7)
        s = (v > 0.7).float() + (soft - soft.detach())
        total = total + s
    (expected,) = torch.autograd.grad((total * torch.arange(1.0, 5.0)).sum(), x)
    assert torch.allclose(found, expected, atol=1e-6)


def test_our_surrogates_are_the_libraries_own_where_these_have_the_same() -> None:
    pytest.importorskip("snntorch")
    from snntorch import surrogate as snntorch_own

    theirs = gradient(adapt(snntorch_like(spike_grad=snntorch_own.fast_sigmoid(slope=4)), steps=T), X)
    # in units of the threshold the slope is α/θ, and the derivative has 1/θ before it
    assert torch.allclose(theirs, 0.7 * gradient(adapt(snntorch_like(), steps=T), X, surrogate=FastSigmoid(4.0 * 0.7)), atol=1e-6)
    jelly = pytest.importorskip("spikingjelly.activation_based.surrogate")
    theirs = gradient(adapt(spikingjelly_like(surrogate_function=jelly.Sigmoid(alpha=3.0)), steps=T), X)
    assert torch.allclose(theirs, gradient(adapt(spikingjelly_like(), steps=T), X, surrogate=Sigmoid(3.0 * 0.7)), atol=1e-6)


def test_sinabs_with_our_surrogate_is_the_same_as_with_a_function_of_its_own() -> None:
    def window(v: Tensor, threshold: float) -> Tensor:
        return ((v - threshold).abs() < 0.5 * 1.5 * threshold).float() / (1.5 * threshold)

    theirs = gradient(adapt(sinabs_like(surrogate_grad_fn=window), steps=T), X)
    found = gradient(adapt(sinabs_like(), steps=T), X, surrogate=Rectangle(1.5))
    assert theirs.abs().sum() > 0
    assert torch.allclose(found, theirs, atol=1e-6)


@pytest.mark.parametrize("make", [snntorch_like, spikingjelly_like, sinabs_like])
def test_values_are_the_same_and_nothing_is_left_behind(make: Any) -> None:
    network: Any = adapt(make(), steps=T)
    before = [{**vars(module), "_modules": dict(module._modules)} for module in network.modules()]
    clean = network(X)
    assert torch.equal(network.run(X, surrogate=Atan(3.0)).logits, clean)
    with pytest.raises(NoiseproofError):
        network.run(X[:, None, :].expand(3, 2, 5), surrogate=Atan(3.0))
    after = [{**vars(module), "_modules": dict(module._modules)} for module in network.modules()]
    for then, now in zip(before, after, strict=True):
        assert then.keys() == now.keys()
        assert all(now[key] is value for key, value in then.items() if key in ("spike_grad", "surrogate_function", "surrogate_grad_fn"))
        assert then["_modules"] == now["_modules"]
    assert torch.equal(network(X), clean)


def test_where_it_cannot_be_done_it_is_refused() -> None:
    norse = pytest.importorskip("norse.torch")
    network: Any = adapt(norse.SequentialState(dense(), norse.LIFCell()), steps=T)
    with pytest.raises(NoiseproofError, match="Norse, LIFCell.* takes none from outside"):
        network.run(X, surrogate=Atan())
    with pytest.raises(NoiseproofError, match="no spiking neurons"):
        adapt(dense()).run(X, surrogate=Atan())  # type: ignore[operator]
    with pytest.raises(NoiseproofError, match="need neurons of noiseproof"):
        adapt(snntorch_like(), steps=T).run(X, surrogate=RGA())  # type: ignore[operator]
