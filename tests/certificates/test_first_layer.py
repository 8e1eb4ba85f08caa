"""The exact first layer, held against runs over fine grids of currents."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from noiseproof.certificates._first_layer import Trains, still, trains
from noiseproof.certificates._graph import Linear, Neurons
from noiseproof.certificates._interval import Interval, point
from noiseproof.certificates._rounding import Rounding
from noiseproof.neurons.equation import RESETS, Constants, Emitted, Form, Reset, initial_state, reference

STEPS = 9
NEURONS = (2, 3)  # B, N


def one(value: float | None, steps: int = 1) -> Tensor | None:
    return None if value is None else torch.full((steps, 1, 1), value, dtype=torch.float64)


def neurons(
    reset: Reset, *, adaptive: bool = False, refractory: int = 0, gains: bool = False, leak: float = 0.9, slack: float = 0.0
) -> Neurons:
    generator = torch.Generator().manual_seed(0)
    moving = 0.5 + torch.rand(STEPS, 1, 1, generator=generator, dtype=torch.float64) / 2
    gain = torch.randn(STEPS, 1, 1, generator=generator, dtype=torch.float64) + 0.8 if gains else None
    lam, theta = moving if gains else one(leak), one(1.0)
    assert lam is not None
    assert theta is not None
    constants = Constants(lam, theta, gain, one(1.8 if adaptive else None), one(0.7 if adaptive else None))
    return Neurons(Form(reset=reset, adaptive=adaptive, refractory=refractory), constants, constants, None, slack)


def run(op: Neurons, current: Tensor) -> Emitted:
    """The network's own run of currents [..., B, N]."""
    flat = current.reshape(-1, NEURONS[1])
    constants = Constants(*(None if value is None else value.to(current.dtype) for value in op.low))  # pyright: ignore
    with torch.no_grad():
        out = reference(flat[None], initial_state(flat, op.form), constants, op.form, STEPS)
    assert out.membrane is not None
    shape = (STEPS, *current.shape)
    return Emitted(out.spikes.reshape(shape), out.state, out.membrane.reshape(shape))


def currents(seed: int = 0) -> Interval:
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(NEURONS, generator=generator, dtype=torch.float64)
    return Interval(low, low + 0.6 * torch.rand(NEURONS, generator=generator, dtype=torch.float64))


def grid(current: Interval, points: int) -> Tensor:
    return current.low + (current.high - current.low) * torch.linspace(0, 1, points, dtype=torch.float64)[:, None, None]


def trains_of(found: Trains) -> set[tuple[int, ...]]:
    return {(int(owner), *map(int, train)) for owner, train in zip(found.owner, found.spikes, strict=True)}


def enumerated(op: Neurons, current: Interval) -> Trains:
    found = trains(op, current, STEPS)
    assert found is not None
    return found


@pytest.mark.parametrize("settings", [{}, {"adaptive": True}, {"refractory": 2}, {"gains": True}, {"adaptive": True, "refractory": 1}])
@pytest.mark.parametrize("reset", RESETS)
def test_every_train_of_a_fine_grid_is_there_and_no_other(reset: Reset, settings: dict[str, bool | int]) -> None:
    op, current = neurons(reset, **settings), currents()  # pyright: ignore[reportArgumentType]
    found, out = enumerated(op, current), run(op, grid(current, 20001))
    assert out.membrane is not None
    seen = out.spikes.flatten(2).permute(2, 1, 0)  # [B·N, points, T]
    wanted = {(owner, *map(int, train)) for owner, all_of in enumerate(seen) for train in all_of.unique(dim=0)}
    assert wanted <= trains_of(found)
    # a piece that is wider than the grid is met by it; narrower ones are ends of intervals that touch
    wide = found._replace(owner=found.owner[keep := (found.high - found.low) > 1e-4], spikes=found.spikes[keep])
    assert trains_of(wide) <= wanted
    assert bool((out.membrane.amin(1) >= found.potential.low - 1e-12).all())
    assert bool((out.membrane.amax(1) <= found.potential.high + 1e-12).all())


