from __future__ import annotations

import torch
from torch import Tensor, nn

from noiseproof.data import Split
from noiseproof.errors import NoiseproofError, require_number
from noiseproof.evaluation._figures import Figure, averaged, observed
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import SpikingNetwork, adapt
from noiseproof.networks._spiking import Pass, Readout, walk
from noiseproof.networks.adapt import Adapted
from noiseproof.parameters import inference_mode
from noiseproof.progress import Progress
from noiseproof.records import Record


def latency(
    network: nn.Module, split: Split, *, samples: int = 1000, ledger: Ledger | None = None, progress: Progress | None = None
) -> list[Record]:
    """Return what a spiking network knows after t = 1 … T steps, had it to answer then: anytime accuracy.

    Two records a step, at {"steps": t}: accuracy_after_steps, the share of the first `samples` samples that is right after t
    steps, and right_by_step, the share that was right after t steps or fewer: its increases say when the first right decision
    falls. The logits after t steps are read from the spikes up to then; of an outside network they are those of a run of t steps.

    Raises `NoiseproofError` when the network has no spiking neurons, or is one from outside that takes sequences or counts its
    steps itself.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=3).build(data.task, torch.Generator().manual_seed(0))
        >>> [(r.metric, r.at["steps"]) for r in latency(network, data.test)][:3]
        [('accuracy_after_steps', 1.0), ('right_by_step', 1.0), ('accuracy_after_steps', 2.0)]
    """
    require_number("samples", samples, 1, whole=True)
    network = adapt(network)
    return averaged(split, samples, lambda part, _: figures(network, part), ledger=ledger or Ledger(), progress=progress)


def figures(network: nn.Module, part: Split) -> list[Figure]:
    """Return both shares of some samples for every step."""
    right = anytime_logits(network, part.x).argmax(-1) == part.y
    ever = right.cummax(0).values
    return [
        Figure(metric, float(share.double().mean()), at={"steps": float(t)})
        for t, shares in enumerate(zip(right, ever, strict=True), start=1)
        for metric, share in zip(("accuracy_after_steps", "right_by_step"), shares, strict=True)
    ]


@torch.no_grad()
def anytime_logits(network: nn.Module, x: Tensor) -> Tensor:
    """Return the logits [T, B, C] that a spiking network gives after 1, 2 … T steps of its run on x [B, …].

    Raises `NoiseproofError` as `latency` does.
    """
    if isinstance(network, SpikingNetwork):
        with inference_mode(network):
            return _of_ours(network, x)
    steps = len(next(iter(observed(network, x[:1], ("spikes",), "latency").traces["spikes"].values())))
    assert isinstance(network, Adapted)
    if network.time is None or network.time.steps is None or network.time.sequence:
        raise NoiseproofError("latency is asked for: this network counts its steps itself; adapt it with steps=T, or leave latency out")
    with inference_mode(network):
        return torch.stack([network.run(x, steps=t).logits for t in range(1, steps + 1)])


def _of_ours(network: SpikingNetwork, x: Tensor) -> Tensor:
    """Read the spikes that come into the last layer up to every step: one run, whatever the neurons are."""
    z, steps = network._in_time(x, None, None)
    passing, found = Pass(steps), []
    for name, layer in network.named_children():
        if isinstance(layer, Readout):
            found = [layer.read(z[:t] if len(z) > 1 else z, t) for t in range(1, steps + 1)]
        else:
            z = walk(layer, z, passing, name)
    return torch.stack(found)
