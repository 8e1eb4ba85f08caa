"""How much a spiking network spikes, layer by layer, and how soon it knows the answer (paper B, Definition 1, Figs. 1b and 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noiseproof.report import by_layer
from noiseproof.report.by_layer import Words
from noiseproof.report.figures import Drawing, line, named
from noiseproof.report.numbers import count, counts, mean, percent
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect, samples
from noiseproof.report.svg import canvas, style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table

SPIKES = Words("Spikes per neuron", "spikes per neuron", "Over all time steps of one inference.")
RATE = Words("Spikes per neuron and step", "spikes per neuron and step", "The same, divided by the number of time steps.")


@dataclass(frozen=True)
class Latency:
    """Shares of samples by the number of steps after which the network is asked."""

    right: Mapping[int, Mapping[int, tuple[float, ...]]]  # by method's index and step: right then, one share a network
    ever: Mapping[int, Mapping[int, tuple[float, ...]]]  # by method's index and step: right then or before
    samples: tuple[int, ...]

    def first(self, method: Method) -> tuple[float, ...]:
        """The mean step of the first right answer, over the samples that get one; one a network."""
        shares = [values for _, values in sorted(self.ever[method.index].items())]
        found = []
        for network in zip(*shares, strict=True):
            gained = [now - before for now, before in zip(network, (0.0, *network), strict=False)]
            if network[-1]:
                found.append(sum(step * share for step, share in enumerate(gained, start=1)) / network[-1])
        return tuple(found)


def drawings(methods: Sequence[Method], drawn: Sequence[Method], anchor: str) -> tuple[tuple[Drawing, ...], tuple[Table, ...]]:
    """Return the pictures and the tables of activity and latency, as far as they were measured."""
    figures, tables = [], []
    for metric, words in (("spiking_activity", SPIKES), ("spiking_activity_per_step", RATE)):
        found = by_layer.study(methods, metric)
        if found is not None:
            figures.append(by_layer.drawing(found, drawn, f"{anchor}-{metric}", words))
            tables.append(by_layer.table(found, methods, words.title, words.unit))
    latency = study(methods)
    if latency is not None:
        figures.append(drawing(latency, drawn, f"{anchor}-latency"))
        tables.append(table(latency, methods))
    return tuple(figures), tuple(tables)


def study(methods: Sequence[Method]) -> Latency | None:
    """Return the accuracies by step; None where there are none."""
    shares = {}
    for metric in ("accuracy_after_steps", "right_by_step"):
        found = collect(methods, lambda r, metric=metric: r.metric == metric and "steps" in r.at, lambda r: int(r.at["steps"]))
        shares[metric] = found
    if not shares["accuracy_after_steps"]:
        return None
    right, ever = (
        {m.index: {t: tuple(rs[-1].value for rs in groups[m.index]) for t, groups in found.items() if m.index in groups} for m in methods}
        for found in shares.values()
    )
    return Latency(right, ever, samples(shares["accuracy_after_steps"].values()))


def drawing(found: Latency, methods: Sequence[Method], name: str) -> Drawing:
    """Accuracy by the number of steps after which the network is asked."""
    figure, axes = canvas()
    shown, words = [m for m in methods if found.right.get(m.index)], []
    for method in shown:
        points = sorted(found.right[method.index].items())
        x, look = [t for t, _ in points], style(method.look)
        low, middle, high = ([100 * reduce(v) for _, v in points] for reduce in (min, mean, max))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        axes.plot(
            x, [100 * mean(v) for _, v in sorted(found.ever[method.index].items())], color=look.colour, linestyle=(0, (1, 2)), linewidth=1
        )
        line(axes, x, middle, method)
        words.append(f"{method.label}: " + ", ".join(f"{value:.1f} % after {t}" for t, value in zip(x, middle, strict=True)))
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("time steps after which the network is asked")
    axes.set_ylabel("accuracy, %")
    title = "Accuracy by the number of time steps"
    caption = (
        "What the network would answer if it were stopped there. Line: mean over networks; band: lowest and highest. Dotted: right then "
        f"or at an earlier step; the first right answer is the mean over samples that get one. {counts(found.samples, 'test sample')}."
    )
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), named(shown))


def table(found: Latency, methods: Sequence[Method]) -> Table:
    """Return accuracy after 1, 2, 4 … steps and after all, and the mean step of the first right answer."""
    longest = max(t for by_step in found.right.values() for t in by_step)
    shown = [2**i for i in range(longest.bit_length()) if 2**i < longest]
    columns = (
        Column("Method", numeric=False),
        *(Column(f"after {count(t, 'step')}", "accuracy, %") for t in shown),
        Column("after all", "accuracy, %"),
        Column("first right answer", "mean step"),
    )
    rows = []
    for method in (m for m in methods if found.right.get(m.index)):
        by_step, first = found.right[method.index], found.first(method)
        last = max(by_step)
        cells = (Cell(percent(mean(by_step[t])), value=mean(by_step[t])) if t in by_step else EMPTY for t in shown)
        after_all = Cell(percent(mean(by_step[last])), count(last, "step"), mean(by_step[last]))
        rows.append((Cell(method.label), *cells, after_all, Cell(f"{mean(first):.2f}", value=mean(first)) if first else EMPTY))
    return Table("Accuracy by the number of time steps", columns, tuple(rows))
