"""Stuck devices: on weights alone, and on the pairs of a chip."""

import itertools

import pytest
import torch

from noiseproof.errors import NoiseproofError
from noiseproof.noise import Drift, Program, Read, Stuck, compose
from noiseproof.randomness import chip_generator


def weights() -> torch.Tensor:
    return torch.randn(200, 300, generator=torch.Generator().manual_seed(3))


def test_so_many_weights_are_stuck_at_zero_and_at_either_end() -> None:
    w = weights()
    found = Stuck(stuck_at_zero=0.05, stuck_at_max=0.02)({"w": w}, chip_generator(0, 0))["w"]
    largest = float(w.abs().max())
    for value, p in ((0.0, 0.05), (largest, 0.01), (-largest, 0.01)):
        rate = float((found == value).double().mean())
        assert rate == pytest.approx(p, abs=5 * (p / w.numel()) ** 0.5)
    free = (found != 0) & (found.abs() != largest)
    assert torch.equal(found[free], w[free])


def test_what_is_stuck_stays_stuck_at_a_larger_probability() -> None:
    w = weights()
    found = [Stuck(stuck_at_zero=p, stuck_at_max=p / 2)({"w": w}, chip_generator(0, 4))["w"] for p in (0.0, 0.01, 0.1, 0.6)]
    assert torch.equal(found[0], w)
    for fewer, more in itertools.pairwise(found):
        stuck = fewer != w
        assert torch.equal(more[stuck], fewer[stuck])
        assert (more != w).sum() > stuck.sum()


def test_all_of_a_network_can_be_stuck() -> None:
    w = weights()
    assert (Stuck(stuck_at_zero=1.0)({"w": w}, chip_generator(0, 0))["w"] == 0).all()
    assert (Stuck(stuck_at_zero=0, stuck_at_max=1.0)({"w": w}, chip_generator(0, 0))["w"].abs() == w.abs().max()).all()


def test_each_device_of_a_pair_is_stuck_by_itself_and_for_ever() -> None:
    params, stuck = {"w": weights(), "b": torch.ones(3)}, Stuck(stuck_at_zero=0.1, stuck_at_max=0.03)
    chip = Program().program(params, chip_generator(0, 0))
    after = stuck.on_devices(chip, chip_generator(0, 1))
    g = after.devices["w"].programmed
    changed = g != chip.devices["w"].programmed
    assert float((g == 0).double().mean()) > 0.1  # programming noise leaves some at zero too
    assert float((changed & (g == chip.g_max)).double().mean()) == pytest.approx(0.03, abs=5 * (0.03 / g.numel()) ** 0.5)
    both = (after.devices["w"].exponent == 0).double()
    assert float(both.mean()) == pytest.approx(0.13, abs=5 * (0.13 / g.numel()) ** 0.5)
    assert float((both[0] * both[1]).mean()) == pytest.approx(0.13**2, abs=5 * (0.13**2 / params["w"].numel()) ** 0.5)
    old = after.after(3.15e7)
    assert torch.equal(old.devices["w"].programmed, g)
    assert torch.equal(chip.devices["w"].programmed, Program().program(params, chip_generator(0, 0)).devices["w"].programmed)


def test_a_pair_stuck_at_the_ends_reads_the_largest_weight_at_any_time() -> None:
    """G+ at G_max and G− at 0 is the largest weight of the tile; both at zero is 0: whatever the time."""
    w = torch.full((40, 50), 0.5)
    for time in (0.0, 3.15e7):
        chip = compose([Program(), Stuck(stuck_at_zero=0.5, stuck_at_max=0.5), Drift(time=time), Read(gdc=False)])(
            {"w": w}, chip_generator(0, 0)
        )["w"]
        # all devices are stuck: a weight is −max, 0 or +max, but for read noise
        for value, share in ((-0.5, 0.25), (0.0, 0.5), (0.5, 0.25)):
            near = (chip - value).abs() < 0.15
            assert float(near.double().mean()) == pytest.approx(share, abs=5 * (share / w.numel()) ** 0.5)


def test_a_stuck_device_is_read_with_the_noise_of_its_conductance_not_of_a_target() -> None:
    """A device of target 0 that is stuck at G_max has the read noise of one at G_max, however the others' is computed."""
    w = torch.zeros(64, 64)
    w[0, 0] = 1.0  # the tile has a largest weight, all others have targets of 0
    found = []
    for noise_from in ("programmed", "target"):
        steps = [Program(), Stuck(stuck_at_zero=0, stuck_at_max=1.0), Drift(time=1.0), Read(gdc=False, noise_from=noise_from)]
        found.append(compose(steps)({"w": w}, chip_generator(0, 0))["w"])
    assert torch.equal(*found)


def test_only_the_selected_parameters_of_a_chip() -> None:
    params = {"a.weight": weights(), "b.weight": weights()}
    chip = Program().program(params, chip_generator(0, 0))
    after = Stuck(stuck_at_zero=0.5, parameters="a.*").on_devices(chip, chip_generator(0, 1))
    assert torch.equal(after.devices["b.weight"].programmed, chip.devices["b.weight"].programmed)
    assert not torch.equal(after.devices["a.weight"].programmed, chip.devices["a.weight"].programmed)
    whole = Stuck(stuck_at_zero=0.5).on_devices(chip, chip_generator(0, 1))
    assert torch.equal(after.devices["a.weight"].programmed, whole.devices["a.weight"].programmed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stuck(stuck_at_zero=-0.1), "stuck_at_zero is -0.1: give a number of at least 0 and at most 1"),
        (lambda: Stuck(stuck_at_max=2), "stuck_at_max is 2"),
        (lambda: Stuck(stuck_at_zero=0.75, stuck_at_max=0.5), "give probabilities that are at most 1 together"),
        (lambda: compose([Stuck(), Drift(), Read()]), "needs devices"),
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()
