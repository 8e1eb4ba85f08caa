"""Which records belong together: the same perturbation at several levels, the same network, the largest number of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noiseproof.records import Record
from noiseproof.report.numbers import phrases
from noiseproof.report.quantities import LEVELS, level_text, parts, quantity, rank, strongest
from noiseproof.report.reading import Method

ByMethod = dict[int, list[list[Record]]]  # by the method's index: one list of records per network
Settings = tuple[tuple[str, str], ...]
Curve = tuple[tuple[float, float], ...]
_ABBREVIATIONS = {"pcm": "PCM"}
_FEW = 1  # settings in words that a title has room for


@dataclass(frozen=True)
class Family:
    """All of a perturbation but its level: one chart shows one family."""

    name: str
    setting: str  # what is swept
    rest: Settings
    shown: Settings = field(default=(), compare=False)  # what of the rest tells it from its neighbours

    @property
    def symbol(self) -> str:
        return quantity(self.setting).symbol if self.setting else ""

    @property
    def words(self) -> str:
        """In a sentence: "mismatch", "quantisation → mismatch"."""
        return noise_words(self.name)

    @property
    def title(self) -> str:
        """As a heading: "Mismatch, all parameters"."""
        return ", ".join([self.words[:1].upper() + self.words[1:], *filter(None, [phrases(self.shown)])])

    @property
    def hidden(self) -> Settings:
        """What the title leaves out."""
        return tuple(pair for pair in self.rest if pair not in self.shown)

    def reached(self, level: float, digits: int) -> str:
        """The largest level that is tolerated: "ζ = 0.123", "t = 30 d", and in words where none is, −∞."""
        if level == -math.inf:
            return "none"
        return f"{self.symbol} = {level:.{digits}f}" if self.setting == "zeta" else self.at(level)

    @property
    def axis(self) -> str:
        """At an axis: "mismatch ζ (one standard deviation, relative)"; of a composition the step that has the setting is named."""
        steps, step = self.name.split(" > "), parts(self.setting)[1]
        owner = noise_words(steps[int(step) - 1 if step else -1])
        return quantity(self.setting).axis.replace("{}", owner) if self.setting else self.words

    def at(self, level: float) -> str:
        """One level, as at the head of a column: "ζ = 0.3", "t = 1 h"."""
        return level_text(self.setting, level)

    def place(self, level: float) -> str:
        """One level in a sentence: "mismatch ζ = 0.3", "quantisation → mismatch ζ = 0.3 (8 bits)"."""
        telling = phrases(pair for pair in self.shown if parts(pair[0])[0] != "parameters")
        where = " ".join(filter(None, [self.words, self.at(level) if self.setting else ""]))
        return f"{where} ({telling})" if telling else where


def noise_words(name: str) -> str:
    """The name of a noise in a sentence; one composed of several, in their order."""
    return " → ".join(_ABBREVIATIONS.get(step, step.replace("-", " ")) for step in name.split(" > "))


class Families:
    """Which of many perturbations are one noise at several levels: what really varies among them is the level.

    Where several settings of one noise vary, the one that says how strong it is counts, and each value of the others makes a
    family of its own; two that vary and are more than one sweep written twice make a grid (`axes` has both, the level first).
    """

    def __init__(self, perturbations: Iterable[Mapping[str, Any]]) -> None:
        self._kinds: dict[Any, list[Mapping[str, Any]]] = {}
        for perturbation in perturbations:
            self._kinds.setdefault(_kind(perturbation), []).append(perturbation)
        self._axes = {kind: _varying(members) for kind, members in self._kinds.items()}
        self._shown: dict[str, set[str]] = {}
        for kind, members in self._kinds.items():
            self._shown.setdefault(kind[0], set()).update(_telling(members, self._axes[kind], [k for k in self._kinds if k[0] == kind[0]]))

    def axes(self, perturbation: Mapping[str, Any]) -> tuple[str, ...]:
        """Return what varies, the level first; for a perturbation at one level only, what says how strong it is."""
        return self._axes[_kind(perturbation)][0]

    def of(self, perturbation: Mapping[str, Any]) -> Family:
        axes, twins = self._axes[_kind(perturbation)]
        by = axes[0] if axes else ""
        rest = tuple((k, v) for k, v in settings_of(perturbation) if k not in ("name", by, *twins))
        telling = self._shown[name_in(perturbation)]
        words = [k for k, _ in rest if k not in _numbers(perturbation) and k not in telling]
        shown = tuple((k, v) for k, v in rest if k in telling or (len(words) <= _FEW and k in words))
        return Family(name_in(perturbation), by, rest, shown)

    def level(self, perturbation: Mapping[str, Any]) -> float:
        """Return the value of what varies, without the last digits of a sum of steps."""
        axes = self.axes(perturbation)
        return round(float(perturbation[axes[0]]), 12) if axes else 0.0


def _kind(perturbation: Mapping[str, Any]) -> tuple[str, tuple[str, ...], Settings]:
    numbers = _numbers(perturbation)
    texts = tuple((k, v) for k, v in settings_of(perturbation) if k not in numbers)
    return name_in(perturbation), tuple(sorted(numbers)), texts


def _numbers(perturbation: Mapping[str, Any]) -> list[str]:
    return [k for k, v in perturbation.items() if isinstance(v, int | float) and not isinstance(v, bool)]


def _varying(members: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the settings that are swept, the strongest first, and those that only follow the first one value by value."""
    numbers = _numbers(members[0])
    varying = sorted((k for k in numbers if len({m[k] for m in members}) > 1), key=rank)
    if not varying:
        first = strongest(k for k in numbers if parts(k)[0] in LEVELS) or next(iter(numbers), "")
        return ((first,) if first else ()), ()
    first = varying[0]
    levels = len({m[first] for m in members})
    twins = tuple(k for k in varying[1:] if len({m[k] for m in members}) == levels == len({(m[first], m[k]) for m in members}))
    return tuple(k for k in varying if k not in twins), twins


