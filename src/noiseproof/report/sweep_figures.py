"""Figures of methods that differ in numbers of their training: results against that number, and training noise against test noise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noiseproof.report.figures import Drawing, draw, level_axis, line, named, scale_for
from noiseproof.report.numbers import level, mean, percent
from noiseproof.report.quantities import training_quantity
from noiseproof.report.reading import Method
from noiseproof.report.slopes import slope_of
from noiseproof.report.studies import Attack, Landscape, Noise, clean
from noiseproof.report.svg import INK, Style, canvas, level_style, style, svg
from noiseproof.report.sweeps import Matched, Sweep
from noiseproof.statistics import quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LINES = 6  # levels in one figure

Values = tuple[float, ...]


@dataclass(frozen=True)
class _Line:
    """What was measured at one level, by the method's index."""

    text: str
    look: Style
    values: Mapping[int, Values]


@dataclass(frozen=True)
class _Words:
    title: str
    axis: str
    caption: str
    scale: float = 100.0  # per cent
    band: Callable[[Values], tuple[float, float]] = lambda v: (min(v), max(v))


def accuracy_by_setting(noise: Noise, sweep: Sweep, baseline: Method | None, name: str) -> Drawing | None:
    """Accuracy on chips at each level of the noise, against the setting that the methods differ in."""
    levels = _spread(noise.noisy_levels)
    every = [m for m in (*sweep.methods, baseline) if m is not None]
    lines = [_Line("no noise", level_style(0, len(levels) + 1), {m.index: clean(m)[0] for m in every if clean(m)[0]})]
    lines += [
        _Line(noise.family.at(at), level_style(i, len(levels) + 1), {m.index: noise.values(m, at) for m in every if noise.values(m, at)})
        for i, at in enumerate(levels, start=1)
    ]
    words = _Words(
        f"Chips under {noise.family.words}",
        "accuracy, %",
        "Line: mean over all chips, one line per level; band: from the 5 % to the 95 % quantile.",
        band=lambda v: quantiles(v, (0.05, 0.95)),  # pyright: ignore[reportArgumentType] (two levels give two)
    )
    return _against(sweep, lines, baseline, words, name)


def attack_by_setting(attack: Attack, sweep: Sweep, baseline: Method | None, name: str) -> Drawing | None:
    """Accuracy under the worst weights found, at each size of the set, against the setting."""
    levels = _spread(sorted({at for _, at in attack.worst if at > 0}))
    lines = [
        _Line(f"ζ = {level(at)}", level_style(i, len(levels)), {index: values for (index, a), values in attack.worst.items() if a == at})
        for i, at in enumerate(levels)
    ]
    caption = "Line: lowest accuracy over all searches, mean over networks, one line per size; band: lowest and highest network."
    return _against(sweep, lines, baseline, _Words(f"Worst weights found ({attack.title})", "accuracy, %", caption), name)


def slope_by_setting(landscape: Landscape, sweep: Sweep, baseline: Method | None, name: str) -> Drawing | None:
    """The slope of the loss landscape against the setting."""
    slopes = {index: tuple(slope_of(curve) for curve in curves if len(curve) > 1) for index, curves in landscape.curves.items()}
    lines = [_Line("slope", level_style(0, 1), {index: values for index, values in slopes.items() if values})]
    about = f" ({landscape.about})" if landscape.about else ""
    caption = "Line: mean over directions and networks; band: lowest and highest."
    return _against(sweep, lines, baseline, _Words(f"Slope of the loss{about}", "slope, nats per α", caption, scale=1.0), name)


def against_others(noise: Noise, at: float, sweep: Sweep, others: Sequence[Method], name: str) -> Drawing:
    """One level of the noise: the sweep as one line, every other method as a horizontal one."""
    figure, axes = canvas()
    points = [(x, noise.values(m, at)) for x, m in sweep.points if noise.values(m, at)]
    first = sweep.methods[0]
    x = [place for place, _ in points]
    low, high = ([100 * quantiles(v, (q,))[0] for _, v in points] for q in (0.05, 0.95))
    axes.fill_between(x, low, high, color=style(first.look).colour, alpha=0.16, linewidth=0)
    line(axes, x, [100 * mean(v) for _, v in points], first)
    _label_axis(axes, sweep)
    words = [f"{sweep.stem}: " + ", ".join(f"{percent(mean(v))} % at {level(place)}" for place, v in points)]
    beside = [m for m in others if noise.values(m, at)]
    for method in beside:
        # from edge to edge, whatever the scale of the setting is
        draw(
            axes,
            [0, 1],
            [100 * mean(noise.values(method, at))] * 2,
            style(method.look),
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
        words.append(f"{method.label}: {percent(mean(noise.values(method, at)))} %")
    axes.set_ylabel("accuracy, %")
    title = f"Beside the other methods, at {noise.family.place(at)}"
    caption = "Line: mean over all chips; band: from the 5 % to the 95 % quantile. From edge to edge: the other methods."
    legend = ((style(first.look).swatch, sweep.stem), *named(beside))
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), legend)


