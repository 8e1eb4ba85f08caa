"""Tables as plain data: the page draws them with HTML, the command line with rich."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from noiseproof.report import certified_ladders
from noiseproof.report.input_attack_checks import in_doubt
from noiseproof.report.input_attacks import InputAttacks, eps_words
from noiseproof.report.input_attacks import studies as input_attacks
from noiseproof.report.numbers import counts, duration, level, listing, mean, p_value, percent, share
from noiseproof.report.quantities import quantity, value_text
from noiseproof.report.reading import Method, baseline_of
from noiseproof.report.studies import (
    Attack,
    Family,
    Grid,
    Noise,
    Tolerated,
    attacks,
    clean,
    grids,
    mean_level,
    spoken_about,
    tolerated,
    total,
    value_of,
)
from noiseproof.statistics import clopper_pearson, holm, mann_whitney, passing, per_network_test, spread, summary, yield_at


@dataclass(frozen=True)
class Cell:
    """One field: what is read first, what stands small beneath it, the number that sorting uses, and in a heat map its shade in [0, 1]."""

    text: str
    detail: str = ""
    value: float | None = None
    shade: float | None = None
    alarm: bool = False  # drawn as a warning


@dataclass(frozen=True)
class Column:
    title: str
    detail: str = ""  # unit or condition
    numeric: bool = True
    prose: bool = False  # whole sentences, which may take several lines


@dataclass(frozen=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def heat(self) -> bool:
        """Whether it is a heat map, whose rows have an order of their own."""
        return any(cell.shade is not None for row in self.rows for cell in row)


EMPTY = Cell("–")
_METHOD = Column("Method", numeric=False)
_MEAN_STD = "mean\xa0±\xa0std,\xa0%"
_ZETA = (
    "ζ is one standard deviation of the relative deviation of each parameter: θ' = θ·(1 + ζ·ξ) with ξ normal. "
    "It is not a three-sigma value: what some tools call 30 % mismatch is ζ = 0.1."
)


def summary_table(methods: Sequence[Method], required: float | None = None) -> Table:
    """Return one row per method: clean accuracy, accuracy on chips at each level, accuracy under attack, the mismatch it tolerates."""
    columns = [_METHOD, Column("Networks"), Column("Clean", "%")]
    rows = [[Cell(m.label), Cell(str(len(m.networks)), value=len(m.networks)), clean_cell(m)] for m in methods]

    def add(column: Column, cells: Sequence[Cell]) -> None:
        columns.append(column)
        for row, cell in zip(rows, cells, strict=True):
            row.append(cell)

    studies = spoken_about(methods)
    for noise in studies[:1]:
        for at in noise.noisy_levels:
            add(Column(noise.family.at(at), _MEAN_STD), [chips_cell(noise, m, at) for m in methods])
        if required is not None:
            title = f"Yield at {noise.family.at(noise.headline)}"
            add(Column(title, f"chips ≥ {share(required)} %, %"), [yield_cell(noise, m, noise.headline, required) for m in methods])
    for attack in attacks(methods):
        if (at := attack.headline) is not None:
            add(Column(f"Attack ζ = {level(at)}", f"{attack.title}, %"), [_attack_cell(attack, m, at) for m in methods])
    for study in input_attacks(methods):
        for eps in study.asked:
            if any(study.worst(m, eps) for m in methods):
                add(Column(eps_words(eps, study.norm), "robust accuracy, %"), [_robust_cell(study, m, eps) for m in methods])
    for boxes in certified_ladders.studies(methods):
        at = boxes.headline
        add(Column(f"Certified z = {level(at)}", f"{boxes.title}, %"), [certified_cell(boxes.of(m, at)) for m in methods])
    for (family, accuracy, part), answers in tolerated(methods).items():
        detail = f"{share(part)} % of chips ≥ {share(accuracy)} %"
        title = f"Tolerated {family.words}" + (f", {family.symbol}" if family.setting != "zeta" else "")
        add(Column(title, detail), [_tolerated_cell(family, answers.get(m.index, ())) for m in methods])
    # one noise fits beside the rest; where there are several, say which it is
    first = next(iter(studies), None)
    several = len(studies) > 1 or bool(grids(methods))
    caption = f"Summary ({first.family.title}; every noise has a table of its own)" if first and several else "Summary"
    return Table(caption, tuple(columns), tuple(tuple(row) for row in rows))


def joined(tables: Sequence[tuple[str, Table]]) -> Table:
    """Return the tables of several tasks as one, with a column that names the task; what one of them has not stays empty."""
    columns = list(dict.fromkeys(column for _, table in tables for column in table.columns))
    rows: list[tuple[Cell, ...]] = []
    for task, table in tables:
        for row in table.rows:
            cells = dict(zip(table.columns, row, strict=True))
            found = [cells.get(column, EMPTY) for column in columns]
            rows.append((found[0], Cell(task), *found[1:]))
    captions = list(dict.fromkeys(table.caption for _, table in tables))
    return Table(captions[0] if len(captions) == 1 else "Summary", (columns[0], Column("Data", numeric=False), *columns[1:]), tuple(rows))


def statistics_table(noise: Noise, methods: Sequence[Method], levels: Sequence[float], caption: str) -> Table:
    """Return, for every level and method: the mean with its interval, both spreads, and two tests against the baseline."""
    columns = (
        _METHOD,
        Column(noise.family.symbol or "noise"),
        Column("Mean", "95\xa0%\xa0interval,\xa0%"),
        Column("Quantiles", "1\xa0·\xa05\xa0·\xa050\xa0%,\xa0%"),
        Column("Chip std", "points"),
        Column("Network std", "points"),
        Column("U test", "pooled, p; Holm"),
        Column("By network", "Welch, p; Holm"),
    )
    measured = [(at, m) for at in levels for m in methods if noise.values(m, at)]
    rows = [_statistics_row(noise, at, m, methods) for at, m in measured]
    tests = [_adjusted([row[place] for row in rows]) for place in (-2, -1)]
    return Table(caption, columns, tuple((*row[:-2], *pair) for row, pair in zip(rows, zip(*tests, strict=True), strict=True)))


def _adjusted(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of one test with, beneath each p, what it is among all of them."""
    ps = iter(holm([cell.value for cell in cells if cell.value is not None]))
    return [cell if cell.value is None else replace(cell, detail=p_value(next(ps))) for cell in cells]


