"""The one error that users meet: a single line that names the field, the value and the remedy."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator


class NoiseproofError(ValueError):
    """Something the user gave or has cannot be used; the message says what, why and what would be right.

    On the command line it becomes one line on standard error and exit code 2.
    """


class NoGradientError(NoiseproofError):
    """An attack by gradients got none from the network: it says nothing about it, which is not the same as robust."""


class UnfitError(NoiseproofError):
    """An attack needs what this network has not: spiking neurons for a surrogate, enough classes for a loss."""


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Let an error that comes up inside say what it is about, where several are worked on."""
    try:
        yield
    except NoiseproofError as error:
        if str(what) in str(error):
            raise
        raise NoiseproofError(f"{what}: {error}") from error


def require(condition: bool, field: str, value: object, remedy: str) -> None:
    """Raise `NoiseproofError` ("field is value: remedy") unless `condition` holds."""
    if not condition:
        raise NoiseproofError(f"{field} is {value!r}: {remedy}")


def require_number(field: str, value: object, low: float, high: float = math.inf, *, open_low: bool = False, whole: bool = False) -> None:
    """Raise `NoiseproofError` unless `value` is a finite number in [low, high], or in (low, high] with `open_low`; an int if `whole`."""
    remedy = f"give a {'whole ' if whole else ''}number {'above' if open_low else 'of at least'} {low:g}"
    remedy += f" and at most {high:g}" if math.isfinite(high) else ""
    if isinstance(value, int if whole else int | float) and not isinstance(value, bool):
        # NaN fails every comparison, so it is refused here too
        inside = math.isfinite(value) and low <= value <= high and not (open_low and value == low)
    else:
        inside = False
    require(inside, field, value, remedy)


def unknown(field: str, value: str, choices: Iterable[str]) -> NoiseproofError:
    """Return the error for a name that does not exist, with the nearest name that does."""
    names = sorted(choices)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return NoiseproofError(f"{field} is {value!r}: {hint}known: {', '.join(names)}")
