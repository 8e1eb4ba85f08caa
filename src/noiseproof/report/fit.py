"""The page of a fit: measured parameters, their spread and their residuals, by kind, as in Fig. S1 of arXiv:2106.05009."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from noiseproof.files import write_text
from noiseproof.fitting import Fit, Fits, write_models
from noiseproof.report.figures import Drawing
from noiseproof.report.numbers import count, p_value, unbroken
from noiseproof.report.page import Chapter, fill
from noiseproof.report.sections import Section
from noiseproof.report.svg import INK, canvas, style, svg
from noiseproof.report.tables import EMPTY, Cell, Column, Table
from noiseproof.spelling import write as spelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 1500  # in a picture: more would make the page heavy and the cloud no clearer
_UNLIKELY = 0.01  # a p-value below which a sentence says that the model does not hold


def write(fits: Fits, path: Path, source: str) -> None:
    """Write the page of `fits`, made from the file `source`: one HTML file that opens offline.

    Raises `NoiseproofError` where `path` cannot be written; an old page is then untouched.
    """
    sections = [_section(place, fit) for place, fit in enumerate(fits.values())]
    use = Section(
        "use",
        "Use it",
        (
            "As noise of an evaluation, a training or a plan, whatever becomes of the file:",
            noise_of(fits),
            "The kinds weight and weights stand for all matrices, every other kind for the parameters of that last name; "
            'kinds="KIND=PATTERN,…" says otherwise.',
        ),
    )
    chapter = Chapter("fit", "", (), table(fits), tuple(unbroken(note) for note in notes(fits)), (*sections, use))
    page = fill(
        title=f"Which ζ is my chip? {Path(source).name}",
        findings=[unbroken(sentence(fit)) for fit in fits.values()],
        chapters=[chapter],
        shared=[],
        origins=(),
        several=False,
        swatches={},
        source=Path(source).name,
    )
    write_text(Path(path), page)


def noise_of(fits: Fits) -> str:
    """Return the noise that was fitted, spelled for --noise, with its numbers.

    >>> from noiseproof.fitting import fit_points
    >>> x = np.array([1.0, 2.0] * 10)
    >>> noise_of({"w": fit_points("w", x, x * np.array([1.1] * 10 + [0.9] * 10))})
    'measured(fits="w: zeta 0.1")'
    """
    return spelled("measured", {"fits": write_models({kind: fit.model for kind, fit in fits.items()})})


def table(fits: Fits) -> Table:
    """Return one row a kind: the numbers of the model with their intervals, and how well it fits."""
    columns = (
        Column("Kind", numeric=False),
        Column("Devices"),
        Column("ζ", "relative std"),
        Column("Constant", "std, unit of the parameter"),
        Column("Gain"),
        Column("Model", "least BIC; distance to the next", numeric=False),
        Column("Normal?", "p of Anderson-Darling"),
        Column("Centred?", "p of the mean residual"),
        Column("R²", "spread against nominal"),
    )
    return Table("Fitted noise by kind of parameter", columns, tuple(_row(fit) for fit in fits.values()))


def sentence(fit: Fit) -> str:
    """Return the answer for one kind in words."""
    model, parts = fit.model, []
    if fit.zeta_interval:
        parts.append(f"ζ = {model.zeta:.3g} ({_range(fit.zeta_interval)})")
    if fit.constant_interval:
        parts.append(f"a constant part of {model.constant:.3g} ({_range(fit.constant_interval)})")
    if fit.gain_interval:
        parts.append(f"a gain of {model.gain:.3g} ({_range(fit.gain_interval)})")
    return f"{fit.kind}: {', '.join(parts)}, from {count(fit.n, 'device')}."


def notes(fits: Fits) -> list[str]:
    """Return what has to be known beside the table: the model, and where it does not hold."""
    found = [
        "Model: θ' = g·(θ + √(a² + (ζθ)²)·ξ), ξ normal. ζ and the constant part a are one standard deviation, before the gain g. "
        "Beneath: intervals of 95 %. A part is in the model only if it lowers the Bayesian information criterion (BIC)."
    ]
    for fit in fits.values():
        if fit.p_normal < _UNLIKELY:
            found.append(f"{fit.kind}: the residuals are not normal (p {_equals(fit.p_normal)}); mind the tails in the histogram.")
        if fit.p_mean is None:
            found.append(f"{fit.kind}: whether there is an offset cannot be told: at these nominal values a gain takes it up.")
        elif fit.p_mean < _UNLIKELY:
            aside = "measured values lie to one side of the line, as an offset makes them, which the model has not"
            found.append(f"{fit.kind}: {aside} (p {_equals(fit.p_mean)}).")
        if len(np.unique(np.abs(fit.nominal))) == 1:
            alike = "all devices have one nominal value, so nothing tells a relative from a constant spread; it is written as relative"
            found.append(f"{fit.kind}: {alike}.")
        if fit.left_out:
            found.append(f"{fit.kind}: {count(fit.left_out, 'row')} with nominal and measured value 0 left out.")
    return found


def _row(fit: Fit) -> tuple[Cell, ...]:
    best, *others = sorted(fit.bic, key=fit.bic.__getitem__)
    following = f"{fit.bic[others[0]]:.1f} to {others[0]}" if others else ""
    r = fit.r_squared
    return (
        Cell(fit.kind),
        Cell(f"{fit.n:,}", value=fit.n),
        _number(fit.model.zeta, fit.zeta_interval),
        _number(fit.model.constant, fit.constant_interval),
        _number(fit.model.gain, fit.gain_interval),
        Cell(best, following),
        Cell(p_value(fit.p_normal), f"A² = {fit.anderson_darling:.2f}", fit.p_normal),
        Cell(p_value(fit.p_mean), "" if fit.p_mean is not None else "cannot be told", fit.p_mean),
        EMPTY if r is None else Cell(f"{r:.3f}", count(len(fit.bins), "bin"), r),
    )


def _number(value: float, interval: tuple[float, float] | None) -> Cell:
    return Cell(f"{value:.4g}", _range(interval), value) if interval else EMPTY


def _range(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3g} to {interval[1]:.3g}"


def _section(place: int, fit: Fit) -> Section:
    drawings = (_points(fit, f"fit-{place}-points"), _spread(fit, f"fit-{place}-spread"), _residuals(fit, f"fit-{place}-residuals"))
    return Section(f"fit-{place}", fit.kind, drawings=drawings)


def _points(fit: Fit, name: str) -> Drawing:
    figure, axes = canvas()
    step = max(1, math.ceil(fit.n / _MOST_POINTS))
    x, y = fit.nominal[::step], fit.measured[::step]
    look, model = style(1), fit.model
    line = np.linspace(fit.nominal.min(), fit.nominal.max(), 101)
    band = 2 * model.std(line)
    axes.fill_between(line, model.gain * line - band, model.gain * line + band, color=look.colour, alpha=0.16, linewidth=0)
    axes.plot(x, y, ".", color=look.colour, markersize=2.5, alpha=0.5, markeredgewidth=0)
    axes.plot(line, model.gain * line, color=INK, linewidth=1.2)
    _labels(axes, "nominal value", "measured value")
    shown = f"{count(len(x), 'device')}{f', one in {step}' if step > 1 else ''}"
    words = f"{shown}. Line: gain {model.gain:.3g} times the nominal value; band: two standard deviations of the model."
    return _drawing(figure, name, f"Measured against nominal: {fit.kind}", words)


def _spread(fit: Fit, name: str) -> Drawing:
    figure, axes = canvas()
    look = style(2)
    low, high = min(0.0, float(fit.nominal.min())), max(0.0, float(fit.nominal.max()))
    line = np.linspace(low, high, 201)
    axes.plot(line, fit.model.std(line), color=INK, linewidth=1.2)
    x, std, n = (np.array([getattr(b, part) for b in fit.bins]) for part in ("nominal", "std", "n"))
    # the standard deviation of a standard deviation of normal values
    axes.errorbar(x, std, yerr=1.96 * std / np.sqrt(2 * n), fmt=look.marker, color=look.colour, markersize=5, linewidth=1)
    axes.set_ylim(bottom=0)
    _labels(axes, "nominal value", "standard deviation")
    r = "" if fit.r_squared is None else f" R² = {fit.r_squared:.3f}."
    words = (
        f"Markers: standard deviation about the line, of devices of nearly one nominal value, with intervals of 95 %. Line: the model.{r}"
    )
    return _drawing(figure, name, f"Spread against nominal: {fit.kind}", words)


def _residuals(fit: Fit, name: str) -> Drawing:
    figure, axes = canvas()
    z = fit.residuals
    edge = max(4.0, math.ceil(float(np.abs(z).max())))
    counts, edges = np.histogram(z, bins=min(80, max(16, round(math.sqrt(fit.n)))), range=(-edge, edge), density=True)
    axes.stairs(counts, edges, fill=True, color=style(3).colour, alpha=0.45)
    line = np.linspace(-edge, edge, 201)
    axes.plot(line, np.exp(-(line**2) / 2) / math.sqrt(2 * math.pi), color=INK, linewidth=1.2)
    _labels(axes, "standardised residual", "density")
    words = f"Line: the normal distribution. Anderson-Darling A² = {fit.anderson_darling:.2f}, p {_equals(fit.p_normal)}."
    return _drawing(figure, name, f"Residuals: {fit.kind}", words)


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _labels(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _drawing(figure: Figure, name: str, title: str, words: str) -> Drawing:
    return Drawing(title, unbroken(words), svg(figure, name, title, words))
