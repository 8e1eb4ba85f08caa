"""What the measures of spikes have in common: figures by layer, as means over samples, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.data import Split
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import Run, SpikingNetwork
from noiseproof.networks.adapt import Adapted
from noiseproof.parameters import inference_mode
from noiseproof.progress import Progress
from noiseproof.randomness import stochastic
from noiseproof.records import Record

BLOCK = 50  # samples at a time: every spike of every layer and step is kept for a block


@dataclass(frozen=True)
class Figure:
    """One number before it is a record: what was measured, and the mean over the samples of a block."""

    metric: str
    value: float
    perturbation: Mapping[str, Any] = field(default_factory=dict)
    at: Mapping[str, float] = field(default_factory=dict)


Figures = Callable[[Split, int], list[Figure]]  # a block of samples and its number → figures, each a mean over the block


def averaged(
    split: Split, samples: int, figures: Figures, *, ledger: Ledger, seed: int | None = None, progress: Progress | None = None
) -> list[Record]:
    """Return the means over the first `samples` samples as records. One sample tells which there are; all are used if any is missing."""
    part = Split(split.x[:samples], split.y[:samples])

    def record(figure: Figure, value: float) -> Record:
        return ledger.make(figure.metric, value, len(part), figure.perturbation, figure.at, seed=seed)

    blank = [record(figure, 0.0) for figure in _outline(part, figures)]
    if any(ledger.find(b) is None for b in blank):
        sums: dict[str, float] = {b.key: 0.0 for b in blank}
        made: list[Figure] = []
        with stochastic(0, running=True):
            for number, (x, y) in enumerate(zip(part.x.split(BLOCK), part.y.split(BLOCK), strict=True)):
                made = figures(Split(x, y), number)
                for figure in made:
                    sums[record(figure, 0.0).key] += figure.value * len(x)
                if progress is not None:
                    progress.advance(1)
        ledger.add([record(figure, sums[record(figure, 0.0).key] / len(part)) for figure in made])
    return [found for found in map(ledger.find, blank) if found is not None]


def blocks(samples: int) -> int:
    """Return how many blocks so many samples make: the steps of progress."""
    return -(-samples // BLOCK)


def _outline(part: Split, figures: Figures) -> list[Figure]:
    with stochastic(0):
        return figures(Split(part.x[:1], part.y[:1]), 0)


@torch.no_grad()
def observed(network: nn.Module, x: Tensor, record: Sequence[str], measure: str) -> Run:
    """Return a run in inference with the traces in `record`, [T, B, …] by layer of neurons.

    Raises `NoiseproofError`, in the name of `measure`, for a network without spiking neurons.
    """
    if not isinstance(network, SpikingNetwork) and not (isinstance(network, Adapted) and network.spiking):
        raise NoiseproofError(f"{measure} is asked for: this network has no spiking neurons; give one that has, or leave {measure} out")
    with inference_mode(network):
        return network.run(x, record=tuple(record))