def _statistics_row(noise: Noise, at: float, method: Method, methods: Sequence[Method]) -> tuple[Cell, ...]:
    values, groups = noise.values(method, at), noise.groups(method, at)
    s, apart = summary(values), spread(groups)
    baseline = baseline_of(method, methods)
    against = noise.groups(baseline, at) if baseline else ()
    u = mann_whitney(values, noise.values(baseline, at)) if baseline and against else None
    welch = per_network_test(groups, against) if against else None
    interval = f"{percent(s.mean - s.half_width)} to {percent(min(1.0, s.mean + s.half_width))}" if s.half_width is not None else "one chip"
    return (
        Cell(method.label),
        Cell(value_text(noise.family.setting, at) if noise.family.setting else noise.family.words, value=at),
        Cell(percent(s.mean), interval, s.mean),
        Cell(" · ".join(percent(q) for q in (s.q01, s.q05, s.median)), value=s.q05),
        _points(apart.within),
        _points(apart.between) if len(groups) > 1 else Cell("–", "one network"),
        _test_cell(u, baseline),
        _test_cell(welch, baseline) if welch is not None or baseline is None else Cell("–", "too few networks"),
    )


def noise_table(noise: Noise, methods: Sequence[Method]) -> Table:
    """Return mean ± std and minimum of every method at every level of one noise."""
    columns = (_METHOD, *(Column(noise.family.at(at), _MEAN_STD) for at in noise.levels))
    return Table(noise.family.title, columns, tuple((Cell(m.label), *(chips_cell(noise, m, at) for at in noise.levels)) for m in methods))


def grid_table(grid: Grid, methods: Sequence[Method]) -> Table:
    """Return mean ± std and minimum of every method where two settings of the noise vary."""
    columns = (
        _METHOD,
        Column(quantity(grid.setting).symbol),
        *(Column(grid.family.at(at), _MEAN_STD) for at in grid.columns),
    )
    rows = (
        (Cell(m.label), Cell(value_text(grid.setting, row), value=row), *(chips_cell(noise, m, at) for at in grid.columns))
        for m in methods
        for row, noise in grid.slices
        if any(noise.values(m, at) for at in grid.columns)
    )
    return Table(grid.family.title, columns, tuple(rows))


def heat_maps(grid: Grid, methods: Sequence[Method]) -> tuple[Table, ...]:
    """Return one heat map per method; the shades of all have one scale."""
    every = [mean(v) for m in methods for _, noise in grid.slices for at in grid.columns if (v := noise.values(m, at))]
    rows_and_columns = (f"{quantity(grid.setting).symbol}\N{NO-BREAK SPACE}↓", f"{grid.family.symbol}\N{NO-BREAK SPACE}→")
    columns = (Column(*rows_and_columns, numeric=False), *(Column(value_text(grid.family.setting, at)) for at in grid.columns))
    return tuple(
        Table(
            m.label,
            columns,
            tuple(
                (Cell(value_text(grid.setting, row)), *(shaded(chips_cell(noise, m, at), every) for at in grid.columns))
                for row, noise in grid.slices
            ),
        )
        for m in methods
        if any(noise.values(m, at) for _, noise in grid.slices for at in grid.columns)
    )


