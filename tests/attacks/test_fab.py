"""FAB: the way to a plane is the shortest, and the boundary of a linear network is found where it is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import FAB
from noiseproof.attacks.fab import length, to_plane


def case(seed: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    x, w = torch.rand(1, n, generator=stream, dtype=torch.float64), torch.randn(1, n, generator=stream, dtype=torch.float64)
    w[0, 0] = 0.0
    x[0, 1], x[0, 2] = 0.0, 1.0  # at the edges of the range
    reach = (w * (torch.where(w > 0, 1.0, 0.0).to(x) - x)).sum(1)
    return x, w, reach * torch.rand(1, generator=stream, dtype=torch.float64) * 1.2


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), sign=st.sampled_from([1.0, -1.0]))
def test_in_linf_it_is_the_linear_programme(seed: int, sign: float) -> None:
    """Minimise t with −t ≤ δ_i ≤ t, ⟨w, δ⟩ = gap, x + δ in the range."""
    x, w, gap = case(seed)
    w, n = sign * w, x.shape[1]
    gap = sign * gap
    delta = to_plane(x, w, gap, "linf", (0.0, 1.0))[0]
    bounds = [(-v, 1 - v) for v in x[0].tolist()]
    sides = torch.cat([torch.cat([torch.eye(n), -torch.eye(n)]), -torch.ones(2 * n, 1)], 1).numpy()
    found = linprog([0] * n + [1], A_ub=sides, b_ub=[0] * 2 * n, A_eq=[[*w[0].tolist(), 0]], b_eq=[float(gap)], bounds=[*bounds, (0, None)])
    assert (x[0] + delta).min() >= -1e-12
    assert (x[0] + delta).max() <= 1 + 1e-12
    if found.success:
        assert float((w[0] * delta).sum()) == pytest.approx(float(gap), abs=1e-9)
        assert float(delta.abs().max()) == pytest.approx(found.x[-1], abs=1e-7)
    else:
        assert abs(float((w[0] * delta).sum())) < abs(float(gap)), "out of reach: as far as one can go"


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_in_l2_it_is_the_nearest_point(seed: int) -> None:
    """The conditions of Karush, Kuhn and Tucker: δ_i = λ·w_i wherever the range allows it, less where not."""
    x, w, gap = case(seed)
    delta = to_plane(x, w, gap, "l2", (0.0, 1.0))[0]
    moved = x[0] + delta
    assert moved.min() >= -1e-12
    assert moved.max() <= 1 + 1e-12
    free = (moved > 1e-9) & (moved < 1 - 1e-9) & (w[0] != 0)
    if abs(float((w[0] * delta).sum()) - float(gap)) > 1e-9:
        assert not free.any(), "out of reach: all at the edges"
        return
    if free.any():
        levels = delta[free] / w[0][free]
        torch.testing.assert_close(levels, levels[:1].expand_as(levels))
        stopped = ~free & (w[0] != 0)
        assert (delta[stopped].abs() <= levels[0].abs() * w[0][stopped].abs() + 1e-9).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_way_is_no_change_and_no_slope_is_no_way(norm: str) -> None:
    x = torch.rand(2, 3, 2)
    assert not to_plane(x, torch.randn(2, 3, 2), torch.zeros(2), norm, (0.0, 1.0)).any()
    assert not to_plane(x, torch.zeros(2, 3, 2), torch.ones(2), norm, (0.0, 1.0)).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_stops_at_the_boundary_of_a_linear_network(norm: str) -> None:
    """To the class t it is |z_y − z_t|/‖w_t − w_y‖ far in the dual norm, and the least of these is found."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Linear(20, 4).double()
    x = 0.5 + 0.02 * torch.randn(15, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = network(x).detach()
    y = logits.argmax(1)
    ways = network.weight.detach()[None] - network.weight.detach()[y][:, None]
    dual = ways.abs().sum(-1) if norm == "linf" else ways.norm(dim=-1)
    far = ((logits.gather(1, y[:, None]) - logits) / dual).nan_to_num(torch.inf).scatter(1, y[:, None], torch.inf).amin(1)
    wide = 0.4 if norm == "linf" else 1.5
    to_the_end = FAB(wide, norm, steps=30, survivors_only=False)(network, x, y, torch.Generator().manual_seed(0))
    size = length(to_the_end.x - x, norm)
    assert to_the_end.success.all()
    assert (size >= far - 1e-9).all()
    assert (size <= 1.1 * far + 1e-6).all(), (size / far).tolist()
    # within ε exactly those whose boundary is nearer
    eps = float(far.median()) * 1.0001
    found = FAB(eps, norm, steps=60)(network, x, y, torch.Generator().manual_seed(0))
    assert (found.success <= (far <= eps)).all()
    assert (found.success >= (far <= 0.98 * eps)).all()
    assert found.budget.gradient_evaluations < 60 * 3 * 15


@pytest.mark.parametrize(
    "settings", [{"steps": 0}, {"targets": 0}, {"restarts": 0}, {"alpha_max": 2.0}, {"overshoot": 0.5}, {"beta": 1.5}, {"loss": "ce"}]
)
def test_settings_out_of_range_are_named(settings: dict) -> None:
    with pytest.raises(npf.NoiseproofError, match=f"{next(iter(settings))} is"):
        FAB(**settings)
