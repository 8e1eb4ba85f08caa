"""How many chips there will be, written down before the first one is simulated: only then is a bound from them as sure as it says."""

from __future__ import annotations

import json
from collections.abc import Sequence

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
    mine = [record for record in ledger.records if record.seed == seed and record.perturbation.get("name") == "mismatch" and not record.at]
    fixed = {(_level_of(record), record.value) for record in mine if record.metric == METRIC}
    looked_at = {_level_of(record) for record in mine if record.chip is not None and record.perturbation.get("zeta")}
    if not all((level, float(chips)) in fixed for level in looked_at):
        return False
    ledger.add([record for record in blank if (found := ledger.find(record)) is None or found.value != record.value])
    return True


def _varies(noise: Noise) -> bool:
    return noise.describe().get("name") == "mismatch" and not noise.deterministic


def _level_of(record: Record) -> str:
    return json.dumps(dict(record.perturbation), sort_keys=True)