def unmatched(noise: Noise, group: Matched, name: str) -> Drawing:
    """Accuracy against the test noise, one line per training noise, through whose meeting points with its own level goes one more."""
    figure, axes = canvas()
    legend, words = [], []
    for i, (trained, method) in enumerate(group.points):
        values = [(at, noise.values(method, at)) for at in noise.levels if noise.values(method, at)]
        if not values:
            continue
        look = level_style(i, len(group.points))
        low, high = ([100 * quantiles(v, (q,))[0] for _, v in values] for q in (0.05, 0.95))
        axes.fill_between([at for at, _ in values], low, high, color=look.colour, alpha=0.1, linewidth=0)
        draw(axes, [at for at, _ in values], [100 * mean(v) for _, v in values], look)
        text = f"trained at {level(trained)}" if trained > 0 else "trained without noise"
        legend.append((look.swatch, text))
        words.append(f"{text}: " + ", ".join(f"{percent(mean(v))} % at {level(at)}" for at, v in values))
    level_axis(axes, noise)
    points = meeting(noise, group)
    if points:
        x, y = [at for at, _ in points], [100 * mean(v) for _, v in points]
        axes.plot(x, y, color=INK, linewidth=1.1, linestyle=(0, (2, 2)), zorder=5)
        axes.plot(x, y, color=INK, linestyle="none", marker="o", markersize=11, markerfacecolor="none", markeredgewidth=1.1, zorder=5)
        words.append("test noise equal to training noise: " + ", ".join(f"{percent(mean(v))} % at {level(at)}" for at, v in points))
    axes.set_ylabel("accuracy, %")
    title = f"{group.stem}: one line per training noise"
    caption = "Line: mean over all chips; band: from the 5 % to the 95 % quantile."
    caption += " Rings: chips as noisy as the training was." if points else " No chips are as noisy as a training was."
    caption += _stands_for(group)
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), tuple(legend))


def matched_only(noise: Noise, groups: Sequence[Matched], others: Sequence[Method], name: str) -> Drawing:
    """Accuracy where the test noise is the training noise, one line per way of training; the others as they are."""
    figure, axes = canvas()
    legend, words = [], []
    found = [(group.stem, group.points[0][1], meeting(noise, group)) for group in groups]
    levels = {at for _, _, points in found for at, _ in points}
    found += [(m.label, m, [(at, noise.values(m, at)) for at in sorted(levels) if noise.values(m, at)]) for m in others]
    for stem, method, points in found:
        if not points:
            continue
        x, look = [at for at, _ in points], style(method.look)
        low, high = ([100 * quantiles(v, (q,))[0] for _, v in points] for q in (0.05, 0.95))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        line(axes, x, [100 * mean(v) for _, v in points], method)
        legend.append((look.swatch, stem))
        words.append(f"{stem}: " + ", ".join(f"{percent(mean(v))} % at {level(at)}" for at, v in points))
    level_axis(axes, noise)
    axes.set_ylabel("accuracy, %")
    title = "Chips as noisy as the training"
    caption = (
        "At every level the network that was trained at that level. Line: mean over all chips; band: from the 5 % to the 95 % quantile."
    )
    caption += " Methods without training noise have one network for all levels." if others else ""
    caption += "".join(_stands_for(group) for group in groups)
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), tuple(legend))


def _stands_for(group: Matched) -> str:
    """Return which group was drawn of several."""
    if not group.siblings:
        return ""
    return f" Of {group.siblings + 1} groups of {group.stem} the middle one: {group.points[0][1].label} and on."


def meeting(noise: Noise, group: Matched) -> list[tuple[float, Values]]:
    """Return the chips of every training noise above 0 at its own level."""
    return [(at, noise.values(m, at)) for at, m in group.points if at > 0 and noise.values(m, at)]


def _against(sweep: Sweep, lines: Sequence[_Line], baseline: Method | None, words: _Words, name: str) -> Drawing | None:
    """Draw one line per level over the setting, and the baseline as dashes in the same colours."""
    figure, axes = canvas()
    legend, said, references = [], [], False
    for one in lines:
        points = [(x, one.values[m.index]) for x, m in sweep.points if m.index in one.values]
        if len(points) < 2:
            continue
        x, y = [at for at, _ in points], [words.scale * mean(v) for _, v in points]
        bounds = [words.band(v) for _, v in points]
        low, high = ([words.scale * bound[side] for bound in bounds] for side in (0, 1))
        axes.fill_between(x, low, high, color=one.look.colour, alpha=0.12, linewidth=0)
        draw(axes, x, y, one.look)
        digits = 1 if words.scale == 100 else 4
        beside = ""
        if baseline is not None and baseline.index in one.values:
            reference, references = words.scale * mean(one.values[baseline.index]), True
            axes.axhline(reference, color=one.look.colour, linestyle=(0, (6, 3)), linewidth=1)
            beside = f" ({baseline.label}: {reference:.{digits}f})"
        legend.append((one.look.swatch, one.text))
        said.append(f"{one.text}: " + ", ".join(f"{v:.{digits}f} at {level(at)}" for at, v in zip(x, y, strict=True)) + beside)
    if not legend:
        return None
    _label_axis(axes, sweep)
    axes.set_ylabel(words.axis)
    caption = words.caption + (f" Dashes: {baseline.label}." if references and baseline is not None else "")
    picture = svg(figure, name, words.title, "; ".join(said) + ".")
    return Drawing(words.title, caption, picture, tuple(legend) if len(lines) > 1 else ())


def _label_axis(axes: Axes, sweep: Sweep) -> None:
    scale_for(axes, [x for x, _ in sweep.points], level, exact=len(sweep.points) <= MOST_LINES)
    axes.set_xlabel(training_quantity(sweep.key).axis)


def _spread(levels: Sequence[float]) -> list[float]:
    """Return at most `MOST_LINES` levels, evenly among those there are, with both ends."""
    if len(levels) <= MOST_LINES:
        return list(levels)
    places = {round(i * (len(levels) - 1) / (MOST_LINES - 1)) for i in range(MOST_LINES)}
    return [at for at, place in zip(levels, itertools.count(), strict=False) if place in places]