def shaded(cell: Cell, every: Sequence[float]) -> Cell:
    """Return `cell` with its shade: 0 for the lowest of the values `every`, 1 for the highest."""
    low, high = min(every), max(every)
    return cell if cell.value is None else replace(cell, shade=(cell.value - low) / (high - low) if high > low else 1.0)


def attack_table(attack: Attack, methods: Sequence[Method]) -> Table:
    """Return the accuracy under attack and at random points of the same set."""
    columns = (_METHOD, *(Column(f"ζ = {level(at)}", "worst found, %") for at in attack.levels))
    return Table(
        f"Weight attack ({attack.title})",
        columns,
        tuple((Cell(m.label), *(_attack_cell(attack, m, at, lowest=True) for at in attack.levels)) for m in methods),
    )


def training_table(methods: Sequence[Method]) -> Table:
    """Return one row per network: the epoch that validation chose, what it reached there, and the time."""
    columns = (_METHOD, Column("Seed"), Column("Best epoch", "by validation"), Column("Accuracy there", "validation, %"), Column("Time"))
    rows = []
    for method in methods:
        for network in method.networks:
            epoch = value_of(network, "best_epoch")
            reached = next((r.value for r in network.records if r.metric == "validation_accuracy" and r.at.get("epoch") == epoch), None)
            seconds = network.environment.get("training_seconds", total(network, "seconds"))
            if epoch is None and reached is None and not isinstance(seconds, int | float):
                continue
            rows.append(
                (
                    Cell(method.label),
                    Cell(network.seed, value=float(network.seed) if network.seed.isdigit() else None),
                    EMPTY if epoch is None else Cell(f"{epoch:g}", value=epoch),
                    EMPTY if reached is None else Cell(percent(reached), value=reached),
                    Cell(duration(seconds), value=seconds) if isinstance(seconds, int | float) else EMPTY,
                )
            )
    return Table("Trainings", columns, tuple(rows))


def chips_cell(noise: Noise, method: Method, at: float) -> Cell:
    """Mean ± standard deviation over all chips of all networks; beneath it the worst chip."""
    values = noise.values(method, at)
    if not values:
        return EMPTY
    s = summary(values)
    text = percent(s.mean) if s.std is None else f"{percent(s.mean)} ± {percent(s.std)}"
    return Cell(text, f"min {percent(s.minimum)}", s.mean)


def yield_cell(noise: Noise, method: Method, at: float, required: float) -> Cell:
    """The fraction of chips at or above `required`, beneath it the Clopper-Pearson interval."""
    values = noise.values(method, at)
    if not values:
        return EMPTY
    good = yield_at(values, required)
    low, high = clopper_pearson(passing(values, required), len(values))
    return Cell(percent(good), f"{percent(low)} to {percent(high)}", good)


def clean_cell(method: Method) -> Cell:
    """Accuracy without noise: the mean over networks, beneath it the lowest and the highest of them."""
    values, _ = clean(method)
    if not values:
        return EMPTY
    return Cell(percent(mean(values)), _range(values), mean(values))


def notes(methods: Sequence[Method]) -> list[str]:
    """Return what must be known to read the summary table: units, counts, samples."""
    lines = []
    if any("mismatch" in noise.family.name and noise.family.setting.startswith("zeta") for noise in spoken_about(methods)):
        lines.append(_ZETA)
    samples = sorted({n for m in methods for n in clean(m)[1]})
    if samples:
        behind = counts(samples, "test sample")
        lines.append(f"Clean: the network as trained, on {behind}; mean over networks, beneath it lowest and highest.")
    for noise in spoken_about(methods)[:1]:
        lines.append(
            f"{noise.family.title}: mean ± one standard deviation over all chips of all networks, beneath it "
            f"the worst chip; {counts(noise.chip_counts, 'chip')} per network, {counts(noise.samples, 'test sample')} per chip. "
            "The worst chip depends on how many were simulated."
        )
    inputs = [(study.samples, study) for study in input_attacks(methods) if any(study.worst(m, at) for m in methods for at in study.asked)]
    if inputs:
        behind = counts([n for samples, _ in inputs for n in samples], "test sample")
        single = any(study.sign(m, at) for _, study in inputs for m in methods for at in study.asked if study.worst(m, at))
        lines.append(
            "Robust accuracy: the least that any attack on the inputs leaves, an ensemble counting as one, mean over networks; beneath it "
            f"the 95 % interval over {behind}. Another attack may leave less."
            + (" ≤: only single attacks were made, and several together may leave less." if single else "")
        )
    boxes = certified_ladders.studies(methods)
    if boxes:
        behind = counts([study.samples for study in boxes], "test sample")
        lines.append(
            f"Certified: the share of {behind} that is proved right on every chip whose parameters lie within z of the trained ones, "
            "relative to each; by the best bound, mean over networks; beneath it the 95 % interval over samples, taken as in random order."
        )
    if any(answer.possibly is not None for answers in tolerated(methods).values() for of in answers.values() for answer in of):
        lines.append(
            "Tolerated: the largest level searched at which enough chips passed, mean over networks; beneath it the levels between which "
            "these chips leave it open (95 %, Clopper-Pearson interval of the yield), the widest over networks."
        )
    searched = attacks(methods)
    if searched:
        often = counts([n for attack in searched for n in attack.searches], "search", "searches")
        behind = counts([n for attack in searched for n in attack.samples], "test sample")
        lines.append(
            f"Attack ({'; '.join(attack.title for attack in searched)}): the lowest accuracy of {often} per network and level "
            f"on {behind}, mean over networks. A search can only overestimate the accuracy that the worst weights leave."
        )
    return lines


