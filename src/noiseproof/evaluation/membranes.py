from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from noiseproof.data import Split
from noiseproof.errors import NoiseproofError, require_number
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import Network, SpikingNetwork, adapt
from noiseproof.networks._outside_traces import neurons
from noiseproof.networks.adapt import Adapted
from noiseproof.neurons.surrogates import Surrogate
from noiseproof.parameters import inference_mode
from noiseproof.progress import Progress
from noiseproof.randomness import stochastic
from noiseproof.records import Record

NEAR = 0.1  # a potential so close to the threshold, relative to it, counts as near
FARTHEST, BINS = 3.0, 120  # the histogram covers ±3 thresholds in steps of 0.05
BLOCK = 20  # samples at a time: every potential of every layer and step is kept for a block


def membranes(
    network: nn.Module,
    split: Split,
    *,
    samples: int = 200,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return how the membrane potentials V of a spiking network lie around the threshold B: shares of (V − B)/B in fixed bins.

    V is the potential before the reset, over all units and steps of a layer and the first `samples` samples; B moves where the
    threshold adapts. Per layer 120 records membrane_share at {"bin": middle} cover [−3, 3], what lies beyond is in none of them, and
    one record membrane_near_threshold at {"within": 0.1} is the share with |V − B| ≤ 0.1·B: potentials that a small change
    of the weights moves across. Source: Büchel et al., arXiv:2106.05009, Fig. S10.

    Raises `NoiseproofError` when the network has no spiking neurons, or is one from outside that does not show its potentials.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif").build(data.task, torch.Generator().manual_seed(0))
        >>> records = membranes(network, data.test)
        >>> len(records), records[-1].metric, 0 < sum(r.value for r in records[:-1]) <= 1
        (121, 'membrane_near_threshold', True)
    """
    require_number("samples", samples, 1, whole=True)
    network, ledger = adapt(network), ledger or Ledger()
    x = split.x[:samples]
    blank = {layer: _blank(ledger, layer, len(x)) for layer in layers_with_membranes(network, x)}
    if any(ledger.find(b) is None for records in blank.values() for b in records):
        counts = {layer: _Counts() for layer in blank}
        with stochastic(0, running=True):
            for block in x.split(BLOCK):
                for layer, distance in _distances(network, block).items():
                    counts[layer].add(distance)
                if progress is not None:
                    progress.advance(1)
        for layer, records in blank.items():
            ledger.add([replace(b, value=value) for b, value in zip(records, counts[layer].shares(), strict=True)])
    return [record for records in blank.values() for record in map(ledger.find, records) if record is not None]


def layers_with_membranes(network: nn.Module, x: Tensor) -> list[str]:
    """Return the layers whose potentials can be seen, in the order in which they come; `x` holds a sample or more.

    Raises `NoiseproofError` when the network has no spiking neurons, or is one from outside that does not show its potentials.
    """
    with stochastic(0):
        return list(_distances(network, x[:1]))


@torch.no_grad()
def _distances(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return (V − B)/B [T, B, …] by layer."""
    if isinstance(network, SpikingNetwork):
        noted = _Noted()
        with inference_mode(network):
            run = network.run(x, surrogate=noted, record=("spikes",))
        # the layers were run one after the other, each step by step
        calls = iter(noted.calls)
        return {layer: torch.stack([next(calls) for _ in spikes]) for layer, spikes in run.traces["spikes"].items()}
    if isinstance(network, Network):
        raise NoiseproofError("membranes are asked for: this network has no spiking neurons; give one that has, or leave membranes out")
    assert isinstance(network, Adapted)
    with inference_mode(network):
        run = network.run(x, record=("membrane",))
    thresholds = {layer: torch.as_tensor(neuron.threshold) for layer, neuron in neurons(network.module).items()}
    return {layer: (v - thresholds[layer]) / thresholds[layer] for layer, v in run.traces["membrane"].items()}


@dataclass(frozen=True)
class _Noted(Surrogate):
    """Notes the scaled distance z = (V − B)/B, which every surrogate is given: the equation of the neurons stays in its one place."""

    calls: list[Tensor] = field(default_factory=list)

    def derivative(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def primitive(self, z: Tensor) -> Tensor:
        self.calls.append(z.detach())
        return torch.zeros_like(z)


class _Counts:
    """Counts distances by bin; whole numbers, so that the order does not matter."""

    def __init__(self) -> None:
        self.total, self.near = 0, 0
        self.bins = torch.zeros(BINS, dtype=torch.int64)

    def add(self, distance: Tensor) -> None:
        self.total += distance.numel()
        self.near += int(torch.count_nonzero(distance.abs() <= NEAR))
        # one bin more on either side takes what lies beyond
        places = distance.flatten().add(FARTHEST).mul_(BINS / (2 * FARTHEST)).clamp_(-1, BINS).floor_().add_(1)
        self.bins += torch.bincount(places.int(), minlength=BINS + 2)[1:-1].cpu()

    def shares(self) -> list[float]:
        """Return the share of every bin, then the share near the threshold."""
        return [int(count) / self.total for count in (*self.bins, self.near)]


def _blank(ledger: Ledger, layer: str, n: int) -> list[Record]:
    """Return the records of a layer without their values, in the order of `_Counts.shares`."""
    width = 2 * FARTHEST / BINS
    middles = [round(-FARTHEST + (i + 0.5) * width, 6) for i in range(BINS)]
    bins = [ledger.make("membrane_share", 0.0, n, {"layer": layer}, {"bin": middle}) for middle in middles]
    return [*bins, ledger.make("membrane_near_threshold", 0.0, n, {"layer": layer}, {"within": NEAR})]
