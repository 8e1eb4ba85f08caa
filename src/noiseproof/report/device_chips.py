"""Simulated chips of each network and level of mismatch, and what they say of all chips, where their number was fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noiseproof.certificates.devices import Statement, at_least, at_most, half_width_for, state
from noiseproof.errors import require
from noiseproof.records import Record
from noiseproof.report.certified_ladders import ladders_of
from noiseproof.report.numbers import counts, level, listing, percent, share
from noiseproof.report.reading import Method, Network
from noiseproof.report.selecting import largest, name_of
from noiseproof.report.tables import EMPTY, Cell, Column, Table

FIXED = "chips_fixed"  # the record that evaluations write before the first chip is simulated


@dataclass(frozen=True)
class Asked:
    """What is to be said of all chips.

    Raises `NoiseproofError` for a number out of its range.
    """

    required: float | None = None  # accuracy in [0, 1] that a chip must reach, chosen without looking at the chips
    confidence: float = 0.95  # for all levels of one network together
    failure_rate: float = 0.001  # the largest that somebody wants to state: "at most one in a thousand"

    def __post_init__(self) -> None:
        if self.required is not None:
            require(0 <= self.required <= 1, "required accuracy", self.required, "give a fraction in [0, 1], 0.85 for 85 %")
        require(0 < self.confidence < 1, "confidence", self.confidence, "give a number in (0, 1), 0.95 for 95 %")
        require(0 < self.failure_rate < 1, "failure_rate", self.failure_rate, "give a fraction in (0, 1), 0.001 for one chip in a thousand")

    @property
    def one_in(self) -> str:
        """The number of chips of which one may fail: "1,000"."""
        return f"{round(1 / self.failure_rate):,}"


@dataclass(frozen=True)
class Chips:
    """The simulated chips of one network at one level of mismatch, those of one seed."""

    label: str
    parameters: str  # which of them vary
    zeta: float
    seed: int | None
    samples: int  # test samples of each chip
    values: tuple[float, ...]  # accuracies of the chips that are spoken of; without a statement of all
    fixed: int | None  # how many they were to be; None where nobody had said so before the first was simulated
    statement: Statement | None  # about the first `fixed` of them; None without these
    moving: int | None  # parameters that vary and are not zero; None where nobody counted


def chips_of(methods: Sequence[Method], asked: Asked, parameters: str = "") -> tuple[Chips, ...]:
    """Return one entry per network, seed of chips, and level of mismatch; what is said of one network and seed holds together.

    `parameters` keeps to mismatch of these.
    """
    found: list[Chips] = []
    for label, network in networks(methods):
        counted = {
            dict(shape)["parameters"]: n for (shape, _), ladder in ladders_of(network).items() if (n := ladder.parameters) is not None
        }
        fixed = _fixed(network)
        for (moved, zeta, seed), records in sorted(_levels(network).items(), key=lambda item: (item[0][2] or 0, *item[0][:2])):
            if parameters not in ("", moved):
                continue
            numbers = fixed.get((moved, zeta, seed), {})
            levels = sum(key[2] == seed for key in fixed)
            spoken = largest([r for n, number in numbers.items() for r in _first(records, n, number)])
            shown = spoken or largest(records)
            values, samples = tuple(r.value for r in shown), shown[0].n
            said = state(values, samples, asked.required, asked.confidence, levels) if spoken else None
            found.append(Chips(label, moved, zeta, seed, samples, values, numbers.get(samples), said, counted.get(moved)))
    return tuple(found)


def _first(records: Sequence[Record], samples: int, number: int) -> list[Record]:
    """Return chips 0 … `number` − 1, each on so many test samples; none where one of them is missing."""
    found = [r for r in records if r.n == samples and r.chip is not None and r.chip < number]
    return found if len(found) == number else []


def middle(chips: Sequence[Chips]) -> tuple[Chips, ...]:
    """Return the entries at the middle level of mismatch, so that nobody picks it."""
    zetas = sorted({c.zeta for c in chips})
    return tuple(c for c in chips if c.zeta == zetas[(len(zetas) - 1) // 2])


def chips_table(chips: Sequence[Chips], asked: Asked, at: str = "") -> Table:
    """Return what simulated chips show, and what they say of all: bounds of the mean accuracy and of the rate of failing chips."""
    columns = [Column("Method", numeric=False), Column("ζ"), Column("Chips"), Column("Mean", "worst, %")]
    columns.append(Column("Mean of all", "at least; any distribution"))
    if asked.required is not None:
        columns += [
            Column(f"Below {share(asked.required)} %", "chips at most; seen"),
            Column("That is", "at most one in"),
            Column("Fresh chips", f"for one in {asked.one_in}"),
        ]
    if any(c.moving is not None for c in chips):
        columns.append(Column("Box needed", f"z; one in {asked.one_in} out"))
    several = len({c.parameters for c in chips}) > 1
    rows = [_row(c, asked, len(columns), several) for c in chips]
    each = f", each on {counts([c.samples for c in chips], 'test sample')}" if chips else ""
    caption = f"From simulated chips{f' {at}' if at else ''}{each}, with {share(asked.confidence)} % confidence"
    return Table(caption, tuple(columns), tuple(rows))


def chips_text(chips: Sequence[Chips], asked: Asked) -> tuple[str, ...]:
    """Return what must be known to read the table of chips."""
    said = [c.statement for c in chips if c.statement is not None]
    lines = []
    if said:
        lines.append(
            f"Chips are drawn independently, their number fixed before the first: so what {counts([s.chips for s in said], 'chip')} did "
            f"bounds what all will do on these {counts([s.samples for s in said], 'test sample')}. The chip is the unit: more samples on "
            "each make no more chips. Failing chips: exact one-sided bound (Clopper–Pearson), for a required accuracy that was chosen "
            "without looking. Mean of all chips: "
            "Student's t, which takes the accuracies of chips as nearly normal; beneath it the bound that holds for any distribution (the "
            "better of empirical Bernstein and Hoeffding). Each column holds for all levels of one network and seed of chips together with "
            f"{share(asked.confidence)} % (Bonferroni); other networks, seeds and columns are statements of their own."
        )
        if asked.required is not None:
            lines.append(
                f"Fresh chips: how many of a new seed, none of which fails, would state that at most one in {asked.one_in} does. It is a "
                "number to plan with: the statement is then made from these alone, whatever they show. Chips that were looked at before "
                "do not count again, and to go on until the bound holds would bend it."
            )
    if any(c.statement is None for c in chips):
        lines.append(
            "Chips with a dash show a mean and bound nothing: how many there would be was not fixed before the first one was simulated, as "
            "where chips are added until an interval is narrow, or some of them are missing. Those of another seed can: noiseproof certify "
            "with another --chip-seed."
        )
    return tuple(lines)


def sentences(chips: Sequence[Chips], asked: Asked, seed: int | None) -> list[str]:
    """Return a line for every network and level: what its chips of `seed` say of all, and how many of another seed would say enough."""
    lines = []
    for c in chips:
        if c.statement is None or c.seed != seed:
            continue
        fresh = c.statement.fresh_needed(asked.failure_rate)
        unused = 1 + max(other.seed or 0 for other in chips if other.label == c.label)
        more = f" For 1 in {asked.one_in}: --chips {fresh} --chip-seed {unused}, none failing." if fresh else ""
        lines.append(f"{c.label}, ζ = {level(c.zeta)}: {c.statement.sentence()}{more}")
    return lines


def chips_notes(chips: Sequence[Chips], number: int | None = None, seed: int | None = None) -> list[str]:
    """Return a line for every network and seed whose chips bound nothing, or of whose chips not the `number` asked for is spoken of."""
    lines = dict[tuple[str, int | None, str], list[str]]()
    for c in chips:
        if note := _note(c, number if c.seed == seed else None):
            lines.setdefault((c.label, c.seed, note), []).append(level(c.zeta))
    return [f"{label}, chips of seed {seed}, ζ = {listing(zetas)}: {note}" for (label, seed, note), zetas in lines.items()]


def _note(c: Chips, number: int | None) -> str:
    if c.fixed is None:
        return "no bound, as how many there would be was not fixed before the first was simulated; give another --chip-seed"
    if number is not None and number != c.fixed:
        return f"there were to be {c.fixed:,} before they were looked at, and no more can be added; for {number:,} give another --chip-seed"
    return "" if c.statement else f"no bound, as {len(c.values):,} of {c.fixed:,} are simulated; the same command goes on"


def networks(methods: Sequence[Method]) -> list[tuple[str, Network]]:
    """Return every network with its name: the method's, with the seed where it has several."""
    return [(m.label + (f", seed {network.seed}" if len(m.networks) > 1 else ""), network) for m in methods for network in m.networks]


