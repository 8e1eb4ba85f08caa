"""Figures of chips under noise: each function draws one study for all methods and says in words what it shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from noiseproof.report.numbers import mean, percent, share
from noiseproof.report.quantities import parts, value_text
from noiseproof.report.reading import Method
from noiseproof.report.studies import Noise, clean
from noiseproof.report.svg import INK, PAPER, Style, canvas, style, svg
from noiseproof.statistics import clopper_pearson, passing, quantiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Drawing:
    """A figure with its caption and its legend: swatches with their texts."""

    title: str
    caption: str
    picture: Markup
    legend: tuple[tuple[Markup, str], ...] = ()


def named(methods: Sequence[Method]) -> tuple[tuple[Markup, str], ...]:
    """Return the legend of lines that stand for methods."""
    return tuple((style(method.look).swatch, method.label) for method in methods)


def accuracy(noise: Noise, methods: Sequence[Method], name: str) -> Drawing:
    """Mean accuracy against the level of the noise, the band of 90 % of the chips, the worst chip."""
    figure, axes = canvas()
    shown, words = [], []
    for method in methods:
        points = _accuracy_points(noise, method)
        if not points:
            continue
        shown.append(method)
        x = [at for at, _ in points]
        look = style(method.look)
        low, high = ([100 * quantiles(v, (q,))[0] for _, v in points] for q in (0.05, 0.95))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        axes.plot(x, [100 * min(v) for _, v in points], color=look.colour, linestyle=(0, (1, 2)), linewidth=1)
        line(axes, x, [100 * mean(v) for _, v in points], method)
        without = () if noise.starts_clean else clean(method)[0]
        if without:
            axes.axhline(100 * mean(without), color=look.colour, linestyle=(0, (7, 4)), linewidth=0.8, alpha=0.8)
            beside = f"{percent(mean(without))} % without noise, "
        else:
            beside = ""
        texts = (f"{percent(mean(v))} % at {value_text(noise.family.setting, at)}" for at, v in points)
        words.append(f"{method.label}: {beside}" + ", ".join(texts))
    level_axis(axes, noise)
    axes.set_ylabel("accuracy, %")
    title = f"Accuracy against {'time' if is_time(noise) else noise.family.words}"
    caption = "Line: mean over all chips. Band: from the 5 % to the 95 % quantile of the chips. Dotted: the worst chip."
    if not noise.starts_clean and any(clean(m)[0] for m in shown):
        caption += " Thin dashes: without noise."
    return Drawing(title, caption, svg(figure, name, title, "Mean accuracy by level. " + "; ".join(words) + "."), named(shown))


def chips(noise: Noise, methods: Sequence[Method], at: float, name: str) -> Drawing:
    """Where the chips lie: one row of strokes per network, with the quantiles of the method beneath."""
    shown = [m for m in methods if noise.values(m, at)]
    every = [v for m in shown for v in noise.values(m, at)]
    width = max(max(every) - min(every), 0.01) / 150  # of a stroke, in accuracy
    rows = sum(len(noise.groups(m, at)) for m in shown)
    figure, axes = canvas(4.7, 0.6 + 0.19 * (2.0 * len(shown) + rows))
    across = axes.get_yaxis_transform()
    axes.grid(axis="y", visible=False)
    y, words = 0.0, []
    for method in shown:
        look, values = style(method.look), noise.values(method, at)
        label = axes.text(0, y - 0.5, _short(method.label), transform=across, color=INK, fontsize=9.5, va="center", parse_math=False)
        label.set_in_layout(False)  # a long name must not squeeze the axes
        y -= 1.9
        for group in noise.groups(method, at):
            axes.plot(*_strokes(group, y, width), color=look.colour, linewidth=1.6, solid_capstyle="butt")
            y -= 1.0
        q05, q50, q95 = (100 * q for q in quantiles(values, (0.05, 0.5, 0.95)))
        y += 0.5
        axes.plot([q05, q95], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
        axes.plot([q50], [y], color=look.colour, marker=look.marker, markersize=7, markeredgecolor=PAPER, markeredgewidth=0.8)
        y -= 0.6
        words.append(f"{method.label}: worst {percent(min(values))} %, 5 % quantile {q05:.1f} %, median {q50:.1f} %")
    axes.set_ylim(y, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("accuracy of a chip, %")
    title = f"Chips at {noise.family.at(at)}" if noise.family.setting else "Chips"
    return Drawing(
        title,
        "One row of strokes per network, taller where more chips lie. Beneath: the median, and from the 5 % to the 95 % quantile.",
        svg(figure, name, title, "; ".join(words) + "."),
        named(shown) if any(_short(m.label) != m.label for m in shown) else (),
    )


def yield_by_requirement(noise: Noise, methods: Sequence[Method], at: float, name: str) -> Drawing:
    """The fraction of chips at or above a required accuracy, against that accuracy."""
    figure, axes = canvas()
    shown = [m for m in methods if noise.values(m, at)]
    every = [v for m in shown for v in noise.values(m, at)]
    margin = max(0.005, 0.03 * (max(every) - min(every)))
    grid = np.linspace(max(0.0, min(every) - margin), min(1.0, max(every) + margin), 161)
    for method in shown:
        values = noise.values(method, at)
        _yield_line(axes, [100 * r for r in grid], [passing(values, float(r)) for r in grid], len(values), method, every=20)
    axes.set_xlabel("required accuracy, %")
    axes.set_ylabel("yield: chips that reach it, %")
    title = f"Yield at {noise.family.at(at)}" if noise.family.setting else "Yield"
    marks = [round(r, 2) for r in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9) if grid[0] <= r <= grid[-1]] or [round(float(np.median(every)), 3)]
    words = (
        f"{m.label}: " + ", ".join(f"{percent(passing(v, r) / len(v))} % of chips reach {share(r)} %" for r in marks)
        for m, v in ((m, noise.values(m, at)) for m in shown)
    )
    return Drawing(title, "Band: 95 % Clopper–Pearson interval, by chip.", svg(figure, name, title, "; ".join(words) + "."), named(shown))


def yield_by_level(noise: Noise, methods: Sequence[Method], required: float, name: str) -> Drawing:
    """The fraction of chips at or above one required accuracy, against the level of the noise."""
    figure, axes = canvas()
    shown, words = [], []
    for method in methods:
        # without noise there is one chip, and a yield says nothing
        points = [(at, noise.values(method, at)) for at in noise.noisy_levels if noise.values(method, at)]
        if not points:
            continue
        shown.append(method)
        good, total = [passing(v, required) for _, v in points], [len(v) for _, v in points]
        _yield_line(axes, [at for at, _ in points], good, total, method)
        each = (f"{percent(k / n)} % at {value_text(noise.family.setting, at)}" for k, n, (at, _) in zip(good, total, points, strict=True))
        words.append(f"{method.label}: " + ", ".join(each))
    level_axis(axes, noise)
    axes.set_ylabel(f"chips ≥ {share(required)} %, %")
    title = f"Yield {'against time ' if is_time(noise) else ''}at a required accuracy of {share(required)} %"
    return Drawing(title, "Band: 95 % Clopper–Pearson interval, by chip.", svg(figure, name, title, "; ".join(words) + "."), named(shown))


def line(axes: Axes, x: Sequence[float], y: Sequence[float], method: Method, every: int = 1) -> None:
    """Draw the line of one method in its colour, dash and marker."""
    draw(axes, x, y, style(method.look), every, order=3 + 0.01 * method.look)


def draw(axes: Axes, x: Sequence[float], y: Sequence[float], look: Style, every: int = 1, order: float = 3, **more: Any) -> None:
    """Draw a line with a marker at every so many points; `more` goes to matplotlib."""
    axes.plot(
        x, y, color=look.colour, linestyle=look.dash, linewidth=1.9, marker=look.marker, markersize=6.5,
        markeredgecolor=PAPER, markeredgewidth=0.8, markevery=every, zorder=order, **more,
    )  # fmt: skip


def _yield_line(axes: Axes, x: Sequence[float], good: Sequence[int], total: int | Sequence[int], method: Method, every: int = 1) -> None:
    totals = [total] * len(good) if isinstance(total, int) else total
    bounds = [clopper_pearson(k, n) for k, n in zip(good, totals, strict=True)]
    low, high = ([100 * bound[side] for bound in bounds] for side in (0, 1))
    axes.fill_between(x, low, high, color=style(method.look).colour, alpha=0.16, linewidth=0)
    line(axes, x, [100 * k / n for k, n in zip(good, totals, strict=True)], method, every)
    axes.set_ylim(-3, 103)


def _short(label: str) -> str:
    """Cut a name that is wider than the picture; the legend beneath then has it in full."""
    return label if len(label) <= 44 else label[:43] + "…"


def _strokes(values: Sequence[float], y: float, width: float) -> tuple[list[float], list[float]]:
    """Return one broken line of strokes upwards from `y`: one path in the file instead of one element per chip.

    Their area is not to scale: the height is the root of the number of chips, so that a single bad chip stays visible.
    """
    chips = Counter(round(value / width) for value in values)
    most, nan = max(chips.values()), float("nan")
    places = sorted(chips)
    x = [v for place in places for v in (100 * width * place, 100 * width * place, nan)]
    return x, [v for place in places for v in (y, y + 0.9 * math.sqrt(chips[place] / most), nan)]


def _accuracy_points(noise: Noise, method: Method) -> list[tuple[float, tuple[float, ...]]]:
    """Return (level, chips), with the network as it is at level 0 where nothing was measured there."""
    points = [(at, noise.values(method, at)) for at in noise.levels if noise.values(method, at)]
    without = clean(method)[0] if noise.starts_clean else ()
    return [(0.0, without), *points] if points and points[0][0] > 0 and without else points


def is_time(noise: Noise) -> bool:
    return parts(noise.family.setting)[0] == "time"


def level_axis(axes: Axes, noise: Noise) -> None:
    """Make the horizontal axis that of the noise's levels."""
    setting = noise.family.setting
    scale_for(axes, noise.levels, lambda at: value_text(setting, at) if setting else "", exact=parts(setting)[0] in ("", "time", "bits"))
    axes.set_xlabel(noise.family.axis)


