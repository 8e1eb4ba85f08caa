"""The chapters of the report, in reading order. A chapter appears only where there are records for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noiseproof.report import curves, figures, studies, tables
from noiseproof.report.figures import Drawing
from noiseproof.report.numbers import count, counts, level
from noiseproof.report.reading import Method
from noiseproof.report.studies import Noise
from noiseproof.report.tables import Table

_MOST_LEVELS = 6  # of the distributions over chips: more would bury the page


@dataclass(frozen=True)
class Section:
    """One chapter: what to know, pictures, tables; `folded` tables wait behind a click and are opened for print."""

    anchor: str
    title: str
    text: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


def sections(methods: Sequence[Method], required: float | None) -> tuple[Section, ...]:
    """Return all chapters that have something to show."""
    found: list[Section] = []
    noises = studies.noises(methods)
    for number, noise in enumerate(noises):
        found += _noise(noise, methods, required, f"noise-{number}", alone=len(noises) == 1)
    return (*found, *_attacks(methods), *_landscapes(methods), *_training(methods))


def _noise(noise: Noise, methods: Sequence[Method], required: float | None, anchor: str, alone: bool) -> list[Section]:
    title = noise.family.title
    which = "" if alone else f" {title}"
    behind = f"{counts(noise.chip_counts, 'simulated chip')} per network and level, {counts(noise.samples, 'test sample')} per chip."
    at = noise.headline
    drawings = [figures.accuracy(noise, methods, f"{anchor}-accuracy"), figures.yield_by_requirement(noise, methods, at, f"{anchor}-yield")]
    if required is not None:
        drawings.append(figures.yield_by_level(noise, methods, required, f"{anchor}-required"))
    levels = noise.noisy_levels
    shown = levels if len(levels) <= _MOST_LEVELS else levels[-_MOST_LEVELS:]
    left_out = (f"The {_MOST_LEVELS} largest of {len(levels)} levels.",) if len(shown) < len(levels) else ()
    return [
        Section(anchor, title, (behind,), tuple(drawings), folded=(tables.noise_table(noise, methods),)),
        Section(
            f"{anchor}-chips",
            f"Chip by chip:{which}" if which else "Chip by chip",
            ("Each panel has its own scale.", *left_out),
            tuple(figures.chips(noise, methods, at, f"{anchor}-chips-{i}") for i, at in enumerate(shown)),
        ),
        Section(
            f"{anchor}-statistics",
            f"How sure is this?{which}",
            _tests_text(methods),
            tables=(tables.statistics_table(noise, methods, [at], f"Spread and tests at {noise.family.symbol} = {level(at)}"),),
            folded=(tables.statistics_table(noise, methods, levels, "Spread and tests at all levels"),) if len(levels) > 1 else (),
        ),
    ]


def _tests_text(methods: Sequence[Method]) -> tuple[str, ...]:
    fewest = min(len(m.networks) for m in methods)
    return (
        f"Tests compare each method with {tables.comparisons(methods)}; p is two-sided.",
        "The U test pools the chips of all networks, as the literature does; but chips of one network are not independent samples of a "
        "training method (pseudo-replication), so its p says that these networks differ, not that the methods do. The test by network "
        f"takes one number per training and can speak about methods: here it has {count(fewest, 'network')} per method"
        + (" or more." if any(len(m.networks) > fewest for m in methods) else "."),
        "The interval of the mean is about chips like these, for these networks and test samples. “Chip std” is the spread between the "
        "chips of one network, “network std” that between trainings: of the networks' means, less what finitely many chips add to it.",
    )


def _attacks(methods: Sequence[Method]) -> list[Section]:
    found = studies.attacks(methods)
    if not found:
        return []
    text = (
        "The search moves every attacked weight inside its set, of size ζ relative to the weight, towards the worst answer: one "
        "perturbation for all test samples, as one bad chip would be. What it finds is no bound: a stronger search may find worse. "
        "Objectives are shown apart.",
    )
    drawings = tuple(curves.attack(study, methods, f"attack-{i}") for i, study in enumerate(found))
    return [Section("attacks", "Attack on the weights", text, drawings, folded=tuple(tables.attack_table(s, methods) for s in found))]


def _landscapes(methods: Sequence[Method]) -> list[Section]:
    found = studies.landscapes(methods)
    if not found:
        return []
    text = (
        "The loss on test data at θ + α·v, where v is random and proportional to the weights. The slope is the mean of |ΔL|/Δα between "
        "neighbouring points.",
    )
    drawings = tuple(curves.landscape(study, methods, f"landscape-{i}") for i, study in enumerate(found))
    return [Section("landscape", "Loss landscape", text, drawings, tables=tuple(tables.slope_table(s, methods) for s in found))]


def _training(methods: Sequence[Method]) -> list[Section]:
    found, table = studies.courses(methods), tables.training_table(methods)
    if not found and not table.rows:
        return []
    text = ("The best epoch is chosen on validation data; nothing is chosen on test data.",)
    drawings = tuple(curves.course(study, methods, f"training-{i}") for i, study in enumerate(found))
    return [Section("training", "Training", text, drawings, tables=(table,) if table.rows else ())]
