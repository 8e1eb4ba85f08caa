"""The papers' networks, spiking and plain: sizes, runs, state, coding, conversion."""

import weakref

import pytest
import torch
from torch import nn
from torch.func import functional_call

import noiseproof as npf
from noiseproof import _names
from noiseproof.data import Split, Splits, Task
from noiseproof.methods import Context, Dropout, ForwardNoise, Standard, WeightAdversary
from noiseproof.networks import CNN, LSNN, MLP, VGG5, VGG11, ResNet12, ResNet32, SpikingNetwork, WideResNet
from noiseproof.networks._spiking import Readout, SequenceDropout
from noiseproof.networks.conversion import convert
from noiseproof.neurons import Atan
from noiseproof.parameters import call_inference, is_mode_free, parameters_of
from noiseproof.randomness import generator, stochastic

GREY = Task("grey", (1, 28, 28), 10, (0.3,), (0.4,), (0.0, 1.0))
CIFAR = Task("cifar", (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, (0.0, 1.0))
ECG = Task("ecg", (20, 2), 4, (0.0,) * 2, (1.0,) * 2, (-5.0, 5.0))
FRAMES = Task("frames", (6, 2, 12, 12), 10, (0.1,) * 2, (0.3,) * 2, (0.0, 9.0))

SMALL = {
    "mlp": (MLP(hidden=(20, 20), neuron="lif", steps=5, threshold=0.3, trainable=("threshold", "leak")), GREY),
    "mlp, dlif": (MLP(hidden=(20,), neuron="dlif", steps=5, threshold=0.3, trainable=("a",), per="neuron"), GREY),
    "mlp, alif": (MLP(hidden=(20,), neuron="alif", steps=5, threshold=0.02, readout="last"), GREY),
    "mlp, frames": (MLP(hidden=(20,), neuron="if", threshold=0.3, readout="max"), FRAMES),
    "cnn": (CNN(neuron="lif", steps=3, threshold=0.1, per="channel"), GREY),
    "lsnn": (LSNN(units=30), ECG),
    "lsnn, lif": (LSNN(units=30, neuron="lif", threshold=0.05), ECG),
    "resnet12": (ResNet12(steps=2, threshold=0.05), CIFAR),
    "resnet32": (ResNet32(neuron="lif", steps=2, threshold=0.3), CIFAR),
    "wide-resnet": (WideResNet(depth=10, widen=1, steps=2), CIFAR),
}
every_network = pytest.mark.parametrize(("architecture", "task"), SMALL.values(), ids=SMALL.keys())


def inputs(task: Task, count: int = 4) -> torch.Tensor:
    low, high = task.bounds
    return low + (high - low) * torch.rand(count, *task.shape, generator=torch.Generator().manual_seed(1))


def build(architecture, task: Task) -> SpikingNetwork:
    network = architecture.build(task, generator("weights", 0))
    assert isinstance(network, SpikingNetwork)
    return network.eval()


@pytest.mark.parametrize(
    ("architecture", "task", "count"),
    [
        (VGG5(neuron="relu"), CIFAR, 50_595_520),
        (VGG5(), CIFAR, 50_595_520 + 5 * 2),  # threshold and leak a layer
        (VGG11(neuron="relu"), CIFAR, 61_359_808),
        (ResNet32(), CIFAR, 464_154),
        (WideResNet(neuron="relu"), CIFAR, 2_748_890),
        (WideResNet(), CIFAR, 2_748_890 + 13 * 10),  # and a[t] for eight steps
        (ResNet12(neuron="relu"), CIFAR, 5_207_744),
        (LSNN(), Task("ecg", (100, 2), 4, (0.0,) * 2, (1.0,) * 2, (-5.0, 5.0)), 256 * 2 + 256 * 256 + 256 * 4 + 4 + 4),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "neuron") else "",
)
def test_sizes_are_the_papers(architecture, task: Task, count: int) -> None:
    with torch.device("meta"):
        network = architecture.make(task)
    assert sum(p.numel() for p in network.parameters()) == count


def test_the_table_has_every_architecture() -> None:
    covered = {key.partition(",")[0] for key in SMALL} | {"vgg5", "vgg11"}  # too large for the battery; counted above
    assert covered == set(_names.available("networks", "network"))


@every_network
def test_a_run_gives_logits_state_and_traces(architecture, task: Task) -> None:
    network, x = build(architecture, task), inputs(task)
    run = network.run(x, record=("current", "membrane", "spikes"))
    assert torch.allclose(run.logits, network(x), atol=1e-5)
    assert run.logits.shape == (4, task.classes)
    steps = task.shape[0] if network.sequence else architecture.steps
    layers = set(run.state)
    assert layers
    assert all(set(traces) == layers and all(t.shape[:2] == (steps, 4) for t in traces.values()) for traces in run.traces.values())
    assert all(set(trace.unique().tolist()) <= {0.0, 1.0} for trace in run.traces["spikes"].values())
    assert any(trace.any() for trace in run.traces["spikes"].values())
    assert torch.equal(network.run(x, surrogate=Atan()).logits, network(x))
    other = npf.noise.Mismatch(0.3)(parameters_of(network), torch.Generator().manual_seed(0))
    assert torch.equal(network.run(x, params=other).logits, functional_call(network, other, (x,)))


@every_network
def test_no_state_is_left_behind(architecture, task: Task) -> None:
    network, x = build(architecture, task).double(), inputs(task).double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = network(x)
    network(inputs(task, 7).double())
    assert torch.equal(network(x), first)
    assert torch.allclose(network(x[1:2]), first[1:2])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@every_network
def test_vmap_over_chips_equals_a_loop(architecture, task: Task) -> None:
    """In float64: in float32 sums in another order move a potential across the threshold now and then."""
    network, x = build(architecture, task).double(), inputs(task, 2).double()
    nominal = {name: p.detach() for name, p in parameters_of(network).items()}
    chips = [npf.noise.Mismatch(0.2, parameters="all")(nominal, generator("chip", 0, i)) for i in range(3)]
    stacked = {name: torch.stack([chip[name] for chip in chips]) for name in chips[0]}
    batched = torch.vmap(lambda p: functional_call(network, p, (x,)))(stacked)
    loop = torch.stack([functional_call(network, chip, (x,)) for chip in chips])
    assert torch.allclose(batched, loop)


@every_network
@pytest.mark.parametrize(
    "method",
    [Standard(), ForwardNoise(parameters="all"), Dropout(), WeightAdversary(steps=1, parameters="all")],
    ids=lambda m: type(m).__name__,
)
def test_every_method_works_on_every_network(method, architecture, task: Task) -> None:
    network, x = build(architecture, task), inputs(task)
    y = torch.arange(4) % task.classes
    loss = method.loss(network, dict(network.named_parameters()), (x, y), Context(torch.Generator().manual_seed(0)))
    gradients = torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad], allow_unused=True)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients if g is not None)
    assert sum(bool(g.any()) for g in gradients if g is not None) >= len(gradients) // 2


