"""How membrane potentials lie around the threshold: one histogram a layer, one curve a method (paper A, Fig. S10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noiseproof.report.figures import Drawing, line, named
from noiseproof.report.numbers import counts, mean, percent, share
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect, samples
from noiseproof.report.svg import GRID, INK, canvas, style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table


@dataclass(frozen=True)
class Membranes:
    """The shares of the potentials of one layer by their distance (V − B)/B from the threshold."""

    layer: str
    shares: Mapping[int, tuple[tuple[float, tuple[float, ...]], ...]]  # by method's index: (middle of the bin, one share a network)
    near: Mapping[int, tuple[float, ...]]  # by method's index: the share near the threshold, one a network
    within: float  # what counts as near
    samples: tuple[int, ...]


def studies(methods: Sequence[Method]) -> tuple[Membranes, ...]:
    """Return one study per layer, in the order of the network."""
    binned = collect(methods, lambda r: r.metric == "membrane_share" and "bin" in r.at, lambda r: str(r.perturbation.get("layer", "")))
    close = collect(methods, lambda r: r.metric == "membrane_near_threshold", lambda r: str(r.perturbation.get("layer", "")))
    found = []
    for layer, by_method in binned.items():
        shares: dict[int, tuple[tuple[float, tuple[float, ...]], ...]] = {}
        for index, networks in by_method.items():
            bins: dict[float, list[float]] = {}
            for r in (r for rs in networks for r in rs):
                bins.setdefault(r.at["bin"], []).append(r.value)
            shares[index] = tuple((middle, tuple(values)) for middle, values in sorted(bins.items()))
        near = {index: tuple(rs[-1].value for rs in networks) for index, networks in close.get(layer, {}).items()}
        within = next((r.at["within"] for networks in close.get(layer, {}).values() for rs in networks for r in rs), 0.0)
        found.append(Membranes(layer, shares, near, within, samples([by_method])))
    return tuple(found)


def drawing(study: Membranes, methods: Sequence[Method], name: str) -> Drawing:
    """The histogram of one layer, one line per method, the threshold marked."""
    figure, axes = canvas()
    shown, words = [m for m in methods if m.index in study.shares], []
    seen = [100 * mean(v) for m in shown for _, v in study.shares[m.index]]
    wide = max(seen) > 50 * min((value for value in seen if value), default=1.0)
    axes.axvspan(-study.within, study.within, color=GRID, alpha=0.6, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    for method in shown:
        # a logarithm has no place for nothing
        points = [(at, values) for at, values in study.shares[method.index] if mean(values) > 0 or not wide]
        x = [at for at, _ in points]
        low, middle, high = ([100 * reduce(v) for _, v in points] for reduce in (min, mean, max))
        axes.fill_between(x, low, high, color=style(method.look).colour, alpha=0.16, linewidth=0)
        line(axes, x, middle, method, every=max(1, len(x) // 8))
        if near := study.near.get(method.index):
            words.append(f"{method.label}: {percent(mean(near), 2)} % within {share(study.within)} % of the threshold")
    if wide:
        axes.set_yscale("log")
        axes.set_ylim(min(value for value in seen if value) / 1.5, max(seen) * 1.5)
    else:
        axes.set_ylim(0, max(seen) * 1.15 or 1)
    axes.set_xlabel("distance from the threshold, (V − B)/B")
    axes.set_ylabel("potentials in a bin, %")
    title = f"Membrane potentials of {study.layer}"
    return Drawing(
        title,
        "Line: mean over networks; band: lowest and highest. Vertical line: the threshold; to its right the unit fires, unless it is "
        f"in a dead step. Shaded: within {share(study.within)} % of it. {'The scale is logarithmic. ' if wide else ''}"
        f"Potentials farther away: {_farther(study)}. {counts(study.samples, 'test sample')}.",
        svg(figure, name, title, "; ".join(words) + "."),
        named(shown),
    )


def _farther(study: Membranes) -> str:
    """Return the share of the potentials that the histogram does not reach, from the lowest method to the highest."""
    beyond = [1 - sum(mean(values) for _, values in bins) for bins in study.shares.values()]
    low, high = percent(max(0.0, min(beyond))), percent(max(0.0, *beyond))
    return f"{low} %" if low == high else f"{low} to {high} %"


def table(found: Sequence[Membranes], methods: Sequence[Method]) -> Table:
    """Return the share of the potentials near the threshold, by method and layer."""
    columns = (
        Column("Method", numeric=False),
        *(Column(study.layer, f"within\xa0{share(study.within)}\xa0% of the threshold, %") for study in found),
    )
    shown = [m for m in methods if any(m.index in study.near for study in found)]
    rows = ((Cell(m.label), *(_cell(study.near.get(m.index, ())) for study in found)) for m in shown)
    return Table("Potentials near the threshold", columns, tuple(rows))


def _cell(values: Sequence[float]) -> Cell:
    if not values:
        return EMPTY
    beneath = f"{percent(min(values), 2)} to {percent(max(values), 2)}" if len(values) > 1 else ""
    return Cell(percent(mean(values), 2), beneath, mean(values))
