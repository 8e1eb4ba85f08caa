"""Plain values, as TOML and the command line give them, as the types that the fields of a dataclass declare."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from noiseproof.errors import NoiseproofError, unknown
from noiseproof.numbers import number


def convert(kind: Any, value: Any, name: str) -> Any:
    """Return `value` of the field `name` as the type `kind`, without guessing: text is no number (but a fraction), true is no integer.

    Raises `NoiseproofError` for a value of another type.
    """
    wrong = NoiseproofError(f"{name} is {value!r}: give {_type_name(kind)}")
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in args:
            raise unknown(name, value, args) if isinstance(value, str) else wrong
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise wrong
        return tuple(convert(args[0], item, name) for item in value)
    if type(None) in args:
        return None if value is None else convert(next(a for a in args if a is not type(None)), value, name)
    if kind is float:
        if isinstance(value, str):
            try:
                return number(value)
            except ValueError:
                raise wrong from None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        raise wrong
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise wrong
    return value


def _type_name(kind: Any) -> str:
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list, each {_type_name(get_args(kind)[0])}"
    plain = [a for a in get_args(kind) if a is not type(None)]
    return names.get(kind) or _type_name(plain[-1])
