"""A network at other parameters is a function call, and the network stays as it is, under however many names its parts stand."""

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.parameters import call_inference, functional_call, parameters_of


class TwoNames(nn.Module):
    """One layer under two names, and one parameter in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.again, self.list = self.first, nn.ModuleList([self.norm])
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.list[0](self.again(self.first(x))).relu())


def by_hand(network: TwoNames, params: dict[str, Tensor], x: Tensor) -> Tensor:
    weight, bias = params["first.weight"], params["first.bias"]
    a = nn.functional.linear(nn.functional.linear(x, weight, bias), weight, bias)
    norm = network.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    a = (a - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * params["norm.weight"] + params["norm.bias"]
    return nn.functional.linear(a.relu(), weight)


def test_a_layer_of_two_names_is_put_back() -> None:
    torch.manual_seed(0)
    network, x = TwoNames().eval(), torch.rand(4, 6)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    own = dict(network.named_parameters())
    params = {name: p.detach() * 1.5 + 0.1 for name, p in own.items()}
    assert torch.allclose(call_inference(network, params, x), by_hand(network, params, x), atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(found is own[name] for name, found in network.named_parameters())
    assert network.again.weight is network.first.weight is network.tied.weight


def test_gradients_and_batches_of_parameters_reach_a_layer_of_two_names() -> None:
    torch.manual_seed(1)
    network, x = TwoNames().eval(), torch.rand(4, 6)
    params = {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}
    found, wanted = (
        torch.autograd.grad(run.square().sum(), params["first.weight"])[0]
        for run in (functional_call(network, params, (x,)), by_hand(network, params, x))
    )
    assert torch.allclose(found, wanted, atol=1e-4)
    stacked = {name: torch.stack([p.detach(), p.detach() + 1]) for name, p in params.items()}
    both = torch.vmap(lambda chip: functional_call(network, chip, (x,)))(stacked)
    for i in range(2):
        assert torch.allclose(both[i], by_hand(network, {name: p[i] for name, p in stacked.items()}, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("measure", ["chips", "attack", "per sample"])
def test_measurements_leave_a_layer_of_two_names_as_it_was(measure: str) -> None:
    torch.manual_seed(2)
    data = npf.data.load("digits", limit_test=20)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 6), TwoNames(), nn.Linear(6, 10)).eval()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    if measure == "chips":
        npf.evaluate(network, data, noise=[npf.noise.Mismatch(0.3)], chips=3, processes=1, progress=False)
    elif measure == "attack":
        batches = [(data.test.x, data.test.y)]
        npf.attacks.WeightAttack(zeta=0.1, steps=2)(npf.adapt(network), parameters_of(npf.adapt(network)), batches, torch.Generator())
    else:
        npf.attacks.PerSampleWeightAttack(z=0.1, steps=2)(network, data.test.x, data.test.y, torch.Generator())
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