def which(parameters: str) -> str:
    """Return which parameters move in words."""
    return {"all": "all parameters", "weights": "weights only"}.get(parameters, parameters)


def up(value: float) -> float:
    """Return three significant digits of a positive number, rounded up."""
    return float(f"{-cut(-value):.6g}")


def cut(value: float) -> float:
    """Return the largest number of three significant digits that is at most `value`."""
    if value == 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return unit * math.floor(value / unit + 1e-9)


def _row(c: Chips, asked: Asked, width: int, several: bool) -> tuple[Cell, ...]:
    seen, mean = c.statement, sum(c.values) / len(c.values)
    number = "" if seen else "; not fixed" if c.fixed is None else f"; of {c.fixed:,}"
    row = [
        Cell(c.label, which(c.parameters) if several else ""),
        Cell(level(c.zeta), value=c.zeta),
        Cell(f"{seen.chips if seen else len(c.values):,}", f"seed {c.seed}{number}", seen.chips if seen else len(c.values)),
        Cell(percent(mean), percent(min(c.values)), mean),
        _mean_of_all(seen),
    ]
    if asked.required is not None:
        row += _failing(seen, asked)
    if len(row) < width:
        z = None if c.moving is None else half_width_for(1 - asked.failure_rate, c.moving, c.zeta)
        row.append(EMPTY if z is None else Cell(level(up(z)), "z must be < 1" if z >= 1 else "", z))
    return tuple(row)


