"""Cases in time: where a recurrent layer may or may not fire at some step, both cases are followed, each as a row of its own.

In a recurrent layer one spike that is not known makes others unknown, and some steps later nothing is known. But a chip either fires
it or does not, at that step: what holds in each of the two cases holds for the box. In either case the layer goes on with a
spike that is known.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Fork(NamedTuple):
    """What goes on after some of R rows were doubled: R' rows, and P' states in the order of row and neuron."""

    rows: Tensor  # [R'], the row that each comes from
    states: Tensor  # [P'], the state that each comes from
    neuron: Tensor  # [P'], its neuron in the layer of [R', N]
    silent: Tensor  # [P'], states of a neuron that stays silent in this case
    firing: Tensor  # [P'], states of a neuron that fires in this case


def fork(neuron: Tensor, unsure: Tensor, samples: Tensor, parts: int, influence: Tensor) -> Fork | None:
    """Return the rows that are not sure of their spikes doubled, one neuron decided in each; None where there is nothing to double.

    `neuron` [P]: that of every state, in order, in the layer of [R, N]; `unsure` [R, N]; `samples` [R]: of which sample a row is a
    case, and of which it may have at most `parts`. Of the neurons that are not sure the one with the largest `influence` [N] is decided:
    the row itself goes on with its silence, its twin, a row behind the others, with its spike.
    """
    doubled = _doubled(unsure.any(1), samples, parts)
    if not len(doubled):
        return None
    count, units = unsure.shape
    decided = torch.where(unsure[doubled], influence, -1.0).argmax(1)
    place = torch.full_like(samples, -1).index_copy(0, doubled, torch.arange(len(doubled), device=samples.device))
    copied = (place[neuron // units] >= 0).nonzero()[:, 0]
    of_copies = neuron[copied]
    moved = torch.cat((neuron, (count + place[of_copies // units]) * units + of_copies % units))
    states = torch.cat((torch.arange(len(neuron), device=neuron.device), copied))
    rows = torch.cat((torch.arange(count, device=samples.device), doubled))
    chosen = torch.cat((torch.full_like(samples, -1).index_copy(0, doubled, decided), decided))
    hit = moved % units == chosen[moved // units]
    twin = moved >= count * units
    return Fork(rows, states, moved, hit & ~twin, hit & twin)


def _doubled(able: Tensor, samples: Tensor, parts: int) -> Tensor:
    """Return the rows that are doubled: all that can be, but of a sample no more than makes `parts` rows of it."""
    rows = able.nonzero()[:, 0]
    own = samples[rows]
    order = own.argsort(stable=True)
    sorted_own = own[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_own, sorted_own)
    return rows[torch.bincount(samples)[own] + place < parts]
