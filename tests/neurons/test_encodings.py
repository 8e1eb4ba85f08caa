import pytest
import torch

import noiseproof as npf
from noiseproof.neurons import direct, latency, poisson


def test_direct_shares_memory() -> None:
    x = torch.rand(2, 3)
    assert direct(x, 4).shape == (4, 2, 3)
    assert direct(x, 4).data_ptr() == x.data_ptr()


def test_poisson_has_its_rate_and_needs_its_generator() -> None:
    x = torch.rand(20, 30)
    spikes = poisson(x, 2000, torch.Generator().manual_seed(0))
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert (spikes.mean(0) - x).abs().max() < 0.06
    again = poisson(x, 2000, torch.Generator().manual_seed(0))
    assert torch.equal(spikes, again)
    with pytest.raises(npf.NoiseproofError, match="generator is None"):
        poisson(x, 3, None)


@pytest.mark.parametrize("gradient", ["straight-through", "expected"])
def test_both_gradients_of_poisson_are_those_of_the_rate(gradient: str) -> None:
    x = torch.rand(5, requires_grad=True)
    weights = torch.randn(7, 5)
    spikes = poisson(x, 7, torch.Generator().manual_seed(0), gradient=gradient)
    (found,) = torch.autograd.grad((spikes * weights).sum(), x)
    assert torch.allclose(found, weights.sum(0))


def test_latency_is_one_spike_the_earlier_the_larger() -> None:
    x = torch.linspace(0, 1, 11)[None]
    spikes = latency(x, 6)
    assert spikes.sum(0).tolist() == [[0.0] + [1.0] * 10]
    when = (spikes[:, 0, 1:] * torch.arange(6)[:, None]).sum(0)
    assert (when.diff() <= 0).all()
    assert (when[-1], when[0]) == (0, 5) or when[0] >= 4
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(latency(x, 6).sum(), x)
    assert gradient.tolist() == [[0.0] + [1.0] * 10]


@pytest.mark.parametrize("encode", [lambda x: poisson(x, 3, torch.Generator()), lambda x: latency(x, 3)])
def test_values_outside_the_unit_interval_are_named(encode) -> None:
    for x in (torch.tensor([[-0.5, 0.2]]), torch.tensor([[0.5, 3.0]]), torch.tensor([[float("nan"), 0.0]])):
        with pytest.raises(npf.NoiseproofError, match=r"inputs in \[0, 1\]"):
            encode(x)
    with pytest.raises(npf.NoiseproofError, match="steps is 0"):
        direct(torch.rand(2), 0)
