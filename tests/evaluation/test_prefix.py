"""What comes into the first noisy layer is computed once: the same numbers as by the whole network, to the last digit."""

import pytest
import torch
from torch import nn

from noiseproof.data import Splits
from noiseproof.evaluation.chips import Chip, _batched, measurer
from noiseproof.evaluation.prefix import cut, first_changed
from noiseproof.measure import Measured
from noiseproof.networks import CNN, LSNN, MLP, Network, ResNet32, adapt
from noiseproof.noise import PCM, Compose, Gaussian, Mismatch
from noiseproof.noise._base import Noise
from noiseproof.parameters import parameters_of
from noiseproof.randomness import generator

CHIPS = 3


def measured(network: nn.Module, split, noise: Noise, *, processes: int = 1, **options) -> list[Measured]:
    with measurer(network, split, processes=processes, **options) as measure:
        return list(measure([Chip(noise, 0, i) for i in range(CHIPS)]))


@pytest.mark.parametrize(
    ("architecture", "which"),
    [
        (CNN(), "conv2.weight"),
        (CNN(), "fc1.*,out.weight"),
        (CNN(neuron="lif", steps=3, threshold=0.2), "conv2.weight"),
        (CNN(neuron="lif", steps=3, threshold=0.2), "fc1.weight"),
        (CNN(neuron="lif", steps=3, threshold=0.2), "lif2.threshold"),
        (CNN(neuron="lif", steps=3, threshold=0.2), "conv1.weight,out.weight"),
        (MLP(hidden=(20, 15), neuron="lif", steps=4, coding="poisson"), "fc2.weight"),
        (MLP(hidden=(20, 15), neuron="alif", threshold=0.1, coding="latency"), "lif2.*,alif2.*,out.*"),
        (MLP(hidden=(20, 15), neuron="dlif", readout="max"), "out.weight"),
    ],
)
def test_numbers_are_those_of_the_whole_network(architecture, which, digits: Splits) -> None:
    network = architecture.build(digits.task, generator("weights", 0))
    noise = Mismatch(zeta=0.5, parameters=which)
    plain = measured(network, digits.test, noise, most_bytes=0)
    assert measured(network, digits.test, noise) == plain
    assert len({m.loss for m in plain}) == CHIPS


def test_sequences_and_residual_blocks(digits: Splits) -> None:
    from noiseproof.data import Split, Task

    stream = generator("inputs", 0)
    task = Task("sequences", (12, 3), 4, (0.0,), (1.0,), (-3.0, 3.0))
    split = Split(torch.randn(30, 12, 3, generator=stream), torch.randint(4, (30,), generator=stream))
    network = LSNN(units=20).build(task, stream)
    for which in ("recurrent.weight", "recurrent.neuron.*", "out.*"):
        noise = Mismatch(zeta=0.5, parameters=which)
        assert measured(network, split, noise) == measured(network, split, noise, most_bytes=0)

    task = Task("images", (3, 8, 8), 4, (0.0,) * 3, (1.0,) * 3, (-3.0, 3.0))
    split = Split(torch.randn(30, 3, 8, 8, generator=stream), torch.randint(4, (30,), generator=stream))
    network = ResNet32().build(task, stream)
    last = [name for name, _ in network.named_parameters()][-4]
    noise = Mismatch(zeta=0.5, parameters=last)
    assert measured(network, split, noise) == measured(network, split, noise, most_bytes=0)


def calls(network: Network, layer: str, work) -> int:
    """Return how often a layer is run by `work`."""
    seen = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *_: seen.append(1))
    try:
        work()
    finally:
        handle.remove()
    return len(seen)


def test_the_prefix_is_run_once_for_all_chips_and_levels(cnn: Network, digits: Splits) -> None:
    def work() -> None:
        with measurer(cnn, digits.test, processes=1, block=20) as measure:
            for zeta in (0.1, 0.3):
                list(measure([Chip(Mismatch(zeta=zeta, parameters="fc2.weight"), 0, i) for i in range(CHIPS)]))

    blocks = len(digits.test) // 20
    assert calls(cnn, "conv2", work) == blocks
    assert calls(cnn, "fc2", work) == blocks * CHIPS * 2


