"""How noises and projections are spelled in one line: `quantisation(bits=8) > mismatch(zeta=0.1|0.3)`. Imports no torch.

A name, its settings in brackets; ` > ` composes, in the order of the text; `a|b` sweeps: one of everything for each value.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Any

from noiseproof.errors import NoiseproofError

Spelled = tuple[str, dict[str, Any]]  # a name and its settings

_STEP = re.compile(r"\s*([\w.:-]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_OUTSIDE_QUOTES = r'(?=(?:[^"]*"[^"]*")*[^"]*$)'


def read(text: str, field: str) -> list[tuple[Spelled, ...]]:
    """Return what `text` spells: one tuple of steps for every combination of the values that are swept.

    Raises `NoiseproofError`, naming `field`, for anything that is not so spelled.

    Example:
        >>> read("quantisation(bits=8) > mismatch(zeta=0.1|0.3)", "noise")[1]
        (('quantisation', {'bits': 8}), ('mismatch', {'zeta': '0.3'}))
    """
    steps = [_step(part, text, field) for part in re.split(">" + _OUTSIDE_QUOTES, text)]
    return list(itertools.product(*steps))


def write(name: str, settings: Mapping[str, Any]) -> str:
    """Return the text that `read` reads as this name with these settings.

    Example:
        >>> write("mismatch", {"zeta": 0.3, "parameters": "a,b"})
        'mismatch(zeta=0.3, parameters="a,b")'
    """
    return f"{name}({', '.join(f'{key}={_written(value)}' for key, value in settings.items())})"


def _step(part: str, text: str, field: str) -> list[Spelled]:
    found = _STEP.fullmatch(part)
    if found is None:
        raise NoiseproofError(f"{field} is {text!r}: cannot read {part.strip()!r}; write name(setting=value, …) > name(…)")
    name, inside = found.groups()
    swept: list[list[tuple[str, Any]]] = []
    for pair in filter(str.strip, re.split("," + _OUTSIDE_QUOTES, inside or "")):
        key, equals, values = pair.partition("=")
        if not equals or not key.strip() or not values.strip():
            raise NoiseproofError(
                f"{field} is {text!r}: cannot read {pair.strip()!r} of {name}; write setting=value, or value|value to sweep"
            )
        if any(key.strip() == settings[0][0] for settings in swept):
            raise NoiseproofError(f"{field} is {text!r}: {name} has {key.strip()} twice; give it once, value|value to sweep")
        swept.append([(key.strip(), _value(value.strip())) for value in re.split(r"\|" + _OUTSIDE_QUOTES, values)])
    return [(name, dict(settings)) for settings in itertools.product(*swept)]


def _value(word: str) -> Any:
    """Return true, false and whole numbers as such, all else as text: the field's type says whether it is a number."""
    if word in ("true", "false"):
        return word == "true"
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    return word.strip('"')


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) and not re.fullmatch(r"[\w.*:-]+", value) else f"{value}"
