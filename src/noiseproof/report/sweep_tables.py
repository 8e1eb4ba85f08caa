"""Heat maps of methods that differ in two numbers of their training."""

from __future__ import annotations

from collections.abc import Sequence

from noiseproof.report.numbers import level, mean, percent
from noiseproof.report.quantities import training_quantity
from noiseproof.report.reading import Method
from noiseproof.report.studies import Noise
from noiseproof.report.sweeps import Plane
from noiseproof.report.tables import EMPTY, Cell, Column, Table, chips_cell, shaded


def plane_table(plane: Plane, noise: Noise, at: float) -> Table | None:
    """Return accuracy on chips at one level of a noise, by the two settings; None where nothing was measured."""
    every = [mean(values) for method in plane.methods if (values := noise.values(method, at))]
    if not every:
        return None

    def cell(row: float, column: float) -> Cell:
        method = plane.cells.get((row, column))
        return EMPTY if method is None else shaded(chips_cell(noise, method, at), every)

    rows_and_columns = (
        f"{training_quantity(plane.row).symbol}\N{NO-BREAK SPACE}↓",
        f"{training_quantity(plane.column).symbol}\N{NO-BREAK SPACE}→",
    )
    columns = (Column(*rows_and_columns, numeric=False), *(Column(level(column)) for column in plane.columns))
    rows = tuple((Cell(level(row)), *(cell(row, column) for column in plane.columns)) for row in plane.rows)
    return Table(f"{noise.family.place(at)}", columns, rows)


def plane_text(noise: Noise, others: Sequence[Method]) -> tuple[str, ...]:
    """Return how the fields are read, and what the other methods reach."""
    text = (
        "Fields: mean ± one standard deviation over all chips in %, beneath it the worst chip; the stronger the shade, the higher the "
        "mean, on a scale of its own for each level."
    )
    at = noise.headline
    beside = [f"{m.label} {percent(mean(noise.values(m, at)))} %" for m in others if noise.values(m, at)]
    return (text, f"For comparison at {noise.family.place(at)}: {', '.join(beside)}.") if beside else (text,)
