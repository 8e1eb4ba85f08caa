"""Numbers as people write them."""

from __future__ import annotations

from fractions import Fraction


def number(text: str) -> float:
    """Return the number that `text` stands for; fractions are numbers too.

    Example:
        >>> number("8/255") == 8 / 255, number("1e-3")
        (True, 0.001)
    """
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is no number: give 0.1, 1e-3 or 8/255") from None
