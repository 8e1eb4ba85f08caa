"""Time of outside networks: sequences, readouts, layouts, and what is refused, with what to do."""

import copy
import subprocess
import sys
from typing import Any

import norse.torch as norse
import pytest
import sinabs.layers as sinabs
import snntorch as snn
import torch
from norse.torch.functional.lif import LIFParameters
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.networks.adapt import check_fits
from noiseproof.parameters import call

SEQUENCE = 2 * torch.rand(3, 7, 6, generator=torch.Generator().manual_seed(0))  # [B, T, F]


def small(**last: Any) -> nn.Module:
    """Two layers of snnTorch's neurons on [B, 6]."""
    torch.manual_seed(0)
    leaky = snn.Leaky(beta=0.9, threshold=0.2, init_hidden=True)
    return nn.Sequential(nn.Linear(6, 5), leaky, nn.Linear(5, 4), snn.Leaky(beta=0.9, init_hidden=True, **last))


def plain(network: nn.Module, steps: list[Tensor]) -> list[Tensor]:
    for part in network.modules():
        if hasattr(part, "reset_mem"):
            part.reset_mem()
    return [network(x) for x in steps]


def test_sequences_are_seen_step_by_step() -> None:
    network = small()
    outputs = torch.stack(plain(network, list(SEQUENCE.unbind(1))))
    assert torch.equal(npf.adapt(network, sequence=True)(SEQUENCE), outputs.sum(0))
    assert torch.equal(npf.adapt(network, sequence=True, steps=7)(SEQUENCE), outputs.sum(0))


@pytest.mark.parametrize(
    ("readout", "expected"),
    [("sum", lambda o: o.sum(0)), ("mean", lambda o: o.mean(0)), ("last", lambda o: o[-1]), ("max", lambda o: o.amax(0))],
)
def test_readouts_of_the_membrane(readout, expected) -> None:
    network = small(output=True)
    membranes = torch.stack([out[1] for out in plain(network, list(SEQUENCE.unbind(1)))])
    assert torch.equal(npf.adapt(network, sequence=True, readout=readout, output=1)(SEQUENCE), expected(membranes))


def test_all_layouts_give_the_same_network() -> None:
    """One SpikingJelly network, called in every way."""
    torch.manual_seed(0)
    step = nn.Sequential(layer.Linear(6, 5), neuron.LIFNode(v_threshold=0.1), layer.Linear(5, 4), neuron.LIFNode(v_threshold=0.1))
    many = layer.MultiStepContainer(*copy.deepcopy(step))

    class BatchFirst(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x.transpose(0, 1)).transpose(0, 1)

    class Flattened(BatchFirst):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.unflatten(0, (-1, 7))).flatten(0, 1)

    class Own(BatchFirst):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).sum(1)

    expected = npf.adapt(step, sequence=True)(SEQUENCE)
    assert expected.abs().sum() > 0
    assert torch.equal(npf.adapt(many, sequence=True)(SEQUENCE), expected)
    for wrapper, layout in ((BatchFirst, "batch-first"), (Flattened, "flattened"), (Own, "own")):
        assert torch.equal(npf.adapt(wrapper(many), sequence=layout != "own", layout=layout)(SEQUENCE), expected)


def test_time_first_and_steps_that_do_not_fit_are_named() -> None:
    network = npf.adapt(small(), sequence=True, steps=7)
    with pytest.raises(npf.NoiseproofError, match=r"x is of shape \(7, 3, 6\).*takes \[batch, 7, …\]; this one looks time-first"):
        network(SEQUENCE.transpose(0, 1))
    turned = nn.Sequential(nn.Unflatten(0, (7, 3)), nn.Linear(6, 4))
    with pytest.raises(npf.NoiseproofError, match=r"returns shape \(7, 3, 4\)"):
        npf.adapt(turned, sequence=True, layout="flattened")(SEQUENCE)
    for layout, looks in (
        ("time-first", r"\[7, 3, classes\] \(this looks batch-first\)"),
        ("batch-first", r"\[3, 7, classes\] \(this looks time"),
    ):
        with pytest.raises(npf.NoiseproofError, match=f"with layout '{layout}' it must return {looks}"):
            npf.adapt(Turns(), sequence=True, layout=layout)(SEQUENCE)


