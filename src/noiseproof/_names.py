"""File name = command-line name: how `--method weight-adversary` finds `methods/weight_adversary.py`. There is no registry."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from noiseproof.errors import NoiseproofError, unknown


def available(package: str, attribute: str) -> list[str]:
    """Names of the files in `noiseproof/<package>` that end with `<attribute> = …`; reads their text, imports nothing."""
    folder = Path(__file__).parent / package
    ends = re.compile(rf"^{attribute} = ", re.MULTILINE)
    files = sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))
    return [p.stem.replace("_", "-") for p in files if ends.search(p.read_text(encoding="utf-8"))]


def find(package: str, attribute: str, name: str) -> Any:
    """Return what a name stands for: a file of ours, or `package.module:Name` for a class of the user's own.

    Raises `NoiseproofError` with the nearest known name.
    """
    if ":" in name:
        return _outside(attribute, name)
    if name not in available(package, attribute):
        raise unknown(attribute.replace("_set", ""), name, available(package, attribute))
    return getattr(importlib.import_module(f"noiseproof.{package}.{name.replace('-', '_')}"), attribute)


def name_of(package: str, cls: type) -> str:
    """Return the name under which `find` gives `cls` back."""
    prefix = f"noiseproof.{package}."
    if cls.__module__.startswith(prefix):
        return cls.__module__.removeprefix(prefix).replace("_", "-")
    return f"{cls.__module__}:{cls.__qualname__}"


def _outside(attribute: str, name: str) -> Any:
    module, _, qualname = name.partition(":")
    try:
        return getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError) as error:
        raise NoiseproofError(f"{attribute} is {name!r}: cannot import it ({error}); give package.module:ClassName") from None
