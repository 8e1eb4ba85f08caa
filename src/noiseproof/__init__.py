"""noiseproof: networks that keep working on noisy hardware, and the proof of it. This file is the table of public names.

Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noiseproof import attacks, certificates, data, evaluation, methods, networks, neurons, noise, report
    from noiseproof.config import Experiment
    from noiseproof.errors import NoiseproofError
    from noiseproof.evaluation import attack_curves, certify, evaluate, ladder, landscape, monte_carlo, robustness, tolerated_mismatch
    from noiseproof.fitting import fit
    from noiseproof.networks import adapt, convert
    from noiseproof.records import Record, RunFolder
    from noiseproof.training import train

_HOMES = {
    "Experiment": "config",
    "NoiseproofError": "errors",
    "Record": "records",
    "RunFolder": "records",
    "adapt": "networks",
    "attack_curves": "evaluation",
    "certify": "evaluation",
    "convert": "networks",
    "evaluate": "evaluation",
    "fit": "fitting",
    "ladder": "evaluation",
    "landscape": "evaluation",
    "monte_carlo": "evaluation",
    "robustness": "evaluation",
    "tolerated_mismatch": "evaluation",
    "train": "training",
}
_PACKAGES = ("attacks", "certificates", "data", "evaluation", "methods", "networks", "neurons", "noise", "report")

__all__ = [
    "Experiment",
    "NoiseproofError",
    "Record",
    "RunFolder",
    "adapt",
    "attack_curves",
    "attacks",
    "certificates",
    "certify",
    "convert",
    "data",
    "evaluate",
    "evaluation",
    "fit",
    "ladder",
    "landscape",
    "methods",
    "monte_carlo",
    "networks",
    "neurons",
    "noise",
    "report",
    "robustness",
    "tolerated_mismatch",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"noiseproof.{name}")
    if name == "__version__":
        return importlib.import_module("noiseproof.records").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'noiseproof' has no attribute {name!r}")
    return getattr(importlib.import_module(f"noiseproof.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
