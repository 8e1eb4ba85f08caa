"""Noise in one layer at a time: which layer does it hurt? One study for each noise at one level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noiseproof.records import Record
from noiseproof.report.figures import Drawing, named
from noiseproof.report.numbers import counts, mean, percent, phrases
from noiseproof.report.quantities import LEVELS, parts, rank
from noiseproof.report.reading import Method
from noiseproof.report.selecting import Settings, collect, name_in, noise_words, samples
from noiseproof.report.studies import clean
from noiseproof.report.svg import PAPER, canvas, style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table
from noiseproof.statistics import quantiles, summary


@dataclass(frozen=True)
class Layers:
    """Accuracies of simulated chips with one noise in one layer at a time."""

    noise: str  # in words, with its level
    layers: tuple[str, ...]  # in the order of the network
    chips: Mapping[tuple[int, str], tuple[float, ...]]  # by (method's index, layer): the chips of all networks
    counts: tuple[int, ...]  # chips per network
    samples: tuple[int, ...]

    @property
    def title(self) -> str:
        return f"{self.noise[:1].upper()}{self.noise[1:]} in one layer at a time"


def studies(methods: Sequence[Method]) -> tuple[Layers, ...]:
    """Return one study per noise and level, the weaker levels first."""

    def belongs(r: Record) -> bool:
        return r.metric == "accuracy" and r.chip is not None and "layer" in r.at and "layer" in r.perturbation

    keyed = collect(methods, belongs, lambda r: (_noise(r.perturbation), str(r.perturbation["layer"])))
    places = {layer: rs[0].at["layer"] for (_, layer), groups in keyed.items() for networks in groups.values() for rs in networks}
    by_noise: dict[Settings, dict[str, Any]] = {}
    for (noise, layer), groups in keyed.items():
        by_noise.setdefault(noise, {})[layer] = groups
    return tuple(_study(noise, by_noise[noise], places, by_noise) for noise in sorted(by_noise, key=_strength))


def _study(noise: Settings, by_layer: Mapping[str, Any], places: Mapping[str, float], every: Mapping[Settings, Any]) -> Layers:
    chips = {
        (index, layer): tuple(r.value for rs in networks for r in rs)
        for layer, groups in by_layer.items()
        for index, networks in groups.items()
    }
    sizes = {len(rs) for groups in by_layer.values() for networks in groups.values() for rs in networks}
    return Layers(
        _words(noise, every),
        tuple(sorted(by_layer, key=lambda layer: places[layer])),
        chips,
        tuple(sorted(sizes)),
        samples(by_layer.values()),
    )


def _noise(perturbation: Mapping[str, Any]) -> Settings:
    """Return what the noise is in all layers; the parameters that it acts on in one are another matter."""
    of = {"parameters": perturbation["of"]} if "of" in perturbation else {}
    rest = {k: v for k, v in perturbation.items() if k not in ("layer", "of") and parts(k)[0] != "parameters"}
    return tuple((k, str(v)) for k, v in sorted((rest | of).items()))


def _strength(noise: Settings) -> tuple[str, list[tuple[tuple[int, str], float]], Settings]:
    levels = [(rank(k), float(v)) for k, v in noise if parts(k)[0] in LEVELS]
    return dict(noise).get("name", ""), sorted(levels), noise


def _words(noise: Settings, every: Mapping[Settings, Any]) -> str:
    """Return the noise in words: how strong it is, and what tells it from the others of its name."""
    mine, namesakes = dict(noise), [dict(other) for other in every if dict(other).get("name") == dict(noise).get("name")]
    told = [k for k in mine if parts(k)[0] in (*LEVELS, "parameters") or len({other.get(k) for other in namesakes}) > 1]
    return ", ".join(filter(None, [noise_words(name_in(mine)), phrases((k, mine[k]) for k in told if k != "name")]))


def drawing(study: Layers, methods: Sequence[Method], name: str) -> Drawing:
    """Mean accuracy by layer, with the range of 90 % of the chips, the methods side by side."""
    shown = [m for m in methods if any((m.index, layer) in study.chips for layer in study.layers)]
    figure, axes = canvas(max(4.7, 0.5 * len(study.layers)))
    words = []
    for place, method in enumerate(shown):
        look = style(method.look)
        aside = 0.7 * ((place + 0.5) / len(shown) - 0.5)
        points = [(i, study.chips[method.index, layer]) for i, layer in enumerate(study.layers) if (method.index, layer) in study.chips]
        x = [i + aside for i, _ in points]
        low, middle, high = ([100 * reduce(v) for _, v in points] for reduce in (_low, mean, _high))
        axes.vlines(x, low, high, color=look.colour, linewidth=1.6)
        axes.plot(
            x, middle, color=look.colour, linestyle="none", marker=look.marker, markersize=6.5, markeredgecolor=PAPER, markeredgewidth=0.8
        )
        if without := clean(method)[0]:
            axes.axhline(100 * mean(without), color=look.colour, linestyle=(0, (7, 4)), linewidth=0.8, alpha=0.8)
        texts = (f"{percent(mean(v))} % in {study.layers[i]}" for i, v in points)
        words.append(f"{method.label}: " + ", ".join(texts))
    axes.grid(axis="x", visible=False)
    many = len(study.layers) > 6
    axes.set_xticks(range(len(study.layers)), study.layers, rotation=40 if many else 0, ha="right" if many else "center", parse_math=False)
    axes.set_xlim(-0.5, len(study.layers) - 0.5)
    axes.set_ylabel("accuracy, %")
    return Drawing(
        study.title,
        "Mark: mean over all chips; stroke: from the 5 % to the 95 % quantile of the chips. Thin dashes: without noise. "
        f"{counts(study.counts, 'simulated chip')} per network and layer, {counts(study.samples, 'test sample')} per chip.",
        svg(figure, name, study.title, "Mean accuracy by layer. " + "; ".join(words) + "."),
        named(shown),
    )


def _low(values: Sequence[float]) -> float:
    return quantiles(values, (0.05,))[0]


def _high(values: Sequence[float]) -> float:
    return quantiles(values, (0.95,))[0]


def table(study: Layers, methods: Sequence[Method]) -> Table:
    """Return mean ± std and minimum of every method by layer."""
    columns = (Column("Method", numeric=False), *(Column(layer, "mean\xa0±\xa0std,\xa0%") for layer in study.layers))
    shown = [m for m in methods if any((m.index, layer) in study.chips for layer in study.layers)]
    rows = ((Cell(m.label), *(_cell(study.chips.get((m.index, layer), ())) for layer in study.layers)) for m in shown)
    return Table(study.title, columns, tuple(rows))


def _cell(values: Sequence[float]) -> Cell:
    if not values:
        return EMPTY
    s = summary(values)
    return Cell(percent(s.mean) + (f" ± {percent(s.std)}" if s.std is not None else ""), f"min {percent(s.minimum)}", s.mean)
