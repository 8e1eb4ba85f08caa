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


def eps_text(eps: float) -> str:
    """Return how the size of an attack on inputs is written: in 255ths, of which images are made, unless a decimal number is shorter.

    Example:
        >>> eps_text(8 / 255), eps_text(0.2)
        ('8/255', '0.2')
    """
    shades = round(255 * eps, 2)
    in_shades = abs(255 * eps - shades) < 1e-6 and float(f"{eps:.2g}") != eps
    return f"{shades:g}/255" if in_shades else f"{eps:.4g}"
