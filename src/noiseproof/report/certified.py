"""What `noiseproof certify` prints and the report shows of certified boxes: the ladder from proof to clean accuracy, in tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from noiseproof.report.certified_ladders import Boxes, Ladder, certified, studies, survived
from noiseproof.report.device_chips import Asked, chips_notes, chips_of
from noiseproof.report.device_chips import sentences as chips_sentences
from noiseproof.report.device_statements import statements_of
from noiseproof.report.numbers import count, duration, level, percent
from noiseproof.report.reading import Method, Run, read
from noiseproof.report.tables import EMPTY, Cell, Column, Table, certified_cell

__all__ = ["Asked", "ladder_table", "legend", "notes", "sentences", "shown_and_folded", "statements", "tables", "words"]

_MANY = 12  # rows: of more, those of the middle half-width stand open
_ORDER = ("none", "random", "shared", "per-sample")  # of the columns: from what leaves most to what leaves least
_NAMES = {"none": "Clean", "random": "Random", "shared": "Shared", "per-sample": "Per sample"}
_DETAILS = {"none": "%", "random": "points, %", "shared": "attack, %", "per-sample": "attack, %"}


def tables(runs: Sequence[Run], parameters: str = "") -> list[Table]:
    """Return the ladders of `runs`: one table per shape of the box and number of samples, one row per run and half-width z.

    All numbers of a table are fractions of the same test samples, in %. `parameters` keeps to the boxes in which these move. Empty where
    nothing was certified. Raises `NoiseproofError` for a folder that is no run, or damaged records.
    """
    alone = _one_by_one(read(runs))
    return [_of_runs(ladder_table(boxes, alone)) for boxes in studies(alone) if parameters in ("", boxes.parameters)]


def statements(runs: Sequence[Run], asked: Asked | None = None, parameters: str = "") -> list[Table]:
    """Return what simulated chips and certified boxes say of all chips of `runs`: a table of chips, then one of boxes.

    `parameters` keeps to chips on which, and boxes in which these move. Raises `NoiseproofError` as `tables` does.
    """
    return [_of_runs(table) for table in statements_of(_one_by_one(read(runs)), asked or Asked(), parameters)]


def legend(tables: Sequence[Table]) -> list[str]:
    """Return what must be known to read such tables on the command line, a line for each kind of which there is one."""
    lines = {
        "Certified": "Certified: proved right on every chip in the box |θ' − θ| ≤ z|θ|. Open: neither proved nor broken by an attack.",
        "Mean of all": "Mean: of the chips simulated. Mean of all: at least; beneath it for any distribution, not only a normal one.",
        "Fresh chips": "Fresh chips: so many of a new seed, none failing, would state it; “more fail”: these chips contradict it.",
        "ζ covered": "ζ covered: the largest mismatch of these parameters that leaves all but one chip in so many inside the box.",
        "Box needed": "Box needed: the half-width z that would hold all but one chip in so many.",
    }
    titles = {column.title for table in tables for column in table.columns}
    return [line for title, line in lines.items() if title in titles]


def notes(runs: Sequence[Run], parameters: str = "", chips: int | None = None, seed: int | None = None) -> list[str]:
    """Return one line for every run and seed from whose chips nothing is said of all, or not from so many `chips` of `seed`, and why."""
    return chips_notes(chips_of(_one_by_one(read(runs)), Asked(), parameters), chips, seed)


def sentences(runs: Sequence[Run], asked: Asked, seed: int, parameters: str = "") -> list[str]:
    """Return what the chips of `seed` say of all chips, a sentence for every run and level, and what it takes to say what is asked."""
    return chips_sentences(chips_of(_one_by_one(read(runs)), asked, parameters), asked, seed)


def shown_and_folded(boxes: Boxes, methods: Sequence[Method]) -> tuple[Table, tuple[Table, ...]]:
    """Return the ladder that stands open on the page, of many rows those of the middle half-width, and what waits behind a click."""
    whole, bounds = ladder_table(boxes, methods, bounds=False), (bounds_table(boxes, methods),) if len(boxes.bounds) > 1 else ()
    if len(whole.rows) <= _MANY or len(boxes.levels) == 1:
        return whole, bounds
    middle = ladder_table(boxes, methods, (boxes.headline,), bounds=False)
    return middle, (replace(whole, caption="The ladder at all half-widths"), *bounds)


def bounds_table(boxes: Boxes, methods: Sequence[Method]) -> Table:
    """Return what each bound certifies, and in which time: one row per method and half-width."""
    columns = (Column("Method", numeric=False), Column("z"), *(Column(f"by {name}", "%, time") for name in boxes.bounds))
    rows = (
        (Cell(method.label), Cell(level(z), value=z), *(_by(ladders, name) for name in boxes.bounds))
        for method in methods
        for z in boxes.levels
        if (ladders := boxes.of(method, z))
    )
    return Table("What each bound certifies, and in which time", columns, tuple(rows))


def ladder_table(boxes: Boxes, methods: Sequence[Method], widths: Sequence[float] = (), *, bounds: bool = True) -> Table:
    """Return one row per method and half-width (all of them, or `widths`): what attacks leave, what is certified, and what lies between.

    With `bounds` also what each of several bounds certifies, and in which time.
    """
    several = len(boxes.bounds) > 1
    attacks = [a for a in _ORDER if any(a in ladder.survived for ladders in boxes.ladders.values() for ladder in ladders)]
    columns = [Column("Method", numeric=False), Column("z"), *(Column(_NAMES[a], _DETAILS[a]) for a in attacks)]
    columns += [Column("Certified", "best bound, %" if several else f"by {boxes.bounds[0]}, %" if boxes.bounds else "%")]
    columns += [Column("Open", "%"), *(() if several else (Column("Time", "of the bound"),))]
    columns += [Column(f"by {name}", "%, time") for name in boxes.bounds] if several and bounds else []
    rows = [
        (
            Cell(method.label),
            Cell(level(z), value=z),
            *(_fraction(survived(ladders, attack)) for attack in attacks),
            certified_cell(ladders),
            _open(ladders),
            *(() if several else (_time(ladders),)),
            *(_by(ladders, name) for name in (boxes.bounds if several and bounds else ())),
        )
        for method in methods
        for z in widths or boxes.levels
        if (ladders := boxes.of(method, z))
    ]
    samples = f" ({count(boxes.samples, 'test sample')})" if boxes.alone else ""
    caption = f"The ladder of every box, {boxes.title}{samples}"
    return Table(caption, tuple(columns), tuple(rows))


def words(boxes: Boxes) -> tuple[str, ...]:
    """Return what the chapter about one shape of boxes says before its pictures."""
    inputs = ", and every input within ε of it" if float(dict(boxes.shape)["eps"]) else ""
    which = {"all": "parameters", "weights": "weights"}.get(boxes.parameters, f"parameters {boxes.parameters}")
    exact = [name for name in boxes.bounds if "," in name]
    return (
        f"Certified: proved right on every chip whose {which} differ from the trained ones by at most z relative to each{inputs}. It is a "
        f"bound and no search: no chip in the box, however unlucky, gets one of these samples wrong. All rungs are on the same "
        f"{count(boxes.samples, 'test sample')}, the first of the test data; one that is wrong without noise is never certified.",
        "Attacks look for a chip in the box that gets a sample wrong: at random points, with one worst chip for all samples (shared), with "
        "a worst chip for every sample. What the last one leaves is the most that any certificate could say. The samples between it and "
        "the certified ones are open: a stronger attack may break them, a tighter bound prove them.",
        "Nothing is said about chips outside the box, where Gaussian mismatch leads sooner or later, about parameters that do not move in "
        "it, nor about other samples: for these, the interval beneath a figure holds with 95 % confidence (Clopper–Pearson), where the "
        "test data stand in random order, so that the first ones are like the rest. "
        + (
            "Where “arithmetic” stands beside a bound or beneath a figure, it is for that arithmetic alone, and says nothing of chips that "
            "compute in single precision; all others count its rounding."
            if exact
            else "The bounds count the rounding of single precision."
        ),
    )


def _one_by_one(methods: Sequence[Method]) -> tuple[Method, ...]:
    """Return one method per network, named as its folder is: on the command line every run has a row of its own."""
    networks = [(method, network) for method in methods for network in method.networks]
    return tuple(
        replace(method, label=Path(network.folder).name or method.label, index=place, networks=(network,))
        for place, (method, network) in enumerate(networks)
    )


def _of_runs(table: Table) -> Table:
    """Return a table of methods with single networks as one of runs."""
    return replace(table, columns=(replace(table.columns[0], title="Run"), *table.columns[1:]))


def _fraction(fraction: float | None) -> Cell:
    return EMPTY if fraction is None else Cell(percent(fraction), value=fraction)


def _by(ladders: Sequence[Ladder], bound: str) -> Cell:
    found, seconds = certified(ladders, bound), [ladder.seconds[bound] for ladder in ladders if bound in ladder.seconds]
    return EMPTY if found is None else Cell(percent(found), _span(sum(seconds) / len(seconds)) if seconds else "", found)


def _open(ladders: Sequence[Ladder]) -> Cell:
    gaps = [ladder.gap for ladder in ladders if ladder.gap is not None]
    return Cell(percent(sum(gaps) / len(gaps)), value=sum(gaps) / len(gaps)) if len(gaps) == len(ladders) else EMPTY


def _time(ladders: Sequence[Ladder]) -> Cell:
    seconds = sum(sum(ladder.seconds.values()) for ladder in ladders) / len(ladders)
    return Cell(_span(seconds), value=seconds) if any(ladder.seconds for ladder in ladders) else EMPTY


def _span(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else duration(seconds)
