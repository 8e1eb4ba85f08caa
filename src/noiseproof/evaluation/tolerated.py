from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints

from torch import nn

from noiseproof.data import Split
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.evaluation.chips import Chip, Measurer, measurer, steps_of, with_steps
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.noise import Mismatch, Noise
from noiseproof.records import Record
from noiseproof.statistics import clopper_pearson, passing

LARGEST = 2.0  # beyond twice its own size, mismatch leaves nothing of a weight
PARTS = 400  # the answer is known to one part in so many of the range
WIDE = 100.0  # a range whose ends are so many times apart is searched on a logarithmic scale, as time is


@dataclass(frozen=True)
class Range:
    """Noises between two that differ in one number, its level; they are searched from `low` to `high`.

    Raises `NoiseproofError` unless the two differ in one number that rises, and for bits, of which more are better.

    Example:
        >>> Range(Mismatch(zeta=0.0), Mismatch(zeta=2.0)).at(0.5)
        Mismatch(parameters='weights', zeta=0.5)
    """

    low: Noise
    high: Noise

    def __post_init__(self) -> None:
        same = [type(step) for step in steps_of(self.low)] == [type(step) for step in steps_of(self.high)]
        if not same or len(self._differences()) != 1:
            ends = f"{self.low.describe()} and {self.high.describe()}"
            raise NoiseproofError(f"tolerated has the ends {ends}: they must differ in one number, as in mismatch(zeta=0|2)")
        for level in self.levels:
            require_number(f"tolerated {self.setting}", level, -math.inf)
        low, high = self.levels
        require(low < high, f"tolerated {self.setting}", self.levels, "give the smaller level first")
        better = "more bits are better, and the largest level is searched; sweep them as a noise"
        require(not self.setting.endswith("bits"), f"tolerated {self.setting}", self.levels, better)

    def _differences(self) -> list[tuple[int, str]]:
        """Return step and field of every setting in which the two differ."""
        pairs = enumerate(zip(steps_of(self.low), steps_of(self.high), strict=True))
        return [(i, f.name) for i, (low, high) in pairs for f in fields(low) if getattr(low, f.name) != getattr(high, f.name)]

    @property
    def setting(self) -> str:
        """The name of the level, such as zeta or time."""
        return self._differences()[0][1]

    @property
    def levels(self) -> tuple[Any, Any]:
        """The level at both ends."""
        i, name = self._differences()[0]
        return getattr(steps_of(self.low)[i], name), getattr(steps_of(self.high)[i], name)

    def at(self, level: float) -> Noise:
        """Return the noise at a level of the range."""
        i, name = self._differences()[0]
        steps = list(steps_of(self.low))
        steps[i] = replace(steps[i], **{name: level})
        return with_steps(self.low, steps)

    def describe(self) -> dict[str, Any]:
        """Return name and settings without the level."""
        low, high = self.low.describe(), self.high.describe()
        return {key: value for key, value in low.items() if value == high[key]}

    def middle(self, low: float, high: float) -> float | None:
        """Return a level between two, or None once they are near enough: geometric on a wide range above zero, whole where levels are."""
        first, last = self.levels
        i, name = self._differences()[0]
        if get_type_hints(type(steps_of(self.low)[i]))[name] is int:
            return (int(low) + int(high)) // 2 if high - low > 1 else None
        if first > 0 and last >= WIDE * first:
            return math.sqrt(low * high) if math.log(high / low) > math.log(last / first) / PARTS else None
        return (low + high) / 2 if high - low > (last - first) / PARTS else None


