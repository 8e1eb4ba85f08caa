"""The page: chapters, tables and provenance filled into `report.html`."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from noiseproof.records import VERSION
from noiseproof.report.findings import findings
from noiseproof.report.numbers import count, unbroken
from noiseproof.report.provenance import origins
from noiseproof.report.reading import Method, Run, read
from noiseproof.report.sections import sections
from noiseproof.report.studies import tolerated
from noiseproof.report.svg import style
from noiseproof.report.tables import notes, summary_table


def render(runs: Sequence[Run], title: str, required: float | None) -> str:
    """Return the whole report as HTML; everything that a user wrote is escaped."""
    methods = read(runs)
    required = _required(methods) if required is None else required
    measured = any(network.records for method in methods for network in method.networks)
    environment = Environment(
        loader=PackageLoader("noiseproof.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        title=title,
        version=VERSION,
        findings=[unbroken(sentence) for sentence in (findings(methods, required) if measured else [_nothing(methods)])],
        summary=summary_table(methods, required) if measured else None,
        notes=notes(methods) if measured else [],
        sections=sections(methods, required) if measured else (),
        origins=origins(methods),
        swatches={method.label: style(method.index).swatch for method in methods},
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