class Turns(nn.Module):
    """Returns time and batch the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).transpose(0, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"steps is None.*give steps=T.*sequence=True.*layout='own'"),
        ({"steps": 0}, "steps is 0: give a whole number of at least 1"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": 5, "readout": "median"}, "readout is 'median': give sum, mean, last, max"),
        ({"steps": 5, "layout": "sideways"}, "layout is 'sideways': give auto, step"),
        ({"steps": 5, "layout": "own"}, "counts its steps itself"),
        ({"steps": 5, "output": -1}, "output is -1"),
    ],
)
def test_what_time_is_must_be_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        npf.adapt(small(), **settings)


def test_unadapted_spiking_networks_are_told_what_to_do(digits) -> None:
    with pytest.raises(npf.NoiseproofError, match="give steps=T"):
        npf.train(small(), digits, progress=False)


def test_steps_for_a_network_without_time_are_refused() -> None:
    with pytest.raises(npf.NoiseproofError, match="no layer is of snnTorch, SpikingJelly, Norse, sinabs"):
        npf.adapt(nn.Linear(6, 4), steps=5)
    with pytest.raises(npf.NoiseproofError, match="is a network of noiseproof already"):
        npf.adapt(npf.adapt(nn.Linear(6, 4)), steps=5)
    with pytest.raises(npf.NoiseproofError, match="the network takes no time"):
        npf.adapt(nn.Linear(6, 4)).run(torch.rand(2, 6), steps=5)


def test_wrong_outputs_are_named() -> None:
    with pytest.raises(npf.NoiseproofError, match="output is 2: the network returns 2 values, counted from 0"):
        npf.adapt(small(output=True), steps=5, output=2)(SEQUENCE[:, 0])
    with pytest.raises(npf.NoiseproofError, match="output is 1: the network returns one Tensor"):
        npf.adapt(small(), steps=5, output=1)(SEQUENCE[:, 0])
    with pytest.raises(npf.NoiseproofError, match=r"returns shape \(3, 1, 4\): with layout 'step' it must return \[3, classes\]"):
        npf.adapt(nn.Sequential(small(), nn.Unflatten(1, (1, 4))), steps=5)(SEQUENCE[:, 0])


def test_layers_that_disagree_about_time_need_a_layout() -> None:
    mixed = nn.Sequential(snn.Leaky(beta=0.9, init_hidden=True), sinabs.ExpLeak(tau_mem=10.0))
    with pytest.raises(npf.NoiseproofError, match="0 takes time step, 1 takes time batch-first"):
        npf.adapt(mixed, steps=5)


def test_a_loop_of_its_own_inside_steps_is_found() -> None:
    class Loops(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 4), snn.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.lif(self.fc(x)) for _ in range(3)]).sum(0)

    with pytest.raises(npf.NoiseproofError, match="layer lif is called 15 times in 5 steps.*layout='own'"):
        check_fits(npf.adapt(Loops(), steps=5), SEQUENCE[:, 0], 4)
    with pytest.raises(npf.NoiseproofError, match="layer 1 is called 1 times in 5 steps with layout 'time-first'"):
        check_fits(npf.adapt(small(), steps=5, layout="time-first"), SEQUENCE[:, 0], 4)
    check_fits(npf.adapt(Loops(), layout="own"), SEQUENCE[:, 0], 4)


def test_norse_networks_that_drop_their_state_are_refused() -> None:
    with pytest.raises(npf.NoiseproofError, match=r"forward must take `state` and return \(output, state\)"):
        npf.adapt(nn.Sequential(nn.Linear(6, 4), norse.LIFCell()), steps=5)

    class NoPair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = norse.LIFCell()

        def forward(self, x: Tensor, state: Any = None) -> Tensor:
            return self.cell(x, state)[0]

    with pytest.raises(npf.NoiseproofError, match="takes a state and returns Tensor"):
        npf.adapt(NoPair(), steps=5)(SEQUENCE[:, 0])


def test_norse_parameters_that_pytorch_does_not_see_are_refused() -> None:
    cell = norse.LIFCell(p=LIFParameters(v_th=nn.Parameter(torch.tensor(0.5))))
    with pytest.raises(npf.NoiseproofError, match=r"parameter p.v_th of layer 1 is unknown to PyTorch.*layer.v_th = layer.p.v_th"):
        npf.adapt(norse.SequentialState(nn.Linear(6, 4), cell), steps=5)


class Carries(nn.Module):
    """A neuron of one's own that goes on where it stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.membrane: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        before = torch.zeros(len(x), 4) if self.membrane is None else self.membrane
        self.membrane = 0.9 * before + self.fc(x)
        return self.membrane


