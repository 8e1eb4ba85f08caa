"""The settings of a dataclass in the types that its fields declare: 1 and 1.0 are one learning rate, and one noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any, get_args, get_origin, get_type_hints


def declared(value: Any) -> Iterator[tuple[Field[Any], Any]]:
    """Yield the fields of a dataclass with their values in the type of the field.

    Example:
        >>> from noiseproof.noise import Mismatch
        >>> [item for field, item in declared(Mismatch(zeta=1)) if field.name == "zeta"]
        [1.0]
    """
    hints = get_type_hints(type(value))
    for part in fields(value):
        yield part, _as_declared(hints[part.name], getattr(value, part.name))


def _as_declared(kind: Any, item: Any) -> Any:
    """Return whole numbers as float where the field is a float, a list as a tuple where it is one; all else as it is."""
    if kind is float and type(item) is int:
        return float(item)
    if get_origin(kind) is tuple and isinstance(item, list | tuple):
        return tuple(_as_declared(get_args(kind)[0], one) for one in item)
    return item
