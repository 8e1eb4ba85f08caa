"""The words of a command line → dataclasses whose fields are its flags; a wrong word is an error of one line."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import field, make_dataclass
from typing import Annotated, Any

from noiseproof.errors import NoiseproofError


def parse(words: list[str], verb: str, about: str, *parts: Any) -> Any:
    """Return `parts` (dataclasses) with the values that the words give their fields; a wrong word is an error of one line."""
    import tyro

    from noiseproof.numbers import number

    flat = [(f"part{i}", Annotated[type(part), tyro.conf.arg(name="")], part) for i, part in enumerate(parts)]
    kind = make_dataclass("Flags", [(name, annotation, field(default=part)) for name, annotation, part in flat])
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def fractions(info: Any) -> Any:
        if info.type is not float:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="NUMBER",
            instance_from_str=lambda words: number(words[0]),
            is_instance=lambda value: isinstance(value, float),
            str_from_instance=lambda value: [f"{value:g}"],
        )

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            flags = tyro.cli(kind, args=words, prog=f"noiseproof {verb}", description=about, registry=registry)
            return tuple(getattr(flags, name) for name, _, _ in flat)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise NoiseproofError(_one_line(said.getvalue())) from None


def _one_line(box: str) -> str:
    """Return the text of tyro's box without its frame and its pointers to the help."""
    lines = [line.strip("│╭╮╰╯─ ") for line in box.splitlines()]
    text = " ".join(line for line in lines if line and not line.startswith(("For full helptext", "Argument helptext")))
    text = re.sub(r"^(Unrecognized options|Invalid choice|Value error|Parsing error|Missing options?|Required options)\s+", "", text)
    text = re.sub(r"^Error parsing (\S+): ", r"\1: ", text)
    return re.sub(r"^part\d\.?\S*: ", "", text)


def take_option(words: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` or `flag=VALUE` from the words and return the value."""
    for i, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return words.pop(i).partition("=")[2]
        if word == flag:
            if i + 1 == len(words) or words[i + 1].startswith("--"):
                raise NoiseproofError(f"{flag} is without a name")
            del words[i]
            return words.pop(i)
    return None


def take_positionals(words: list[str]) -> list[str]:
    """Remove the words before the first flag and return them."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    taken, words[:count] = words[:count], []
    return taken


def take_positional(words: list[str]) -> str | None:
    taken = take_positionals(words)
    if len(taken) > 1:
        raise NoiseproofError(f"{taken[1]!r} is not expected: one name or folder comes before the flags")
    return taken[0] if taken else None
