"""Networks of snnTorch, SpikingJelly, Norse and sinabs: the library's own loop exactly, and nothing of the module changed."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import norse.torch as norse
import pytest
import sinabs.layers as sinabs
import snntorch as snn
import torch
from norse.torch.functional.lif import LIFParameters
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

import noiseproof as npf
from noiseproof import checkpoint
from noiseproof.data import Splits
from noiseproof.methods import Context
from noiseproof.parameters import call, call_inference, select

T = 5


class OwnLoop(nn.Module):
    """As snnTorch's tutorials write it: a loop over time in forward, states passed by hand, time-first lists at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 20), snn.Synaptic(alpha=0.8, beta=0.9, learn_beta=True, threshold=0.3)
        self.fc2, self.lif2 = nn.Linear(20, 10), snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        syn, mem = self.lif1.reset_mem()
        mem2 = self.lif2.reset_mem()
        spikes, membranes = [], []
        for _ in range(T):
            spk, syn, mem = self.lif1(self.fc1(x.flatten(1)), syn, mem)
            spk2, mem2 = self.lif2(self.fc2(spk), mem2)
            spikes.append(spk2)
            membranes.append(mem2)
        return torch.stack(spikes), torch.stack(membranes)


def snntorch_conv() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True, learn_beta=True)),
        *(nn.Flatten(), nn.Linear(144, 10), snn.Leaky(beta=0.8, init_hidden=True, output=True, learn_threshold=True)),
    )


def snntorch_recurrent() -> nn.Module:
    recurrent = snn.RLeaky(beta=0.9, threshold=0.3, linear_features=20, init_hidden=True)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), recurrent, nn.Linear(20, 10), snn.Leaky(beta=0.8, init_hidden=True))


def spikingjelly_conv(mode: str = "s") -> nn.Module:
    network = nn.Sequential(
        *(layer.Conv2d(1, 4, 3), layer.BatchNorm2d(4), neuron.ParametricLIFNode(init_tau=3.0), layer.Flatten()),
        *(layer.Linear(144, 10), neuron.ComplementaryLIFNode()),
    )
    functional.set_step_mode(network, mode)
    return network


def spikingjelly_recurrent() -> nn.Module:
    inner = layer.LinearRecurrentContainer(neuron.LIFNode(v_reset=None), in_features=20, out_features=20)
    return nn.Sequential(layer.Flatten(), layer.Linear(64, 20), inner, layer.Linear(20, 10), neuron.IFNode())


def norse_step() -> nn.Module:
    cell = norse.LIFRecurrentCell(20, 20, p=LIFParameters(v_th=nn.Parameter(torch.tensor(0.1)), method="super"))
    cell.v_th = cell.p.v_th
    return norse.SequentialState(nn.Flatten(), nn.Linear(64, 20), cell, nn.Linear(20, 10), norse.LICell())


def norse_lifted() -> nn.Module:
    lif = norse.LIF(p=LIFParameters(v_th=torch.tensor(0.1)))
    return norse.SequentialState(norse.Lift(nn.Conv2d(1, 4, 3)), lif, nn.Flatten(2), nn.Linear(144, 10), norse.LI())


def sinabs_recurrent() -> nn.Module:
    recurrent = sinabs.LIFRecurrent(tau_mem=10.0, rec_connect=nn.Linear(20, 20), tau_syn=5.0, spike_threshold=torch.tensor(0.1))
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 20), recurrent, nn.Linear(20, 10), sinabs.ExpLeak(tau_mem=10.0))


def sinabs_conv() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), sinabs.LIFSqueeze(tau_mem=5.0, spike_threshold=torch.tensor(0.1), num_timesteps=T), nn.Flatten()),
        *(nn.Linear(144, 10), sinabs.IAFSqueeze(num_timesteps=T, spike_threshold=torch.tensor(0.1))),
    )


