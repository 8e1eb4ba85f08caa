from __future__ import annotations

from torch import nn

from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation.chips import Chip, Measurer, measurer
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.noise import Mismatch
from noiseproof.records import Record

LARGEST = 2.0  # beyond twice its own size, mismatch leaves nothing of a weight
RESOLUTION = 0.005


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
    """Return the largest mismatch ζ at which the yield is at least `required_yield`: the share of chips at or above the required accuracy.

    Bisection on [0, 2] down to 0.005, on the same chips at every level; the answer is a level at which the yield was seen.
    It is 0 when the network misses the required accuracy as it is, and 2 when it holds even there.

    Raises `NoiseproofError` for an accuracy or a yield outside (0, 1].
    """
    require_number("required_accuracy", required_accuracy, 0, 1, open_low=True)
    require_number("required_yield", required_yield, 0, 1, open_low=True)
    require_number("chips", chips, 1)
    network, ledger = adapt(network), ledger or Ledger()
    if measure is None:
        with measurer(network, split, processes=processes) as measure:
            return tolerated_mismatch(
                network, split, required_accuracy, required_yield=required_yield, chips=chips, parameters=parameters, seed=seed,
                measure=measure, ledger=ledger,
            )  # fmt: skip
    at = {"required_accuracy": required_accuracy, "yield": required_yield, "chips": float(chips)}
    described = {"name": "mismatch", "parameters": parameters}
    blank = ledger.make("tolerated_zeta", 0.0, len(split), described, at, seed=seed)
    there = ledger.find(blank)
    if there is not None:
        return there

    def holds(zeta: float) -> bool:
        return _yield_holds(Mismatch(zeta=zeta, parameters=parameters), required_accuracy, required_yield, chips, seed, measure)

    low, high = 0.0, LARGEST
    if holds(high):
        low = high
    elif holds(low):
        while high - low > RESOLUTION:
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
    return ledger.add([ledger.make("tolerated_zeta", low, len(split), described, at, seed=seed)])[0]


def _yield_holds(noise: Mismatch, accuracy: float, share: float, chips: int, seed: int, measure: Measurer) -> bool:
    """Return whether enough chips pass; stops as soon as the answer is certain."""
    if noise.zeta == 0:
        return next(iter(measure([Chip(noise, seed, 0)]))).accuracy >= accuracy
    failures = 0
    for start in range(0, chips, 16):
        results = measure([Chip(noise, seed, i) for i in range(start, min(start + 16, chips))])
        failures += sum(result.accuracy < accuracy for result in results)
        if failures > chips * (1 - share) + 1e-9:
            return False
    return True
