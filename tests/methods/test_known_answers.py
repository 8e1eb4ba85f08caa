"""Every method does what its paper says, on problems with a known answer."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiseproof as npf
from noiseproof.attacks import PGD
from noiseproof.attacks.ascent import displace, radii
from noiseproof.data import Splits
from noiseproof.measure import measure
from noiseproof.methods import (
    ABCD,
    AMP,
    ASAM,
    AWP,
    SAM,
    BitErrorTraining,
    Context,
    DropConnect,
    EntropySGD,
    ForwardNoise,
    Method,
    NoiseInjection,
    WeightAdversary,
)
from noiseproof.methods._searching import climbed
from noiseproof.noise import MaxRelativeGaussian
from noiseproof.noise.bit_errors import BitErrors
from noiseproof.parameters import Params, parameters_of
from noiseproof.randomness import chip_generator, draw_mask, generator

Batch = tuple[Tensor, Tensor]


class Landscape(nn.Module):
    """A network whose cross-entropy for class 0 is a given function of its weights, positive everywhere.

    CE = log(1 + e^d) for logits (0, d); so d = log(e^L − 1) makes it L.
    """

    def __init__(self, height: Callable[[Tensor], Tensor], start: Tensor) -> None:
        super().__init__()
        self.height, self.bounds = height, (0.0, 1.0)
        self.w = nn.Parameter(start.double())

    def forward(self, x: Tensor) -> Tensor:
        d = torch.log(torch.expm1(self.height(self.w)))
        return torch.stack([torch.zeros_like(d), d]).expand(len(x), 2)


ONE: Batch = (torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))


def context(step: int = 0, epoch: int = 0, seed: int = 0) -> Context:
    return Context(torch.Generator().manual_seed(seed), step=step, epoch=epoch)


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).double()


def some_batch(seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(16, 6, generator=draw).double(), torch.randint(0, 4, (16,), generator=draw)


def gradient_at(network: nn.Module, params: Params, batch: Batch) -> Params:
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    loss = cross_entropy(torch.func.functional_call(network, leaves, (batch[0],)), batch[1])
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def norm_of(values: Params) -> Tensor:
    return torch.cat([v.flatten() for v in values.values()]).norm()


def gradient_of(method: Method, network: nn.Module, batch: Batch) -> Params:
    params = dict(network.named_parameters())
    loss = method.loss(network, params, batch, context())
    return dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))


def same(found: Params, expected: Params) -> bool:
    return all(torch.allclose(found[name], e, rtol=0, atol=1e-12) for name, e in expected.items())


def descend(method: Method, start: float, height: Callable[[Tensor], Tensor], rate: float = 0.02, steps: int = 300) -> float:
    """Return where plain gradient descent on the loss of a method ends."""
    network = Landscape(height, torch.tensor([[start]]))
    for i in range(steps):
        loss = method.loss(network, dict(network.named_parameters()), ONE, context(i))
        (gradient,) = torch.autograd.grad(loss, network.w)
        with torch.no_grad():
            network.w -= rate * gradient
    return network.w.item()


def sharp_and_wide(w: Tensor) -> Tensor:
    """A sharp valley at 0, of depth 0.6 and half-width 0.1, on the slope of a wide one at 1."""
    return 1.0 + 0.5 * (w - 1).square().sum() - 0.6 * torch.exp(-(w / 0.1).square()).sum()


@pytest.mark.parametrize(
    "method", [SAM(rho=0.3), ASAM(rho=0.3, eta=1.0), AMP(epsilon=0.3, inner_rate=10.0)], ids=lambda m: type(m).__name__
)
def test_a_sharp_valley_does_not_hold_it(method: Method) -> None:
    assert abs(descend(npf.methods.Standard(), 0.05, sharp_and_wide)) < 0.1
    assert 0.25 < descend(method, 0.05, sharp_and_wide) < 1.3


def test_sam_takes_the_gradient_one_normalised_step_up() -> None:
    network, batch = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    g = gradient_at(network, theta, batch)
    up = {name: p + 0.2 * g[name] / norm_of(g) for name, p in theta.items()}
    assert same(gradient_of(SAM(rho=0.2), network, batch), gradient_at(network, up, batch))


def test_asam_does_not_see_how_two_layers_share_their_scale() -> None:
    """relu(x·aW1)·W2/a is the same function for every a > 0; the loss of ASAM with η = 0 is the same too, that of SAM is not."""
    network, batch = two_layers(), some_batch()
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        for p, factor in zip(scaled.parameters(), (5.0, 5.0, 0.2, 1.0), strict=True):
            p.mul_(factor)

    def loss(method: Method, at: nn.Module) -> float:
        return method.loss(at, dict(at.named_parameters()), batch, context()).item()

    asam, sam = ASAM(rho=0.5, eta=0.0), SAM(rho=0.1)
    assert loss(asam, network) == pytest.approx(loss(asam, scaled), abs=1e-12)
    assert abs(loss(sam, network) - loss(sam, scaled)) > 1e-3


@pytest.mark.parametrize("epsilon", [1e-4, 100.0])
def test_amp_stays_in_one_ball_over_all_parameters(epsilon: float) -> None:
    network, batch = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    g = gradient_at(network, theta, batch)
    shrink = min(1.0, epsilon / (0.5 * float(norm_of(g))))  # ζ∇ itself where that is inside
    up = {name: p + 0.5 * shrink * g[name] for name, p in theta.items()}
    assert same(gradient_of(AMP(epsilon=epsilon, inner_rate=0.5), network, batch), gradient_at(network, up, batch))


def test_awp_moves_every_layer_by_gamma_of_its_norm() -> None:
    network, batch = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    g = gradient_at(network, theta, batch)
    up = {name: p + 0.1 * p.norm() * g[name] / g[name].norm() if p.ndim >= 2 else p for name, p in theta.items()}
    assert same(gradient_of(AWP(gamma=0.1), network, batch), gradient_at(network, up, batch))


def test_relative_awp_uses_gamma_once() -> None:
    """In a linear landscape the worst corner of the box is known: θ + γ|θ|·sign(∂L/∂θ), whatever the number of steps."""
    slope = torch.tensor([[1.0, -2.0, 0.5]]).double()
    network = Landscape(lambda w: 10 + (slope * w).sum(), torch.tensor([[2.0, 3.0, -4.0]]))
    theta = dict(network.named_parameters())
    for steps in (1, 10):
        loss = AWP(gamma=0.1, form="relative", steps=steps).loss(network, theta, ONE, context())
        assert loss.item() == pytest.approx(10 + 1 * 2.2 - 2 * 2.7 + 0.5 * -3.6, abs=1e-9)
        assert torch.autograd.grad(loss, network.w)[0].flatten().tolist() == pytest.approx([1.0, -2.0, 0.5], abs=1e-9)  # Jacobian 1


def test_the_size_of_awp_rises_with_the_epochs() -> None:
    network = Landscape(lambda w: 10 + w.sum(), torch.tensor([[2.0]]))
    theta = dict(network.named_parameters())
    method = AWP(gamma=0.1, form="relative", ramp_up=3)
    losses = [method.loss(network, theta, ONE, context(epoch=epoch)).item() for epoch in (0, 1, 3, 9)]
    assert losses == pytest.approx([12.05, 12.1, 12.2, 12.2], abs=1e-9)


@pytest.mark.parametrize("steps", [1, 5])
def test_more_steps_of_awp_stay_in_the_balls_and_climb(steps: int) -> None:
    network, batch = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    method = AWP(gamma=0.2, steps=steps)
    from noiseproof.attacks.ascent import Layerwise

    radius = {name: 0.2 * p.detach().norm() for name, p in theta.items() if p.ndim >= 2}
    moved = climbed(network, theta, batch, radius, Layerwise(), steps)
    assert all(v.norm() <= 0.2 * theta[name].norm() * (1 + 1e-9) for name, v in moved.items())
    assert all(v.norm() > 0.19 * theta[name].norm() for name, v in moved.items())
    assert method.loss(network, theta, batch, context()) > cross_entropy(network(batch[0]), batch[1]) + 0.1


def test_inputs_are_attacked_inside_their_range_and_the_ball(cnn: nn.Module, digits: Splits) -> None:
    x, y = digits.train.x[:20], digits.train.y[:20]
    params = dict(cnn.named_parameters())
    worse = PGD(0.05, steps=5, step=0.02).craft(cnn, params, x, y, torch.Generator().manual_seed(0))
    assert (worse - x).abs().amax() == pytest.approx(0.05, abs=1e-6)
    assert worse.amin() >= 0
    assert worse.amax() <= 1
    random = (x + 0.05 * torch.empty_like(x).uniform_(-1, 1, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    clean, chance, found = (cross_entropy(cnn(z), y).item() for z in (x, random, worse))
    assert found > max(clean, chance) + 5 * abs(chance - clean)


@dataclass(frozen=True)
class WatchedABCD(ABCD):
    """ABCD with Adam, that looks at every step what became of the half that goes up."""

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        optimizers.append(torch.optim.Adam(parameters, lr=1e-2, weight_decay=0.1))
        return optimizers[-1]

    def step(self, network, batch, context, update) -> None:
        def watched(loss, gradient=None, free=None) -> None:
            if not optimizers:  # the rehearsal, which moves nothing
                return
            params = dict(network.named_parameters())

            def now(name: str) -> list[Tensor]:
                moments = optimizers[-1].state.get(params[name], {})
                found = [params[name].detach(), *(moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments)]
                return [tensor.clone() for tensor in found]

            before = {name: now(name) for name in free}
            update(loss, gradient, free)
            for name, mask in free.items():
                assert 0 < mask.sum() < mask.numel()
                after = now(name)
                for i, tensor in enumerate(after):
                    was = before[name][i] if i < len(before[name]) else torch.zeros_like(tensor)
                    assert torch.equal(tensor[~mask], was[~mask]), name
                assert not torch.equal(after[0][mask], before[name][0][mask])
            seen.append({name: mask.clone() for name, mask in free.items()})

        super().step(network, batch, context, watched)


seen: list[Params] = []
optimizers: list[torch.optim.Optimizer] = []


def test_abcd_leaves_the_half_that_went_up_and_its_moments(mlp: nn.Module, digits: Splits) -> None:
    seen.clear()
    npf.train(mlp, digits, WatchedABCD(), epochs=2, batch_size=50, progress=False)
    masks = [masks["fc1.weight"] for masks in seen]
    assert len(masks) > 3
    shares = [mask.double().mean().item() for mask in masks]
    assert shares == pytest.approx([0.5] * len(masks), abs=0.02)
    assert not torch.equal(masks[-1], masks[-2]), "the halves are drawn anew"


def test_abcd_goes_down_where_the_other_half_is_worst() -> None:
    """Linear landscape: A goes to its corner of the box and stays inside, and the gradient of D is its slope; that of A is zero."""
    slope = torch.linspace(-2, 2, 40).double().view(2, 20)
    start = torch.linspace(1, 3, 40).view(2, 20)
    network = Landscape(lambda w: 200 + (slope * w).sum(), start)
    theta = dict(network.named_parameters())
    method = ABCD(zeta_attack=0.1, steps=3)
    free = method.draw_free(theta, context())["w"]
    loss = method.loss(network, theta, ONE, context())
    corner = torch.where(free, start, start * (1 + 0.1 * slope.sign()))
    assert loss.item() == pytest.approx(200 + (slope * corner).sum().item(), abs=1e-9)
    (gradient,) = torch.autograd.grad(loss, network.w)
    assert torch.allclose(gradient, torch.where(free, slope, 0.0), atol=1e-9)


def entropy_step(method: EntropySGD, network: nn.Module, step: int = 0) -> Tensor:
    """Return θ − μ."""
    found = []
    method.step(network, ONE, context(step), lambda loss, gradient=None, free=None: found.append(gradient["w"]))
    return found[0]


def test_the_langevin_steps_are_those_of_the_paper() -> None:
    """On ½·a·w² without noise every step is linear, and can be written down."""
    curvature, start, method = 2.0, 1.5, EntropySGD(steps=4, inner_rate=0.1, thermal_noise=0.0, scope=0.5, scope_growth=0.25)
    network = Landscape(lambda w: 1 + 0.5 * curvature * w.square().sum(), torch.tensor([[start]]))
    at, mean, velocity = start, start, 0.0
    for _ in range(4):
        velocity = 0.9 * velocity + curvature * at
        at = at - 0.1 * (curvature * at + 0.9 * velocity - 0.5 * 1.25**3 * (start - at))
        mean = 0.25 * mean + 0.75 * at
    assert entropy_step(method, network, step=3).item() == pytest.approx(start - mean, abs=1e-12)


def test_thermal_noise_has_its_standard_deviation() -> None:
    network = Landscape(lambda w: 1 + 0 * w.sum(), torch.zeros(200, 200))
    method = EntropySGD(steps=1, thermal_noise=0.3, mean_weight=1.0, scope=0.0)
    assert entropy_step(method, network).std().item() == pytest.approx(math.sqrt(0.1) * 0.3, rel=0.02)


def test_the_scope_advances_and_stays_where_it_is_stable() -> None:
    method = EntropySGD(scope=0.01, scope_growth=0.1)
    assert [method.scope_at(t) for t in (0, 1, 10)] == pytest.approx([0.01, 0.011, 0.01 * 1.1**10])
    assert method.scope_at(10**6) == pytest.approx(10)
    assert EntropySGD(scope=0.0).scope_at(5) == 0


def test_entropy_sgd_goes_to_the_wide_valley(digits: Splits) -> None:
    """A valley narrower than the Langevin steps does not hold it; its own optimiser has outer rate 1."""
    network = Landscape(sharp_and_wide, torch.tensor([[0.05]]))
    method = EntropySGD(inner_rate=0.05, momentum=0.5, thermal_noise=0.5, scope=0.1)
    optimizer = method.make_optimizer(list(network.parameters()))
    assert optimizer.param_groups[0]["lr"] == 1
    ends = []
    for i in range(200):

        def update(loss, gradient=None, free=None) -> None:
            network.w.grad = gradient["w"]
            optimizer.step()

        method.step(network, ONE, context(i, seed=i), update)
        ends.append(network.w.item())
    assert sum(ends[100:]) / 100 == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("probability", [0.0, 0.03, 0.7, 1.0])
def test_masks_have_their_probability(probability: float) -> None:
    mask = draw_mask((1001, 999), probability, torch.Generator().manual_seed(0))
    spread = math.sqrt(probability * (1 - probability) / mask.numel())
    assert mask.double().mean().item() == pytest.approx(probability, abs=4 * spread)
    assert mask.shape == (1001, 999)
    assert draw_mask((), 1.0, torch.Generator())


@pytest.mark.parametrize("scale", [True, False])
def test_drop_connect_keeps_the_mean_or_not_and_dropped_weights_have_no_gradient(scale: bool) -> None:
    theta: Params = {"w": torch.full((300, 300), 2.0, requires_grad=True), "b": torch.ones(3)}
    found = DropConnect(p=0.3, scale=scale).dropped(theta, torch.Generator().manual_seed(0))
    assert found.keys() == {"w"}
    zero = found["w"] == 0
    assert zero.double().mean().item() == pytest.approx(0.3, abs=0.005)
    assert found["w"].mean().item() == pytest.approx(2.0 if scale else 1.4, abs=0.02)
    (gradient,) = torch.autograd.grad(found["w"].sum(), theta["w"])
    assert not gradient[zero].any()
    assert gradient[~zero].unique().tolist() == pytest.approx([1 / 0.7 if scale else 1.0])


def test_bit_error_training_is_the_mean_of_the_losses_of_two_chips() -> None:
    """One without errors and one with them, both of the noise that an evaluation draws; gradients go straight through."""
    network, batch = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    method = BitErrorTraining(p=0.1, bits=6, parameters="all")
    noise = method.noise
    chips = [chip(theta, context().generator) for chip in (replace(noise, p=0.0), noise)]
    losses = [cross_entropy(torch.func.functional_call(network, chip, (batch[0],)), batch[1]).item() for chip in chips]
    assert losses[0] != losses[1]
    assert method.loss(network, theta, batch, context()).item() == sum(losses) / 2
    both = [gradient_at(network, chip, batch) for chip in chips]
    assert same(gradient_of(method, network, batch), {name: (both[0][name] + both[1][name]) / 2 for name in theta})


def test_bit_error_training_clips_and_its_network_bears_more_errors(digits: Splits) -> None:
    scores = {}
    for name, method in (("standard", npf.methods.Standard()), ("trained", BitErrorTraining(p=0.02))):
        network = npf.networks.MLP(hidden=(32,)).build(digits.task, generator("weights", 0))
        npf.train(network, digits, method, epochs=25, batch_size=20, progress=False)
        params = {key: p.detach() for key, p in parameters_of(network).items()}
        if name == "trained":
            assert max(float(p.abs().amax()) for p in params.values() if p.ndim >= 2) <= 0.1 + 1e-7
        chips = [BitErrors(p=0.1, range="asymmetric", encoding="unsigned")(params, chip_generator(0, i)) for i in range(10)]
        scores[name] = sum(measure(network, chip, digits.test.x, digits.test.y).accuracy for chip in chips) / 10
    assert scores["trained"] > scores["standard"] + 0.1


def test_forward_noise_relative_to_the_largest_weight() -> None:
    network, batch = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    noisy = MaxRelativeGaussian(eta=0.1, per="channel")(theta, context().generator)
    found = gradient_of(ForwardNoise(eta=0.1, relative_to="max"), network, batch)
    assert same(found, gradient_at(network, noisy, batch))


def test_the_noise_rises_over_the_first_epochs() -> None:
    method = ForwardNoise(eta=0.4, ramp_up=3)
    assert [method.noise_at(context(epoch=e)).describe()["zeta"] for e in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_injected_mismatch_is_forward_noise() -> None:
    network, batch = two_layers(), some_batch()
    first = gradient_of(NoiseInjection(noise="mismatch(zeta=0.3)"), network, batch)
    again = gradient_of(ForwardNoise(eta=0.3), network, batch)
    assert all(torch.equal(first[name], g) for name, g in again.items())


@pytest.mark.parametrize("text", ["mismatch(zeta=0.1|0.3)", "no-such-noise", "mismatch(zeta=-1)"])
def test_what_is_no_one_noise_is_refused(text: str) -> None:
    with pytest.raises(npf.NoiseproofError):
        NoiseInjection(noise=text)


@pytest.mark.parametrize("norm", ["l2", "l2-euclidean"])
def test_weight_adversary_in_l2_holds_the_relative_perturbation_constant(norm) -> None:
    """The gradient against a plain reading, with θ* written as a function of θ whose δ is a number."""
    network, (x, y) = two_layers(), some_batch()
    theta = dict(network.named_parameters())
    method = WeightAdversary(beta_rob=2.0, norm=norm, l2_radius=3.0, steps=3, parameters="all")
    reference = network(x).log_softmax(-1)
    delta = method.attack.search(network, theta, [(x, None)], [reference.detach()], context().generator)
    assert 2.5 < norm_of(delta) <= 3.0 + 1e-9
    star = displace(theta, delta, 0.1)
    assert all(torch.equal(star[name], theta[name] + delta[name] * r) for name, r in radii(theta, 0.1).items())
    log_q = torch.func.functional_call(network, star, (x,)).log_softmax(-1)
    kl = torch.nn.functional.kl_div(log_q, reference, log_target=True, reduction="batchmean")
    plain = torch.autograd.grad(cross_entropy(network(x), y) + 2.0 * kl, list(theta.values()))
    assert same(gradient_of(method, network, (x, y)), dict(zip(theta, plain, strict=True)))
