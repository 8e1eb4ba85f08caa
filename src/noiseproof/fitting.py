"""Noise of real hardware, from measured parameters: which ζ is my chip? Imports no torch.

A kind of parameter (weights, thresholds, time constants …) has one model, fitted by maximum likelihood:

    θ' = g·(θ + √(a² + (ζ·θ)²)·ξ),   ξ ~ N(0, 1)

g is the gain that all devices have in common; ζ and a, the relative and the constant part of the spread, are standard deviations
before it, so that a gain which is calibrated away changes neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from noiseproof._points import read_points
from noiseproof.errors import NoiseproofError, require, require_number

FEWEST = 10  # points of a kind: with fewer, neither a spread nor its model can be told
BINS = 12  # of the spread against the nominal value, where there are more distinct values than that
FEWEST_IN_BIN = 5
_SURELY = 3.0  # standard errors of the slope through 0

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """θ' = g·(θ + √(a² + (ζ·θ)²)·ξ): what was fitted for one kind of parameter, and all that a noise needs of it."""

    gain: float = 1.0
    constant: float = 0.0
    zeta: float = 0.0

    def std(self, nominal: Vector) -> Vector:
        """Return the standard deviation of the measured values, in their unit."""
        return abs(self.gain) * np.sqrt(self.constant**2 + (self.zeta * nominal) ** 2)


@dataclass(frozen=True)
class Bin:
    """Points of nearly one nominal value: their mean, how many they are, and mean and spread of what was measured."""

    nominal: float
    n: int
    measured: float
    std: float


@dataclass(frozen=True)
class Fit:
    """One kind of parameter: the model, how sure its numbers are, and how well it fits.

    The model is the one of six (with a gain or with g = 1; relative, constant, or both) that has the least BIC, so that a part
    is there only if the points ask for it. Intervals are those of Wald for 95 %, from the expected information; None for a part
    that is not in the model.
    """

    kind: str
    model: Model
    gain_interval: tuple[float, float] | None
    constant_interval: tuple[float, float] | None
    zeta_interval: tuple[float, float] | None
    # by model, such as "relative with gain": the Bayesian information criterion, less than that of the best
    bic: Mapping[str, float]
    # points that were fitted; those with nominal and measured value 0 (nothing there) are left out
    n: int
    left_out: int
    # Anderson-Darling statistic of the standardised residuals, and its p-value: small where they are not normal
    anderson_darling: float
    p_normal: float
    # two-sided p-value for a mean of the standardised residuals of 0: small where all points lie to one side, as with an offset; None
    # where a gain would take up any offset, so that it cannot be told
    p_mean: float | None
    # share of the differences in spread between nominal values that the model explains; None for fewer than three bins
    r_squared: float | None
    bins: tuple[Bin, ...]
    nominal: Vector
    measured: Vector

    @property
    def residuals(self) -> Vector:
        """(θ' − g·θ)/σ(θ) [n]: normal with mean 0 and standard deviation 1 where the model holds."""
        return (self.measured - self.model.gain * self.nominal) / self.model.std(self.nominal)


_PARTS = tuple(part.name for part in fields(Model))
Fits = dict[str, Fit]  # by kind, in the order of the file


def fit(path: str | Path) -> Fits:
    """Return what was fitted for each kind of parameter in a CSV file with the columns kind, nominal and measured.

    Nominal and measured values are in one unit, a row a device; other columns are passed over.

    Raises `NoiseproofError` for a file that cannot be read, columns that are missing, what is no number (with its line), and a kind
    with too few points, with no nominal value but 0, without any spread, or whose measured values fall where nominal ones rise.

    Example:
        >>> import tempfile
        >>> rows = [f"weight,{x},{x * (1 + 0.1 * e)}" for x in (-2, -1, 1, 2) for e in (-1.5, -0.5, 0.2, 0.5, 1.3)]
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write("\\n".join(["kind,nominal,measured", *rows])), file.flush()
        ...     print(round(fit(file.name)["weight"].model.zeta, 2))
        0.09
    """
    return {kind: fit_points(kind, np.array(x), np.array(y)) for kind, (x, y) in read_points(Path(path)).items()}


def fit_points(kind: str, nominal: Vector, measured: Vector) -> Fit:
    """Return the fit of one kind from its points [n].

    Raises `NoiseproofError` as `fit` does for kinds.
    """
    there = (nominal != 0) | (measured != 0)
    x, y = nominal[there], measured[there]
    _check(kind, x, y)
    found = {name: candidate for name, candidate in _candidates(x, y).items() if candidate is not None}
    bic = {name: -2 * _log_likelihood(model, x, y) + parts * math.log(len(x)) for name, (model, parts) in found.items()}
    best = min(bic, key=bic.__getitem__)
    model = found[best][0]
    intervals = _intervals(model, "gain" in best, x)
    z = (y - model.gain * x) / model.std(x)
    statistic, p = anderson_darling(z)
    bins = _bins(model, x, y)
    return Fit(
        kind, model, *intervals, {name: value - bic[best] for name, value in bic.items()}, len(x), int((~there).sum()), statistic, p,
        _p_mean(z, x / model.std(x) if "gain" in best else None), _r_squared(model, bins), bins, x, y,
    )  # fmt: skip


