"""APGD does what its paper says: held against Algorithm 1 written out sample by sample, in float64."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiseproof as npf
from noiseproof.attacks import APGD
from noiseproof.attacks._ball import Ball
from noiseproof.attacks.apgd import _checkpoints, likely_wrong, targeted_values

BOUNDS = (0.0, 1.0)


def network(classes: int = 5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, classes)).double()


def batch(n: int = 12, classes: int = 5) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, network(classes)(x).argmax(-1).detach()


def algorithm_1(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, eps: float, norm: str, steps: int) -> Tensor:
    """One sample [1, …]: Croce and Hein 2020, Algorithm 1; returned is the point of the largest loss among those that fool, or of all."""

    def f(z: Tensor) -> tuple[float, Tensor, bool]:
        z = z.clone().requires_grad_()
        logits = model(z)
        loss = cross_entropy(logits, y)
        return loss.item(), torch.autograd.grad(loss, z)[0], int(logits.argmax()) != int(y)

    def project(z: Tensor) -> Tensor:
        change = z - x
        change = change.clamp(-eps, eps) if norm == "linf" else change * min(1.0, eps / float(change.norm()))
        return (x + change).clamp(*BOUNDS)

    def step(z: Tensor, gradient: Tensor, size: float) -> Tensor:
        return project(z + size * (gradient.sign() if norm == "linf" else gradient / gradient.norm()))

    portions = [0, 22]
    while portions[-1] < 100:
        portions.append(portions[-1] + max(portions[-1] - portions[-2] - 3, 6))
    checkpoints = [-(-p * steps // 100) for p in portions]
    size, seen = 2 * eps, [(f(start), start)]
    z, before, gradient = start, start, seen[0][0][1]
    f_max, x_max, g_max = seen[0][0][0], start, gradient
    losses, halvings, best_at = [f_max], {0: False}, {0: f_max}
    for k in range(1, steps + 1):
        new = step(z, gradient, size)
        if k > 1:
            new = project(z + 0.75 * (new - z) + 0.25 * (z - before))
        z, before = new, z
        loss, gradient, _ = found = f(z)
        seen.append((found, z))
        losses.append(loss)
        if loss > f_max:
            f_max, x_max, g_max = loss, z, gradient
        if k in checkpoints[1:]:
            last = checkpoints[checkpoints.index(k) - 1]
            rises = sum(losses[i + 1] > losses[i] for i in range(last, k))
            stuck = not halvings[last] and (last > 0 and best_at[last] == f_max)
            halvings[k], best_at[k] = rises < 0.75 * (k - last) or stuck, f_max
            if halvings[k]:
                size, z, gradient = size / 2, x_max, g_max
    fooling = [(s[0], p) for s, p in seen if s[2]]
    return max(fooling, key=lambda pair: pair[0])[1] if fooling else x_max


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_algorithm_1(norm: str) -> None:
    model, (x, y), eps, steps = network(), batch(), {"linf": 0.05, "l2": 0.12}[norm], 27
    attack = APGD(eps, norm, steps=steps, survivors_only=False)
    found = attack(model, x, y, torch.Generator().manual_seed(0))
    stream = torch.Generator().manual_seed(0)
    torch.randint(2**31, (1,), generator=stream)  # the seed of the network's own draws
    start = Ball(x, torch.full((len(x),), eps, dtype=torch.float64), norm, BOUNDS).random(stream)
    plain = torch.cat([algorithm_1(model, x[[i]], y[[i]], start[[i]], eps, norm, steps) for i in range(len(x))])
    assert 0 < int(found.success.sum()) < len(x), "a case of both kinds"
    torch.testing.assert_close(found.x, plain, rtol=0, atol=1e-6)
    assert found.budget.gradient_evaluations == steps * len(x)


def test_leaving_the_fooled_alone_changes_no_success() -> None:
    model, (x, y) = network(), batch(40)
    for loss in ("ce", "dlr", "margin"):
        whole, early = (
            APGD(0.05, steps=20, loss=loss, survivors_only=only)(model, x, y, torch.Generator().manual_seed(0)) for only in (False, True)
        )
        assert torch.equal(whole.success, early.success)
        assert early.budget.gradient_evaluations < whole.budget.gradient_evaluations
        assert 0 < early.accuracy < 1


def test_checkpoints_are_those_of_the_paper() -> None:
    assert list(_checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert list(_checkpoints(100).values()) == [22, 19, 16, 13, 10, 7, 6, 6]
    assert sum(_checkpoints(7).values()) <= 7
    assert list(_checkpoints(1)) == [1]


def test_targets_are_approached_one_after_the_other() -> None:
    """A linear network in which only the third most likely wrong class can be reached."""
    model = nn.Linear(2, 4, bias=True).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]))
        model.bias.copy_(torch.tensor([1.0, 0.9, 0.8, 0.2]))
    x, y = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    from noiseproof.attacks._view import View

    assert [int(c) for c in likely_wrong(View(model, BOUNDS), x, y, 9)] == [1, 2, 3]
    few, all_three = (APGD(0.4, steps=5, loss="dlr", targets=k)(model, x, y, torch.Generator().manual_seed(0)) for k in (2, 3))
    assert not bool(few.success)
    assert bool(all_three.success)
    assert model(all_three.x).argmax() == 3


def test_targeted_losses_are_large_where_the_class_is_the_target() -> None:
    logits, y, target = torch.tensor([[3.0, 1.0, 0.0, -1.0]]), torch.tensor([0]), torch.tensor([1])
    assert targeted_values("margin", y, target)(logits).item() == -2
    assert targeted_values("ce", y, target)(logits).item() == pytest.approx(-cross_entropy(logits, target).item())
    assert targeted_values("dlr", y, target)(logits).item() == pytest.approx(-2 / (3 - 0.5 * (0 - 1)))
    three = logits[:, :3]
    assert targeted_values("dlr", y, target)(three).item() == pytest.approx(-cross_entropy(three, target).item()), "its ratio needs four"


def test_two_classes_have_targets_but_no_ratio() -> None:
    model, (x, y) = network(2), batch(classes=2)
    assert APGD(0.9, steps=9, loss="dlr", targets=9)(model, x, y, torch.Generator().manual_seed(0)).success.any()
    with pytest.raises(npf.NoiseproofError, match="needs three or more"):
        APGD(0.3, steps=5, loss="dlr")(model, x, y, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"targets": -1}, {"restarts": 0}, {"alpha": 0.0}, {"rho": 1.5}, {"loss": "kl"}])
def test_settings_out_of_range_are_named(settings: dict) -> None:
    with pytest.raises(npf.NoiseproofError, match=f"{next(iter(settings))} is"):
        APGD(**settings)
