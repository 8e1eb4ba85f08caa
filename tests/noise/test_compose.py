"""Compositions: order, random numbers of each step, names and settings."""

from dataclasses import dataclass, replace

import pytest
import torch

from noiseproof import config
from noiseproof.errors import NoiseproofError
from noiseproof.noise import PCM, Chip, Compose, Drift, Gaussian, Mismatch, Noise, Program, Read, compose
from noiseproof.randomness import chip_generator

W = {"w": torch.randn(30, 40, generator=chip_generator(0, 0)), "bias": torch.zeros(30)}


def run(*steps: Noise) -> torch.Tensor:
    return Compose(steps)(W, chip_generator(0, 1))["w"]


@dataclass(frozen=True)
class Stuck(Noise):
    """A noise on weights that can also act on devices."""

    conductance: float = 25.0

    def draw(self, theta: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        return torch.zeros_like(theta)

    def on_devices(self, chip: Chip, generator: torch.Generator) -> Chip:
        return chip.change(lambda held, stream: held.stuck(torch.ones_like(held.programmed, dtype=torch.bool), 0.0), generator)


def test_steps_act_in_order() -> None:
    streams = Compose((Mismatch(0.3), Gaussian(0.1))).streams(chip_generator(0, 1))
    by_hand = Gaussian(0.1)(Mismatch(0.3)(W, streams[0]), streams[1])["w"]
    assert torch.equal(run(Mismatch(0.3), Gaussian(0.1)), by_hand)
    assert not torch.equal(run(Gaussian(0.1), Mismatch(0.3)), by_hand)


def test_random_numbers_of_a_step_depend_on_no_other() -> None:
    small, large = (run(Mismatch(z), Gaussian(0.1)) - run(Mismatch(z), Gaussian(0.0)) for z in (0.0, 0.5))
    assert torch.allclose(small, large, atol=1e-6)
    # nor on whether others are there
    alone = run(Gaussian(0.1)) - W["w"]
    assert torch.allclose(small, alone, atol=1e-6)
    # two steps of one kind are two draws
    twice = run(Gaussian(0.1), Gaussian(0.1)) - W["w"]
    assert not torch.allclose(twice, 2 * alone, atol=1e-3)


def test_pcm_is_program_drift_and_read() -> None:
    assert torch.equal(run(Program(), Drift(time=3600.0), Read()), PCM(time=3600.0)(W, chip_generator(0, 1))["w"])
    # the same devices with another noise before them
    nothing = run(Mismatch(0.0), Program(), Drift(time=3600.0), Read())
    assert torch.equal(nothing, run(Program(), Drift(time=3600.0), Read()))


def test_what_can_act_on_devices_does_between_program_and_read() -> None:
    assert (run(Program(), Stuck(), Drift(time=60.0), Read()) == 0).all()
    assert (run(Program(), Drift(time=60.0), Stuck(), Drift(time=3600.0), Read()) == 0).all()
    assert (run(Stuck(), Gaussian(0.0)) == 0).all()


def test_gradients_pass_through_all_steps() -> None:
    leaf = W["w"].clone().requires_grad_()
    noise = Compose((Mismatch(0.1), Program(), Drift(time=60.0), Read(), Gaussian(0.1)))
    out = noise({"w": leaf}, chip_generator(0, 1))["w"]
    (gradient,) = torch.autograd.grad(out.sum(), leaf)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_names_and_settings_tell_the_order() -> None:
    noise = Compose((Mismatch(0.1), Program(rows=64), Drift(time=60.0), Read(gdc=False), Mismatch(0.2)))
    described = noise.describe()
    assert described["name"] == "mismatch > program > drift > read > mismatch"
    assert (described["zeta of step 1"], described["zeta of step 5"]) == (0.1, 0.2)
    assert (described["time"], described["rows"], described["gdc"], described["parameters"]) == (60.0, 64, False, "weights")
    mixed = Compose((Mismatch(0.1, parameters="bias"), Gaussian(0.1))).describe()
    assert (mixed["parameters of step 1"], mixed["parameters of step 2"]) == ("bias", "weights")
    assert Compose((Mismatch(0.1, parameters="bias"), Gaussian(0.1, parameters="bias"))).parameters == "bias"


def test_texts_spell_compositions() -> None:
    made = config.spelled_noises("mismatch(zeta=0.1) > program(mapping=column) > drift(time=25|3600) > read(gdc=false)", "noise")
    assert [noise.describe()["time"] for noise in made] == [25.0, 3600.0]
    assert made[0] == Compose((Mismatch(zeta=0.1), Program(mapping="column"), Drift(time=25.0), Read(gdc=False)))
    (pcm, later) = config.spelled_noises("pcm(time=0|1e10, dac_bits=8, adc_bits=8)", "noise")
    assert (pcm, later.describe()["time"]) == (PCM(time=0.0, dac_bits=8, adc_bits=8), 1e10)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((), "steps is \\(\\): give at least one noise"),
        ((Read(), Program()), "noise is 'read > program': read needs devices; let program come before it"),
        ((Drift(), Program(), Read()), "drift needs devices"),
        ((Program(), Read(), Drift()), "drift needs devices"),
        ((Program(),), "noise is 'program': the devices are programmed and never read"),
        ((Mismatch(), Program(), Drift()), "never read"),
        ((Program(), Program(), Read()), "program comes when the weights are devices already"),
        ((Program(), PCM(), Read()), "pcm acts on weights, not on devices"),
        ((Program(), Mismatch(), Read()), "mismatch acts on weights, not on devices; let it come before program"),
        ((Program(), Drift(time=60.0), Drift(time=25.0), Read()), "drift to 25 s comes after drift to 60 s; times count from programming"),
        ((PCM(dac_bits=8), Gaussian()), "converters stand around the weights as they are read; let the step that has them be the last"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(steps, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        Compose(steps)


def test_one_step_is_itself_unless_it_is_none_alone() -> None:
    assert compose([Mismatch(0.3)]) == Mismatch(0.3)
    assert replace(compose([PCM()]), time=3.0) == PCM(time=3.0)
    for step in (Program(), Drift(), Read()):
        with pytest.raises(NoiseproofError):
            compose([step])
    with pytest.raises(NoiseproofError, match="noise is 'drift': it is one step of a chip of devices"):
        Drift()(W, chip_generator(0, 0))
    with pytest.raises(NoiseproofError, match="noise is 'mismatch': it acts on weights"):
        Mismatch().on_devices(PCM().program(W, chip_generator(0, 0)), chip_generator(0, 0))


def test_noise_in_one_layer_keeps_the_steps_between_program_and_read(mlp) -> None:
    from noiseproof.evaluation.layers import in_layer

    noise = Compose((Mismatch(0.1, parameters="all"), Program(), Drift(time=60.0), Read()))
    name = next(name for name, p in mlp.named_parameters() if p.ndim == 2)
    alone = in_layer(mlp, noise, [name])
    assert alone is not None
    assert alone.describe()["name"] == "mismatch > program > drift > read"
    chip = alone(dict(mlp.named_parameters()), chip_generator(0, 0))
    assert [n for n, p in mlp.named_parameters() if chip[n] is not p] == [name]
    bias = next(name for name, p in mlp.named_parameters() if p.ndim == 1)
    only = in_layer(mlp, noise, [bias])
    assert only is not None
    assert only.describe() == Mismatch(0.1, parameters=bias).describe()


def test_a_setting_is_given_once() -> None:
    with pytest.raises(NoiseproofError, match="mismatch has zeta twice; give it once"):
        config.spelled_noises("mismatch(zeta=0.1, zeta=0.2)", "noise")