class InBuffer(Carries):
    """The same with the state in a buffer, which parameters as values would not carry on."""

    def __init__(self) -> None:
        super().__init__()
        del self.membrane
        self.register_buffer("membrane", torch.zeros(1, 4))


class Resets(Carries):
    def reset_state(self) -> None:
        if self.membrane is not None:
            self.membrane.zero_()  # in place, on what may be the user's
        self.membrane = None


@pytest.mark.parametrize("kind", [Carries, InBuffer])
def test_state_that_cannot_be_reset_is_refused(kind: type[nn.Module]) -> None:
    module = nn.Sequential(kind())
    before = {**vars(module[0]), **module[0]._buffers}
    for settings in ({}, {"steps": 3, "layout": "step"}):
        with pytest.raises(npf.NoiseproofError, match=r"0.membrane keeps state from call to call.*reset_state\(\)"):
            check_fits(npf.adapt(module, **settings), SEQUENCE[:, 0], 4)
    if kind is InBuffer:
        assert module[0]._buffers["membrane"] is before["membrane"]


def test_a_module_with_reset_state_is_made_stateless() -> None:
    module = Resets()
    own = module(SEQUENCE[:, 1]).detach().clone()
    mine = module.membrane
    network = npf.adapt(module, steps=3, layout="step")
    check_fits(network, SEQUENCE[:2, 0], 4)
    first = network(SEQUENCE[:, 0])
    assert torch.equal(network(SEQUENCE[:, 0]), first)
    assert torch.equal(call(network, dict(network.named_parameters()), SEQUENCE[:, 0]), first)
    assert module.membrane is mine
    assert torch.equal(module.membrane, own)


def test_no_library_is_imported_for_nothing() -> None:
    code = "import sys, noiseproof; noiseproof.adapt; print({'snntorch', 'spikingjelly', 'norse', 'sinabs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_random_networks_are_not_taken_for_stateful() -> None:
    class Noisy(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + torch.randn(1)

    check_fits(npf.adapt(Noisy(6, 4)), SEQUENCE[:, 0], 4)


def test_what_run_does_not_offer_is_refused() -> None:
    x, still = SEQUENCE[:, 0], npf.adapt(nn.Linear(6, 4))
    assert torch.equal(still.run(x).logits, still(x))
    with pytest.raises(npf.NoiseproofError, match="record is 'spikes': the network has no spiking neurons"):
        still.run(x, record=("spikes",))
    network = npf.adapt(small(), steps=5)
    for name in ("state", "generator", "surrogate"):
        with pytest.raises(npf.NoiseproofError, match=f"{name} is .*leave it out"):
            network.run(x, **{name: {}})
    with pytest.raises(npf.NoiseproofError, match="record is 'spike': did you mean 'spikes'"):
        network.run(x, record=("spike",))
    jelly = npf.adapt(nn.Sequential(nn.Linear(6, 4), neuron.LIFNode()), steps=5)
    with pytest.raises(npf.NoiseproofError, match=r"layer 1 \(SpikingJelly, LIFNode\) does not show the potential before the reset"):
        jelly.run(x, record=("membrane",))


def test_snntorchs_membrane_is_shown_before_the_reset() -> None:
    module = small()
    run = npf.adapt(module, sequence=True).run(SEQUENCE, record=("membrane", "spikes"))
    for name in ("1", "3"):
        threshold = module.get_submodule(name).threshold
        assert torch.equal((run.traces["membrane"][name] > threshold).float(), run.traces["spikes"][name])


def test_online_learning_neurons_keep_their_gradient_in_eval_mode() -> None:
    """SpikingJelly's neurons with a path of their own for inference, which has no gradient."""
    for kind in (neuron.SLTTLIFNode, neuron.ComplementaryLIFNode, neuron.LIFNode):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 5), kind(v_threshold=0.3), nn.Linear(5, 4), kind(v_threshold=0.3)).eval()
        network = npf.adapt(module, steps=5)
        network(SEQUENCE[:, 0]).sum().backward()
        assert module[0].weight.grad.abs().sum() > 0, kind
        assert not any(part.training for part in module.modules())
