from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from torch import nn

from noiseproof import statistics
from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation.chips import BLOCK, Chip, Measurer, measurer
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.noise import Noise
from noiseproof.progress import Progress
from noiseproof.records import Record

MIN_CHIPS = 16  # with fewer, the interval of a sequential stop covers less than it says
ROUND = 16  # chips between two looks at the interval, and between two saves


def monte_carlo(
    network: nn.Module,
    split: Split,
    noise: Noise,
    *,
    chips: int = 100,
    half_width: float = 0.0,
    max_chips: int = 2000,
    seed: int = 0,
    processes: int | None = None,
    block: int = BLOCK,
    described: Mapping[str, Any] | None = None,
    at: Mapping[str, float] | None = None,
    measure: Measurer | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return one accuracy record a simulated chip: `chips` of them, or as many as make the mean certain to ± `half_width`.

    Chip i of `seed` is the same chip for every network, noise level, block and number of processes, so that methods and
    levels are compared on the same chips. With `half_width` (percentage points) chips are added in rounds of 16 until the
    Student t interval (95 %) of the mean was narrow enough in two rounds running, or `max_chips` are reached: a single look
    would stop too early on chips that happen to agree. A noise whose chips are all the same (`deterministic`: of size zero, or
    without random numbers, such as rounding) needs one chip. `described` and `at` stand in the records where they are given, in the
    place of the noise's own description; `measure` and `ledger` are for callers that measure more than one thing.

    Raises `NoiseproofError` for numbers out of range, or when the noise selects no parameter.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> records = monte_carlo(network, data.test, npf.noise.Mismatch(zeta=0.3), chips=4, processes=1)
        >>> [record.chip for record in records]
        [0, 1, 2, 3]
    """
    require_number("chips", chips, 1)
    require_number("half_width", half_width, 0)
    require_number("max_chips", max_chips, MIN_CHIPS)
    network, ledger = adapt(network), ledger or Ledger()
    if measure is None:
        with measurer(network, split, processes=processes, block=block) as measure:
            return monte_carlo(
                network, split, noise, chips=chips, half_width=half_width, max_chips=max_chips, seed=seed, described=described, at=at,
                measure=measure, ledger=ledger, progress=progress,
            )  # fmt: skip
    if noise.deterministic:
        chips, half_width = 1, 0.0

    def one_round(indices: range) -> list[Record]:
        blank = [ledger.make("accuracy", 0.0, len(split), described or noise.describe(), at, chip=i, seed=seed) for i in indices]
        return _measured(blank, noise, measure, ledger, progress)

    return _rounds(one_round, chips, half_width, max_chips)


def _rounds(one_round: Callable[[range], list[Record]], chips: int, half_width: float, max_chips: int) -> list[Record]:
    found: list[Record] = []
    certain = False
    for start in count(0, ROUND):
        stop = min(start + ROUND, max_chips if half_width else chips)
        found += one_round(range(start, stop))
        if stop == (max_chips if half_width else chips):
            return found
        if half_width:
            before, certain = certain, statistics.mean_interval([r.value for r in found])[1] <= half_width / 100
            if before and certain:
                return found
    raise AssertionError("unreachable")


def _measured(blank: list[Record], noise: Noise, measure: Measurer, ledger: Ledger, progress: Progress | None) -> list[Record]:
    """Return the records of these chips with their results; only those that are missing are measured."""
    missing = [b for b in blank if ledger.find(b) is None]
    results = measure([Chip(noise, b.seed or 0, b.chip or 0) for b in missing])
    fresh = []
    for b, result in zip(missing, results, strict=True):
        fresh.append(replace(b, value=result.accuracy))
        if progress is not None:
            progress.advance(1)
    ledger.add(fresh)
    return [record for record in map(ledger.find, blank) if record is not None]
