"""The slope of the loss landscape, as a table."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from noiseproof.report.numbers import mean
from noiseproof.report.reading import Method
from noiseproof.report.studies import Landscape
from noiseproof.report.tables import EMPTY, Cell, Column, Table


def slope_table(landscape: Landscape, methods: Sequence[Method]) -> Table:
    """Return the slope of the landscape per method: mean |ΔL|/Δα over neighbouring points, directions and networks (paper A, Table S1)."""
    columns = (Column("Method", numeric=False), Column("Slope", "nats per α"), Column("Loss at α = 0", "nats"), Column("Directions"))
    rows = []
    for method in methods:
        curves = [curve for curve in landscape.curves.get(method.index, ()) if len(curve) > 1]
        if not curves:
            continue
        slope = mean([slope_of(curve) for curve in curves])
        centres = [loss for curve in curves for alpha, loss in curve if abs(alpha) < 1e-12]
        centre = Cell(f"{mean(centres):.4f}", value=mean(centres)) if centres else EMPTY
        rows.append((Cell(method.label), Cell(f"{slope:.4f}", value=slope), centre, Cell(str(len(curves)), value=len(curves))))
    return Table("Slope of the loss landscape" + (f" ({landscape.about})" if landscape.about else ""), columns, tuple(rows))


def slope_of(curve: Sequence[tuple[float, float]]) -> float:
    """Return the mean of |ΔL|/Δα between neighbouring points of one curve."""
    steps = itertools.pairwise(curve)
    return mean([abs(after - before) / (right - left) for (left, before), (right, after) in steps])
