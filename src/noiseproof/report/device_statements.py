"""What at most one chip in so many will do: statements about all chips, from simulated ones and from certified boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from noiseproof.certificates.devices import (
    ALMOST_ALL,
    HARDLY,
    BoxStatement,
    Statement,
    at_least,
    at_most,
    combined,
    coverage,
    half_width_for,
    mismatch_covered,
    state,
)
from noiseproof.errors import require
from noiseproof.records import Record
from noiseproof.report.certified_ladders import Ladder, ladders_of
from noiseproof.report.numbers import count, level, percent, share
from noiseproof.report.reading import Method, Network
from noiseproof.report.selecting import largest, name_of
from noiseproof.report.tables import EMPTY, Cell, Column, Table

WANTED = 0.001  # rate of failing chips: "at most one in a thousand"
_MOST_SENTENCES = 4  # about boxes, one per network


@dataclass(frozen=True)
class Chips:
    """The simulated chips of one network at one level of mismatch, and what they say of all chips."""

    label: str
    parameters: str  # which of them vary
    zeta: float
    statement: Statement
    moving: int | None  # parameters that vary and are not zero; None where nobody counted


@dataclass(frozen=True)
class Certificate:
    """One network's ladder in one box."""

    label: str
    parameters: str
    z: float
    ladder: Ladder


def chips_of(methods: Sequence[Method], required: float | None = None, confidence: float = 0.95) -> tuple[Chips, ...]:
    """Return one statement per network and level of mismatch; those of one network hold together with `confidence`."""
    found: list[Chips] = []
    for label, network in _networks(methods):
        levels = _levels(network)
        counted = {key: n for key, ladder in ladders_of(network).items() if (n := ladder.parameters) is not None}
        for (parameters, zeta), records in sorted(levels.items()):
            moving = next((n for (shape, _), n in counted.items() if dict(shape)["parameters"] == parameters), None)
            said = state([r.value for r in records], records[0].n, required, confidence, len(levels))
            found.append(Chips(label, parameters, zeta, said, moving))
    return tuple(found)


def certificates_of(methods: Sequence[Method]) -> tuple[Certificate, ...]:
    """Return every certified box of every network whose inputs stay as they are and whose moving parameters were counted."""
    return tuple(
        Certificate(label, dict(shape)["parameters"], z, ladder)
        for label, network in _networks(methods)
        for (shape, z), ladder in sorted(ladders_of(network).items())
        if ladder.certified and ladder.parameters is not None and not float(dict(shape)["eps"])
    )


def statements_of(methods: Sequence[Method], required: float | None, confidence: float = 0.95, wanted: float = WANTED) -> list[Table]:
    """Return the table of chips, then that of boxes; without the one for which there are no records."""
    require(0 < wanted < 1, "wanted", wanted, "give a fraction in (0, 1), 0.001 for one chip in a thousand")
    chips, boxes = chips_of(methods, required, confidence), certificates_of(methods)
    found = [chips_table(chips, wanted)] if chips else []
    return found + ([boxes_table(boxes, chips, wanted)] if boxes else [])


