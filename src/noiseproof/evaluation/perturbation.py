from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.attacks import Attack
from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation._figures import Figure, averaged, observed
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.neurons import LIF, Neuron, Recurrent
from noiseproof.neurons.dynamics import layer_dynamics, ms_mppd, std_distance, tasad
from noiseproof.parameters import inference_mode, parameters_of
from noiseproof.progress import Progress
from noiseproof.randomness import generator, stochastic
from noiseproof.records import Record

INPUT = "input"  # in the place of a layer's name
THRESHOLD, STEPS = 0.8, 10  # of the layer of Fig. 5(a)


def perturbation(
    network: nn.Module,
    split: Split,
    attacks: Sequence[Attack],
    *,
    samples: int = 200,
    leaks: Sequence[float] = (),
    seed: int = 0,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return how far a perturbation of the input gets, layer by layer and step by step, for pairs (x, x') that attacks make.

    Means over the first `samples` samples, every one of them searched to the end, at {"layer": k}, with the attack's settings and the
    layer's name in the perturbation:

    - perturbation_distance (at the input): ‖x − x'‖₂
    - spike_perturbation_distance: ‖m − m'‖₂, m the map of a layer's spike counts divided by its largest (`normalised_map`)
    - tasad, spike_train_distance: ‖Σ_t (s − s')‖₂/T, and (Σ_t ‖s − s'‖₂²)^½
    - ms_mppd: the mean over steps and neurons of ε[t]², ε[t] = λ·ε[t−1] + Δ[t] with Δ the difference of the currents; for DLIF too
      with λ alone, as eq. (11) and the loss of `Stable` have it
    - mppd, at {"step": t} too, ‖ε[t]‖₂, the membrane potential perturbation dynamics

    `leaks`: distance_after_lif too, at {"leak": λ}, what `distance_after_lif` says of the same pairs.
    The last two need the leaks of neurons of ours and are left out for those of an outside network.
    Source: Kundu et al., ICCV 2021, Definition 2, Fig. 5; Ding et al., ICML 2024, eqs. (11) to (14).

    Raises `NoiseproofError` when the network has no spiking neurons, an attack does not fit the data, or a number is out of range.

    Example:
        >>> import noiseproof as npf
        >>> from noiseproof.attacks.fgsm import FGSM
        >>> data = npf.data.load("digits", limit_test=10)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=4).build(data.task, torch.Generator().manual_seed(0))
        >>> records = perturbation(network, data.test, [FGSM(eps=0.1)])
        >>> [r.metric for r in records][:4]
        ['perturbation_distance', 'spike_perturbation_distance', 'tasad', 'spike_train_distance']
    """
    require_number("samples", samples, 1, whole=True)
    network, ledger, found = adapt(network), ledger or Ledger(), []
    for attack in attacks:

        def figures(part: Split, block: int, attack: Attack = attack) -> list[Figure]:
            moved = perturbed(network, part, attack, generator("attack", seed, block))
            with stochastic(seed, block):  # both runs of a pair draw the same spikes of Poisson coding
                return pair_figures(network, part.x, moved, attack.describe(), leaks)

        found += averaged(split, samples, figures, ledger=ledger, seed=seed, progress=progress)
    return found


def perturbed(network: nn.Module, part: Split, attack: Attack, stream: torch.Generator) -> Tensor:
    """Return x' [B, …] for all samples, those too that are wrong from the start.

    Raises `NoiseproofError` when the attack does not fit the data.
    """
    attack.check(network, part.x)
    with inference_mode(network):
        return attack.craft(network, parameters_of(network), part.x, part.y, stream).detach()


@torch.no_grad()
def pair_figures(network: nn.Module, x: Tensor, moved: Tensor, described: Mapping[str, Any], leaks: Sequence[float]) -> list[Figure]:
    """Return every distance of two batches x, x' [B, …], in the order of the network."""

    def figure(metric: str, layer: str, place: int, values: Tensor, **at: float) -> Figure:
        return Figure(metric, float(values.double().mean()), {**described, "layer": layer}, {"layer": float(place), **at})

    clean, other = (observed(network, inputs, ("spikes", "current"), "perturbed_by").traces for inputs in (x, moved))
    layers = {name: m for name, m in network.named_modules() if isinstance(m, Neuron | Recurrent)}
    found = [figure("perturbation_distance", INPUT, -1, distance(x, moved))]
    for place, (layer, s) in enumerate(clean["spikes"].items()):
        t = other["spikes"][layer]
        found.append(figure("spike_perturbation_distance", layer, place, distance(normalised_map(s), normalised_map(t))))
        found.append(figure("tasad", layer, place, tasad(s, t)))
        found.append(figure("spike_train_distance", layer, place, std_distance(s, t)))
        if layer in layers:
            epsilon = layer_dynamics(layers[layer], clean["current"][layer] - other["current"][layer])
            found.append(figure("ms_mppd", layer, place, ms_mppd(epsilon)))
            sizes = torch.linalg.vector_norm(epsilon.flatten(2), dim=-1)
            found += [figure("mppd", layer, place, size, step=float(t)) for t, size in enumerate(sizes, start=1)]
    after = zip(leaks, distance_after_lif(x, moved, leaks), strict=True)
    found += [
        Figure("distance_after_lif", value, described, {"leak": leak, "threshold": THRESHOLD, "lif_steps": STEPS}) for leak, value in after
    ]
    return found


def distance(x: Tensor, moved: Tensor) -> Tensor:
    """Return ‖x − x'‖₂ of every sample, [B]."""
    return torch.linalg.vector_norm((x - moved).flatten(1), dim=1)


def normalised_map(spikes: Tensor) -> Tensor:
    """Return the spike counts Σ_t s[t] of every sample divided by the largest of them, [B, …] in [0, 1]; where none spikes, zero.

    Kundu et al. speak of normalised maps and do not say how: divided by T instead, the distance would be the TASAD.
    """
    counts = spikes.sum(0)
    return counts / counts.flatten(1).amax(1).clamp_min(1).reshape(-1, *[1] * (counts.ndim - 1))


@torch.no_grad()
def distance_after_lif(
    x: Tensor, moved: Tensor, leaks: Sequence[float], *, threshold: float = THRESHOLD, steps: int = STEPS
) -> list[float]:
    """Return by leak how far x and x' [B, …] are apart after one layer of LIF neurons that takes them as its current: the mean TASAD.

    Beside ‖x − x'‖₂ it says whether the layer makes a perturbation smaller. Source: Kundu et al., ICCV 2021, Fig. 5(a).

    Raises `NoiseproofError` for a leak outside (0, 1] or a threshold that is not positive.

    Example:
        >>> x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> [round(value, 2) for value in distance_after_lif(x, x, (0.5, 1.0))]
        [0.0, 0.0]
    """
    found = []
    for leak in leaks:
        layer = LIF(leak=leak, threshold=threshold, reset="soft-next").to(x)
        found.append(float(tasad(*(layer(inputs[None], steps=steps).spikes for inputs in (x, moved))).double().mean()))
    return found
