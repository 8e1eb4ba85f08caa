"""CSV files of measured parameters: kind, nominal value, measured value, a row a device. Imports no torch."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from noiseproof.errors import NoiseproofError

COLUMNS = ("kind", "nominal", "measured")


def read_points(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return nominal and measured values by kind.

    Raises `NoiseproofError` for a file that cannot be read, columns that are missing, and what is no number, with its line.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            places = _places(path, next(rows, []))
            points: dict[str, tuple[list[float], list[float]]] = {}
            for row in rows:
                if any(cell.strip() for cell in row):
                    kind, x, y = _row(path, rows.line_num, row, places)
                    points.setdefault(kind, ([], []))[0].append(x)
                    points[kind][1].append(y)
    except OSError as error:
        raise NoiseproofError(f"cannot read {path}: {error.strerror}; give a CSV file with the columns {', '.join(COLUMNS)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise NoiseproofError(f"{path} is no CSV file in UTF-8: {error}") from None
    if not points:
        raise NoiseproofError(f"{path} has no rows: give one row a device below the line {','.join(COLUMNS)}")
    return points


def _places(path: Path, header: list[str]) -> tuple[int, int, int]:
    names = [name.strip().lower() for name in header]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise NoiseproofError(
            f"{path} has no column {' and no column '.join(missing)}: its first line is {','.join(header)!r}, give {','.join(COLUMNS)}"
        )
    kind, nominal, measured = (names.index(name) for name in COLUMNS)
    return kind, nominal, measured


def _row(path: Path, line: int, row: list[str], places: tuple[int, int, int]) -> tuple[str, float, float]:
    if len(row) <= max(places):
        raise NoiseproofError(f"{path} line {line} has {len(row)} columns: give {', '.join(COLUMNS)} in each row")
    kind = row[places[0]].strip()
    if not kind or any(sign in ";:,='\"" or sign.isspace() for sign in kind):
        raise NoiseproofError(f"{path} line {line}: kind is {kind!r}; give one word without ; : , = and quotes, such as weight")
    values = []
    for name, place in zip(COLUMNS[1:], places[1:], strict=True):
        try:
            values.append(float(row[place]))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise NoiseproofError(f"{path} line {line}: {name} is {row[place].strip()!r}; give a finite number")
    return kind, values[0], values[1]