def middle(chips: Sequence[Chips]) -> tuple[Chips, ...]:
    """Return the statements at the middle level of mismatch, so that nobody picks it."""
    zetas = sorted({c.zeta for c in chips})
    return tuple(c for c in chips if c.zeta == zetas[(len(zetas) - 1) // 2])


def chips_table(chips: Sequence[Chips], wanted: float = WANTED, at: str = "") -> Table:
    """Return what simulated chips say: bounds of the mean accuracy and of the rate of failing chips, and how many chips are missing."""
    required, confidence = chips[0].statement.required, chips[0].statement.confidence
    columns = [Column("Method", numeric=False), Column("ζ"), Column("Chips"), Column("Mean", "at least; for sure, %")]
    if required is not None:
        columns += [
            Column(f"Below {share(required)} %", "chips at most; seen"),
            Column("That is", "at most one in"),
            Column("Still needed", f"for one in {_one_in(wanted)}"),
        ]
    if any(c.moving is not None for c in chips):
        columns.append(Column("Box needed", f"z, but one in {_one_in(wanted)}"))
    several = len({c.parameters for c in chips}) > 1
    rows = [_chips_row(c, wanted, len(columns), several) for c in chips]
    caption = f"From simulated chips{f' {at}' if at else ''}, with {share(confidence)} % confidence"
    return Table(caption, tuple(columns), tuple(rows))


def boxes_table(boxes: Sequence[Certificate], chips: Sequence[Chips], wanted: float = WANTED) -> Table:
    """Return what certified boxes say of chips under mismatch: the ζ that a box still covers, and its coverage at the ζ simulated."""
    zetas = sorted({c.zeta for c in chips})
    columns = (
        Column("Method", numeric=False),
        Column("z"),
        Column("Parameters", "that move"),
        Column("Certified", "of samples, %"),
        Column("ζ covered", f"but one in {_one_in(wanted)}"),
        *(Column(f"ζ = {level(zeta)}", "covered, %") for zeta in zetas),
    )
    rows = []
    for box in boxes:
        best, n = box.ladder.best, box.ladder.parameters
        if best is None or n is None:
            continue
        zeta = down(mismatch_covered(1 - wanted, n, box.z))
        rows.append(
            (
                Cell(box.label),
                Cell(level(box.z), value=box.z),
                Cell(f"{n:,}", value=n),
                Cell(percent(best[1]), f"{round(best[1] * box.ladder.samples):,} of {box.ladder.samples:,}", best[1]),
                Cell(level(zeta), value=zeta),
                *(_coverage(box, n, zeta, chips) for zeta in zetas),
            )
        )
    return Table("From certified boxes", columns, tuple(rows))


def promise(box: Certificate, wanted: float = WANTED) -> BoxStatement:
    """Return the statement at the strongest mismatch, rounded down, under which all but `wanted` of the chips lie in the box."""
    best, n = box.ladder.best, box.ladder.parameters or 0
    return combined(best[1] if best else 0.0, box.ladder.samples, n, box.z, down(mismatch_covered(1 - wanted, n, box.z)))


def down(value: float) -> float:
    """Return three significant digits of a positive number, rounded down."""
    return float(f"{_cut(value):.6g}")


def up(value: float) -> float:
    """Return three significant digits of a positive number, rounded up."""
    return float(f"{-_cut(-value):.6g}")


def text(chips: Sequence[Chips], boxes: Sequence[Certificate], wanted: float = WANTED) -> tuple[str, ...]:
    """Return what the chapter says before its tables."""
    lines = []
    if chips:
        first = chips[0].statement
        lines.append(
            f"Chips are drawn independently, so that what {count(first.chips, 'chip')} did bounds what all will do on these "
            f"{count(first.samples, 'test sample')}. The chip is the unit: more samples on each make no more chips. Failing chips: exact "
            "one-sided bound (Clopper–Pearson), for a required accuracy that was chosen without looking. Mean accuracy: Student's t, which "
            "takes the accuracies of chips as nearly normal; beneath it the bound that holds for any distribution (the better of empirical "
            "Bernstein and Hoeffding). Each column holds for all levels of one network together with "
            f"{share(first.confidence)} % (Bonferroni). Chips still needed are to be fixed beforehand and must all pass: to go on until "
            "the bound holds would bend it."
        )
    if boxes:
        lines.append(
            "Mismatch is Gaussian and has no bound, so that a box never holds all chips: P = erf(z/(ζ√2))ⁿ with n parameters that move and "
            f"are not zero. ζ covered: the largest one that leaves all but one chip in {_one_in(wanted)} inside; box needed: the z for "
            "that at the ζ of the row. On a chip in the box as many samples are right as were certified, for sure; outside it they may "
            "be. For this no chip is simulated."
        )
        lines += [f"{box.label}: {promise(box, wanted).sentence()}" for box in _spoken_about(boxes)]
    return tuple(lines)


def _chips_row(c: Chips, wanted: float, width: int, several: bool) -> tuple[Cell, ...]:
    s = c.statement
    mean = s.mean_surely if s.mean_at_least is None else s.mean_at_least
    row = [
        Cell(c.label, _which(c.parameters) if several else ""),
        Cell(level(c.zeta), value=c.zeta),
        Cell(f"{s.chips:,}", value=s.chips),
        Cell(at_least(mean), at_least(s.mean_surely), mean),
    ]
    if s.passed is not None and s.failing_at_most is not None:
        row += [
            Cell(f"{at_most(s.failing_at_most)} %", f"{s.chips - s.passed:,} of {s.chips:,}", s.failing_at_most),
            Cell(f"{s.one_in:,}", value=s.one_in) if s.one_in and s.one_in > 1 else EMPTY,
            _needed(s, wanted),
        ]
    if len(row) < width:
        z = None if c.moving is None else half_width_for(1 - wanted, c.moving, c.zeta)
        row.append(EMPTY if z is None else Cell(level(up(z)), "too wide: z < 1" if z >= 1 else "", z))
    return tuple(row)


def _needed(statement: Statement, wanted: float) -> Cell:
    """How many more passing chips the statement that is wanted needs; none will do where more chips failed than it allows."""
    failed = statement.chips - (statement.passed or 0)
    if failed > wanted * statement.chips and failed > 1:
        return Cell("–", "too many fail")
    more = statement.still_needed(wanted)
    return EMPTY if more is None else Cell(f"{more:,}", value=more)


def _coverage(box: Certificate, parameters: int, zeta: float, chips: Sequence[Chips]) -> Cell:
    """How many chips under mismatch ζ lie in the box, whose parameters must be all that the mismatch varies."""
    mine = [c for c in chips if (c.label, c.zeta) == (box.label, zeta)]
    if mine and not any(box.parameters in ("all", c.parameters) for c in mine):
        return Cell("–", f"mismatch varies {_which(mine[0].parameters)}")
    share_in = coverage(parameters, box.z, zeta)
    return Cell("0", value=share_in) if share_in < HARDLY else Cell(at_least(min(share_in, ALMOST_ALL), 2), value=share_in)


def _spoken_about(boxes: Sequence[Certificate]) -> list[Certificate]:
    """Return the box of the middle half-width of each network, so that nobody picks it; of many networks the first few."""
    found = []
    for label in list(dict.fromkeys(box.label for box in boxes))[:_MOST_SENTENCES]:
        mine = sorted((box for box in boxes if box.label == label and box.z > 0), key=lambda box: box.z)
        found += mine[(len(mine) - 1) // 2 :][:1]
    return found


def _levels(network: Network) -> dict[tuple[str, float], list[Record]]:
    """Return the chips of a network by which parameters vary and ζ, those on the most samples."""
    found: dict[tuple[str, float], list[Record]] = {}
    for r in network.records:
        alone = r.metric == "accuracy" and r.chip is not None and r.split == "test" and not r.at and name_of(r) == "mismatch"
        if alone and float(r.perturbation.get("zeta", 0)) > 0:
            key = str(r.perturbation.get("parameters", "weights")), round(float(r.perturbation["zeta"]), 12)
            found.setdefault(key, []).append(r)
    return {key: largest(records) for key, records in found.items()}


def _networks(methods: Sequence[Method]) -> list[tuple[str, Network]]:
    """Return every network with its name: the method's, with the seed where it has several."""
    return [(m.label + (f", seed {network.seed}" if len(m.networks) > 1 else ""), network) for m in methods for network in m.networks]


def _cut(value: float) -> float:
    """Return the largest number of three significant digits that is at most `value`."""
    if value == 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    return unit * math.floor(value / unit + 1e-9)


def _which(parameters: str) -> str:
    return {"all": "all parameters", "weights": "weights only"}.get(parameters, parameters)


def _one_in(rate: float) -> str:
    return f"{round(1 / rate):,}"
