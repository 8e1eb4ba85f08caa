"""The page: chapters, tables and provenance filled into `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from noiseproof.records import VERSION
from noiseproof.report.device_chips import Asked
from noiseproof.report.findings import findings, what_was_measured
from noiseproof.report.input_attack_checks import alerts, doubts
from noiseproof.report.numbers import count, unbroken
from noiseproof.report.provenance import origins
from noiseproof.report.reading import Method, Run, read, tasks
from noiseproof.report.sections import Section, sections
from noiseproof.report.studies import tolerated
from noiseproof.report.svg import style
from noiseproof.report.tables import Table, notes, summary_table


@dataclass(frozen=True)
class Chapter:
    """All about one task; in a report on one task it has no title and no sentences of its own."""

    anchor: str
    title: str
    findings: tuple[str, ...]
    summary: Table
    notes: tuple[str, ...]
    sections: tuple[Section, ...]


def render(runs: Sequence[Run], title: str, asked: Asked) -> str:
    """Return the whole report as HTML; everything that a user wrote is escaped."""
    methods, required = read(runs), asked.required
    found = tasks(methods)
    measured = any(network.records for method in methods for network in method.networks)
    sentences = [what_was_measured(methods)] if measured else [_nothing(methods)]
    if measured and len(found) == 1:
        sentences += findings(methods, _required(methods) if required is None else required)
    chapters, shared = _chapters(found, asked) if measured else ([], [])
    return fill(
        title=title,
        alerts=alerts(methods),
        findings=[unbroken(sentence) for sentence in sentences],
        chapters=chapters,
        shared=shared,
        origins=origins(methods),
        several=len(found) > 1,
        swatches={method.label: style(method.look).swatch for method in methods},
    )


def fill(**values: Any) -> str:
    """Return the page with these values; everything that is not markup already is escaped."""
    environment = Environment(
        loader=PackageLoader("noiseproof.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = unbroken
    return environment.get_template("report.html").render(version=VERSION, **values)


def _chapters(found: Sequence[tuple[str, Sequence[Method]]], asked: Asked) -> tuple[list[Chapter], list[str]]:
    """Return one chapter per task, and the notes that all of several tasks have in common."""
    chapters = [_chapter(place, data, members, asked, several=len(found) > 1) for place, (data, members) in enumerate(found)]
    if len(chapters) < 2:
        return chapters, []
    shared = [note for note in chapters[0].notes if all(note in chapter.notes for chapter in chapters)]
    return [replace(chapter, notes=tuple(n for n in chapter.notes if n not in shared)) for chapter in chapters], shared


def _chapter(place: int, data: str, methods: Sequence[Method], asked: Asked, several: bool) -> Chapter:
    asked = replace(asked, required=_required(methods)) if asked.required is None else asked
    required = asked.required
    prefix = f"task-{place}-" if several else ""
    sentences = findings(methods, required) if several else []
    return Chapter(
        f"task-{place}",
        (data or "unnamed data") if several else "",
        tuple(unbroken(sentence) for sentence in sentences),
        summary_table(methods, required),
        (*notes(methods), *doubts(methods)),
        sections(methods, asked, prefix),
    )


def _required(methods: Sequence[Method]) -> float | None:
    """Return the accuracy that the inverse question was asked for, if it was asked for one only."""
    asked = {accuracy for _, accuracy, _ in tolerated(methods)}
    return asked.pop() if len(asked) == 1 else None


def _nothing(methods: Sequence[Method]) -> str:
    if not methods:
        return "No runs were given, so there is nothing to report. Name the folders of trained runs: noiseproof report RUN …"
    networks = sum(len(method.networks) for method in methods)
    return (
        f"Nothing was measured yet on {count(networks, 'network')}: there are no records. "
        "Measure with noiseproof evaluate RUN, then make the report again."
    )
