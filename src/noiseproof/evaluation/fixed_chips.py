"""How many chips there will be, written down before the first one is simulated: only then is a bound from them as sure as it says."""

from __future__ import annotations

import json
from collections.abc import Sequence

from noiseproof.errors import NoiseproofError
from noiseproof.evaluation.ledger import Ledger
from noiseproof.noise import Noise
from noiseproof.records import Record

METRIC = "chips_fixed"


def fix_number(noises: Sequence[Noise], chips: int, seed: int, samples: int, ledger: Ledger) -> bool:
    """Record for every level of mismatch that chips 0 … `chips` − 1 of `seed` will be spoken of, unless some have been looked at.

    One seed has one number, at all levels and for all parameters, since chip i of a seed is the same draw at each. Where chips of this
    seed are there whose number was not fixed, or was fixed to another one, nothing is recorded: whoever chose this number may have seen
    them. Statements about all chips (`noiseproof.certificates.devices.state`) are made of these chips alone; another seed is as good.
    Returns whether the number stands.

    Example:
        >>> import noiseproof as npf
        >>> ledger = Ledger()
        >>> fix_number([npf.noise.Mismatch(zeta=0.1)], 300, seed=0, samples=1000, ledger=ledger)
        True
        >>> [(record.metric, record.value, record.seed) for record in ledger.records]
        [('chips_fixed', 300.0, 0)]
    """
    blank = [ledger.make(METRIC, float(chips), samples, noise.describe(), seed=seed) for noise in noises if _varies(noise)]
    if not all(float(chips) in numbers for numbers in _looked_at(ledger.records, seed)):
        return False
    ledger.add([record for record in blank if (found := ledger.find(record)) is None or found.value != record.value])
    return True


def check_number(records: Sequence[Record], noises: Sequence[Noise], chips: int, seed: int) -> None:
    """Raise `NoiseproofError` where `fix_number` would not let `chips` stand: then chips are simulated for no statement.

    `records`: what there is of the network; noises other than mismatch need no number.
    """
    looked_at = _looked_at(records, seed)
    if not any(map(_varies, noises)) or all(float(chips) in numbers for numbers in looked_at):
        return
    numbers = set[float].intersection(*looked_at)
    if not numbers:
        raise NoiseproofError(
            f"chip_seed is {seed}: chips of this seed were simulated before their number was fixed, so that nothing can be said of all "
            "chips from them; give another --chip-seed"
        )
    number = f"{max(numbers):.0f}"
    raise NoiseproofError(
        f"chips is {chips}: seed {seed} of this run has {number} chips, fixed before they were looked at; give --chips {number} or another "
        "--chip-seed"
    )


def _looked_at(records: Sequence[Record], seed: int) -> list[set[float]]:
    """Return the numbers that were fixed for every level of mismatch of which chips of this seed are there; empty where none was."""
    mine = [record for record in records if record.seed == seed and record.perturbation.get("name") == "mismatch" and not record.at]
    levels = {_level_of(record): set[float]() for record in mine if record.chip is not None and record.perturbation.get("zeta")}
    for record in mine:
        if record.metric == METRIC and (level := _level_of(record)) in levels:
            levels[level].add(record.value)
    return list(levels.values())


def _varies(noise: Noise) -> bool:
    return noise.describe().get("name") == "mismatch" and not noise.deterministic


def _level_of(record: Record) -> str:
    return json.dumps(dict(record.perturbation), sort_keys=True)