def _mean_of_all(said: Statement | None) -> Cell:
    if said is None:
        return EMPTY
    mean = said.mean_surely if said.mean_at_least is None else said.mean_at_least
    return Cell(at_least(mean), at_least(said.mean_surely), mean)


def _failing(said: Statement | None, asked: Asked) -> list[Cell]:
    """Return what is said of failing chips, and how many fresh ones the statement that is wanted needs."""
    if said is None or said.passed is None or said.failing_at_most is None:
        return [EMPTY, EMPTY, EMPTY]
    fresh = said.fresh_needed(asked.failure_rate)
    return [
        Cell(f"{at_most(said.failing_at_most)} %", f"{said.chips - said.passed:,} of {said.chips:,}", said.failing_at_most),
        Cell(f"{said.one_in:,}", value=said.one_in) if said.one_in and said.one_in > 1 else EMPTY,
        Cell("–", "more fail") if fresh is None else Cell("0", "stated", 0) if fresh == 0 else Cell(f"{fresh:,}", "none failing", fresh),
    ]


def _levels(network: Network) -> dict[tuple[str, float, int | None], list[Record]]:
    """Return the chips of a network by which parameters vary, ζ, and seed."""
    found: dict[tuple[str, float, int | None], list[Record]] = {}
    for r in network.records:
        alone = r.metric == "accuracy" and r.chip is not None and r.split == "test" and not r.at and name_of(r) == "mismatch"
        if alone and float(r.perturbation.get("zeta", 0)) > 0:
            found.setdefault(_key(r), []).append(r)
    return found


def _fixed(network: Network) -> dict[tuple[str, float, int | None], dict[int, int]]:
    """Return how many chips there were to be, by what `_levels` sorts them by, then by the test samples of each."""
    found: dict[tuple[str, float, int | None], dict[int, int]] = {}
    for r in network.records:
        if r.metric == FIXED and name_of(r) == "mismatch":
            found.setdefault(_key(r), {})[r.n] = round(r.value)
    return found


def _key(record: Record) -> tuple[str, float, int | None]:
    p: Mapping[str, Any] = record.perturbation
    return str(p.get("parameters", "weights")), round(float(p["zeta"]), 12), record.seed
