"""The measurements by which `noiseproof.checklist` judges an accuracy under attack."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from noiseproof.attacks import FGSM, PGD, Attack, RandomNoise, Square, Transfer
from noiseproof.checklist import DRAWS, EPS_BELOW, ONLY_HERE, ONLY_REFERENCE, STEPS, STEPS_CURVE
from noiseproof.errors import NoGradientError
from noiseproof.records import Record

if TYPE_CHECKING:
    from noiseproof.evaluation.robustness import Figures

QUERIES = 500  # of Square, the attack without gradients
ATTACKS = 16  # about so many are made


def checks_of(figures: Figures, attack: Attack, seed: int) -> list[Record]:
    """Return the records by which an accuracy under attacks of the size of `attack` is judged, each measured once.

    FGSM; PGD by its number of steps, and with 20 steps by ε, from a quarter of it up to the width of the data or to where nothing is left;
    noise of the same size; random search; Square; `attack` itself where it is a transfer; whether the network is stochastic. The
    reference is PGD with 20 steps: beside the figures of the others stands the share of samples that they alone fool, and that the
    reference alone fools.

    An attack to which the network passes no gradient has one record, zero_gradient_share = 1, and no accuracy.
    """
    size = {"eps": attack.eps, "norm": attack.norm, "eot": attack.eot}
    search, square = RandomNoise(**size, kind="corner", draws=DRAWS), Square(**size, queries=QUERIES)
    noises = [RandomNoise(**size, kind="uniform"), RandomNoise(**size, kind="corner"), search]
    found = [record for one in (*noises, square) for record in figures.records(one, seed)]
    reference = PGD(**size, steps=STEPS)
    found += figures.stochastic(reference, seed)
    found += _by_gradients(figures, reference, seed)
    if not _has_accuracy(found[-1]):
        return found
    for one in (FGSM(**size), *(PGD(**size, steps=steps) for steps in STEPS_CURVE if steps != STEPS)):
        found += _beside(figures, one, reference, seed)
    for one in (square, *([attack] if isinstance(attack, Transfer) else [])):
        found += _beside(figures, one, reference, seed)
    found += _eps_curve(figures, reference, seed)
    return found + figures.shares(search, seed, {"random_only": lambda: _only(figures, search, reference, seed)})


def _beside(figures: Figures, attack: Attack, reference: Attack, seed: int) -> list[Record]:
    """Return the records of an attack, with the shares of samples that only it fools, and only the reference."""
    found = _by_gradients(figures, attack, seed)
    if not _has_accuracy(found[-1]):
        return found
    shares = {
        ONLY_HERE: lambda: _only(figures, attack, reference, seed),
        ONLY_REFERENCE: lambda: _only(figures, reference, attack, seed),
    }
    return figures.shares(attack, seed, shares, {"eps": float(reference.eps)}) + found


def _eps_curve(figures: Figures, reference: PGD, seed: int) -> list[Record]:
    """Return the reference at other ε: a quarter, a half, then doubled until nothing is left or ε is the width of the data."""
    eps, widest = reference.eps, _width(figures, reference)
    larger = [eps * 2**k for k in range(1, 1 + math.ceil(math.log2(widest / eps)))]
    found: list[Record] = []
    for one in (*(share * eps for share in EPS_BELOW), *(min(e, widest) for e in larger)):
        found += _beside(figures, reference.at(one), reference, seed)
        if one > eps and _has_accuracy(found[-1]) and found[-1].value == 0:
            break
    return found


def _by_gradients(figures: Figures, attack: Attack, seed: int) -> list[Record]:
    """Return the records of an attack, the accuracy last; without one where no gradient says anything."""
    blind = figures.ledger.make("zero_gradient_share", 1.0, figures.n, attack.describe(), seed=seed)
    there = figures.ledger.find(blind)
    if there is not None and there.value == 1.0:
        return [there]
    try:
        return figures.records(attack, seed)
    except NoGradientError:
        return figures.ledger.add([blind])


def _has_accuracy(record: Record) -> bool:
    return record.metric == "accuracy"


def _width(figures: Figures, attack: Attack) -> float:
    """Return the largest change that the range of the data allows."""
    low, high = figures.network.bounds  # pyright: ignore[reportGeneralTypeIssues] (every adapted network has them)
    entries = math.prod(figures.split.x.shape[1:])
    return float(high - low) * (math.sqrt(entries) if attack.norm == "l2" else 1.0)


def _only(figures: Figures, attack: Attack, other: Attack, seed: int) -> Tensor:
    return figures.fooled(attack, seed) & ~figures.fooled(other, seed)
