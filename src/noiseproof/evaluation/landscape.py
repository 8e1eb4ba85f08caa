from __future__ import annotations

from dataclasses import replace

from torch import nn

from noiseproof.data import Split
from noiseproof.errors import require_number
from noiseproof.evaluation.chips import Chip, Measurer, measurer
from noiseproof.evaluation.ledger import Ledger
from noiseproof.networks import adapt
from noiseproof.noise import Mismatch
from noiseproof.progress import Progress
from noiseproof.records import Record

ALPHAS = tuple(round(-2 + 0.2 * i, 1) for i in range(21))


def landscape(
    network: nn.Module,
    split: Split,
    *,
    directions: int = 5,
    zeta: float = 0.2,
    parameters: str = "weights",
    alphas: tuple[float, ...] = ALPHAS,
    seed: int = 0,
    split_name: str = "test",
    processes: int | None = None,
    measure: Measurer | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return the cross-entropy on `split` along random directions in weight space: at θ + α·v, v ~ N(0, ζ|θ|), one record a point.

    The slope of a landscape is the mean of |ΔL|/Δα over neighbouring points. Source: Büchel et al., arXiv:2106.05009,
    Figs. 1, S2 and S6 to S8, Table S1 (ζ = 0.2, α ∈ [−2, 2]). `split_name` is how the records call the split.

    Raises `NoiseproofError` for numbers out of range, or when no parameter is selected.
    """
    require_number("directions", directions, 1)
    network, ledger = adapt(network), ledger or Ledger()
    if measure is None:
        with measurer(network, split, processes=processes) as measure:
            return landscape(
                network, split, directions=directions, zeta=zeta, parameters=parameters, alphas=alphas, seed=seed,
                split_name=split_name, measure=measure, ledger=ledger, progress=progress,
            )  # fmt: skip
    noise = Mismatch(zeta=zeta, parameters=parameters)
    described = noise.describe() | {"name": "direction"}
    found: list[Record] = []
    for direction in range(directions):
        blank = [
            ledger.make(
                "cross_entropy", 0.0, len(split), described, {"alpha": a, "direction": float(direction)}, seed=seed, split=split_name
            )
            for a in alphas
        ]
        missing = [record for record in blank if ledger.find(record) is None]
        results = measure([Chip(noise, seed, direction, "direction", record.at["alpha"]) for record in missing])
        ledger.add([replace(b, value=r.loss) for b, r in zip(missing, results, strict=True)])
        found += [record for record in map(ledger.find, blank) if record is not None]
        if progress is not None:
            progress.advance(len(alphas))
    return found