def _p_mean(z: Vector, direction: Vector | None) -> float | None:
    """Return the two-sided p-value for a mean of z [n] of 0; `direction` [n]: x/σ, along which a fitted gain leaves nothing in z.

    With u = direction/‖direction‖, z = ξ − u·(uᵀξ) and Var(mean z) = (1 − (1ᵀu)²/n)/n.
    """
    left = 1.0
    if direction is not None:
        left -= float(direction.sum()) ** 2 / float(direction @ direction) / len(z)
    if left < 1e-6:
        return None
    return float(2 * special.ndtr(-abs(z.mean()) * math.sqrt(len(z) / left)))


def anderson_darling(values: Vector) -> tuple[float, float]:
    """Return the statistic A² of Anderson and Darling for normality, mean and spread estimated, and its p-value.

    A² = −n − Σ (2i − 1)/n·[ln Φ(z_i) + ln(1 − Φ(z_{n+1−i}))] for sorted standardised values, times 1 + 0.75/n + 2.25/n².
    Source: D'Agostino and Stephens, Goodness-of-Fit Techniques (1986), table 4.9.

    >>> statistic, p = anderson_darling(np.array([-1.2, -0.6, -0.3, 0.0, 0.2, 0.7, 1.4]))
    >>> p > 0.5
    True
    """
    z = np.sort((values - values.mean()) / values.std(ddof=1))
    n, i = len(z), np.arange(1, len(z) + 1)
    a = -n - float(((2 * i - 1) * (special.log_ndtr(z) + special.log_ndtr(-z[::-1]))).sum()) / n
    a *= 1 + 0.75 / n + 2.25 / n**2
    for above, sign, terms in (
        (0.6, 1, (1.2937, -5.709, 0.0186)),
        (0.34, 1, (0.9177, -4.279, -1.38)),
        (0.2, -1, (-8.318, 42.796, -59.938)),
        (-math.inf, -1, (-13.436, 101.14, -223.73)),
    ):
        if a >= above:
            p = math.exp(max(-700.0, terms[0] + terms[1] * a + terms[2] * a * a)) if a < 13 else 0.0
            return a, min(1.0, p if sign > 0 else 1 - p)
    raise AssertionError("unreachable")


def write_models(models: dict[str, Model]) -> str:
    """Return models as text, to six digits: "weight: gain 1.02 zeta 0.2; threshold: zeta 0.1". A part that does nothing is left out."""
    return "; ".join(
        f"{kind}: {' '.join(f'{part} {getattr(model, part):.6g}' for part in _PARTS if getattr(model, part) != getattr(Model(), part))}"
        for kind, model in models.items()
    )


def read_models(text: str) -> dict[str, Model]:
    """Return the models that `write_models` wrote.

    Raises `NoiseproofError` for any other text, and for numbers that are out of range.

    >>> read_models("weight: gain 1.02 zeta 0.2")["weight"]
    Model(gain=1.02, constant=0.0, zeta=0.2)
    """
    models = {}
    for part in text.split(";"):
        kind, _, words = part.partition(":")
        names, values = words.split()[::2], words.split()[1::2]
        readable = kind.strip() and names and len(names) == len(values) and set(names) <= set(_PARTS)
        require(bool(readable), "fits", text, "write kind: gain 1 constant 0.01 zeta 0.2; kind: zeta 0.1")
        models[kind.strip()] = Model(**{name: _number(name, value) for name, value in zip(names, values, strict=True)})
    return models