def comparisons(methods: Sequence[Method]) -> str:
    """Return which method the others are tested against, in words."""
    names = [m.label for m in methods if baseline_of(m, methods) is None]
    return listing(names)


def _attack_cell(attack: Attack, method: Method, at: float, lowest: bool = False) -> Cell:
    """The lowest accuracy found; beneath it random points of the same set: their mean, and with `lowest` the worst of them."""
    values, beside = attack.worst.get((method.index, at), ()), attack.random.get((method.index, at), ())
    random = f"random point {percent(mean(beside))}" if beside else ""
    if beside and lowest:
        random += f", lowest {percent(min(attack.random_lowest[method.index, at]))}"
    return Cell(percent(mean(values)), random, mean(values)) if values else Cell("–", random)


def certified_cell(ladders: Sequence[certified_ladders.Ladder]) -> Cell:
    """What the best bound certifies; beneath it the 95 % interval over samples. An alarm where an attack breaks what was proved."""
    found = certified_ladders.certified(ladders)
    if found is None:
        return EMPTY
    low, high = certified_ladders.interval(ladders, found)
    broken = any(ladder.broken for ladder in ladders)
    marks = ["broken by an attack" if broken else "", certified_ladders.arithmetic(ladders), f"{percent(low)} to {percent(high)}"]
    return Cell(percent(found), "; ".join(filter(None, marks)), found, alarm=broken)


def _robust_cell(study: InputAttacks, method: Method, eps: float) -> Cell:
    """The least that attacks on the inputs leave, beneath it its interval over samples."""
    worst = study.worst(method, eps)
    if worst is None:
        return EMPTY
    low, high = worst[1].interval
    doubt = in_doubt(method, eps, study.norm)
    text = study.sign(method, eps) + percent(worst[1].mean)
    return Cell(text, f"{'in doubt; ' if doubt else ''}{percent(low)} to {percent(high)}", worst[1].mean, alarm=doubt)


def _tolerated_cell(family: Family, answers: Sequence[Tolerated]) -> Cell:
    """The mean over networks; beneath it how many tolerate none, else what their chips leave open, the widest of all."""
    if not answers:
        return EMPTY
    level = mean_level(answers)
    levels = [answer.level for answer in answers if answer.level is not None]
    text, value = family.reached(level, 3), level if levels else None

    def written(at: float) -> str:
        return family.reached(at, 3).removeprefix(f"{family.symbol} = ")

    if len(levels) < len(answers):
        return Cell(text, f"{len(answers) - len(levels)} of {len(answers)} tolerate none" if levels else "", value)
    possibly = [answer.possibly for answer in answers if answer.possibly is not None]
    if not possibly:
        return Cell(text, f"{written(min(levels))} to {written(max(levels))}" if len(levels) > 1 else "", value)
    surely = [answer.surely for answer in answers if answer.surely is not None]
    low = f"{written(min(surely))} to " if len(surely) == len(answers) else "at most "
    return Cell(text, low + written(max(possibly)), value)


def _range(values: Sequence[float]) -> str:
    return f"{percent(min(values))} to {percent(max(values))}" if len(values) > 1 else ""


def _points(std: float | None) -> Cell:
    return EMPTY if std is None else Cell(percent(std, 2), value=std)


def _test_cell(p: float | None, baseline: Method | None) -> Cell:
    return Cell("baseline") if baseline is None else Cell(p_value(p), value=p)
