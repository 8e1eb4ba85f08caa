"""How much a longer search finds: accuracy under attack against the number of gradient steps (as paper A's Fig. S13 for training)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noiseproof.records import Record
from noiseproof.report.figures import Drawing, line, named, scale_for
from noiseproof.report.numbers import counts, level, mean, percent, phrases, unbroken
from noiseproof.report.reading import Method
from noiseproof.report.selecting import Settings, collect, level_of, name_of, objective_of, samples, set_of
from noiseproof.report.svg import canvas, style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table


@dataclass(frozen=True)
class Steps:
    """Accuracy under attacks that differ in nothing but their number of steps; one value per network, the lowest of its restarts."""

    objective: str
    shape: Settings
    zeta: float
    steps: tuple[int, ...]
    worst: Mapping[tuple[int, int], tuple[float, ...]]  # by (method's index, steps)
    restarts: tuple[int, ...]
    samples: tuple[int, ...]

    @property
    def title(self) -> str:
        """As in "KL, l∞, all parameters, ζ = 0.1"."""
        return phrases((("objective", self.objective), *self.shape, ("zeta", f"{self.zeta:g}")))


def studies(methods: Sequence[Method]) -> tuple[Steps, ...]:
    """Return one study per objective, set and size ζ > 0 that was searched with several numbers of steps; KL first."""

    def belongs(r: Record) -> bool:
        searched = r.metric == "accuracy" and r.split == "test" and name_of(r) == "weight-attack" and "epoch" not in r.at
        return searched and "steps" in r.perturbation and level_of(r.perturbation) > 0

    keyed = collect(
        methods, belongs, lambda r: (objective_of(r), set_of(r.perturbation), level_of(r.perturbation), r.perturbation["steps"])
    )
    kinds = sorted({key[:3] for key in keyed}, key=lambda kind: (kind[0] != "kl", kind))
    found = []
    for objective, shape, zeta in kinds:
        mine = {key[3]: by_method for key, by_method in keyed.items() if key[:3] == (objective, shape, zeta)}
        worst = {
            (index, steps): tuple(min(r.value for r in records) for records in networks)
            for steps, by_method in mine.items()
            for index, networks in by_method.items()
        }
        restarts = {len(records) for by_method in mine.values() for networks in by_method.values() for records in networks}
        if len(mine) > 1:
            found.append(Steps(objective, shape, zeta, tuple(sorted(mine)), worst, tuple(sorted(restarts)), samples(mine.values())))
    return tuple(found)


def shown(found: Sequence[Steps]) -> list[Steps]:
    """Return the studies that are drawn: of every objective and set the middle size, so that nobody picks it."""
    kinds = dict.fromkeys((study.objective, study.shape) for study in found)
    groups = [[study for study in found if (study.objective, study.shape) == kind] for kind in kinds]
    return [group[(len(group) - 1) // 2] for group in groups]


def drawing(study: Steps, methods: Sequence[Method], name: str) -> Drawing:
    """Accuracy under attack against the steps of the search, one line per method."""
    figure, axes = canvas()
    drawn, words = [], []
    for method in methods:
        points = [(steps, study.worst[method.index, steps]) for steps in study.steps if (method.index, steps) in study.worst]
        if not points:
            continue
        drawn.append(method)
        x = [float(steps) for steps, _ in points]
        low, middle, high = ([100 * reduce(v) for _, v in points] for reduce in (min, mean, max))
        axes.fill_between(x, low, high, color=style(method.look).colour, alpha=0.16, linewidth=0)
        line(axes, x, middle, method)
        words.append(f"{method.label}: " + ", ".join(f"{percent(mean(v))} % after {steps}" for steps, v in points))
    scale_for(axes, [float(steps) for steps in study.steps], level, exact=True)
    axes.set_xlabel("gradient steps of the search")
    axes.set_ylabel("accuracy, %")
    title = unbroken(f"Attack by number of steps ({study.title})")
    return Drawing(
        title,
        f"Line: lowest accuracy of {counts(study.restarts, 'search', 'searches')}, mean over networks; band: lowest and highest network. "
        f"{counts(study.samples, 'test sample')}.",
        svg(figure, name, title, "Accuracy under attack. " + "; ".join(words) + "."),
        named(drawn),
    )


def table(found: Sequence[Steps], methods: Sequence[Method]) -> Table:
    """Return the accuracy by method, set and size, for every number of steps."""
    every = sorted({steps for study in found for steps in study.steps})
    columns = (Column("Method", numeric=False), Column("Attack", numeric=False), *(Column(f"{n} steps", "worst found, %") for n in every))
    rows = (
        (Cell(m.label), Cell(study.title), *(_cell(study.worst.get((m.index, n), ())) for n in every))
        for study in found
        for m in methods
        if any((m.index, n) in study.worst for n in every)
    )
    return Table("Weight attack by number of steps", columns, tuple(rows))


def _cell(values: Sequence[float]) -> Cell:
    return Cell(percent(mean(values)), value=mean(values)) if values else EMPTY
