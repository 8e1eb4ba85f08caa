"""How numbers are written: accuracies in per cent with one decimal, p-values and losses with as many digits as they carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from noiseproof.report.quantities import LEVELS, MINUS, level, level_text, parts

__all__ = [
    "MINUS",
    "count",
    "counts",
    "duration",
    "level",
    "listing",
    "mean",
    "p_value",
    "percent",
    "phrase",
    "phrases",
    "share",
    "unbroken",
]


def percent(fraction: float, digits: int = 1) -> str:
    """0.8991 → "89.9" (the unit stands in the heading or behind)."""
    return f"{100 * fraction:.{digits}f}".replace("-", MINUS)


def share(fraction: float) -> str:
    """A fraction that somebody chose, without digits that nobody gave: 0.85 → "85"."""
    return f"{100 * fraction:.6g}"


def p_value(p: float | None) -> str:
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(n: int, noun: str, plural: str = "") -> str:
    """1, "chip" → "1 chip"; 1000, "chip" → "1,000 chips"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def counts(ns: Sequence[int], noun: str, plural: str = "") -> str:
    """(100, 300), "chip" → "100 to 300 chips"."""
    low, high = min(ns, default=0), max(ns, default=0)
    return count(high, noun, plural) if low == high else f"{low:,} to {count(high, noun, plural)}"


def duration(seconds: float) -> str:
    """4210 → "1 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def listing(words: Iterable[str]) -> str:
    """("a", "b", "c") → "a, b and c"."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""


def phrase(key: str, value: str) -> str:
    """A setting in words: ("parameters", "all") → "all parameters", ("zeta", "0.2") → "ζ = 0.2"."""
    base, step = parts(key)
    if base == "parameters":
        which = {"all": "all parameters", "weights": "weights only"}.get(value, f"parameters {value}")
        return f"{which} in step {step}" if step else which
    if key == "norm":
        return {"linf": "l∞", "l2": "l2"}.get(value, value)
    if key == "objective":
        return value.upper()
    if base in LEVELS and _is_number(value):
        return level_text(key, float(value))
    # 0.0033333333333333335 tells no more than 0.003333
    return f"{key.replace('_', ' ')} {level(float(value)) if _is_number(value) else value}"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) is not None


def phrases(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(phrase(key, value) for key, value in settings)


def unbroken(text: str) -> str:
    """Put no-break spaces where a line must not end: before % and around =."""
    return text.replace(" %", "\xa0%").replace(" = ", "\xa0=\xa0")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
