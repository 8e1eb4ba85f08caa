"""Figures of certified boxes: proof and attack against the half-width, for all methods and rung by rung for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from noiseproof.report.certified_ladders import Boxes, Ladder, arithmetic, certified, survived
from noiseproof.report.figures import Drawing, draw, line, named, scale_for
from noiseproof.report.numbers import count, level, listing, percent
from noiseproof.report.reading import Method
from noiseproof.report.svg import canvas, level_style, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 3  # methods whose bands can be told apart
_DECADE = 10  # half-widths that span more get a logarithmic axis

# The rungs of one method's figure, from what nothing can be above to the plainest proof
_RUNGS = ("clean", "random points", "shared attack", "attack per sample", "certified, best bound", "certified, intervals")
_ATTACKS = {"clean": "none", "random points": "random", "shared attack": "shared", "attack per sample": "per-sample"}
_INTERVALS = "intervals"


def overview(boxes: Boxes, methods: Sequence[Method], name: str) -> Drawing | None:
    """The certified fraction of all methods against z; the band above reaches to what the strongest attack leaves. None without any."""
    if not boxes.bounds:
        return None
    figure, axes = canvas()
    shown, words = [], []
    for method in methods:
        points = {z: (certified(ladders), survived(ladders)) for z in boxes.levels if (ladders := boxes.of(method, z))}
        proved = {z: low for z, (low, _) in points.items() if low is not None}
        left = {z: high for z, (low, high) in points.items() if low is not None and high is not None}
        if not proved:
            continue
        shown.append(method)
        colour = style(method.look).colour
        if left:
            x, top = list(left), [100 * value for value in left.values()]
            if len(methods) <= _FEW:
                axes.fill_between(x, [100 * proved[z] for z in x], top, color=colour, alpha=0.16, linewidth=0)
            axes.plot(x, top, color=colour, linestyle=(0, (1, 2)), linewidth=1.2)
        line(axes, list(proved), [100 * value for value in proved.values()], method)
        words.append(
            f"{method.label}: "
            + ", ".join(
                f"{percent(value)} % certified"
                + (f" and {percent(left[z])} % left by attacks" if z in left else "")
                + f" at z = {level(z)}"
                for z, value in proved.items()
            )
        )
    _finish(axes, boxes)
    title = "Certified fraction against the half-width of the box"
    caption = (
        "Line: certified, the mean over networks. Dotted: what the strongest attack leaves, which no certificate can pass. Between "
        f"them nobody knows. {count(boxes.samples, 'test sample')}."
        + "".join(f" {m.label}: {other}." for m in shown if (other := _arithmetic(boxes, m)))
    )
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), named(shown))


def ladder(boxes: Boxes, method: Method, name: str) -> Drawing | None:
    """All rungs of one method against z; None where it has none."""
    widths = [z for z in boxes.levels if boxes.of(method, z)]
    rungs = {rung: found for rung in _RUNGS if (found := _rung(rung, {z: boxes.of(method, z) for z in widths}))}
    if rungs.get(_RUNGS[-1]) == rungs.get(_RUNGS[-2]):
        rungs.pop(_RUNGS[-1], None)  # no other bound was made: one line says it
    if not rungs:
        return None
    figure, axes = canvas()
    looks = {rung: level_style(len(_RUNGS) - 1 - _RUNGS.index(rung), len(_RUNGS)) for rung in rungs}
    for place, (rung, found) in enumerate(rungs.items()):
        draw(axes, list(found), [100 * value for value in found.values()], looks[rung], order=3 + 0.1 * place)
    _finish(axes, boxes)
    title = f"The ladder of {method.label}"
    words = (
        f"{rung}: " + ", ".join(f"{percent(value)} % at z = {level(z)}" for z, value in found.items()) for rung, found in rungs.items()
    )
    other = _arithmetic(boxes, method)
    caption = (
        "From above: what is left without noise and by ever stronger attacks; then what is proved. All on the same "
        f"{count(boxes.samples, 'test sample')}." + (f" The best bound is {other}." if other else "")
    )
    return Drawing(title, caption, svg(figure, name, title, "; ".join(words) + "."), tuple((looks[r].swatch, r) for r in rungs))


def _rung(rung: str, ladders: Mapping[float, Sequence[Ladder]]) -> dict[float, float]:
    """Return the fractions on one rung by half-width, where they were measured."""
    found = {}
    for z, mine in ladders.items():
        if rung in _ATTACKS:
            found[z] = survived(mine, _ATTACKS[rung])
        else:
            found[z] = certified(mine, _INTERVALS if rung == _RUNGS[-1] else "")
    return {z: value for z, value in found.items() if value is not None}


def _arithmetic(boxes: Boxes, method: Method) -> str:
    """Return at which half-widths the best bound is for another arithmetic than single precision."""
    found = {z: other for z in boxes.levels if (other := arithmetic(boxes.of(method, z)))}
    return f"for {listing(dict.fromkeys(found.values()))} alone at z = {listing(level(z) for z in found)}" if found else ""


def _finish(axes: Axes, boxes: Boxes) -> None:
    """Set both axes."""
    axes.set_ylim(-3, 103)
    scale_for(axes, boxes.levels, level, exact=True, span=_DECADE)
    axes.set_xlabel("half-width z of the box, relative to each parameter")
    axes.set_ylabel("samples right, %")