def scale_for(axes: Axes, levels: Sequence[float], write: Callable[[float], str], exact: bool = False, span: float = 50) -> None:
    """Scale the horizontal axis: logarithmic where `levels` span a factor of `span`; there, and with `exact`, the ticks are the levels."""
    positive = [at for at in levels if at > 0]
    wide = bool(positive) and max(positive) >= span * min(positive)
    from_zero = min([*levels, axes.dataLim.x0]) <= 0
    if wide and from_zero:
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.4)  # what is measured at 0 keeps a place to the left of the rest
    elif wide:
        axes.set_xscale("log")
    if wide or exact:
        ticks = _thinned(sorted({*levels, *([0.0] if from_zero else [])}), wide, max(len(write(at)) for at in levels))
        axes.set_xticks(ticks, [write(at) for at in ticks])
        axes.set_xticks([], minor=True)


def _thinned(levels: Sequence[float], wide: bool, letters: int = 0) -> list[float]:
    """Return levels whose labels, of at most so many letters, do not run into each other, from the largest one down."""
    low, high = min(levels), max(levels)

    smallest = min((at for at in levels if at > 0), default=1.0)

    def place(at: float) -> float:
        return math.log(max(at, smallest / 2)) if wide else at

    room = max(0.09, 0.022 * letters) * (place(high) - place(low))
    kept: list[float] = []
    for at in sorted(levels, reverse=True):
        if not kept or place(kept[-1]) - place(at) >= room:
            kept.append(at)
    return kept[::-1]
