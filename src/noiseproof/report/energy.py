"""Energy of one inference from counted operations: per layer, in total, and beside the same layers without spikes (paper B, 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from noiseproof.records import Record
from noiseproof.report import by_layer
from noiseproof.report.by_layer import ByLayer, Words
from noiseproof.report.figures import Drawing
from noiseproof.report.numbers import mean
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect
from noiseproof.report.tables import EMPTY, Cell, Column, Table

TEXT = (
    "Estimated, not measured: operations times what one costs. A spike costs an addition (AC) at every weight that it meets, a number a "
    "multiplication and an addition (MAC). Pooling and batch norm are folded into the weights; membranes, memory and the moving of data, "
    "which may cost more than the arithmetic, are not counted.",
)
ACTIVITY = Words(
    "How often an input comes", "times per inference", "ζ: spikes per input of a layer, or steps where inputs are numbers, as in the first."
)


_FIRST = {
    "every-step": "The products of the first layer, whose inputs are numbers, are counted at every step.",
    "once": "The products of the first layer, whose inputs are numbers and stay the same, are counted once: the chip keeps its current.",
}


def text(methods: Sequence[Method]) -> tuple[str, ...]:
    """Return what has to be known of the estimate."""
    return (" ".join((*TEXT, *(_FIRST[how] for how in firsts(methods) if how in _FIRST))),)


@dataclass(frozen=True)
class Price:
    """What an addition and a multiplication with an addition cost in pJ, and how the first layer is counted; empty without spikes."""

    name: str
    ac: float
    mac: float
    first: str = ""

    @property
    def words(self) -> str:
        return f"nJ at {self.ac:g}\xa0pJ an AC, {self.mac:g}\xa0pJ a MAC"

    def about(self, r: Record) -> bool:
        """Whether a record has these costs; where nothing spikes, the first layer is as all others."""
        given = _price(r)
        return (given.name, given.ac, given.mac) == (self.name, self.ac, self.mac) and given.first in ("", self.first)


def firsts(methods: Sequence[Method]) -> list[str]:
    """Return the ways in which the first layer was counted; empty where no network has spikes."""
    every = (r for m in methods for network in m.networks for r in network.records if r.metric == "energy_pj")
    found = list(dict.fromkeys(str(r.perturbation.get("first_layer", "")) for r in every))
    return [how for how in found if how] or found


def prices(methods: Sequence[Method]) -> list[Price]:
    """Return every table of costs that was used, once for each way in which the first layer was counted."""
    every = (r for m in methods for network in m.networks for r in network.records)
    found = dict.fromkeys(_price(r) for r in every if r.metric == "energy_pj" and not r.at)
    plain = [price for price in found if not price.first and not any(p.first and p.name == price.name for p in found)]
    return [*(price for price in found if price.first), *plain]


def _counted(methods: Sequence[Method], how: str) -> str:
    """Return what tells a way to count the first layer from the other, where there are two."""
    return f", first layer {how.replace('-', ' ')}" if len(firsts(methods)) > 1 and how else ""


def drawings(methods: Sequence[Method], drawn: Sequence[Method], anchor: str) -> tuple[tuple[Drawing, ...], tuple[Table, ...]]:
    """Return the pictures and the tables by layer."""
    figures, tables = [], []
    for how in firsts(methods):
        activity = by_layer.study(methods, "input_activity", lambda r, how=how: r.perturbation.get("first_layer", how) == how)
        if activity is not None:
            words = replace(ACTIVITY, title=ACTIVITY.title + _counted(methods, how))
            figures.append(by_layer.drawing(activity, drawn, f"{anchor}-activity-{how}", words))
            tables.append(by_layer.table(activity, methods, words.title, "ζ"))
    for number, price in enumerate(prices(methods)):
        found = by_layer.study(methods, "energy_pj", lambda r, price=price: price.about(r))
        if found is not None:
            words = Words(f"Energy by layer, {price.name}{_counted(methods, price.first)}", "nJ per inference", f"{price.words}.")
            in_nj = ByLayer(found.layers, {k: tuple(v / 1000 for v in values) for k, values in found.values.items()}, found.samples)
            figures.append(by_layer.drawing(in_nj, drawn, f"{anchor}-{number}", words))
            tables.append(by_layer.table(in_nj, methods, words.title, "nJ"))
    return tuple(figures), tuple(tables)


def table(methods: Sequence[Method]) -> Table:
    """Return the energy of one inference by method and cost of operations, that of the same layers without spikes, and the ratio."""
    columns, rows = [Column("Method", numeric=False)], {m.index: [Cell(m.label)] for m in methods}
    for price in prices(methods):
        mine, plain = (_totals(methods, metric, price) for metric in ("energy_pj", "plain_energy_pj"))
        columns += [
            Column(price.name + _counted(methods, price.first), price.words),
            Column("without spikes", "nJ"),
            Column("ratio", "without / with"),
        ]
        for index, cells in rows.items():
            a, b = mine.get(index, ()), plain.get(index, ())
            ratio = mean(b) / mean(a) if a and b and mean(a) else None
            both = (by_layer.cell([v / 1000 for v in values]) for values in (a, b))
            cells += [*both, EMPTY if ratio is None else Cell(f"{ratio:.2f}", value=ratio)]
    kept = [tuple(cells) for cells in rows.values() if any(c.value is not None for c in cells)]
    return Table("Energy of one inference", tuple(columns), tuple(kept))


def _totals(methods: Sequence[Method], metric: str, price: Price) -> dict[int, tuple[float, ...]]:
    found = collect(methods, lambda r: r.metric == metric and not r.at and price.about(r), lambda r: metric)
    return {index: tuple(rs[-1].value for rs in networks) for index, networks in found.get(metric, {}).items()}


def _price(r: Record) -> Price:
    given = r.perturbation
    costs = str(given.get("costs", "")), float(given.get("ac", 0.0)), float(given.get("mac", 0.0))
    return Price(*costs, str(given.get("first_layer", "")))