@pytest.mark.parametrize("architecture", [VGG5, ResNet12], ids=lambda a: a.__name__)
def test_sequence_dropout_has_one_mask_a_sequence(architecture) -> None:
    layer = next(m for m in architecture().make(CIFAR).modules() if isinstance(m, SequenceDropout))
    assert layer.p == 0.2
    dropped = layer.train()(torch.ones(5, 3, 1000))
    assert torch.equal(dropped, dropped[:1].expand(5, -1, -1))
    assert not torch.equal(dropped[0, 0], dropped[0, 1])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(layer.eval()(dropped), dropped)


def test_dropout_masks_whole_sequences() -> None:
    network = MLP(hidden=(400,), neuron="if", steps=6, threshold=1e-3).build(GREY, generator("weights", 0))
    with torch.no_grad():  # every unit fires at every step
        network.fc1.weight.zero_()
        network.fc1.bias.fill_(10.0)
    seen: list[torch.Tensor] = []
    read = network.out.read
    network.out.read = lambda spikes, steps: (seen.append(spikes), read(spikes, steps))[1]
    loss = Dropout(p=0.5).loss(network, dict(network.named_parameters()), (inputs(GREY), torch.arange(4)), Context(torch.Generator()))
    assert torch.isfinite(loss)
    fired = seen[0] > 0
    silent = ~fired.any(0)
    assert silent.float().mean().item() == pytest.approx(0.5, abs=0.05)  # with a mask a step none would be silent at all of them
    assert torch.equal(fired.all(0), ~silent)
    assert set(seen[0].unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(silent[0], silent[1])


def test_direct_coding_computes_the_first_layer_once() -> None:
    network = build(MLP(hidden=(20, 20), neuron="lif", steps=7, threshold=0.3), GREY)
    rows: list[int] = []
    for name in ("fc1", "fc2"):
        getattr(network, name).register_forward_hook(lambda module, args, out: rows.append(len(out)))
    network(inputs(GREY))
    assert rows == [4, 28]


def test_readouts_are_what_they_say() -> None:
    x = inputs(GREY)
    base = {"hidden": (20,), "neuron": "lif", "steps": 5, "threshold": 0.3}
    networks = {how: build(MLP(**base, readout=how), GREY) for how in ("rate", "sum", "last", "max")}
    for how, network in networks.items():
        nn.init.normal_(network.out.bias)
        spikes = network.run(x, record=("spikes",)).traces["spikes"]["lif1"]
        currents = nn.functional.linear(spikes, network.out.weight, network.out.bias)
        expected = {"rate": currents.mean(0), "sum": currents.sum(0), "last": currents.sum(0), "max": currents.cumsum(0).amax(0)}[how]
        assert torch.allclose(network(x), expected, atol=1e-5), how


@pytest.mark.parametrize("how", ["last", "max"])
def test_readouts_with_a_leak(how: str) -> None:
    network = build(MLP(hidden=(20,), neuron="lif", steps=5, threshold=0.3, readout=how, readout_leak=0.6), GREY)
    nn.init.normal_(network.out.bias)
    spikes = network.run(inputs(GREY), record=("spikes",)).traces["spikes"]["lif1"]
    u, potentials = torch.zeros(4, 10), []
    for s in spikes:
        u = 0.6 * u + nn.functional.linear(s, network.out.weight, network.out.bias)
        potentials.append(u)
    expected = potentials[-1] if how == "last" else torch.stack(potentials).amax(0)
    assert torch.allclose(network(inputs(GREY)), expected, atol=1e-5)
    still = Readout(20, 10, how, leak=0.6)  # a sequence that stays the same
    assert torch.allclose(still.read(spikes[:1], 5), still.read(spikes[:1].expand(5, -1, -1), 5), atol=1e-5)


def test_a_run_takes_another_surrogate() -> None:
    network, x = build(MLP(hidden=(20,), neuron="lif", steps=5, threshold=0.3), GREY), inputs(GREY)
    gradients = [torch.autograd.grad(network.run(x, surrogate=s).logits.sum(), network.fc1.weight)[0] for s in (None, Atan())]
    assert not torch.equal(*gradients)


def test_a_t_is_trained_wherever_dlif_is_and_surrogates_have_their_own_settings() -> None:
    for architecture in (MLP, VGG5, ResNet32, WideResNet, LSNN):
        settings = {} if architecture in (VGG5, WideResNet) else {"tau": 0.0} if architecture is LSNN else {}
        with torch.device("meta"):
            network = architecture(neuron="dlif", **settings).make(
                ECG if architecture is LSNN else CIFAR if architecture is not MLP else GREY
            )
        layers = [m for m in network.modules() if isinstance(m, npf.neurons.DLIF)]
        assert layers
        assert all(layer.a.requires_grad and not layer.threshold.requires_grad for layer in layers)
    for architecture in (VGG5, LSNN, ResNet12):
        neurons = architecture().neurons((3,))
        assert neurons.form.surrogate == npf.neurons.Triangle(0.3)
        assert architecture(surrogate="atan").neurons((3,)).form.surrogate == Atan()
    assert VGG5(surrogate_settings=(1.0,)).neurons((3,)).form.surrogate == npf.neurons.Triangle(1.0)


def test_coded_inputs_are_in_the_datas_own_units() -> None:
    task = Task("grey", (1, 28, 28), 10, (0.3,), (0.4,), (-2.0, 6.0))
    x = -2 + 8 * torch.rand(3, 1, 28, 28)
    for coding in ("poisson", "latency"):
        network = build(MLP(hidden=(20,), neuron="lif", steps=400 if coding == "poisson" else 5, coding=coding), task)
        seen: list[torch.Tensor] = []
        network.normalise.register_forward_hook(lambda module, args, out, seen=seen: seen.append(args[0]))
        network.run(x, generator=torch.Generator().manual_seed(0))
        assert set(seen[0].unique().tolist()) == {-2.0, 6.0}
        if coding == "poisson":
            assert (seen[0].unflatten(0, (400, 3)).mean(0) - x).abs().max() < 1.0


def test_poisson_draws_are_common_to_all_passes(digits: Splits) -> None:
    """The same for every size of blocks, for both arguments of a KL, and whatever ran before."""
    from noiseproof.evaluation.chips import Chip, _batched, measurer
    from noiseproof.measure import measure

    network = MLP(hidden=(64,), neuron="lif", steps=4, coding="poisson", threshold=0.3).build(digits.task, generator("weights", 0))
    params = parameters_of(network)
    losses = [measure(network, params, digits.test.x, digits.test.y, block).loss for block in (7, 50, 100)]
    assert losses == pytest.approx(losses[:1] * 3, rel=1e-6)
    settings = {"restarts": 1, "samples": 60}
    attacks = [npf.attacks.WeightAttack(zeta=z, steps=2) for z in (0.0, 0.05, 0.1)]
    with stochastic(0):
        together = npf.attack_curves(network, digits.test, attacks, **settings)
        alone = npf.attack_curves(network, digits.test, attacks[2:], **settings)
    assert all(abs(r.value) < 1e-6 for r in together if r.metric == "kl" and r.perturbation["zeta"] == 0.0)
    values = {r.key: r.value for r in together}
    assert all(values[r.key] == r.value for r in alone)
    chips = [Chip(npf.noise.Mismatch(0.2), 0, i) for i in range(3)]
    nominal = {name: p.detach() for name, p in params.items()}
    with measurer(network, digits.test, processes=1) as run:
        looped = list(run(chips))
    assert [m.correct for m in _batched(network, nominal, digits.test, chips)] == [m.correct for m in looped]


def test_poisson_coded_sequences_draw_at_every_step() -> None:
    network, x = build(LSNN(units=30, coding="poisson"), ECG), inputs(ECG)
    seen: list[torch.Tensor] = []
    network.normalise.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    network.run(x, generator=torch.Generator().manual_seed(0))
    assert seen[0].shape == (80, 2)
    assert set(seen[0].unique().tolist()) == {-5.0, 5.0}


def test_state_is_carried_on() -> None:
    network, x = build(LSNN(units=30), ECG), inputs(ECG)
    whole = network.run(x, record=("spikes",))
    short = build(LSNN(units=30), Task("half", (10, 2), 4, ECG.mean, ECG.std, ECG.bounds))
    first = short.run(x[:, :10], record=("spikes",))
    second = short.run(x[:, 10:], state=first.state, record=("spikes",))
    parts = torch.cat([r.traces["spikes"]["recurrent"] for r in (first, second)])
    assert torch.equal(parts, whole.traces["spikes"]["recurrent"])
    with pytest.raises(npf.NoiseproofError, match="state has nothing for layer recurrent"):
        short.run(x[:, :10], state={})


def test_poisson_coding_draws_from_its_generator_and_raises_without() -> None:
    network, x = build(MLP(hidden=(20,), neuron="lif", steps=5, coding="poisson"), GREY), inputs(GREY)
    with pytest.raises(npf.NoiseproofError, match="generator is None"):
        network(x)
    one, again, other = (network.run(x, generator=torch.Generator().manual_seed(s)).logits for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    with stochastic(3):
        assert torch.equal(network(x), network(x))
    with stochastic(3, running=True):
        assert not torch.equal(network(x), network(x))
    expected = build(MLP(hidden=(20,), neuron="lif", steps=5, coding="poisson-expected"), GREY)
    assert torch.equal(expected(x), build(MLP(hidden=(20,), neuron="lif", steps=5), GREY)(x))


@pytest.mark.parametrize("coding", ["poisson", "latency"])
def test_coded_networks_are_trained_and_measured(coding: str, digits: Splits) -> None:
    network = MLP(hidden=(64,), neuron="lif", steps=6, coding=coding, threshold=0.3).build(digits.task, generator("weights", 0))
    done = npf.train(network, digits, epochs=8, batch_size=20, progress=False)
    assert max(scores["validation_accuracy"] for scores in done.history) > 0.5
    settings = {"noise": [npf.noise.Mismatch(0.1)], "chips": 2, "processes": 1, "progress": False, "attack": (0.1,), "attack_restarts": 1}
    first, again = (npf.evaluate(network, digits, **settings).records() for _ in range(2))
    assert [r.value for r in first] == [r.value for r in again]


@pytest.mark.parametrize("architecture", [VGG5, ResNet12, MLP], ids=lambda a: a.__name__)
def test_conversion_sets_thresholds_by_the_percentile(architecture) -> None:
    """Layer by layer: the share of currents above the threshold is 1 % in the layer's busiest step."""
    task = GREY if architecture is MLP else Task("small", (3, 16, 16), 10, (0.5,) * 3, (0.25,) * 3, (0.0, 1.0))
    plain = architecture(neuron="relu").build(task, generator("weights", 0))
    spiking = architecture(neuron="lif", steps=4).build(task, generator("weights", 1))
    x = inputs(task, 12)
    report = convert(plain, spiking, [(x, torch.arange(12) % 10)], percentile=99.0, scale=1.0)
    for name, value in plain.state_dict().items():
        assert torch.equal(spiking.state_dict()[name], value)
    run = spiking.eval().run(x, record=("current",))
    assert list(report.thresholds) == list(run.traces["current"])
    for name, threshold in report.thresholds.items():
        currents = run.traces["current"][name].flatten(1)
        above = (currents > threshold).float().mean(1).max()
        assert 0.002 < above <= 0.01 + 1 / currents.shape[1], name
    assert report.plain_accuracy is not None
    assert report.spiking_accuracy is not None
    assert all(float(p.detach()) == 1.0 for n, p in spiking.named_parameters() if n.endswith("leak"))


def test_conversion_keeps_the_currents_of_one_layer_at_a_time() -> None:
    """In Poisson coding over many steps those of all layers would not fit; the draw is the same for every layer."""
    task = Task("small", (3, 16, 16), 10, (0.5,) * 3, (0.25,) * 3, (0.0, 1.0))
    plain, settings = VGG5(neuron="relu", width=0.1, dense=20).build(task, generator("weights", 0)), {"width": 0.1, "dense": 20}
    spiking = build(VGG5(neuron="lif", steps=12, coding="poisson", **settings), task)
    kept: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def count(module: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        nonlocal most
        if len(out) > 12:  # of one sample, all are asked for their names
            kept.append(weakref.ref(out.untyped_storage()))
        most = max(most, sum(one() is not None for one in kept))

    for layer in spiking.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    found = convert(plain, spiking, [inputs(task)]).thresholds
    assert most == 1
    with stochastic(0), torch.no_grad():
        currents = spiking.run(inputs(task), record=("current",)).traces["current"]
    for name, threshold in found.items():
        flat = currents[name].flatten(1)
        assert threshold == pytest.approx(float(flat.kthvalue(round(0.997 * flat.shape[1])).values.max()), rel=1e-6)


def test_a_converted_network_approaches_the_plain_one(digits: Splits) -> None:
    plain = MLP(hidden=(64,)).build(digits.task, generator("weights", 0))
    npf.train(plain, digits, epochs=15, batch_size=20, progress=False)
    found = []
    for steps in (2, 64):
        spiking = MLP(hidden=(64,), neuron="if", steps=steps, reset="soft-next").build(digits.task, generator("weights", 0))
        report = convert(plain, spiking, [(digits.train.x, digits.train.y)])
        assert report.plain_accuracy is not None
        assert report.spiking_accuracy is not None
        found.append(report.plain_accuracy - report.spiking_accuracy)
    assert found[1] < 0.03
    assert found[1] <= found[0]


def test_conversion_refuses_what_does_not_fit() -> None:
    plain, spiking = (MLP(hidden=(20,), neuron=n, steps=2).build(GREY, generator("weights", 0)) for n in ("relu", "lif"))
    other = MLP(hidden=(30,)).build(GREY, generator("weights", 0))
    for arguments, message in (
        ((other, spiking, [inputs(GREY)]), "fc1.weight of the plain network has no counterpart"),
        ((plain, spiking, []), "batches is empty"),
    ):
        with pytest.raises(npf.NoiseproofError, match=message):
            convert(*arguments)
    for settings, message in (
        ({"neuron": "alif"}, "layer alif1 is ALIF"), ({"neuron": "lif", "tau": 5.0}, "layer lif1 has a time constant"),
        ({"neuron": "lif", "decay_input": True}, "or decay_input"),
    ):  # fmt: skip
        with pytest.raises(npf.NoiseproofError, match=message):
            convert(plain, build(MLP(hidden=(20,), **settings), GREY), [inputs(GREY)])
    with pytest.raises(npf.NoiseproofError, match=r"pooling of the plain network is MaxPool2d\(.*and that of the spiking one AvgPool2d\("):
        convert(CNN().build(GREY, generator("weights", 0)), build(CNN(neuron="lif"), GREY), [inputs(GREY)])
    with pytest.raises(npf.NoiseproofError, match="percentile is 0"):
        convert(plain, spiking, [inputs(GREY)], percentile=0)
    nn.init.zeros_(plain.fc1.weight)
    with pytest.raises(npf.NoiseproofError, match="layer lif1 has no positive current"):
        convert(plain, spiking, [inputs(GREY)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(neuron="lif", steps=0), "steps is 0"),
        (lambda: MLP(neuron="lif", leak=0.0), "leak is 0.0"),
        (lambda: MLP(neuron="lif", threshold=-1.0), "threshold is -1.0"),
        (lambda: MLP(neuron="alif", leak=1.0), "alif needs one below 1"),
        (lambda: MLP(neuron="alif", reset="hard"), "reset is 'hard': it has no effect: neuron alif has none of its own"),
        (lambda: MLP(neuron="if", leak=0.5), "leak is 0.5: it has no effect"),
        (lambda: LSNN(leak=0.5), "leak is 0.5: it has no effect: tau holds"),
        (lambda: MLP(neuron="lif", readout_leak=0.5), "readout rate has none"),
        (lambda: build(LSNN(coding="latency"), ECG), "coding is 'latency': the inputs are sequences"),
        (lambda: LSNN(neuron="relu"), "lsnn is a spiking network"),
        (lambda: LSNN().build(GREY, generator("weights", 0)), "network lsnn takes sequences"),
        (lambda: VGG5().build(ECG, generator("weights", 0)), "this network takes images"),
        (lambda: VGG11().build(Task("tiny", (3, 4, 4), 10, (0.5,) * 3, (1.0,) * 3, (0.0, 1.0)), generator("weights", 0)), "too small"),
        (lambda: WideResNet(depth=15), "depth is 15"),
        (lambda: MLP(neuron="lif", readout="mean"), "readout is 'mean'"),
        (lambda: build(LSNN(units=8), ECG)(torch.randn(20, 3, 2)), r"looks like \[time, batch, …\]: x.transpose"),
        (lambda: build(LSNN(units=8), ECG).run(inputs(ECG), steps=3), "the inputs are sequences of 20 steps"),
        (lambda: build(MLP(neuron="lif"), GREY).run(inputs(GREY), steps=0), "steps is 0"),
        (lambda: build(MLP(neuron="lif"), GREY).run(inputs(GREY), record=("voltage",)), "record is 'voltage'"),
        (lambda: MLP().build(GREY, generator("weights", 0)).run(inputs(GREY), steps=3), "this network has no spiking neurons"),
    ],
)
def test_bad_settings_are_named(make, message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        make()


def test_modes_are_known() -> None:
    assert is_mode_free(MLP(neuron="lif").build(GREY, generator("weights", 0)))
    assert not is_mode_free(VGG5().make(CIFAR))
    assert not is_mode_free(ResNet32(neuron="lif").make(CIFAR))


def test_training_changes_what_is_trainable_and_nothing_else(digits: Splits) -> None:
    architecture = MLP(hidden=(32,), neuron="lif", steps=5, threshold=0.3, trainable=("threshold",))
    network = architecture.build(digits.task, generator("weights", 0))
    before = {name: p.clone() for name, p in network.named_parameters()}
    npf.train(network, digits, epochs=1, batch_size=20, progress=False)
    changed = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert changed == set(before) - {"lif1.leak"}


def test_an_attack_reaches_thresholds_and_time_constants() -> None:
    network, x = build(LSNN(units=40), ECG), inputs(ECG, 16)
    params = parameters_of(network)
    attack = npf.attacks.WeightAttack(zeta=0.2, steps=3, parameters="*threshold,*tau*,*beta")
    with torch.no_grad():
        clean = call_inference(network, params, x).log_softmax(-1)
    found = attack(network, params, [(x, None)], torch.Generator().manual_seed(0))
    assert set(found.delta) == {
        "recurrent.neuron.threshold",
        "recurrent.neuron.tau",
        "recurrent.neuron.tau_adaptation",
        "recurrent.neuron.beta",
    }
    assert found.objective > 0
    assert clean.shape == (16, 4)


def test_resnet_shortcuts_without_parameters() -> None:
    from noiseproof.networks._residual import PaddedShortcut

    x = torch.randn(2, 3, 5, 5)
    out = PaddedShortcut(4, 2)(x)
    assert out.shape == (2, 7, 3, 3)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def test_chips_of_a_spiking_network_are_the_same_in_a_pool(digits: Splits) -> None:
    network = MLP(hidden=(32,), neuron="lif", steps=5, threshold=0.3).build(digits.task, generator("weights", 0))
    split = Split(digits.test.x, digits.test.y)
    noise = npf.noise.Mismatch(0.3, parameters="all")
    one, two = ([r.value for r in npf.monte_carlo(network, split, noise, chips=4, processes=p)] for p in (1, 2))
    assert one == two
