"""Whether a pass of a network counts: one that only searches is not seen by what watches training (the penalty on firing rates)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_aside: ContextVar[bool] = ContextVar("passes are made aside", default=False)


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """Let no pass count while this is open."""
    token = _aside.set(True)
    try:
        yield
    finally:
        _aside.reset(token)


def observed() -> bool:
    """Return whether passes count."""
    return not _aside.get()
