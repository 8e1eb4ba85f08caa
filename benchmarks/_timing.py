"""Timing for the benchmarks: contenders run in turn in one process, so that whatever else the machine does hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def in_turn(
    contenders: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of every contender in every round by `clock`, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            begun = clock()
            work()
            if turn:
                seconds[name].append(clock() - begun)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, base: str) -> tuple[float, float, float]:
    """Return the median, smallest and largest ratio of `name` to `base`, taken round by round."""
    ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)
