"""What at most one chip in so many will do: statements about all chips, from certified boxes and from simulated chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from noiseproof.certificates.devices import ALMOST_ALL, HARDLY, BoxStatement, at_least, combined, coverage, mismatch_covered
from noiseproof.report.certified_ladders import Ladder, ladders_of
from noiseproof.report.device_chips import Asked, Chips, chips_of, chips_table, chips_text, cut, networks, which
from noiseproof.report.numbers import level, listing, percent
from noiseproof.report.reading import Method
from noiseproof.report.tables import Cell, Column, Table

_MANY = 12  # boxes: of more, the middle one of each network stands open
_MOST_SENTENCES = 4  # about boxes, one per network


@dataclass(frozen=True)
class Certificate:
    """One network's ladder in one box."""

    label: str
    parameters: str
    z: float
    ladder: Ladder

    @property
    def certified(self) -> float:
        """What the best bound certifies, as a fraction of the samples."""
        return self.ladder.best[1] if self.ladder.best else 0.0

    @property
    def moving(self) -> int:
        """Parameters that move and are not zero."""
        return self.ladder.parameters or 0

    def outside(self, chips: Sequence[Chips]) -> str:
        """Return which parameters mismatch varies on the simulated chips of this network, where the box holds some of them still."""
        mine = [c.parameters for c in chips if c.label == self.label]
        return which(mine[0]) if mine and self.parameters != "all" and self.parameters not in mine else ""


def certificates_of(methods: Sequence[Method], parameters: str = "") -> tuple[Certificate, ...]:
    """Return the certified boxes of every network that speak of chips, those in which `parameters` move where they are given.

    Inputs stay as they are, what moves was counted, and the bounds are for the arithmetic that networks are run in.
    """
    return tuple(
        Certificate(label, dict(shape)["parameters"], z, ladder)
        for label, network in networks(methods)
        for (shape, z), ladder in sorted(ladders_of(network).items())
        if ladder.certified and ladder.parameters is not None and not ladder.arithmetic
        if not float(dict(shape)["eps"]) and parameters in ("", dict(shape)["parameters"])
    )


def statements_of(methods: Sequence[Method], asked: Asked, parameters: str = "") -> list[Table]:
    """Return the table of chips, then that of boxes; without the one for which there are no records."""
    chips, boxes = chips_of(methods, asked, parameters), certificates_of(methods, parameters)
    found = [chips_table(chips, asked)] if chips else []
    return found + ([boxes_table(boxes, chips, asked)] if boxes else [])


def boxes_table(boxes: Sequence[Certificate], chips: Sequence[Chips], asked: Asked) -> Table:
    """Return what certified boxes say of chips under mismatch: the ζ that a box still covers, and its coverage at the ζ simulated."""
    zetas = sorted({c.zeta for c in chips})
    shares = {zeta: [_coverage(box, zeta, chips) for box in boxes] for zeta in zetas}
    far = [zeta for zeta in zetas if all(cell.text == "0" for cell in shares[zeta])]  # a column of zeros says it once, in the title
    columns = (
        Column("Method", numeric=False),
        Column("z"),
        Column("Parameters", "that move"),
        Column("Certified", "of samples, %"),
        Column("ζ covered", f"one in {asked.one_in} out"),
        *(Column(f"ζ = {level(zeta)}", "covered, %") for zeta in zetas if zeta not in far),
    )
    rows = [
        (
            Cell(box.label),
            Cell(level(box.z), value=box.z),
            Cell(f"{box.moving:,}", which(box.parameters), box.moving),
            Cell(percent(box.certified), f"{round(box.certified * box.ladder.samples):,} of {box.ladder.samples:,}", box.certified),
            _covered(box, chips, asked),
            *(shares[zeta][place] for zeta in zetas if zeta not in far),
        )
        for place, box in enumerate(boxes)
    ]
    none = f"; at ζ = {listing(level(zeta) for zeta in far)} hardly a chip lies in any of them" if far and boxes else ""
    caption = f"From certified boxes, for mismatch of the parameters that move in the box alone{none}"
    return Table(caption, columns, tuple(rows))


def shown_and_folded(boxes: Sequence[Certificate], chips: Sequence[Chips], asked: Asked) -> tuple[Table, tuple[Table, ...]]:
    """Return the table of boxes that stands open on the page, of many the middle ones of each network, and what waits behind a click."""
    whole, some = boxes_table(boxes, chips, asked), _middle(boxes)
    if len(boxes) <= _MANY or len(some) == len(boxes):
        return whole, ()
    return boxes_table(some, chips, asked), (replace(whole, caption="From certified boxes of all half-widths"),)


def promise(box: Certificate, asked: Asked) -> BoxStatement:
    """Return the statement at the strongest mismatch, rounded down, under which all but the failure rate of the chips lie in the box."""
    zeta = down(mismatch_covered(1 - asked.failure_rate, box.moving, box.z))
    return combined(box.certified, box.ladder.samples, box.moving, box.z, zeta)


def down(value: float) -> float:
    """Return three significant digits of a positive number, rounded down."""
    return float(f"{cut(value):.6g}")


def text(chips: Sequence[Chips], boxes: Sequence[Certificate], asked: Asked) -> tuple[str, ...]:
    """Return what the chapter says before its tables."""
    lines = chips_text(chips, asked)
    if not boxes:
        return lines
    said = (
        "Mismatch is Gaussian and has no bound, so that a box never holds all chips: P = erf(z/(ζ√2))ⁿ with n parameters that move and are "
        f"not zero, while no other parameter varies. ζ covered: the largest one that leaves all but one chip in {asked.one_in} inside; box "
        "needed: the z for that at the ζ of the row. On a chip in the box as many samples are right as were certified, for certain; "
        "outside it they may be. For this no chip is simulated."
        + (" A dash: the simulated mismatch varies parameters that the box holds still." if any(b.outside(chips) for b in boxes) else "")
    )
    return (*lines, said, *(f"{box.label}: {promise(box, asked).sentence()}" for box in _spoken_about(boxes, chips)))


def _covered(box: Certificate, chips: Sequence[Chips], asked: Asked) -> Cell:
    """The largest ζ that the box covers, unless mismatch varies more than the box does."""
    if more := box.outside(chips):
        return Cell("–", f"mismatch varies {more}")
    zeta = down(mismatch_covered(1 - asked.failure_rate, box.moving, box.z))
    return Cell(level(zeta), value=zeta)


def _coverage(box: Certificate, zeta: float, chips: Sequence[Chips]) -> Cell:
    """How many chips under mismatch ζ lie in the box, whose parameters must be all that the mismatch varies."""
    if more := box.outside([c for c in chips if c.zeta == zeta]):
        return Cell("–", f"mismatch varies {more}")
    share_in = coverage(box.moving, box.z, zeta)
    return Cell("0", value=share_in) if share_in < HARDLY else Cell(at_least(min(share_in, ALMOST_ALL), 2), value=share_in)


def _spoken_about(boxes: Sequence[Certificate], chips: Sequence[Chips]) -> list[Certificate]:
    """Return the box of the middle half-width for each network and choice of parameters, so that nobody picks it; of many the first."""
    return _middle([box for box in boxes if box.z > 0 and not box.outside(chips)])[:_MOST_SENTENCES]


def _middle(boxes: Sequence[Certificate]) -> list[Certificate]:
    groups: dict[tuple[str, str], list[Certificate]] = {}
    for box in boxes:
        groups.setdefault((box.label, box.parameters), []).append(box)
    return [sorted(group, key=lambda box: box.z)[(len(group) - 1) // 2] for group in groups.values()]