def tolerated(
    network: nn.Module,
    split: Split,
    low: Noise,
    high: Noise,
    required_accuracy: float,
    *,
    required_yield: float = 0.95,
    chips: int = 100,
    seed: int = 0,
    processes: int | None = None,
    measure: Measurer | None = None,
    ledger: Ledger | None = None,
) -> Record:
    """Return the largest level at which the yield is at least `required_yield`: the share of chips at or above the required accuracy.

    `low` and `high` are the noise at both ends of the search and differ in one number, the level: a mismatch, or the time until
    which chips that drift are good enough. The yield is taken to fall with it. Bisection, on the same chips at every level, down
    to a 400th of the range; on a logarithmic scale where the ends are above zero and 100 times or more apart. The answer is a
    level at which the yield was seen, that of `high` where it holds even there. Where it is missed even at `low`, the metric begins
    with not_, and the value is that level.

    Two more records, surely_ and possibly_, say between which levels the chips leave the answer open (95 %): the largest level at
    which the Clopper-Pearson interval of the yield is not below `required_yield`, and the largest at which it reaches it.

    Raises `NoiseproofError` for an accuracy or a yield outside (0, 1], or ends that do not differ in one number that rises.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> ends = npf.noise.Gaussian(std=0.0), npf.noise.Gaussian(std=1.0)
        >>> record = tolerated(network, data.test, *ends, required_accuracy=1.0, chips=2, processes=1)
        >>> record.metric, record.value
        ('not_tolerated_std', 0.0)
    """
    between = Range(low, high)
    require_number("required_accuracy", required_accuracy, 0, 1, open_low=True)
    require_number("required_yield", required_yield, 0, 1, open_low=True)
    require_number("chips", chips, 1)
    network, ledger = adapt(network), ledger or Ledger()
    at = {"required_accuracy": required_accuracy, "yield": required_yield, "chips": float(chips)}
    at |= {"lowest": float(between.levels[0]), "highest": float(between.levels[1])}
    answer = ledger.make(f"tolerated_{between.setting}", 0.0, len(split), between.describe(), at, seed=seed)
    blank = [answer, *(replace(answer, metric=f"{how}_{answer.metric}") for how in ("surely", "possibly"))]
    there = [_answered(ledger, b) for b in blank]
    if there[0] is not None and None not in there:
        return there[0]

    def search(measure: Measurer) -> list[Record]:
        allowed = _allowed(chips, required_yield)

        @functools.cache
        def failures(level: float) -> int:
            return _failures(between.at(level), required_accuracy, max(allowed), chips, seed, measure)

        found = [_largest(between, lambda level, most=most: failures(level) <= most) for most in allowed]
        missed = float(between.levels[0])
        return [
            replace(b, value=float(level)) if level is not None else replace(b, metric=f"not_{b.metric}", value=missed)
            for b, level in zip(blank, found, strict=True)
        ]

    if measure is not None:
        return ledger.add(search(measure))[0]
    with measurer(network, split, processes=processes) as made:
        return ledger.add(search(made))[0]


def tolerated_mismatch(
    network: nn.Module,
    split: Split,
    required_accuracy: float,
    *,
    required_yield: float = 0.95,
    chips: int = 100,
    parameters: str = "weights",
    seed: int = 0,
    processes: int | None = None,
    measure: Measurer | None = None,
    ledger: Ledger | None = None,
) -> Record:
    """Return the largest mismatch ζ in [0, 2] at which the yield holds, to 0.005: see `tolerated`.

    Raises `NoiseproofError` for an accuracy or a yield outside (0, 1].
    """
    ends = (Mismatch(zeta=0.0, parameters=parameters), Mismatch(zeta=LARGEST, parameters=parameters))
    return tolerated(
        network, split, *ends, required_accuracy, required_yield=required_yield, chips=chips, seed=seed, processes=processes,
        measure=measure, ledger=ledger,
    )  # fmt: skip


def _answered(ledger: Ledger, blank: Record) -> Record | None:
    return ledger.find(blank) or ledger.find(replace(blank, metric=f"not_{blank.metric}"))


def _largest(between: Range, holds: Callable[[float], bool]) -> float | None:
    """Return the largest level that holds, by bisection; None where none does."""
    low, high = between.levels
    if not holds(low):
        return None
    if holds(high):
        return high
    while (middle := between.middle(low, high)) is not None:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _allowed(chips: int, share: float) -> tuple[int, int, int]:
    """Return how many chips may fail so that a yield of `share` is seen, is sure, and is possible; -1: fewer than none."""
    intervals = [clopper_pearson(chips - failures, chips) for failures in range(chips + 1)]
    sure = sum(low >= share for low, _ in intervals) - 1
    possible = sum(high >= share for _, high in intervals) - 1
    return math.floor(chips * (1 - share) + 1e-9), sure, possible


def _failures(noise: Noise, accuracy: float, most: int, chips: int, seed: int, measure: Measurer) -> int:
    """Return how many chips fail; stops once there are more than `most`. Of chips that are all the same, all fail, or not even one can."""
    if noise.deterministic:
        return -1 if passing([result.accuracy for result in measure([Chip(noise, seed, 0)])], accuracy) else chips
    failures = 0
    for start in range(0, chips, 16):
        results = [result.accuracy for result in measure([Chip(noise, seed, i) for i in range(start, min(start + 16, chips))])]
        failures += len(results) - passing(results, accuracy)
        if failures > most:
            break
    return failures
