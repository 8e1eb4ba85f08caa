"""The engine of the attacks against plain formulas, scipy and brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn

from noiseproof.attacks import WeightAttack
from noiseproof.attacks.ascent import Box, Ellipsoid, EuclideanEllipsoid, ascend, displace, project_ellipsoid, radii
from noiseproof.attacks.objectives import dlr, kl_divergence, objective_value
from noiseproof.errors import NoiseproofError
from noiseproof.networks import MLP
from noiseproof.randomness import generator
from noiseproof.training import train


@pytest.mark.parametrize("seed", range(5))
def test_projection_equals_the_solver_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = rng.uniform(0.05, 3.0, 8)
    z = rng.normal(0, 4, 8)
    found = project_ellipsoid(torch.tensor(z), torch.tensor(axes)).numpy()
    solved = minimize(
        lambda d: ((d - z) ** 2).sum(),
        x0=found * 0.5,
        jac=lambda d: 2 * (d - z),
        constraints={"type": "ineq", "fun": lambda d: 1 - ((d / axes) ** 2).sum(), "jac": lambda d: -2 * d / axes**2},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert np.allclose(found, solved.x, atol=1e-5)
    assert ((found - z) ** 2).sum() <= ((solved.x - z) ** 2).sum() + 1e-9


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e3)), min_size=1, max_size=30),
)
def test_projection_is_feasible_and_optimal(pairs: list[tuple[float, float]]) -> None:
    z, axes = (torch.tensor(values, dtype=torch.float64) for values in zip(*pairs, strict=True))
    axes = torch.where(axes < 1e-6, 0.0, axes)
    found = project_ellipsoid(z, axes)
    free = axes > 0
    assert (found[~free] == 0).all()
    inside = float((found[free] / axes[free]).square().sum())
    assert inside <= 1 + 1e-9
    if float((z[free] / axes[free]).square().sum()) > 1:
        # on the rim, and z − d = λ·d/a² with one λ ≥ 0: the Karush–Kuhn–Tucker conditions of a convex problem
        assert inside == pytest.approx(1, abs=1e-9)
        slack, normal = (z - found)[free], (found / axes.square())[free]
        multiplier = float((slack * normal).sum() / normal.square().sum())
        assert multiplier >= 0
        assert torch.allclose(slack, multiplier * normal, atol=1e-6 * float(z.abs().max()))
    else:
        assert torch.equal(found[free], z[free])


@pytest.mark.parametrize(("shape", "power"), [(Box(), None), (Ellipsoid(0.7), 2), (EuclideanEllipsoid(0.7), 2)])
def test_a_linear_objective_is_solved_exactly(shape, power) -> None:
    """max g·(θ* − θ) over the set is known: r·|g| for the box, ρ·‖r⊙g‖ for the ellipsoid."""
    torch.manual_seed(0)
    params = {"a": torch.randn(4, 3).double(), "b": torch.randn(5).double()}
    g = {"a": torch.randn(4, 3).double(), "b": torch.randn(5).double()}
    radius = radii(params, 0.3, 0.01)
    start = {name: torch.zeros_like(p) for name, p in params.items()}
    steps = 1 if power is None else 400
    delta = ascend(lambda point: g, params, radius, start, shape, steps)
    reached = sum(float((g[n] * delta[n] * radius[n]).sum()) for n in params)
    weights = torch.cat([(g[n] * radius[n]).flatten() for n in params])
    best = float(weights.abs().sum()) if power is None else 0.7 * float(weights.norm())
    assert reached == pytest.approx(best, rel=1e-4)
    assert reached <= best * (1 + 1e-9)


@pytest.fixture(scope="module")
def trained(digits) -> nn.Module:
    network = MLP(hidden=(32,)).build(digits.task, generator("weights", 0))
    train(network, digits, epochs=10, batch_size=20, progress=False)
    return network


@pytest.mark.parametrize("norm", ["linf", "l2", "l2-euclidean"])
@pytest.mark.parametrize("objective", ["kl", "ce", "dlr"])
def test_an_attack_stays_inside_and_beats_a_random_point(norm, objective, trained, digits) -> None:
    mlp = trained
    params = {name: p.detach() for name, p in mlp.named_parameters()}
    radius = 30.0 if norm != "linf" else 1.0
    attack = WeightAttack(zeta=0.2, norm=norm, objective=objective, zeta_const=1e-3, l2_radius=radius, parameters="all", restarts=2)
    batch = (digits.train.x, digits.train.y)
    found = attack(mlp, params, [batch], torch.Generator().manual_seed(0))
    flat = torch.cat([d.flatten() for d in found.delta.values()])
    assert float(flat.abs().max() if norm == "linf" else flat.norm()) <= radius * (1 + 1e-5)
    for name, p in params.items():
        assert torch.allclose(found.params[name], p + found.delta[name] * (0.2 * p.abs() + 1e-3))
    random = attack.random_point(mlp, params, torch.Generator().manual_seed(0))
    log_p = mlp(batch[0]).log_softmax(-1).detach()
    by_chance = float(objective_value(objective, torch.func.functional_call(mlp, random, (batch[0],)), log_p, batch[1]))
    assert found.objective > by_chance


def test_one_perturbation_shared_by_batches_is_the_one_of_the_whole(mlp, digits) -> None:
    params = {name: p.detach() for name, p in mlp.double().named_parameters()}
    x, y = digits.train.x.double(), digits.train.y
    attack = WeightAttack(objective="ce", steps=3)
    whole = attack(mlp, params, [(x, y)], torch.Generator().manual_seed(0))
    parts = attack(mlp, params, list(zip(x.split(64), y.split(64), strict=True)), torch.Generator().manual_seed(0))
    assert whole.objective == pytest.approx(parts.objective, rel=1e-9)
    for name in whole.delta:
        assert torch.allclose(whole.delta[name], parts.delta[name])


def test_restarts_keep_the_worst(mlp, digits) -> None:
    params = dict(mlp.named_parameters())
    batch = [(digits.train.x, None)]
    one = [WeightAttack(steps=1)(mlp, params, batch, g).objective for g in [torch.Generator().manual_seed(0)]]
    several = WeightAttack(steps=1, restarts=5)(mlp, params, batch, torch.Generator().manual_seed(0)).objective
    assert several >= one[0]


def test_displace_is_differentiable_also_at_zero() -> None:
    theta = torch.tensor([2.0, -3.0, 0.0], dtype=torch.float64, requires_grad=True)
    delta = torch.tensor([0.5, 1.0, -1.0], dtype=torch.float64)
    star = displace({"w": theta}, {"w": delta}, 0.1, 0.2)["w"]
    (gradient,) = torch.autograd.grad(star.sum(), theta)
    assert gradient.tolist() == pytest.approx([1 + 0.1 * 0.5, 1 - 0.1 * 1.0, 1.0])


def test_kl_from_log_probabilities_survives_underflow() -> None:
    log_p = torch.tensor([[0.0, -1000.0]]).log_softmax(-1)
    log_q = torch.tensor([[-1000.0, 0.0]]).log_softmax(-1)
    assert kl_divergence(log_p, log_q).item() == pytest.approx(1000.0)
    assert kl_divergence(log_p, log_p).item() == 0


def test_dlr_is_positive_exactly_where_wrong() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [1.0, 3.0, 0.0, -1.0]])
    right, wrong = (dlr(logits[i : i + 1], torch.tensor([0])).item() for i in (0, 1))
    assert right == pytest.approx(-2 / 3)
    assert wrong == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zeta": -0.1}, "zeta is -0.1"),
        ({"zeta": float("nan")}, "zeta is nan"),
        ({"norm": "l1"}, "give linf, l2 or l2-euclidean"),
        ({"objective": "hinge"}, "give kl, ce or dlr"),
        ({"restarts": 0}, "restarts is 0"),
        ({"l2_radius": 0}, "l2_radius is 0"),
    ],
)
def test_wrong_settings_are_named(settings, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        WeightAttack(**settings)


def test_missing_labels_and_empty_selection_are_named(mlp, digits) -> None:
    params = dict(mlp.named_parameters())
    with pytest.raises(NoiseproofError, match="without labels"):
        WeightAttack(objective="ce")(mlp, params, [(digits.train.x, None)], torch.Generator())
    with pytest.raises(NoiseproofError, match="parameters is 'conv"):
        WeightAttack(parameters="conv*")(mlp, params, [(digits.train.x, None)], torch.Generator())


def test_batch_norm_and_dropout_are_in_inference_mode(outside: nn.Module, digits) -> None:
    """At θ* = θ the KL is zero only if both of its arguments are deterministic."""
    outside.train()
    before = {name: b.clone() for name, b in outside.named_buffers()}
    params = dict(outside.named_parameters())
    found = WeightAttack(zeta=0.0)(outside, params, [(digits.train.x, None)], torch.Generator().manual_seed(0))
    assert found.objective == 0
    assert outside.training
    assert all(torch.equal(b, before[name]) for name, b in outside.named_buffers())