@pytest.mark.parametrize("reset", RESETS)
def test_rows_and_least_are_the_extremes_over_the_trains(reset: Reset) -> None:
    op, current = neurons(reset), currents(1)
    found, out = enumerated(op, current), run(op, grid(current, 5001))
    A = torch.randn(4, STEPS, dtype=torch.float64)
    rows, sums = found.rows(A), torch.einsum("mt,tpbn->mpbn", A, out.spikes)
    assert bool((rows.low <= sums.amin(1) + 1e-12).all())
    assert bool((rows.high >= sums.amax(1) - 1e-12).all())
    own = A[:, :, None, None].expand(-1, -1, *NEURONS).clone().requires_grad_()
    least = found.least(own)
    torch.testing.assert_close(least, rows.low)
    least.sum().backward()
    assert own.grad is not None
    torch.testing.assert_close((own * own.grad).sum(1), least)  # each least value is that of its train
    bounds = found.bounds()
    assert torch.equal(bounds.counts.low, found.rows(torch.ones(1, STEPS, dtype=torch.float64)).low[0])
    assert bool((bounds.spikes.low <= bounds.spikes.high).all())


@settings(max_examples=40, deadline=None)
@given(
    reset=st.sampled_from(RESETS), adaptive=st.booleans(), refractory=st.integers(0, 2), leak=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    ties=st.booleans(), seed=st.integers(0, 1000), dtype=st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_no_run_leaves_the_trains(
    reset: Reset, adaptive: bool, refractory: int, leak: float, ties: bool, seed: int, dtype: torch.dtype
) -> None:
    op = neurons(reset, adaptive=adaptive, refractory=refractory, leak=leak, slack=Rounding().of_step)
    current = currents(seed)
    if ties:  # currents that bring h to B at some step
        whole = torch.tensor([[1.0, 0.5, 0.25], [1 / 3, 2.0, 1.5]], dtype=torch.float64)
        current = Interval(whole - 0.01 * (seed % 2), whole + 0.01 * (seed % 3))
    shown = grid(current, 301).to(dtype)
    shown = shown.clamp(current.low.to(dtype), current.high.to(dtype))
    # what float32 makes of the ends may be just outside
    wide = Interval(torch.minimum(current.low, shown.double().amin(0)), torch.maximum(current.high, shown.double().amax(0)))
    found, out = enumerated(op, wide), run(op, shown)
    assert out.membrane is not None
    seen = out.spikes.flatten(2).permute(2, 1, 0)
    assert {(owner, *map(int, train)) for owner, all_of in enumerate(seen) for train in all_of.unique(dim=0)} <= trains_of(found)
    assert bool((out.membrane.double().amin(1) >= found.potential.low).all())
    assert bool((out.membrane.double().amax(1) <= found.potential.high).all())


@pytest.mark.parametrize("reset", RESETS)
def test_one_current_gives_its_run_also_at_the_threshold(reset: Reset) -> None:
    op, current = neurons(reset, leak=1.0), torch.tensor([[1.0, 0.5, 0.25], [0.0, 2.0, -1.0]], dtype=torch.float64)
    found, out = enumerated(op, point(current)), run(op, current)
    assert out.membrane is not None
    spikes = found.bounds().spikes
    assert torch.equal(spikes.low, out.spikes)
    assert torch.equal(spikes.high, out.spikes)
    assert torch.equal(found.potential.low, out.membrane)
    assert torch.equal(found.potential.high, out.membrane)


def test_too_many_pieces_are_given_up_and_neurons_that_move_are_refused() -> None:
    op = neurons("soft")
    assert trains(op, currents(), STEPS, most=7) is None
    assert still(op)
    assert not still(Neurons(op.form, op.low, Constants(op.low.leak.clone(), op.low.threshold), None))
    assert not still(Neurons(op.form, op.low, op.low, Linear(lambda a, _: a)))