def test_too_large_a_prefix_is_not_kept(cnn: Network, digits: Splits) -> None:
    params = parameters_of(cnn)
    size = 1600 * 4 * len(digits.test)  # the input of fc1 for all images
    first = first_changed(cnn, params, [params | {"fc1.weight": params["fc1.weight"].clone()}])
    assert cut(cnn, params, digits.test, first, 20, size - 1) is None
    kept = cut(cnn, params, digits.test, first, 20, size)
    assert kept is not None
    assert kept.split.x.nbytes == size


def test_where_chips_begin_to_differ(cnn: Network, digits: Splits, outside: nn.Module) -> None:
    params = parameters_of(cnn)
    names = [name for name, _ in cnn.named_children()]

    def first(*noises: Noise) -> str | None:
        found = first_changed(cnn, params, [noise(params, generator("chip", 0)) for noise in noises])
        return names[found] if found else None

    assert first(Mismatch(zeta=0.1, parameters="out.bias")) == "out"
    assert first(Mismatch(zeta=0.1, parameters="fc1.weight"), Gaussian(std=0.1, parameters="conv2.bias")) == "conv2"
    assert first(Compose((Mismatch(zeta=0.1, parameters="out.*"), Mismatch(zeta=0.1, parameters="fc2.*")))) == "fc2"
    assert first(Mismatch(zeta=0.1)) is None
    mine = adapt(outside)
    chip = Mismatch(zeta=0.1, parameters="out.weight")(parameters_of(mine), generator("chip", 0))
    assert first_changed(mine, parameters_of(mine), [chip]) == 0


def test_chips_of_other_layers_may_follow_in_other_processes(cnn: Network, digits: Splits) -> None:
    noises = [Mismatch(zeta=0.5, parameters=which) for which in ("fc1.weight", "weights", "out.weight", "fc1.weight")]
    with measurer(cnn, digits.test, processes=2) as measure:
        found = [list(measure([Chip(noise, 0, i) for i in range(CHIPS)])) for noise in noises]
    assert found == [measured(cnn, digits.test, noise, most_bytes=0) for noise in noises]


def test_directions_and_batches_of_chips(cnn: Network, digits: Splits) -> None:
    noise = Mismatch(zeta=0.5, parameters="fc2.weight")
    chips = [Chip(noise, 0, 0, "direction", alpha) for alpha in (-1.0, 0.0, 2.0)]
    looped = {}
    for most_bytes in (0, 2**29):
        with measurer(cnn, digits.test, processes=1, most_bytes=most_bytes) as measure:
            looped[most_bytes] = list(measure(chips))
    assert looped[0] == looped[2**29]
    params = parameters_of(cnn)
    rest = cut(cnn, params, digits.test, first_changed(cnn, params, [chips[0].params(params)]), 50)
    assert rest is not None
    batched = list(_batched(rest.layers, params, rest.split, chips, rest.layers.own, True))
    assert [m.correct for m in batched] == [m.correct for m in looped[0]]
    assert [m.loss for m in batched] == pytest.approx([m.loss for m in looped[0]], rel=1e-5)


def test_the_network_stays_as_it_was(cnn: Network, digits: Splits) -> None:
    before = {name: p.clone() for name, p in cnn.state_dict().items()}
    cnn.train()
    measured(cnn, digits.test, Mismatch(zeta=0.5, parameters="fc2.weight"))
    assert all(torch.equal(p, before[name]) for name, p in cnn.state_dict().items())
    assert all(module.training for module in cnn.modules())


def test_converters_of_the_last_layers_see_their_inputs(cnn: Network, digits: Splits) -> None:
    noise = PCM(time=3600.0, dac_bits=6, adc_bits=6, parameters="fc2.weight,out.weight")
    assert measured(cnn, digits.test, noise) == measured(cnn, digits.test, noise, most_bytes=0)
    params = parameters_of(cnn)
    assert first_changed(cnn, params, [noise(params, generator("chip", 0))]) > first_changed(
        cnn, params, [Mismatch(zeta=0.1, parameters="fc1.weight")(params, generator("chip", 0))]
    )
