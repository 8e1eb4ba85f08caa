from __future__ import annotations

from torch import nn

from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation._figures import Figure, averaged, observed
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.progress import Progress
from noiseproof.records import Record


def activity(
    network: nn.Module, split: Split, *, samples: int = 200, ledger: Ledger | None = None, progress: Progress | None = None
) -> list[Record]:
    """Return how much every layer of a spiking network spikes: SA = Σ_t Σ_i s_i[t]/N spikes per neuron, and TASA = SA/T.

    Means over the first `samples` samples. Two records a layer, spiking_activity and spiking_activity_per_step, with the layer's
    name in the perturbation and its place at {"layer": k}. Layers of an outside network are read through its traces.
    Source: Kundu et al., ICCV 2021, Definition 1.

    Raises `NoiseproofError` when the network has no spiking neurons.

    Example:
        >>> import torch
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=4).build(data.task, torch.Generator().manual_seed(0))
        >>> total, rate = activity(network, data.test)
        >>> total.metric, rate.metric, total.value == 4 * rate.value
        ('spiking_activity', 'spiking_activity_per_step', True)
    """
    require_number("samples", samples, 1, whole=True)
    network = adapt(network)
    return averaged(split, samples, lambda part, _: figures(network, part), ledger=ledger or Ledger(), progress=progress)


def figures(network: nn.Module, part: Split) -> list[Figure]:
    """Return SA and TASA of every layer on some samples, in the order of the network."""
    found = []
    for place, (layer, spikes) in enumerate(observed(network, part.x, ("spikes",), "activity").traces["spikes"].items()):
        rate = float(spikes.double().mean())
        for metric, value in (("spiking_activity", len(spikes) * rate), ("spiking_activity_per_step", rate)):
            found.append(Figure(metric, value, {"layer": layer}, {"layer": float(place)}))
    return found