def _telling(members: Sequence[Mapping[str, Any]], varying: tuple[tuple[str, ...], tuple[str, ...]], namesakes: Sequence[Any]) -> set[str]:
    """Return the settings that tell families of one name apart, and which parameters they change."""
    axes, _ = varying
    texts = [dict(texts) for _, _, texts in namesakes]
    differ = {k for k in set().union(*texts) if len({t.get(k) for t in texts}) > 1}
    return differ | set(axes[1:]) | {k for k in members[0] if parts(k)[0] == "parameters"}


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
    return name_in(record.perturbation)


def name_in(perturbation: Mapping[str, Any]) -> str:
    return str(perturbation.get("name", ""))


def objective_of(record: Record) -> str:
    return str(record.perturbation.get("objective", ""))


def settings_of(perturbation: Mapping[str, Any]) -> Settings:
    return tuple((key, str(value)) for key, value in sorted(perturbation.items()))


def level_of(perturbation: Mapping[str, Any]) -> float:
    """Return how strong an attack is, without the last digits of a sum of steps."""
    by = strongest(k for k in _numbers(perturbation) if k in LEVELS)
    return round(float(perturbation.get(by, 0.0)), 12)


def searched_family(perturbation: Mapping[str, Any], setting: str) -> Family:
    """Return the family of a noise whose level, `setting`, was searched for, and is not among its settings."""
    rest = tuple((k, v) for k, v in settings_of(perturbation) if k != "name")
    return Family(name_in(perturbation), setting, rest, tuple((k, v) for k, v in rest if parts(k)[0] in (*LEVELS, "parameters")))


def set_of(perturbation: Mapping[str, Any]) -> Settings:
    """Return which set an attack searches, without its size."""
    matter = ["norm", "parameters"]
    matter += ["l2_radius"] if str(perturbation.get("norm", "")).startswith("l2") else []
    matter += ["zeta_const"] if perturbation.get("zeta_const") else []
    return tuple((key, str(perturbation[key])) for key in matter if key in perturbation)


def chip_order(record: Record) -> tuple[int, int]:
    return (record.seed or 0, record.chip or 0)
