"""Figures of attacks on inputs: accuracy by size, steps and members of the ensemble, white box beside black box, clean beside robust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from noiseproof.numbers import eps_text
from noiseproof.report.attack_names import Kind, member_label
from noiseproof.report.figures import Drawing, line, named, scale_for
from noiseproof.report.input_attacks import InputAttacks, Survival, eps_words, norm_words, unattacked
from noiseproof.report.numbers import counts, level, mean, percent, unbroken
from noiseproof.report.reading import Method
from noiseproof.report.svg import INK, PAPER, canvas, level_style, style, svg

_MOST_NAME = 30  # letters that a row has room for


def by_eps(study: InputAttacks, methods: Sequence[Method], name: str) -> Drawing | None:
    """Accuracy against ε under one attack, from the network as it is; ringed, the least that all attacks leave."""
    kind = study.along_eps()
    if kind is None or len({eps for _, k, eps in study.found if k == kind}) < 2:
        return None
    figure, axes = canvas()
    shown, words, reached = [], [], [0.0]
    for method in methods:
        points = [(eps, study.found[method.index, kind, eps]) for eps in study.levels if (method.index, kind, eps) in study.found]
        worst = [(eps, found[1]) for eps in study.asked if (found := study.worst(method, eps))]
        if not points:
            continue
        shown.append(method)
        start = unattacked(method, points[0][1].samples)
        values = [(0.0, start)] * bool(start) + [(eps, left.values) for eps, left in points]
        x, look = [eps for eps, _ in values], style(method.look)
        reached += x
        low, high = ([100 * reduce(v) for _, v in values] for reduce in (min, max))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        line(axes, x, [100 * mean(v) for _, v in values], method)
        axes.plot(
            [eps for eps, _ in worst], [100 * left.mean for _, left in worst], color=look.colour, linestyle="", marker=look.marker,
            markersize=9, markeredgecolor=INK, markeredgewidth=1.4, zorder=5,
        )  # fmt: skip
        words.append(
            f"{method.label}: " + ", ".join(f"{percent(mean(v))} % at {eps_text(eps)}" for eps, v in values)
            + "".join(f"; all attacks together {percent(left.mean)} % at {eps_text(eps)}" for eps, left in worst)
        )  # fmt: skip
    axes.set_ylim(-3, 103)
    shades = any("/" in eps_text(eps) for eps in reached)  # of images: short numbers at the axis
    scale_for(axes, sorted(set(reached)), lambda eps: level(round(255 * eps, 2)) if shades else eps_text(eps), exact=True)
    if axes.get_xscale() == "symlog":
        axes.set_xlim(left=-0.2 * min(eps for eps in reached if eps > 0))  # there is nothing to the left of 0
    axes.set_xlabel(f"ε, largest change of an input ({norm_words(study.norm)}{', in 255ths' if shades else ''})")
    axes.set_ylabel("accuracy, %")
    title = "Accuracy against the size of the attack"
    caption = (
        f"Line: {study.labels[kind]}, mean over networks; band: lowest and highest network. Ringed: the least that all attacks leave. "
        "With ε as wide as the data an attack can show any input: a line that does not come down to nothing is one of a failing attack."
    )
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), named(shown))


def by_steps(study: InputAttacks, group: Sequence[Kind], methods: Sequence[Method], eps: float, name: str) -> Drawing:
    """Accuracy against the number of gradient steps of one attack."""
    figure, axes = canvas()
    shown, words, every = [], [], set()
    for method in methods:
        found = {}
        for kind in group:
            if left := study.found.get((method.index, kind, eps)):
                steps = kind.number("steps")
                # of two step sizes the stronger
                found[steps] = min(left.values, found.get(steps, left.values), key=mean)
        if not found:
            continue
        shown.append(method)
        every |= found.keys()
        x, look = sorted(found), style(method.look)
        low, middle, high = ([100 * reduce(found[steps]) for steps in x] for reduce in (min, mean, max))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.16, linewidth=0)
        line(axes, x, middle, method)
        words.append(f"{method.label}: " + ", ".join(f"{percent(mean(found[steps]))} % after {level(steps)}" for steps in x))
    axes.set_xscale("log")
    axes.set_xticks(sorted(every), [level(steps) for steps in sorted(every)])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlabel("gradient steps")
    axes.set_ylabel("accuracy, %")
    longest = group[-1]
    title = unbroken(f"{longest.title.rpartition('-')[0] or longest.title} by number of steps, {eps_words(eps, study.norm)}")
    caption = (
        "Line: mean over networks; band: lowest and highest network. Where the line still falls at its end, the attack was cut short and "
        "flatters the network." + (f" {longest.detail}." if longest.detail else "")
    )
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), named(shown))


def survivors(study: InputAttacks, methods: Sequence[Method], eps: float, name: str) -> tuple[Drawing, ...]:
    """How the members of the ensemble take one sample after the other: one figure per list of members."""
    where, found = eps_words(eps, study.norm), study.ran(methods, eps)
    return tuple(_survivors(ran, study.of_members(kind, ran), where, f"{name}-{i}") for i, (kind, ran) in enumerate(found))


def _survivors(ran: Sequence[tuple[Method, Survival]], what: str, where: str, name: str) -> Drawing:
    rows = ["no attack", *map(member_label, ran[0][1].members)]
    figure, axes = canvas(4.7, 0.9 + 0.36 * len(rows))
    words = []
    for method, survival in ran:
        start = unattacked(method, survival.samples)
        left = [mean(start) if start else None, *map(mean, survival.left)]
        x = [100 * value for value in left if value is not None]
        y = [place for place, value in enumerate(left) if value is not None]
        look = style(method.look)
        axes.step(x, y, where="pre", color=look.colour, linestyle=look.dash, linewidth=1.9, zorder=3)
        axes.plot(x, y, color=look.colour, linestyle="", marker=look.marker, markersize=6, markeredgecolor=PAPER, zorder=4)
        words.append(
            f"{method.label}: " + ", ".join(f"{percent(v)} % after {row}" for v, row in zip(left, rows, strict=True) if v is not None)
        )
    # the name in one line, what tells it from its like in a second one
    axes.set_yticks(range(len(rows)), ["\n".join(map(_cut, row.split(", ", 1))) for row in rows], fontsize=8, parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("samples still right, %")
    title = unbroken(f"What each member of {what} adds, {where}")
    caption = "From above: the members in the order in which they ran. Each sees only the samples that all before it left right."
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), named([m for m, _ in ran]))


# what stands in a row of `boxes`, from what should find least to what should find most
_BOXES = ("noise of the same size", "black box: queries", "black box: transfer", "white box: gradients", "ensemble")


def boxes(study: InputAttacks, methods: Sequence[Method], eps: float, name: str) -> Drawing | None:
    """Where noise, black box, white box and the ensemble lie for every method: left of each other, if the gradients lead anywhere."""
    shown = [m for m in methods if len(_boxes(study, m, eps)) > 1]
    if not shown:
        return None
    figure, axes = canvas(4.7, 0.9 + 0.55 * len(shown))
    across, words, used = axes.get_yaxis_transform(), [], set()
    for row, method in enumerate(shown):
        found = _boxes(study, method, eps)
        axes.plot(
            [100 * min(found.values()), 100 * max(found.values())], [row, row], color=style(method.look).colour, linewidth=1.4, zorder=2
        )
        for box, value in found.items():
            look = level_style(_BOXES.index(box), len(_BOXES))
            axes.plot(
                [100 * value], [row], color=look.colour, linestyle="", marker=look.marker, markersize=8, markeredgecolor=PAPER, zorder=3
            )
        used |= found.keys()
        label = axes.text(0, row - 0.42, _cut(method.label), transform=across, color=INK, fontsize=9.5, va="center", parse_math=False)
        label.set_in_layout(False)
        words.append(f"{method.label}: " + ", ".join(f"{box} {percent(value)} %" for box, value in found.items()))
    axes.set_ylim(len(shown) - 0.6, -0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy left, %")
    title = unbroken(f"White box beside black box, {eps_words(eps, study.norm)}")
    caption = (
        "Means over networks; of several attacks of one kind the one that leaves least. An attack that sees the gradients should lie left "
        "of every one that does not."
    )
    legend = tuple((level_style(i, len(_BOXES)).swatch, box) for i, box in enumerate(_BOXES) if box in used)
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), legend)


def _boxes(study: InputAttacks, method: Method, eps: float) -> dict[str, float]:
    sorts = {
        _BOXES[0]: lambda k: k.noise and k.confined,
        _BOXES[1]: lambda k: k.black and not k.noise and k.name != "transfer",
        _BOXES[2]: lambda k: k.name == "transfer",
        _BOXES[3]: lambda k: not k.black and not k.several,
        _BOXES[4]: lambda k: k.several,
    }
    attacks = study.attacks(method, eps)
    found = {box: [left.mean for kind, left in attacks.items() if belongs(kind)] for box, belongs in sorts.items()}
    return {box: min(values) for box, values in found.items() if values}


def clean_and_robust(study: InputAttacks, methods: Sequence[Method], eps: float, name: str) -> Drawing | None:
    """Robust accuracy against clean accuracy: one small mark per network, a large one for the mean."""
    figure, axes = canvas()
    shown, words = [], []
    for method in methods:
        worst = study.worst(method, eps)
        without = unattacked(method, worst[1].samples) if worst else ()
        if worst is None or len(without) != len(worst[1].values):
            continue
        shown.append(method)
        look, robust = style(method.look), worst[1].values
        marks: dict[str, Any] = {"color": look.colour, "linestyle": "", "marker": look.marker, "markeredgecolor": PAPER}
        axes.plot([100 * v for v in without], [100 * v for v in robust], markersize=5, alpha=0.6, **marks)
        axes.plot([100 * mean(without)], [100 * mean(robust)], markersize=10, **marks)
        words.append(f"{method.label}: {percent(mean(without))} % clean, {percent(mean(robust))} % robust")
    if len(shown) < 2:
        return None
    axes.set_xlabel("accuracy without attack, %")
    axes.set_ylabel("robust accuracy, %")
    title = unbroken(f"Clean and robust accuracy, {eps_words(eps, study.norm)}")
    caption = (
        f"Large: mean of the networks; small: each network. Better is further to the upper right. {counts(study.samples, 'test sample')}."
    )
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), named(shown))


def _cut(label: str) -> str:
    return label if len(label) <= _MOST_NAME else label[: _MOST_NAME - 1] + "…"
