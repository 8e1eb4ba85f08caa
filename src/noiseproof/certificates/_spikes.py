from __future__ import annotations

from typing import NamedTuple

from noiseproof.certificates._interval import Interval


class SpikeBounds(NamedTuple):
    """What is known of one layer of neurons for every chip of the box and every step: all [T, B, …], but for the counts [B, …]."""

    spikes: Interval  # ends are 0 or 1: (0, 0) never, (1, 1) always, (0, 1) not known
    potential: Interval  # h, before the reset
    threshold: Interval  # B, which h is compared with
    counts: Interval  # spikes of all steps together
