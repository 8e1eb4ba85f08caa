"""The loss of weight-adversary against a plain reading of Algorithm 1, differentiated by autograd through every step of the attack."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

from noiseproof.attacks.ascent import Box, start_near
from noiseproof.methods import Context, WeightAdversary
from noiseproof.parameters import call_compared, call_inference
from noiseproof.randomness import children


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    with torch.no_grad():
        network[0].weight[0, :3] = 0.0  # zero weights: |θ| has no derivative there
        network[2].bias[1] = 0.0
    return network


def plain_loss(network: nn.Module, method: WeightAdversary, batch, generator: torch.Generator) -> torch.Tensor:
    """Algorithm 1 in the coordinates of θ, nothing held constant but the signs and the random numbers."""
    x, y = batch
    theta = dict(network.named_parameters())
    sign = {name: p.detach().sign() for name, p in theta.items()}  # d|θ|/dθ, 0 at 0
    radius = {name: method.zeta_attack * sign[name] * p + method.zeta_const for name, p in theta.items()}
    relative = start_near(
        Box(), {n: r.detach() for n, r in radius.items()}, method.zeta_attack, method.initial_std, children(generator, list(theta))
    )
    log_p = torch.func.functional_call(network, theta, (x,)).log_softmax(-1)
    star = {name: p + relative[name] * radius[name] for name, p in theta.items()}
    for _ in range(method.steps):
        log_q = torch.func.functional_call(network, star, (x,)).log_softmax(-1)
        kl = kl_div(log_q, log_p.detach(), log_target=True, reduction="batchmean")
        gradients = torch.autograd.grad(kl, list(star.values()), retain_graph=True)
        for (name, p), g in zip(theta.items(), gradients, strict=True):
            moved = star[name] + radius[name] / method.steps * g.sign().detach()
            star[name] = torch.maximum(torch.minimum(moved, p + radius[name]), p - radius[name])
    log_q = torch.func.functional_call(network, star, (x,)).log_softmax(-1)
    return cross_entropy(torch.func.functional_call(network, theta, (x,)), y) + method.beta_rob * kl_div(
        log_q, log_p, log_target=True, reduction="batchmean"
    )


@pytest.mark.parametrize("zeta_const", [0.0, 0.02])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_gradient_is_autograd_through_the_whole_attack(steps: int, zeta_const: float) -> None:
    network = small_network()
    method = WeightAdversary(beta_rob=2.0, zeta_attack=0.2, steps=steps, zeta_const=zeta_const, parameters="all")
    batch = (torch.randn(16, 6, dtype=torch.float64), torch.randint(0, 4, (16,)))
    params = dict(network.named_parameters())

    ours = method.loss(network, params, batch, Context(torch.Generator().manual_seed(3)))
    plain = plain_loss(network, method, batch, torch.Generator().manual_seed(3))
    assert ours.item() == pytest.approx(plain.item(), abs=1e-12)

    expected = torch.autograd.grad(plain, list(params.values()))
    found = torch.autograd.grad(ours, list(params.values()))
    for name, e, f in zip(params, expected, found, strict=True):
        # minimum and maximum share the gradient of a tie among their arguments: where r = 0 both are θ, and the derivative is 1
        tie = (params[name] == 0) & (zeta_const == 0)
        assert torch.allclose(f[~tie], e[~tie], rtol=0, atol=1e-10), name


def test_constant_perturbation_has_jacobian_one() -> None:
    network = small_network()
    method = WeightAdversary(steps=2, zeta_attack=0.2, constant_perturbation=True, parameters="all", beta_rob=1.0)
    batch = (torch.randn(16, 6, dtype=torch.float64), torch.randint(0, 4, (16,)))
    params = dict(network.named_parameters())
    delta = method.attack.search(
        network,
        params,
        [(batch[0], None)],
        [call_inference(network, params, batch[0]).log_softmax(-1).detach()],
        torch.Generator().manual_seed(3),
    )
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    star = {name: (p + delta[name] * method.zeta_attack * params[name].abs()).detach().requires_grad_() for name, p in params.items()}
    x, y = batch
    log_p = call_inference(network, leaves, x).log_softmax(-1)
    log_q = call_inference(network, star, x).log_softmax(-1)
    loss = cross_entropy(call_inference(network, leaves, x), y) + kl_div(log_q, log_p, log_target=True, reduction="batchmean")
    at_theta, at_star = (torch.autograd.grad(loss, list(p.values()), retain_graph=True) for p in (leaves, star))

    ours = torch.autograd.grad(method.loss(network, params, batch, Context(torch.Generator().manual_seed(3))), list(params.values()))
    for found, a, b in zip(ours, at_theta, at_star, strict=True):
        assert torch.allclose(found, a + b, rtol=0, atol=1e-10)


def test_warm_up_reaches_beta_rob() -> None:
    method = WeightAdversary(beta_rob=0.4, warmup=3)
    generator = torch.Generator()
    assert [method.beta_at(Context(generator, epoch=e)) for e in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_what_is_compared_has_the_statistics_of_the_batch_and_no_dropout() -> None:
    """In training: batch norm as in training, its statistics kept, dropout off; in inference: inference."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    x, params = torch.randn(16, 4), dict(network.named_parameters())
    before = {name: b.clone() for name, b in network.named_buffers()}
    hidden = network[0](x)
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    assert torch.allclose(call_compared(network, params, x), network[3](normal), atol=1e-5)
    assert all(torch.equal(b, before[name]) for name, b in network.named_buffers())
    assert all(module.training for module in network.modules())
    network.eval()
    assert torch.equal(call_compared(network, params, x), network(x))


def test_the_penalty_cannot_be_made_small_by_statistics_that_lag_behind() -> None:
    """Before batch norm the scale of the weights says nothing; with running statistics small weights would make the KL vanish."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    x, y = torch.randn(32, 4).double(), torch.randint(0, 3, (32,))
    params = {name: p.detach() for name, p in network.named_parameters()}
    method = WeightAdversary(beta_rob=1.0, zeta_attack=0.2, steps=3)

    def penalty(scale: float) -> float:
        at = params | {"0.weight": scale * params["0.weight"]}
        context = Context(torch.Generator().manual_seed(0))
        with torch.no_grad():
            task = cross_entropy(call_compared(network, at, x), y)
        return float(method.loss(network, at, (x, y), context) - task)

    assert penalty(1.0) > 0.01
    assert penalty(0.1) == pytest.approx(penalty(1.0), rel=0.05)


@pytest.mark.parametrize("eta", [0.0, 0.1])
@pytest.mark.parametrize("layer", [nn.Tanh, lambda: nn.BatchNorm1d(8), lambda: nn.Dropout(0.5)])
def test_the_passes_that_are_counted_are_made(layer, eta: float) -> None:
    network = nn.Sequential(nn.Linear(6, 8), layer(), nn.Linear(8, 4))
    passes = []
    network.register_forward_hook(lambda *_: passes.append(1))
    method = WeightAdversary(steps=3, eta=eta)
    batch = (torch.randn(10, 6), torch.randint(4, (10,)))
    method.loss(network, dict(network.named_parameters()), batch, Context(torch.Generator().manual_seed(0)))
    assert len(passes) == method.gradient_evaluations_on(network)
