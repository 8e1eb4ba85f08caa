"""Which records belong together: the same perturbation at several levels, the same network, the largest number of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noiseproof.records import Record
from noiseproof.report.numbers import SYMBOLS, phrases
from noiseproof.report.reading import Method

ByMethod = dict[int, list[list[Record]]]  # by the method's index: one list of records per network
Settings = tuple[tuple[str, str], ...]
Curve = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Family:
    """All of a perturbation but its level: one chart shows one family."""

    name: str
    setting: str  # what is swept
    rest: Settings

    @property
    def symbol(self) -> str:
        return SYMBOLS.get(self.setting, self.setting)

    @property
    def title(self) -> str:
        """As a heading: "Mismatch, all parameters"."""
        return ", ".join([self.name.replace("-", " ").capitalize(), *filter(None, [phrases(self.rest)])])


def collect(methods: Sequence[Method], belongs: Callable[[Record], bool], key: Callable[[Record], Any]) -> dict[Any, ByMethod]:
    """Sort the records that belong by key, then method, then network; of one thing measured with several n the largest n counts."""
    found: dict[Any, ByMethod] = {}
    for method in methods:
        for network in method.networks:
            mine: dict[Any, list[Record]] = {}
            for record in filter(belongs, network.records):
                mine.setdefault(key(record), []).append(record)
            for k, records in mine.items():
                found.setdefault(k, {}).setdefault(method.index, []).append(largest(records))
    return found


def largest(records: list[Record]) -> list[Record]:
    """Return the records with the most samples behind them."""
    most = max((r.n for r in records), default=0)
    return [r for r in records if r.n == most]


def samples(groups: Iterable[ByMethod]) -> tuple[int, ...]:
    """Return how many samples stand behind the numbers, each count once."""
    return tuple(sorted({r.n for by_method in groups for networks in by_method.values() for records in networks for r in records}))


def curves_along(records: list[Record], axis: str) -> list[Curve]:
    """Return one curve per direction (all restarts of an attack make one curve), sorted along `axis`."""
    curves: dict[Any, dict[float, float]] = {}
    for r in records:
        others = tuple(sorted((k, v) for k, v in r.at.items() if k not in (axis, "restart")))
        points = curves.setdefault((r.seed if axis == "alpha" else None, others), {})
        # of several restarts at one place of the axis the worst is the attack's result
        worst = min if r.metric.endswith("accuracy") else max
        points[r.at[axis]] = worst(r.value, points.get(r.at[axis], r.value))
    return [tuple(sorted(points.items())) for points in curves.values()]


def name_of(record: Record) -> str:
    return str(record.perturbation.get("name", ""))


def objective_of(record: Record) -> str:
    return str(record.perturbation.get("objective", ""))


def settings_of(perturbation: Mapping[str, Any]) -> Settings:
    return tuple((key, str(value)) for key, value in sorted(perturbation.items()))


def swept(perturbation: Mapping[str, Any]) -> str:
    """Return which setting is swept: one that says how strong the perturbation is, else the first number."""
    numbers = [k for k, v in perturbation.items() if isinstance(v, int | float) and not isinstance(v, bool)]
    return next((k for k in SYMBOLS if k in numbers), numbers[0] if numbers else "")


def level_of(perturbation: Mapping[str, Any]) -> float:
    """Return the level: the value of the setting that is swept, without the last digits of a sum of steps."""
    return round(float(perturbation.get(swept(perturbation), 0.0)), 12)


def family_of(perturbation: Mapping[str, Any], level: bool = True) -> Family:
    """Return all but the level; with `level` False it was searched for, and is not among the settings."""
    by = swept(perturbation) if level else ""
    rest = tuple((k, v) for k, v in settings_of(perturbation) if k not in ("name", by) and (level or k not in SYMBOLS))
    return Family(str(perturbation.get("name", "")), by, rest)


def set_of(perturbation: Mapping[str, Any]) -> Settings:
    """Return which set an attack searches, without its size."""
    matter = ["norm", "parameters"]
    matter += ["l2_radius"] if str(perturbation.get("norm", "")).startswith("l2") else []
    matter += ["zeta_const"] if perturbation.get("zeta_const") else []
    return tuple((key, str(perturbation[key])) for key in matter if key in perturbation)


def chip_order(record: Record) -> tuple[int, int]:
    return (record.seed or 0, record.chip or 0)
