"""How far a perturbation of the input gets, layer by layer and step by step (paper B, Fig. 5; paper C, eqs. (11) to (14))."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from noiseproof.records import Record
from noiseproof.report import by_layer
from noiseproof.report.attack_names import Kind, distinct_labels, kind_of
from noiseproof.report.by_layer import Words
from noiseproof.report.figures import Drawing, line, named
from noiseproof.report.input_attacks import eps_words
from noiseproof.report.numbers import counts, level, mean
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect, samples
from noiseproof.report.svg import canvas, style, svg
from noiseproof.report.tables import Table

TEXT = (
    "Every test sample goes through the network twice, as it is and perturbed. The distances say how far the two runs are apart after "
    "each layer; the dynamics, how far a perturbation moves the membranes of a layer, resets left out.",
)
_BY_LAYER = {
    "spike_perturbation_distance": Words(
        "Distance of the spike maps", "‖m − m′‖₂", "m: spike counts of a layer over all steps, divided by the largest of them."
    ),
    "tasad": Words("Distance of the firing rates (TASAD)", "‖r − r′‖₂", "r: spikes per step of every neuron."),
    "spike_train_distance": Words("Distance of the spike trains (STD)", "spike train distance", "Spikes at other times count too."),
    "ms_mppd": Words(
        "Membrane potential perturbation (MS-MPPD)", "mean of ε²", "ε[t] = λ·ε[t − 1] + Δ[t], Δ: difference of the input currents."
    ),
}


@dataclass(frozen=True)
class Lines:
    """One value by method and place on an axis, one a network."""

    points: Mapping[int, Mapping[float, tuple[float, ...]]]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Followed:
    """An attack, with all its settings, whose perturbations were followed."""

    kind: Kind
    eps: float
    norm: str


def attacks(methods: Sequence[Method]) -> dict[Followed, str]:
    """Return every attack whose perturbations were followed, in the order of the records, and what it is called."""
    kept = (r for m in methods for network in m.networks for r in network.records if r.metric == "perturbation_distance")
    found = list(dict.fromkeys(map(_attack, kept)))
    labels = distinct_labels(list(dict.fromkeys(one.kind for one in found)))
    return {one: f"{labels[one.kind]}, {eps_words(one.eps, one.norm)}" for one in found}


def _attack(r: Record) -> Followed:
    """Return the attack of a record, whatever the layer is."""
    attack = {k: v for k, v in r.perturbation.items() if k != "layer"}
    return Followed(kind_of(attack), round(float(attack["eps"]), 12), str(attack["norm"]))


def drawings(
    methods: Sequence[Method], drawn: Sequence[Method], attack: Followed, anchor: str
) -> tuple[tuple[Drawing, ...], tuple[Table, ...]]:
    """Return the pictures and the tables of one attack."""
    figures, tables = [], []
    for metric, words in _BY_LAYER.items():
        found = by_layer.study(methods, metric, lambda r: _attack(r) == attack)
        if found is not None:
            figures.append(by_layer.drawing(found, drawn, f"{anchor}-{metric.replace('_', '-')}", words))
            tables.append(by_layer.table(found, methods, words.title))
    last = _last_layers(methods, attack)
    steps = _lines(methods, lambda r: r.metric == "mppd" and _attack(r) == attack and r.at["layer"] in last.values(), "step", last)
    if steps is not None:
        figures.append(_through_time(steps, drawn, f"{anchor}-mppd"))
    leaks = _lines(methods, lambda r: r.metric == "distance_after_lif" and _attack(r) == attack, "leak")
    inputs = by_layer.study(methods, "perturbation_distance", lambda r: _attack(r) == attack)
    if inputs is not None:
        tables.insert(0, by_layer.table(inputs, methods, "Distance at the input, ‖x − x′‖₂", "unit of the data"))
    if leaks is not None and inputs is not None:
        before = {m.index: mean(inputs.of(m, inputs.layers[0])) for m in methods if inputs.has(m)}
        figures.append(_by_leak(leaks, before, drawn, f"{anchor}-leaks"))
    return tuple(figures), tuple(tables)


def _last_layers(methods: Sequence[Method], attack: Followed) -> dict[int, float]:
    """Return the place of the last layer of every method."""
    kept = [(m.index, r) for m in methods for network in m.networks for r in network.records if r.metric == "mppd" and _attack(r) == attack]
    return {index: max(r.at["layer"] for i, r in kept if i == index) for index, _ in kept}


def _lines(
    methods: Sequence[Method], belongs: Callable[[Record], bool], axis: str, last: Mapping[int, float] | None = None
) -> Lines | None:
    """Return a metric along an axis; of a metric that has layers that of the last one, whose places are in `last`."""
    found = collect(methods, lambda r: belongs(r) and axis in r.at, lambda r: (r.at[axis], r.at.get("layer", 0.0)))
    if not found:
        return None
    points: dict[int, dict[float, tuple[float, ...]]] = {}
    for (x, layer), groups in sorted(found.items()):
        for index, networks in groups.items():
            if last is None or last[index] == layer:
                points.setdefault(index, {})[x] = tuple(rs[-1].value for rs in networks)
    return Lines(points, samples(found.values()))


def _through_time(found: Lines, methods: Sequence[Method], name: str) -> Drawing:
    title = "Perturbation of the membranes of the last spiking layer"
    caption = "‖ε[t]‖₂, ε[t] = λ·ε[t − 1] + Δ[t]. Line: mean over networks; band: lowest and highest."
    return _drawn(found, methods, name, title, caption, ("time step t", "‖ε[t]‖₂"), {})


def _by_leak(found: Lines, before: Mapping[int, float], methods: Sequence[Method], name: str) -> Drawing:
    title = "Distance after one layer of LIF neurons"
    caption = (
        "The layer takes the images as its current: threshold 0.8, 10 steps. Line: distance of the firing rates; dashes: distance of the "
        "inputs. Below the dashes the layer makes the perturbation smaller."
    )
    return _drawn(found, methods, name, title, caption, ("leak λ of the layer", "distance"), before)


def _drawn(
    found: Lines, methods: Sequence[Method], name: str, title: str, caption: str, axis: tuple[str, str], levels: Mapping[int, float]
) -> Drawing:
    figure, axes = canvas()
    shown, words = [m for m in methods if m.index in found.points], []
    for method in shown:
        points, look = found.points[method.index], style(method.look)
        x = list(points)
        low, middle, high = ([reduce(v) for v in points.values()] for reduce in (min, mean, max))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        if method.index in levels:
            axes.axhline(levels[method.index], color=look.colour, linestyle=(0, (7, 4)), linewidth=0.8)
        line(axes, x, middle, method, every=max(1, len(x) // 8))
        words.append(
            f"{method.label}: from {by_layer.digits(middle[0])} at {level(x[0])} to {by_layer.digits(middle[-1])} at {level(x[-1])}"
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel(axis[0])
    axes.set_ylabel(axis[1])
    return Drawing(
        title, f"{caption} {counts(found.samples, 'test sample')}.", svg(figure, name, title, "; ".join(words) + "."), named(shown)
    )
