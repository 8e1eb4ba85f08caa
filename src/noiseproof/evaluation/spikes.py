"""All that is measured on what happens inside a spiking network, as `Measures` asks for it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from noiseproof.data import Split
from noiseproof.evaluation._figures import blocks, observed
from noiseproof.evaluation.activity import activity
from noiseproof.evaluation.energy import energy
from noiseproof.evaluation.gain import l2_gain, spiking
from noiseproof.evaluation.latency import latency
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.measures import Measures
from noiseproof.evaluation.perturbation import perturbation, perturbed
from noiseproof.networks import adapt
from noiseproof.progress import Progress
from noiseproof.randomness import generator


def inside(network: nn.Module, split: Split, measures: Measures, *, ledger: Ledger, progress: Progress | None = None) -> None:
    """Measure activity, latency, energy, the way of perturbations and their gain, as far as they are asked for, and add them to `ledger`.

    Raises `NoiseproofError` when the network does not have what is asked for.
    """
    shared = {"ledger": ledger, "progress": progress}
    if measures.activity:
        activity(network, split, samples=measures.activity, **shared)
    if measures.latency:
        latency(network, split, samples=measures.latency, **shared)
    if measures.energy:
        energy(network, split, samples=measures.energy, costs=measures.costs(), first_layer=measures.first_layer, **shared)
    perturbation(
        network, split, measures.perturbing(), samples=measures.perturbed_samples, leaks=measures.perturbed_leaks,
        seed=measures.chip_seed, **shared,
    )  # fmt: skip
    if measures.gain:
        l2_gain(network, ledger=ledger)


def check_inside(network: nn.Module, split: Split, measures: Measures) -> None:
    """Raise `NoiseproofError` when something that is asked for cannot be measured; `split` holds a few samples.

    A network that draws random numbers needs an open `stochastic`.
    """
    inside(network, split, replace(measures, perturbed_by=(), perturbed_leaks=(), gain=False), ledger=Ledger())
    one = Split(split.x[:1], split.y[:1])
    for attack in measures.perturbing():
        observed(adapt(network), one.x, ("spikes", "current"), "perturbed_by")
        perturbed(adapt(network), one, attack, generator("check", 0))
    if measures.gain:
        spiking(network)


def work(measures: Measures) -> int:
    """Return how many steps of progress `inside` makes."""
    averaged = [measures.activity, measures.latency, measures.energy, *[measures.perturbed_samples] * len(measures.perturbing())]
    return sum(map(blocks, averaged))