def steps_of(module: nn.Module, x: Tensor) -> Tensor:
    out = [module(x) for _ in range(T)]
    return torch.stack([o[0] if isinstance(o, tuple) else o for o in out]).sum(0)


def snntorch_loop(module: nn.Module, x: Tensor) -> Tensor:
    for part in module.modules():
        if hasattr(part, "reset_mem"):
            part.reset_mem()
    return steps_of(module, x)


def spikingjelly_loop(module: nn.Module, x: Tensor) -> Tensor:
    functional.reset_net(module)
    if module[0].step_mode == "m":
        return module(x.repeat(T, 1, 1, 1, 1)).sum(0)
    return steps_of(module, x)


def norse_loop(module: nn.Module, x: Tensor) -> Tensor:
    if isinstance(module[0], norse.Lift):
        return module(x.repeat(T, 1, 1, 1, 1))[0].sum(0)
    state, out = None, []
    for _ in range(T):
        value, state = module(x, state)
        out.append(value)
    return torch.stack(out).sum(0)


def sinabs_loop(module: nn.Module, x: Tensor) -> Tensor:
    for part in module.modules():
        if isinstance(part, sinabs.StatefulLayer):
            part.init_state_with_shape((1,))  # of no shape that fits: begins anew
    if isinstance(module[0], nn.Conv2d):
        return module(x.repeat_interleave(T, 0)).unflatten(0, (len(x), T)).sum(1)
    return module(x.unsqueeze(1).repeat(1, T, 1, 1, 1)).sum(1)


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    loop: Callable[[nn.Module, Tensor], Tensor]
    settings: dict[str, Any]
    # parameters that are thresholds or leaks
    neurons: tuple[str, ...]


