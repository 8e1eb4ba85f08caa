"""How numbers are written: accuracies in per cent with one decimal, p-values and losses with as many digits as they carry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MINUS = "\N{MINUS SIGN}"
# Names of the settings that say how strong a perturbation is
SYMBOLS = {"zeta": "ζ", "sigma": "σ", "eta": "η", "epsilon": "ε"}


def percent(fraction: float, digits: int = 1) -> str:
    """0.8991 → "89.9" (the unit stands in the heading or behind)."""
    return f"{100 * fraction:.{digits}f}".replace("-", MINUS)


def share(fraction: float) -> str:
    """A fraction that somebody chose, without digits that nobody gave: 0.85 → "85"."""
    return f"{100 * fraction:.6g}"


def level(value: float) -> str:
    """A noise level or a setting: 0.3 → "0.3", 1e-05 → "1e-05"."""
    return f"{value:.4g}".replace("-", MINUS) if value < 0 else f"{value:.4g}"


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
    if key == "parameters":
        return {"all": "all parameters", "weights": "weights only"}.get(value, f"parameters {value}")
    if key == "norm":
        return {"linf": "l∞", "l2": "l2"}.get(value, value)
    if key == "objective":
        return value.upper()
    symbol = SYMBOLS.get(key)
    return f"{symbol} = {value}" if symbol else f"{key.replace('_', ' ')} {value}"


def phrases(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(phrase(key, value) for key, value in settings)


def unbroken(text: str) -> str:
    """Put no-break spaces where a line must not end: before % and around =."""
    return text.replace(" %", "\xa0%").replace(" = ", "\xa0=\xa0")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
