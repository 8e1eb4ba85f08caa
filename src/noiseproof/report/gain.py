"""How much a layer can enlarge a perturbation at most: the exact L2 gain, the bounds beside it, and a[t] of DLIF neurons (paper C)."""

from __future__ import annotations

from collections.abc import Sequence

from noiseproof.report import by_layer
from noiseproof.report.by_layer import ByLayer, Words
from noiseproof.report.figures import Drawing, draw
from noiseproof.report.numbers import mean
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect
from noiseproof.report.svg import canvas, level_style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table

TEXT = (
    "The largest factor by which the perturbation of a layer's input spikes, over all steps, can come out larger in its membranes, resets "
    "left out: ‖ε‖₂/‖Δs‖₂. It is exact: the spectral norm of the weights times that of the leaky sum over time or, where every channel or "
    "neuron has a leak of its own, that of both as one map. With direct coding the input of the first layer cannot change in time, so that "
    "its gain is not reached there.",
)
_CLAIM = (
    "The claimed bound is Theorem 3.1 of Ding et al., ICML 2024, √(1/(1 − λ))·‖W‖₂. Where it lies below the exact gain it is violated: "
    "there is a perturbation that is enlarged more than it allows."
)


def studies(methods: Sequence[Method]) -> tuple[ByLayer | None, ByLayer | None, ByLayer | None, ByLayer | None]:
    """Return the exact gain, the bound that holds, the claimed one and the norm of the weights by layer."""
    gain, bound, claimed, norm = (by_layer.study(methods, m) for m in ("l2_gain", "l2_gain_bound", "l2_gain_claimed", "weight_norm"))
    return gain, bound, claimed, norm


def text(methods: Sequence[Method]) -> tuple[str, ...]:
    """Return what has to be known, with the claim where it was computed."""
    return (*TEXT, _CLAIM) if studies(methods)[2] is not None else TEXT


def drawings(methods: Sequence[Method], drawn: Sequence[Method], anchor: str) -> tuple[Drawing, ...]:
    """Return the gain by layer, and the parameters a[t] of every method that has DLIF neurons."""
    gain, bound, claimed, _ = studies(methods)
    found = []
    if gain is not None:
        beside = {name: study for name, study in (("bound", bound), ("claimed", claimed)) if study is not None}
        caption = "Bar above: the bound that holds." + (" Cross: the claimed bound." if claimed is not None else "")
        found.append(by_layer.drawing(gain, drawn, f"{anchor}-gain", Words("Exact gain by layer", "gain", caption, beside=beside)))
    return (*found, *(drawing for i, m in enumerate(drawn) if (drawing := _dlif(m, f"{anchor}-dlif-{i}")) is not None))


def table(methods: Sequence[Method]) -> Table | None:
    """Return exact gain, bound and claim by method and layer, one row each; None where nothing was computed."""
    gain, bound, claimed, norm = studies(methods)
    if gain is None:
        return None
    columns = (
        Column("Method", numeric=False),
        Column("Layer", numeric=False),
        Column("‖W‖₂"),
        Column("exact gain"),
        Column("bound that holds"),
        Column("claimed bound"),
    )
    rows = []
    for method in methods:
        for layer in (layer for layer in gain.layers if gain.of(method, layer)):
            exact = mean(gain.of(method, layer))
            others = (by_layer.cell(study.of(method, layer)) if study is not None else EMPTY for study in (norm, gain, bound))
            rows.append((Cell(method.label), Cell(layer), *others, _claim(claimed.of(method, layer) if claimed else (), exact)))
    return Table("L2 gain of the perturbation dynamics", columns, tuple(rows))


def _claim(values: Sequence[float], exact: float) -> Cell:
    if not values:
        return EMPTY
    violated = mean(values) < exact
    return Cell(by_layer.digits(mean(values)), "violated" if violated else "holds here", mean(values), alarm=violated)


def _dlif(method: Method, name: str) -> Drawing | None:
    """Draw a[t] of every layer, the mean over networks, from the first layer (mild) to the last (strong)."""
    found = collect([method], lambda r: r.metric == "dlif_a", lambda r: (r.at["layer"], str(r.perturbation["layer"]), r.at["step"]))
    if not found:
        return None
    curves: dict[str, dict[float, float]] = {}
    for (_, layer, step), groups in sorted(found.items()):
        curves.setdefault(layer, {})[step] = mean([rs[-1].value for networks in groups.values() for rs in networks])
    figure, axes = canvas()
    looks = {layer: level_style(place, len(curves)) for place, layer in enumerate(curves)}
    for layer, points in curves.items():
        draw(axes, list(points), list(points.values()), looks[layer])
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("time step t")
    axes.set_ylabel("a[t]")
    title = f"a[t] of the DLIF neurons: {method.label}"
    caption = "h[t] = a[t]·λ·v[t − 1] + I[t], or a[t] on the input; 1 is a LIF neuron. Mean over networks."
    words = (f"{layer}: from {min(p.values()):.3f} to {max(p.values()):.3f}" for layer, p in curves.items())
    return Drawing(
        title, caption, svg(figure, name, title, "; ".join(words) + "."), tuple((look.swatch, layer) for layer, look in looks.items())
    )