STEPS = {"steps": T}
CASES = {
    "snntorch conv": Case(snntorch_conv, snntorch_loop, STEPS, ("2.beta", "5.threshold")),
    "snntorch recurrent": Case(snntorch_recurrent, snntorch_loop, STEPS, ("2.recurrent.weight",)),
    "snntorch own loop": Case(OwnLoop, lambda m, x: m(x)[0].sum(0), {"layout": "own"}, ("lif1.beta",)),
    "spikingjelly conv": Case(spikingjelly_conv, spikingjelly_loop, STEPS, ("2.w",)),
    "spikingjelly conv, multi-step": Case(lambda: spikingjelly_conv("m"), spikingjelly_loop, STEPS, ("2.w",)),
    "spikingjelly recurrent": Case(spikingjelly_recurrent, spikingjelly_loop, STEPS, ("2.rc.weight",)),
    "norse recurrent": Case(norse_step, norse_loop, STEPS, ("2.v_th",)),
    "norse conv, lifted": Case(norse_lifted, norse_loop, STEPS, ()),
    "sinabs recurrent": Case(sinabs_recurrent, sinabs_loop, STEPS, ("2.tau_mem", "2.spike_threshold", "2.rec_connect.weight")),
    "sinabs conv": Case(sinabs_conv, sinabs_loop, STEPS, ("1.tau_mem", "1.spike_threshold")),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def inputs(batch: int = 4, seed: int = 0) -> Tensor:
    return 3 * torch.rand(batch, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def module(case: Case) -> nn.Module:
    torch.manual_seed(0)
    built = case.build()
    with torch.no_grad():
        for name, p in built.named_parameters():
            if p.ndim >= 2:
                p.mul_(3)  # so that all layers spike
            elif name.endswith("bias"):
                p.add_(0.1)
    return built.eval()


def state_of(module: nn.Module) -> dict[str, Any]:
    """All that a module has, by identity and content."""
    found: dict[str, Any] = {}
    for prefix, part in module.named_modules():
        values = {**vars(part), **part._buffers, **vars(part).get("_memories", {})}
        found.update({f"{prefix}:{n}": (id(v), v.clone()) if isinstance(v, Tensor) else (id(v), None) for n, v in values.items()})
        found[f"{prefix}:hooks"] = (len(part._forward_hooks) + len(part._forward_pre_hooks), None)
        found[f"{prefix}:training"] = (part.training, None)
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, (identity, value) in before.items():
        assert after[name][0] == identity, name
        assert value is None or torch.equal(value, after[name][1]), name


@every_case
def test_it_is_the_librarys_own_loop(case: Case, module: nn.Module) -> None:
    """Outputs and gradients, in eval mode: there the surrogate stays on."""
    x, weights = inputs(), torch.linspace(-1, 1, 40).view(4, 10)
    params = {n: p for n, p in module.named_parameters() if p.requires_grad}
    logits = npf.adapt(module, **case.settings)(x)
    got = torch.autograd.grad((logits * weights).sum(), list(params.values()))
    for part in module.modules():
        if isinstance(part, neuron.BaseNode):
            part.training = True
    plain = case.loop(module, x)
    wanted = torch.autograd.grad((plain * weights).sum(), list(params.values()))
    assert torch.equal(logits, plain)
    assert logits.abs().sum() > 0
    for name, g, w in zip(params, got, wanted, strict=True):
        assert torch.equal(g, w), name
        assert name.endswith("bias") or g.abs().sum() > 0, name


@every_case
def test_calls_do_not_know_each_other(case: Case, module: nn.Module) -> None:
    network = npf.adapt(module, **case.settings)
    first, second = inputs(4), inputs(7, seed=1)
    alone = network(first)
    other = network(second)
    assert torch.equal(network(first), alone)
    params = dict(network.named_parameters())
    assert torch.equal(call_inference(network, params, second), other)
    assert torch.equal(call(network, params, first), alone)
    assert torch.equal(network(second[:1]), network(second)[:1]) or torch.allclose(network(second[:1]), other[:1], atol=1e-4)


@every_case
def test_a_users_own_state_and_modes_stay(case: Case, module: nn.Module) -> None:
    """The user ran the module himself, with a graph, and goes on later."""
    case.loop(module, inputs(3, seed=2))
    module.train()
    list(module.modules())[-1].training = False
    network = npf.adapt(module, **case.settings)
    before = state_of(module)
    params = dict(network.named_parameters())
    call_inference(network, params, inputs()).sum().backward()
    network.run(inputs(), record=("spikes", "current"), params=params)
    assert_same(before, state_of(module))
    with pytest.raises((RuntimeError, ValueError)):
        network.eval()(torch.rand(4, 3))
    module.train()
    list(module.modules())[-1].training = False
    assert_same(before, state_of(module))


@every_case
def test_other_parameters_equal_a_copy_that_has_them(case: Case, module: nn.Module) -> None:
    network = npf.adapt(module, **case.settings)
    noisy = npf.noise.Mismatch(zeta=0.3, parameters="all")(dict(network.named_parameters()), torch.Generator().manual_seed(0))
    twin = copy.deepcopy(network)
    assert not {id(p) for p in twin.modules()} & {id(p) for p in network.modules()}
    assert [p.training for p in twin.modules()] == [p.training for p in network.modules()]
    twin.load_state_dict({**twin.state_dict(), **{n: p.detach() for n, p in noisy.items()}})
    x = inputs()
    assert not torch.equal(network(x), twin(x))
    for how in (call, call_inference):
        assert torch.equal(how(network, noisy, x), twin(x))
    assert torch.equal(network.run(x, params=noisy).logits, twin(x))


@every_case
def test_thresholds_and_leaks_are_parameters(case: Case, module: nn.Module) -> None:
    network = npf.adapt(module, **case.settings)
    params = {n: p.detach() for n, p in network.named_parameters()}
    clean = call_inference(network, params, inputs())
    for name in case.neurons:
        (chosen,) = select(params, name)
        assert not torch.equal(call_inference(network, params | {chosen: 0.3 * params[chosen]}, inputs()), clean), name


@every_case
def test_weights_are_saved_without_state(case: Case, module: nn.Module, tmp_path) -> None:
    """A state of the last batch's shape is no weight: files and copies fit whatever ran before."""
    network = npf.adapt(module, **case.settings)
    fresh = copy.deepcopy(network)
    case.loop(module, inputs(3))
    saved = network.state_dict()
    assert {n: v.shape for n, v in saved.items()} == {n: v.shape for n, v in fresh.state_dict().items()}
    checkpoint.save_weights(tmp_path / "weights.safetensors", saved)
    with torch.no_grad():
        next(fresh.parameters()).zero_()
    checkpoint.load_weights(tmp_path / "weights.safetensors", fresh)
    assert torch.equal(fresh(inputs()), network(inputs()))
    network.load_state_dict(saved)


@every_case
def test_methods_and_attacks_run(case: Case, module: nn.Module) -> None:
    network = npf.adapt(module, **case.settings)
    batch = (inputs(), torch.arange(4))
    params = dict(network.named_parameters())
    methods = npf.methods
    for method in (methods.Standard(), methods.ForwardNoise(parameters="all"), methods.WeightAdversary(steps=2, parameters="all")):
        loss = method.loss(network, params, batch, Context(torch.Generator().manual_seed(0)))
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    with pytest.raises(npf.NoiseproofError, match="hidden units of an adapted spiking network are its neurons"):
        methods.Dropout().loss(network, params, batch, Context(torch.Generator().manual_seed(0)))
    attack = npf.attacks.WeightAttack(zeta=0.2, steps=3, parameters="all")
    worst = attack(network, params, [batch], torch.Generator().manual_seed(0))
    assert worst.objective > 0


@every_case
def test_traces_are_those_of_the_neurons(case: Case, module: nn.Module) -> None:
    network = npf.adapt(module, **case.settings)
    run = network.run(inputs(), record=("spikes", "current"))
    assert torch.equal(run.logits, network(inputs()))
    assert run.traces["spikes"].keys() == run.traces["current"].keys()
    for kind in ("spikes", "current"):
        for name, trace in run.traces[kind].items():
            assert trace.shape[:2] == (T, 4), (kind, name)
    spikes = next(iter(run.traces["spikes"].values()))
    assert torch.equal(spikes, spikes.round())
    assert not any(part._forward_hooks for part in module.modules())
    if "steps" in case.settings:
        more = network.run(inputs(), steps=T + 2, record=("spikes",)).traces["spikes"]
        assert {len(trace) for trace in more.values()} == {T + 2}


@pytest.fixture(scope="module")
def small_digits(digits: Splits) -> Splits:
    x = nn.functional.interpolate(torch.cat([digits.train.x, digits.test.x]), size=(8, 8), mode="area")
    return npf.data.from_tensors(x, torch.cat([digits.train.y, digits.test.y]), name="small digits")


@every_case
def test_it_is_trained_and_measured(case: Case, module: nn.Module, small_digits: Splits, tmp_path) -> None:
    network = npf.adapt(module, **case.settings)
    start = next(network.parameters()).clone()
    settings = {"epochs": 2, "batch_size": 20, "folder": tmp_path / "run", "progress": False}
    done = npf.train(network, small_digits, npf.methods.WeightAdversary(steps=1), **settings)
    assert done.epoch == 2
    assert not torch.equal(next(network.parameters()), start)
    noise = [npf.noise.Mismatch(zeta=0.3, parameters="all")]
    measured = [npf.evaluate(network, small_digits, noise=noise, chips=2, attack=(0.1,), processes=1, progress=False) for _ in range(2)]
    first, again = ([r.value for r in m.records()] for m in measured)
    assert first == again
    if "steps" in case.settings:
        with pytest.raises(npf.NoiseproofError, match="holds another experiment: network"):
            npf.train(npf.adapt(module, steps=T + 1), small_digits, npf.methods.WeightAdversary(steps=1), **settings)
