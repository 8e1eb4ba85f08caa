"""Cases of the first layer: a box is cut at currents where a spike train changes, and every case is bounded for itself.

With a still input the spike train of a neuron of the first layer is decided by one number, its current. The pieces of
`_first_layer` are the cases of a neuron; a chip of the box is in one of them for every neuron. So the least margin over a
partition of the pieces is a bound for the box, and inside a part the layers behind know more of their input.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from noiseproof.certificates._first_layer import Trains
from noiseproof.certificates._interval import Interval


class Part(NamedTuple):
    """A part of one sample's box: the pieces of currents that are left to the neurons of the first layer."""

    sample: int
    pieces: Tensor  # indices into the trains of all samples, by current
    margins: Tensor  # [C], what is proved


# the samples' numbers, their trains → margins [B, C], and the weights [T, B, …] of the first layer in the row that is worst
Bound = Callable[[Tensor, Trains], tuple[Tensor, Tensor]]


def split(trains: Trains, start: Tensor, bound: Bound, parts: int, batch: int) -> Tensor:
    """Return lower bounds of the margins [B, C], at least `start`, from at most `parts` parts of the box of each sample.

    A part whose margins are not all above zero is cut in two: the neuron is that whose reachable trains differ most in the worst
    row, its pieces are halved. A sample is left when its parts are used up, or when no train that is left makes a difference;
    one with more neurons that are not decided than `parts` is left as it is, as hardly any of them would be decided.
    """
    units = trains.shape[1:].numel()
    by_current = trains.low.argsort(stable=True)
    sample = trains.owner[by_current] // units
    undecided = (torch.bincount(trains.owner, minlength=len(start) * units) > 1).reshape(len(start), units).sum(-1)
    worth = ((start <= 0).any(-1) & (undecided <= parts)).tolist()
    open_parts = deque(Part(i, by_current[sample == i], start[i]) for i in range(len(start)) if worth[i])
    used = [0] * len(start)
    proved = [[] if worth[i] else [start[i]] for i in range(len(start))]
    while open_parts:
        taken = []
        while open_parts and len(taken) < batch:
            part = open_parts.popleft()
            if used[part.sample] >= parts:
                proved[part.sample].append(part.margins)
            else:
                used[part.sample] += 1
                taken.append(part)
        if not taken:
            break
        reached = _trains_of(trains, taken)
        margins, weights = bound(torch.tensor([part.sample for part in taken]), reached)
        spread = (-reached.least(-weights) - reached.least(weights)).flatten(1)
        neurons, differs = spread.argmax(-1).tolist(), (spread.amax(-1) > 0).tolist()
        for part, found, neuron, able in zip(taken, margins, neurons, differs, strict=True):
            better = torch.maximum(part.margins, found)
            if bool((better > 0).all()):
                proved[part.sample].append(better)
            elif not able:
                proved[part.sample].append(better)
                used[part.sample] = parts  # this part stays open, whatever the others give
            else:
                open_parts.extend(part._replace(pieces=half, margins=better) for half in _halves(trains, part.pieces, neuron))
    return torch.stack([torch.stack(found).amin(0) for found in proved])


def _trains_of(trains: Trains, parts: list[Part]) -> Trains:
    """Return the trains of several parts, each as a sample of its own."""
    units = trains.shape[1:].numel()
    samples = torch.tensor([part.sample for part in parts], device=trains.owner.device)
    pieces = torch.cat([part.pieces for part in parts])
    place = torch.arange(len(parts), device=samples.device).repeat_interleave(torch.tensor([len(part.pieces) for part in parts]))
    owner = trains.owner[pieces] % units + place * units
    potential, threshold = (Interval(i.low[:, samples], i.high[:, samples]) for i in (trains.potential, trains.threshold))
    return Trains(owner, trains.spikes[pieces], trains.low[pieces], trains.high[pieces], potential, threshold)


def _halves(trains: Trains, pieces: Tensor, neuron: int) -> tuple[Tensor, Tensor]:
    """Return the pieces of a part with the lower and with the upper half of those of one neuron."""
    own = trains.owner[pieces] % trains.shape[1:].numel() == neuron
    places = own.nonzero()[:, 0]
    half = len(places) // 2
    lower, upper = (torch.ones_like(own).index_fill(0, dropped, False) for dropped in (places[half:], places[:half]))
    return pieces[lower], pieces[upper]
