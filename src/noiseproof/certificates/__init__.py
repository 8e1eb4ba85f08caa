"""What no chip within given bounds can do, proved; and what at most one chip in a thousand will, from those that were simulated.

Nothing is imported before it is used: the statements about devices need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noiseproof.certificates import devices
    from noiseproof.certificates._box import Box
    from noiseproof.certificates._interval import Interval
    from noiseproof.certificates.certify import BOUNDS, bounds, certified, margins
    from noiseproof.certificates.devices import (
        BoxStatement,
        Statement,
        chips_needed,
        combined,
        coverage,
        failure_rate_bound,
        half_width_for,
        mean_accuracy_bound,
        mismatch_covered,
        simultaneous,
        state,
        yield_bound,
    )

_HOMES = {
    "BOUNDS": "certify",
    "Box": "_box",
    "BoxStatement": "devices",
    "Interval": "_interval",
    "Statement": "devices",
    "bounds": "certify",
    "certified": "certify",
    "chips_needed": "devices",
    "combined": "devices",
    "coverage": "devices",
    "failure_rate_bound": "devices",
    "half_width_for": "devices",
    "margins": "certify",
    "mean_accuracy_bound": "devices",
    "mismatch_covered": "devices",
    "simultaneous": "devices",
    "state": "devices",
    "yield_bound": "devices",
}

__all__ = [
    "BOUNDS",
    "Box",
    "BoxStatement",
    "Interval",
    "Statement",
    "bounds",
    "certified",
    "chips_needed",
    "combined",
    "coverage",
    "devices",
    "failure_rate_bound",
    "half_width_for",
    "margins",
    "mean_accuracy_bound",
    "mismatch_covered",
    "simultaneous",
    "state",
    "yield_bound",
]


def __getattr__(name: str) -> Any:
    if name == "devices":
        return importlib.import_module("noiseproof.certificates.devices")
    if name not in _HOMES:
        raise AttributeError(f"module 'noiseproof.certificates' has no attribute {name!r}")
    return getattr(importlib.import_module(f"noiseproof.certificates.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
