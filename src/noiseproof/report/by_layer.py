"""One number a layer, for every method: a picture with the layers side by side, and a table. The measures of spikes share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from noiseproof.records import Record
from noiseproof.report.figures import Drawing, named
from noiseproof.report.numbers import counts, mean
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect, samples
from noiseproof.report.svg import PAPER, canvas, style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table


@dataclass(frozen=True)
class ByLayer:
    """One metric of every layer, in the order of the network."""

    layers: tuple[str, ...]
    values: Mapping[tuple[int, str], tuple[float, ...]]  # by (method's index, layer): one value a network
    samples: tuple[int, ...]

    def of(self, method: Method, layer: str) -> tuple[float, ...]:
        return self.values.get((method.index, layer), ())

    def has(self, method: Method) -> bool:
        return any(self.of(method, layer) for layer in self.layers)


@dataclass(frozen=True)
class Words:
    """How a picture of `ByLayer` is called and explained."""

    title: str
    axis: str
    caption: str
    unit: str = ""
    beside: Mapping[str, ByLayer] = field(default_factory=dict)  # strokes beside the marks, by what they are


def study(methods: Sequence[Method], metric: str, belongs: Callable[[Record], bool] = lambda r: True) -> ByLayer | None:
    """Return the values of a metric that was recorded by layer; None where there are none."""
    found = collect(
        methods,
        lambda r: r.metric == metric and "layer" in r.at and "layer" in r.perturbation and belongs(r),
        lambda r: (r.at["layer"], str(r.perturbation["layer"])),
    )
    if not found:
        return None
    values = {(i, layer): tuple(rs[-1].value for rs in rss) for (_, layer), groups in found.items() for i, rss in groups.items()}
    return ByLayer(tuple(dict.fromkeys(layer for _, layer in sorted(found))), values, samples(found.values()))


def drawing(study: ByLayer, methods: Sequence[Method], name: str, words: Words) -> Drawing:
    """Mean over networks by layer, from the lowest to the highest, the methods side by side."""
    shown = [m for m in methods if study.has(m)]
    figure, axes = canvas(max(4.7, 0.5 * len(study.layers)))
    seen, texts = [], []
    for place, method in enumerate(shown):
        look = style(method.look)
        points = [(i, study.of(method, layer)) for i, layer in enumerate(study.layers) if study.of(method, layer)]
        x = [i + 0.7 * ((place + 0.5) / len(shown) - 0.5) for i, _ in points]
        low, middle, high = ([reduce(v) for _, v in points] for reduce in (min, mean, max))
        axes.vlines(x, low, high, color=look.colour, linewidth=1.6)
        axes.plot(
            x, middle, color=look.colour, linestyle="none", marker=look.marker, markersize=6.5, markeredgecolor=PAPER, markeredgewidth=0.8
        )
        for beside, mark in zip(words.beside.values(), ("_", "x"), strict=False):
            others = [
                (at, mean(beside.of(method, study.layers[i])))
                for at, (i, _) in zip(x, points, strict=True)
                if beside.of(method, study.layers[i])
            ]
            axes.plot([at for at, _ in others], [v for _, v in others], color=look.colour, linestyle="none", marker=mark, markersize=8)
            seen += [v for _, v in others]
        seen += middle
        texts.append(f"{method.label}: " + ", ".join(f"{digits(mean(v))} in {study.layers[i]}" for i, v in points))
    wide = bool(seen) and min(seen) > 0 and max(seen) > 50 * min(seen)
    if wide:
        axes.set_yscale("log")
    else:
        axes.set_ylim(min(0.0, *seen), 1.1 * max(seen) or 1)
    many = len(study.layers) > 6
    axes.grid(axis="x", visible=False)
    axes.set_xticks(range(len(study.layers)), study.layers, rotation=40 if many else 0, ha="right" if many else "center", parse_math=False)
    axes.set_xlim(-0.5, len(study.layers) - 0.5)
    axes.set_ylabel(words.axis)
    behind = f" {counts(study.samples, 'test sample')}." if any(study.samples) else ""
    caption = f"{words.caption} Mark: mean over networks; stroke: lowest to highest.{' The scale is logarithmic.' if wide else ''}{behind}"
    return Drawing(words.title, caption, svg(figure, name, words.title, "; ".join(texts) + "."), named(shown))


def table(study: ByLayer, methods: Sequence[Method], caption: str, unit: str = "") -> Table:
    """Return the mean over networks by method and layer, beneath it the lowest and the highest."""
    columns = (Column("Method", numeric=False), *(Column(layer, unit) for layer in study.layers))
    rows = ((Cell(m.label), *(cell(study.of(m, layer)) for layer in study.layers)) for m in methods if study.has(m))
    return Table(caption, columns, tuple(rows))


def cell(values: Sequence[float]) -> Cell:
    """The mean over networks, beneath it the lowest and the highest of them."""
    if not values:
        return EMPTY
    beneath = f"{digits(min(values))} to {digits(max(values))}" if len(values) > 1 else ""
    return Cell(digits(mean(values)), beneath, mean(values))


def digits(value: float) -> str:
    """A quantity without a fixed scale: 0.00012 → "0.00012", 1.2345 → "1.23", 123456 → "123,456"."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
