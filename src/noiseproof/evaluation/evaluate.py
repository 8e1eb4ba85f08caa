from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from noiseproof import config
from noiseproof.checkpoint import digest
from noiseproof.data import Split, Splits
from noiseproof.evaluation.attack_curves import attack_curves
from noiseproof.evaluation.chips import measurer
from noiseproof.evaluation.landscape import ALPHAS, landscape
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.measures import Measures
from noiseproof.evaluation.monte_carlo import changes_nothing, monte_carlo
from noiseproof.evaluation.tolerated import tolerated_mismatch
from noiseproof.measure import measure
from noiseproof.networks import adapt
from noiseproof.networks.adapt import check_fits
from noiseproof.noise import Noise
from noiseproof.parameters import parameters_of, select
from noiseproof.progress import Progress
from noiseproof.randomness import stochastic
from noiseproof.records import Record, environment
from noiseproof.training import Training


@dataclass(frozen=True)
class Evaluation:
    """The records of one network; reports take it like a run folder."""

    described: dict[str, Any]
    found: list[Record]
    device: str = "cpu"

    def records(self) -> list[Record]:
        """Return all records."""
        return self.found

    def settings(self) -> dict[str, Any]:
        """Return what is known of how the network was made."""
        return self.described

    def environment(self) -> dict[str, Any]:
        """Return versions, machine and device."""
        return environment(self.device)

    def report(self, path: str | Path, *, title: str = "noiseproof report") -> None:
        """Write one self-contained HTML file; `noiseproof.report.write([a, b], path)` sets several networks side by side."""
        from noiseproof import report

        report.write([self], Path(path), title=title)


def evaluate(
    network: nn.Module,
    data: Splits,
    noise: Sequence[Noise] | None = None,
    *,
    name: str = "network",
    training: Training | None = None,
    processes: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> Evaluation:
    """Measure `network` on `data.test`: as it is, on simulated chips, under attack, along random directions.

    `noise`: the noises to simulate, one after the other; `settings` are the fields of `Measures` (mismatch, chips,
    half_width, attack, landscape, required_accuracy …), whose mismatch levels hold when no noise is given. With `training`,
    what `train` returned, the report shows how the network was made. The work is done on the network's device.

    Raises `NoiseproofError` for a wrong setting or a network that does not fit the data, before any long work.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> result = npf.evaluate(network, data, noise=[npf.noise.Mismatch(zeta=0.3)], chips=4, processes=1, progress=False)
        >>> len([r for r in result.records() if r.chip is not None])
        4
    """
    if noise is not None:
        settings = {"mismatch": (), **settings}
    measures: Measures = config.build(Measures, settings, "evaluate")
    network = adapt(network)
    identity = digest(dict(network.named_parameters()))[:16]
    device = str(next(network.parameters()).device)
    ledger = Ledger(identity, training.records(identity, device) if training else (), device=device)
    measure_all(
        network, data, measures, ledger, noises=[*(noise or ()), *measures.noises()], name=name, processes=processes, progress=progress
    )
    described = {"name": name, "data": data.task.name, "network": {"name": type(getattr(network, "module", network)).__name__}}
    return Evaluation({**(training.described if training else {}), **described}, ledger.records, device)


def measure_all(
    network: nn.Module,
    data: Splits,
    measures: Measures,
    ledger: Ledger,
    *,
    noises: Sequence[Noise] | None = None,
    name: str = "network",
    processes: int | None = None,
    progress: bool = True,
) -> None:
    """Measure what `measures` asks for and `ledger` does not hold yet."""
    noises = measures.noises() if noises is None else noises
    test = data.test.to(str(next(network.parameters()).device))
    check_fits(network, test.x, data.task.classes)
    for which in {measures.parameters, *(n.parameters for n in noises)}:
        select(parameters_of(network), which)
    _plain(network, test, ledger)
    attacks = measures.attacks()
    levels = {"half_width": measures.half_width, "max_chips": measures.max_chips, "chips": measures.chips, "seed": measures.chip_seed}
    work = (
        sum(1 if changes_nothing(network, noise) else measures.chips for noise in noises)
        + len(attacks) * measures.attack_restarts
        + measures.landscape * len(ALPHAS)
    )
    with (
        stochastic(0),
        Progress(f"evaluating {name}", work, quiet=not progress) as bar,
        measurer(network, test, processes=processes) as measure_chips,
    ):
        for noise in noises:
            monte_carlo(network, test, noise, **levels, measure=measure_chips, ledger=ledger, progress=bar)
        if measures.landscape:
            landscape(
                network, test, directions=measures.landscape, parameters=measures.parameters, seed=measures.chip_seed,
                measure=measure_chips, ledger=ledger, progress=bar,
            )  # fmt: skip
        if measures.required_accuracy:
            tolerated_mismatch(
                network, test, measures.required_accuracy, required_yield=measures.required_yield, chips=measures.chips,
                parameters=measures.parameters, seed=measures.chip_seed, measure=measure_chips, ledger=ledger,
            )  # fmt: skip
        attack_curves(
            network, test, attacks, restarts=measures.attack_restarts, samples=measures.attack_samples, seed=measures.chip_seed,
            ledger=ledger, progress=bar,
        )  # fmt: skip


def _plain(network: nn.Module, test: Split, ledger: Ledger) -> None:
    """Record accuracy and cross-entropy of the network as it is."""
    if ledger.find(ledger.make("cross_entropy", 0.0, len(test))) is None:
        result = measure(network, parameters_of(network), test.x, test.y)
        ledger.add([ledger.make("accuracy", result.accuracy, len(test)), ledger.make("cross_entropy", result.loss, len(test))])
