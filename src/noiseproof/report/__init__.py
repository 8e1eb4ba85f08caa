"""Records → one self-contained HTML file, and the summary table as plain data. Imports neither torch nor methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from noiseproof.errors import NoiseproofError
from noiseproof.files import write_text
from noiseproof.report.input_attack_checks import alerts
from noiseproof.report.reading import Run, read, tasks
from noiseproof.report.studies import grids, noises
from noiseproof.report.tables import Cell, Column, Table, grid_table, joined, noise_table, summary_table

__all__ = ["Cell", "Column", "Run", "Table", "noise_tables", "summarise", "warnings", "write"]

TITLE = "How the networks do on noisy hardware"


def summarise(runs: Sequence[Run], required: float | None = None) -> Table:
    """Return the summary table of `runs` (run folders or evaluations): one row per method, and per data set where there are several.

    A cell has its text, a small second line, and the number to sort by. With `required` (an accuracy in [0, 1]) there is
    the yield too. Raises `NoiseproofError` for a folder that is no run, damaged records, or `required` outside [0, 1].
    """
    _check(required)
    found = tasks(read(runs))
    if len(found) < 2:
        return summary_table(found[0][1] if found else (), required)
    return joined([(data, summary_table(methods, required)) for data, methods in found])


def noise_tables(runs: Sequence[Run]) -> list[Table]:
    """Return one table for every kind of noise that was measured, every choice of parameters and every data set: mean ± std on chips.

    Raises `NoiseproofError` as `summarise` does.
    """
    found = tasks(read(runs))
    made = []
    for data, methods in found:
        mine = [noise_table(noise, methods) for noise in noises(methods)] + [grid_table(grid, methods) for grid in grids(methods)]
        made += [replace(table, caption=f"{data}: {table.caption}") for table in mine] if len(found) > 1 else mine
    return made


def warnings(runs: Sequence[Run]) -> list[str]:
    """Return what stands in the banner of the report, one line per method and ε: which accuracy under attack may be wrong, and why.

    Empty where no check fails. Raises `NoiseproofError` as `summarise` does.
    """
    return [f"{alert.text}: {' '.join(alert.reasons)}" for alert in alerts(read(runs))]


def write(
    runs: Sequence[Run],
    path: Path,
    *,
    title: str = TITLE,
    required: float | None = None,
    confidence: float = 0.95,
    failure_rate: float = 0.001,
) -> None:
    """Write the report of `runs` to `path`: one HTML file that opens offline. The same records give the same file.

    With `required` (an accuracy in [0, 1]) the yield at that accuracy is drawn against the noise; without it, the
    accuracy of a `tolerated_zeta` record serves, if there is one. `confidence` and `failure_rate` are those of the statements about all
    chips, beside certified boxes; all other intervals are at 95 %.

    Raises `NoiseproofError` as `summarise` does, and where `path` cannot be written; an old report is then untouched.
    """
    from noiseproof.report.device_chips import Asked
    from noiseproof.report.page import render

    write_text(Path(path), render(runs, title, Asked(required, confidence, failure_rate)))


def _check(required: float | None) -> None:
    if required is not None and not 0 <= required <= 1:
        raise NoiseproofError(f"required accuracy is {required}: give a fraction in [0, 1], 0.85 for 85 %")
