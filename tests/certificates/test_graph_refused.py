"""What a graph of an outside network refuses: by its name, in one line, and with nothing of the module changed."""

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import pytest
import sinabs.activation as spiking
import sinabs.layers as sinabs
import snntorch as snn
import torch
from spikingjelly.activation_based import layer, neuron
from spikingjelly.activation_based.surrogate import PoissonPass
from torch import Tensor, nn
from torch.nn import functional as F

import noiseproof as npf
from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.errors import NoiseproofError
from noiseproof.networks.adapt import Adapted

VECTOR = (7,)
SINGLE: dict[str, Any] = {"spike_fn": spiking.SingleSpike}


def leaky(**settings: Any) -> nn.Module:
    return snn.Leaky(**{"beta": 0.9, "init_hidden": True, **settings})


class Forward(nn.Module):
    """A module whose forward is given."""

    def __init__(self, forward: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.act, self.lif, self.seen = nn.Linear(7, 3), nn.ReLU(inplace=True), leaky(), []
        self.potential: Any = 0.0
        self.over = WritesOver()
        self.body = forward

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


def keeps(m: Any, x: Tensor) -> Tensor:
    m.potential = m.potential + m.fc(x)
    return m.potential


def notes(m: Any, x: Tensor) -> Tensor:
    m.seen.append(x)
    return m.fc(m.seen[0])


def in_place_before(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    return m.act(y) + y


def in_place_on_a_view(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    return F.relu(y.flatten(1), inplace=True) - y


def in_place_unused(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    y.relu_()
    return y


def asks(m: Any, x: Tensor) -> Tensor:
    return m.fc(x) if isinstance(x, Tensor) else m.fc(x + 1)


class WritesOver(nn.Module):
    """y += 1, which torch.fx takes for a sum."""

    def forward(self, y: Tensor) -> Tensor:
        y += 1
        return y


def in_place_inside(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    return m.over(y) - 2 * y


def in_place_sum(m: Any, x: Tensor) -> Tensor:
    y = z = m.fc(x)
    y += 1
    return y - 2 * z


def in_place_on_the_input(m: Any, x: Tensor) -> Tensor:
    x += 1
    return m.fc(x)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "in place inside": (in_place_inside, "works in place, on what"),
    "in place, a sum": (in_place_sum, "or works in place"),
    "in place on the input": (in_place_on_the_input, "on the input of the network"),
    "asks what it is given": (asks, "something else than torch.fx sees"),
    "branch": (lambda m, x: m.fc(x) if x.sum() > 0 else m.fc(-x), "torch.fx cannot see"),
    "state": (keeps, "keeps potential from call to call"),
    "state in a list": (notes, "keeps seen from call to call"),
    "unknown function": (lambda m, x: torch.sin(m.fc(x)), "calls sin: no bound is known"),
    "unknown method": (lambda m, x: m.fc(x).exp(), "calls Tensor.exp"),
    "unknown setting": (lambda m, x: torch.add(m.fc(x), m.fc(x), alpha=2), "in a way for which"),
    "product": (lambda m, x: m.fc(x) * m.fc(x), "a tensor and a constant"),
    "mean over the batch": (lambda m, x: m.fc(x) - m.fc(x).mean(0), "not those of one sample"),
    "samples mixed": (lambda m, x: m.fc(x.reshape(7, -1)), "mixes samples"),
    "constant for each sample": (lambda m, x: m.fc(x) + torch.ones(6, 3), "does not fit one sample"),
    "chance": (lambda m, x: m.fc(F.dropout(x, 1e-9)), "draws by chance"),
    "in place": (in_place_before, "works in place"),
    "in place on a view": (in_place_on_a_view, "works in place"),
    "in place, unused": (in_place_unused, "is not used"),
    "neurons without time": (lambda m, x: m.lif(m.fc(x)), "spiking neurons"),
}


@pytest.mark.parametrize(("forward", "named"), REFUSED.values(), ids=REFUSED)
def test_forwards_that_are_refused(forward: Any, named: str) -> None:
    module = Forward(forward)
    network = Adapted(module, (0.0, 1.0))
    with pytest.raises(NoiseproofError, match=named) as refused:
        graph_of(network, Box(), shape=VECTOR)
    assert "\n" not in str(refused.value)
    assert module.seen == []
    assert module.potential == 0.0


class LearnsSlowly(nn.Module):
    """Passes its membrane by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(7, 3), snn.Leaky(beta=0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.fc(x), self.lif.mem)[0]


def neurons_twice() -> nn.Module:
    shared = leaky()
    return nn.Sequential(nn.Linear(7, 3), shared, nn.Linear(3, 3), shared)


LIBRARY_REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "gelu": (
        lambda: nn.Sequential(nn.Linear(7, 20), leaky(), nn.GELU(), nn.Linear(20, 3)),
        "layer 2 is GELU: .* ReLU, [^_]* and spiking neurons$",
    ),
    "synaptic": (lambda: nn.Sequential(nn.Linear(7, 3), snn.Synaptic(0.9, 0.8, init_hidden=True)), "module.1 is snntorch.Synaptic"),
    "neurons twice": (neurons_twice, "layer module.3 is called twice"),
    "no reset": (lambda: nn.Sequential(nn.Linear(7, 3), leaky(reset_mechanism="none")), "reset_mechanism 'none'"),
    "at once": (lambda: nn.Sequential(nn.Linear(7, 3), leaky(reset_delay=False)), "reset_delay False"),
    "inhibition": (lambda: nn.Sequential(nn.Linear(7, 3), leaky(inhibition=True)), "inhibition True"),
    "graded": (lambda: nn.Sequential(nn.Linear(7, 3), leaky(graded_spikes_factor=0.5)), "graded_spikes_factor 0.5"),
    "own surrogate": (lambda: nn.Sequential(nn.Linear(7, 3), leaky(spike_grad=torch.sigmoid)), "spike_grad"),
    "membrane by hand": (LearnsSlowly, "layers of one tensor"),
    "v_reset": (lambda: nn.Sequential(nn.Linear(7, 3), neuron.IFNode(v_reset=-0.1)), "v_reset -0.1"),
    "chance": (lambda: nn.Sequential(nn.Linear(7, 3), neuron.IFNode(surrogate_function=PoissonPass())), "surrogate_function 'PoissonPass'"),
    "psn": (lambda: nn.Sequential(nn.Linear(7, 3), neuron.KLIFNode()), "spikingjelly.KLIFNode"),
    "recurrent": (lambda: nn.Sequential(layer.LinearRecurrentContainer(neuron.IFNode(), 3, 7)), "LinearRecurrentContainer"),
    "many spikes": (lambda: nn.Sequential(nn.Linear(7, 3), sinabs.IAF()), "spike_fn 'MultiSpike'"),
    "synapses": (lambda: nn.Sequential(nn.Linear(7, 3), sinabs.LIF(tau_mem=2.0, tau_syn=2.0, **SINGLE)), "tau_syn"),
    "clipped": (lambda: nn.Sequential(nn.Linear(7, 3), sinabs.IAF(min_v_mem=-1.0, **SINGLE)), "min_v_mem"),
    "to another value": (lambda: nn.Sequential(nn.Linear(7, 3), sinabs.IAF(reset_fn=spiking.MembraneReset(0.1), **SINGLE)), "reset_fn"),
    "norse": (lambda: norse.SequentialState(nn.Linear(7, 3), norse.LIFCell()), "passes its state"),
}


@pytest.mark.filterwarnings("ignore:Inhibition")
@pytest.mark.parametrize(("build", "named"), LIBRARY_REFUSED.values(), ids=LIBRARY_REFUSED)
def test_layers_that_are_refused(build: Any, named: str) -> None:
    with pytest.raises(NoiseproofError, match=named) as refused:
        graph_of(npf.adapt(build(), steps=3), Box(), shape=VECTOR)
    assert "\n" not in str(refused.value)


def test_settings_that_are_refused() -> None:
    module = nn.Sequential(nn.Linear(7, 3), leaky(output=True))
    cases: list[tuple[nn.Module, str]] = [
        (npf.adapt(module, steps=3, output=1), "the membrane of module.1: .*; read its spikes: adapt\\(…, output=0\\)"),
        (npf.adapt(module, layout="own"), "loops over time itself"),
        (npf.adapt(module, layout="time-first", steps=3), "takes time step, and the network time-first"),
        (npf.adapt(nn.Sequential(nn.Linear(7, 3), neuron.IFNode(step_mode="m")), layout="batch-first", steps=3), "takes time time-first"),
        (npf.adapt(nn.Linear(7, 3), layout="step", steps=3), "no spiking neurons"),
        (npf.networks.UnderNoise(npf.adapt(nn.Linear(7, 3)), npf.noise.Mismatch(0.1)), "UnderNoise"),
        (nn.Linear(7, 3), "through noiseproof.adapt"),
        (npf.adapt(nn.Conv1d(7, 3, 1)), "must give logits"),
    ]
    for network, named in cases:
        with pytest.raises(NoiseproofError, match=named):
            graph_of(network, Box(), shape=(7, 2) if "logits" in named else VECTOR)
    with pytest.raises(NoiseproofError, match="shape is None"):
        graph_of(npf.adapt(nn.Linear(7, 3)), Box())


def test_hooks_and_changed_forwards_are_refused() -> None:
    module = nn.Sequential(nn.Linear(7, 3))
    module[0].register_forward_hook(lambda *given: 2 * given[2])
    with pytest.raises(NoiseproofError, match="module.0 has a forward hook"):
        graph_of(npf.adapt(module), Box(), shape=VECTOR)
    module = nn.Sequential(nn.Linear(7, 3))
    module[0].forward = torch.sin
    with pytest.raises(NoiseproofError, match="module.0 is Linear with another forward"):
        graph_of(npf.adapt(module), Box(), shape=VECTOR)
