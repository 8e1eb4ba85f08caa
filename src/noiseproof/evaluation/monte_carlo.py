from __future__ import annotations

from itertools import count

import torch
from torch import nn

from noiseproof import statistics
from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation.chips import BLOCK, Chip, Measurer, measurer
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.noise import Noise
from noiseproof.parameters import parameters_of
from noiseproof.progress import Progress
from noiseproof.randomness import generator
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
    measure: Measurer | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return one accuracy record a simulated chip: `chips` of them, or as many as make the mean certain to ± `half_width`.

    Chip i of `seed` is the same chip for every network, noise level, block and number of processes, so that methods and
    levels are compared on the same chips. With `half_width` (percentage points) chips are added in rounds of 16 until the
    Student t interval (95 %) of the mean was narrow enough in two rounds running, or `max_chips` are reached: a single look
    would stop too early on chips that happen to agree. A noise that changes nothing
    needs one chip. `measure` and `ledger` are for callers that measure more than one thing.

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
            return _rounds(network, split, noise, chips, half_width, max_chips, seed, measure, ledger, progress)
    return _rounds(network, split, noise, chips, half_width, max_chips, seed, measure, ledger, progress)


def _rounds(
    network: nn.Module,
    split: Split,
    noise: Noise,
    chips: int,
    half_width: float,
    max_chips: int,
    seed: int,
    measure: Measurer,
    ledger: Ledger,
    progress: Progress | None,
) -> list[Record]:
    if changes_nothing(network, noise):
        chips, half_width = 1, 0.0
    found: list[Record] = []
    certain = False
    for start in count(0, ROUND):
        stop = min(start + ROUND, max_chips if half_width else chips)
        found += _one_round(range(start, stop), split, noise, seed, measure, ledger, progress)
        if stop == (max_chips if half_width else chips):
            return found
        if half_width:
            before, certain = certain, statistics.mean_interval([r.value for r in found])[1] <= half_width / 100
            if before and certain:
                return found
    raise AssertionError("unreachable")


def _one_round(
    indices: range, split: Split, noise: Noise, seed: int, measure: Measurer, ledger: Ledger, progress: Progress | None
) -> list[Record]:
    """Return the records of these chips; only those that are missing are measured."""
    n, described = len(split), noise.describe()
    there = {i: ledger.find(ledger.make("accuracy", 0.0, n, described, chip=i, seed=seed)) for i in indices}
    missing = [i for i, record in there.items() if record is None]
    results = measure([Chip(noise, seed, i) for i in missing])
    fresh = {}
    for i, result in zip(missing, results, strict=True):
        fresh[i] = ledger.make("accuracy", result.accuracy, n, described, chip=i, seed=seed)
        if progress is not None:
            progress.advance(1)
    ledger.add(list(fresh.values()))
    return [there[i] or fresh[i] for i in indices]


def changes_nothing(network: nn.Module, noise: Noise) -> bool:
    """Return whether every chip equals the nominal network, as at ζ = 0."""
    params = {name: p.detach() for name, p in parameters_of(network).items()}
    chip = noise(params, generator("chip", 0))
    return all(torch.equal(chip[name], p) for name, p in params.items())