def _number(name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise NoiseproofError(f"fits has {name} {word!r}: give a number") from None
    require_number(name, value, 0, open_low=name == "gain")
    return value


def _check(kind: str, x: Vector, y: Vector) -> None:
    if len(x) < FEWEST:
        raise NoiseproofError(f"kind {kind} has {len(x)} points that are not 0: a spread needs at least {FEWEST}; measure more devices")
    if not x.any():
        raise NoiseproofError(
            f"kind {kind} has nominal values of 0 alone: a relative spread needs others; measure devices at several values"
        )
    gain = float(x @ y) / float(x @ x)
    if float(x @ y) < -_SURELY * math.sqrt(float(x**2 @ (y - gain * x) ** 2)):
        raise NoiseproofError(f"kind {kind}: measured values fall where nominal values rise; look at the columns and at the sign")
    if np.abs(y - x).max() <= 1e-9 * np.abs(x).max() or np.abs(y - gain * x).max() <= 1e-9 * np.abs(y).max():
        raise NoiseproofError(f"kind {kind}: measured values have no spread; give values of single devices, not their mean")


def _candidates(x: Vector, y: Vector) -> dict[str, tuple[Model, int] | None]:
    """Return the best model of each form with the number of its parameters; None for a form that the points rule out."""
    found: dict[str, tuple[Model, int] | None] = {}
    # a spread much larger than the nominal values may hide which way the line goes: then there is no gain to be fitted
    for gained in (False, True) if float(x @ y) > 0 else (False,):
        name, parts = (" with gain", 1) if gained else ("", 0)
        found[f"relative{name}"] = (_at(0.0, gained, x, y), parts + 1) if x.all() else None
        found[f"constant{name}"] = _at(1.0, gained, x, y), parts + 1
        found[f"constant and relative{name}"] = _both(gained, x, y), parts + 2
    return found


def _at(share: float, gained: bool, x: Vector, y: Vector) -> Model:
    """Return the best model whose variance at the root mean square of x is constant to `share`; closed-form."""
    scale = float(np.mean(x**2))
    shape = share + (1 - share) * x**2 / scale
    gain = float((x * y / shape).sum() / (x * x / shape).sum()) if gained else 1.0
    variance = float(np.mean((y - gain * x) ** 2 / shape)) / gain**2
    return Model(gain, math.sqrt(share * variance), math.sqrt((1 - share) * variance / scale))


def _both(gained: bool, x: Vector, y: Vector) -> Model:
    """Return the best model with both parts: a search over the constant share alone, on the scale of its odds."""

    def loss(odds: float) -> float:
        return -_log_likelihood(_at(float(special.expit(odds)), gained, x, y), x, y)

    grid = np.linspace(-20, 20, 41)
    place = int(np.argmin([loss(odds) for odds in grid]))
    around = (grid[max(0, place - 1)], grid[min(len(grid) - 1, place + 1)])
    best = optimize.minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-6})
    return _at(float(special.expit(best.x)), gained, x, y)


def _log_likelihood(model: Model, x: Vector, y: Vector) -> float:
    std = model.std(x)
    return -float(np.sum(np.log(std) + 0.5 * ((y - model.gain * x) / std) ** 2)) - 0.5 * len(x) * math.log(2 * math.pi)


Interval = tuple[float, float] | None


def _intervals(model: Model, gained: bool, x: Vector) -> tuple[Interval, Interval, Interval]:
    """Return the intervals of gain, constant and ζ from the expected information; a and ζ on the scale of their logarithm.

    I_jk = Σ ∂_jμ·∂_kμ/v + ½·∂_j ln v·∂_k ln v for normal values of mean μ = g·x and variance v = g²·(a² + ζ²x²).
    """
    inner = model.constant**2 + (model.zeta * x) ** 2
    zero = np.zeros_like(x)
    # by parameter: the derivatives of μ and of ln v; those of a and ζ by their logarithms
    slopes = {
        "gain": (x, np.full_like(x, 2 / model.gain)),
        "constant": (zero, 2 * model.constant**2 / inner),
        "zeta": (zero, 2 * (model.zeta * x) ** 2 / inner),
    }
    there = [name for name, value in (("gain", gained), ("constant", model.constant), ("zeta", model.zeta)) if value]
    means, logs = (np.stack([slopes[name][i] for name in there]) for i in (0, 1))
    information = (means / (model.gain**2 * inner)) @ means.T + 0.5 * logs @ logs.T
    errors = dict(zip(there, 1.959964 * np.sqrt(np.diag(np.linalg.inv(information))), strict=True))
    gain = (model.gain - float(errors["gain"]), model.gain + float(errors["gain"])) if gained else None

    def positive(name: str, value: float) -> Interval:
        return (value * math.exp(-errors[name]), value * math.exp(errors[name])) if value else None

    return gain, positive("constant", model.constant), positive("zeta", model.zeta)


def _bins(model: Model, x: Vector, y: Vector) -> tuple[Bin, ...]:
    """Return the points by nominal value, or by ranges with as many points in each where there are more values than `BINS`."""
    values = np.unique(x)
    order = np.argsort(x, kind="stable")
    if len(values) > BINS:
        groups = np.array_split(order, min(BINS, len(x) // FEWEST_IN_BIN))
    else:
        groups = [np.flatnonzero(x == value) for value in values]
    return tuple(
        Bin(
            float(x[g].mean()),
            len(g),
            float(y[g].mean()),
            # around the model's line: within a range of nominal values the measured ones differ by those too
            float(np.sqrt(np.mean((y[g] - model.gain * x[g]) ** 2))),
        )
        for g in groups
        if len(g) >= FEWEST_IN_BIN
    )


def _r_squared(model: Model, bins: tuple[Bin, ...]) -> float | None:
    if len(bins) < 3:
        return None
    n, std = np.array([b.n for b in bins]), np.array([b.std for b in bins])
    fitted = model.std(np.array([b.nominal for b in bins]))
    total = float((n * (std - np.average(std, weights=n)) ** 2).sum())
    return 1 - float((n * (std - fitted) ** 2).sum()) / total if total else None
