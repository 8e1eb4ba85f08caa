"""Certified boxes: which records belong together, and what stands on every rung of the ladder from proof to clean accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from noiseproof.numbers import eps_text
from noiseproof.records import Record
from noiseproof.report.numbers import count, mean, phrase
from noiseproof.report.reading import Method, Network
from noiseproof.report.selecting import Settings, largest, name_of
from noiseproof.statistics import clopper_pearson

# The rungs above the certificates, in their order: what every attack leaves, from the strongest to none
ATTACKS = {"per-sample": "attack per sample", "shared": "shared attack", "random": "random points", "none": "clean"}
_METRICS = ("certified", "survived", "seconds_certifying", "box_parameters")
_PLAIN = "intervals"
_USUAL = "float32"  # the arithmetic that networks are run in


@dataclass(frozen=True)
class Ladder:
    """What was found for one network in one box, all as fractions of the same samples."""

    samples: int
    survived: Mapping[str, float]  # by attack; of several settings of one attack the fewest
    certified: Mapping[str, float]  # by bound
    seconds: Mapping[str, float]  # by bound, for all samples
    parameters: int | None  # that move and are not zero; None where nobody counted

    @property
    def best(self) -> tuple[str, float] | None:
        """The bound that proves most, of equals the one named first; None where nothing was bounded. A bound in another arithmetic
        than that of the network counts only where there is no other."""
        usual = {name: value for name, value in self.certified.items() if "," not in name} or self.certified
        return max(usual.items(), key=lambda item: item[1], default=None)

    @property
    def arithmetic(self) -> str:
        """In words, where the best bound is not for single precision: "exact arithmetic"; else nothing."""
        return self.best[0].partition(", ")[2] if self.best else ""

    @property
    def attacked(self) -> float | None:
        """What the strongest attack leaves; None where there was none."""
        return min((value for name, value in self.survived.items() if name != "none"), default=None)

    @property
    def gap(self) -> float | None:
        """The fraction that is open: neither proved nor broken."""
        return None if self.attacked is None or self.best is None else self.attacked - self.best[1]

    @property
    def broken(self) -> bool:
        """Whether an attack breaks what was proved: then a bound is wrong."""
        return self.gap is not None and self.gap < -0.5 / self.samples


@dataclass(frozen=True)
class Boxes:
    """All boxes of one shape that were measured on the same number of test samples, from the narrowest to the widest."""

    shape: Settings  # which parameters move, and how far inputs do
    samples: int
    alone: bool  # whether all boxes of this shape were measured on so many
    ladders: Mapping[tuple[int, float], tuple[Ladder, ...]]  # by (method's index, z), one per network

    @property
    def title(self) -> str:
        """As in "weights only, inputs within ε = 8/255"; with the number of samples where it varies."""
        settings = dict(self.shape)
        eps = float(settings.get("eps", "0"))
        parts = [phrase("parameters", settings["parameters"]), f"inputs within ε = {eps_text(eps)}" if eps else ""]
        return ", ".join(filter(None, [*parts, "" if self.alone else count(self.samples, "test sample")]))

    @property
    def parameters(self) -> str:
        return dict(self.shape)["parameters"]

    @property
    def levels(self) -> tuple[float, ...]:
        return tuple(sorted({z for _, z in self.ladders}))

    @property
    def headline(self) -> float:
        """The half-width that is spoken about: the middle one of those measured, so that nobody picks it."""
        widths = [z for z in self.levels if z > 0] or self.levels
        return widths[(len(widths) - 1) // 2]

    @property
    def bounds(self) -> tuple[str, ...]:
        """All bounds, the plainest first."""
        names = dict.fromkeys(name for ladders in self.ladders.values() for ladder in ladders for name in ladder.certified)
        return tuple(sorted(names, key=lambda name: (not name.startswith(_PLAIN), name)))

    def of(self, method: Method, z: float) -> tuple[Ladder, ...]:
        return self.ladders.get((method.index, z), ())


def certified(ladders: Sequence[Ladder], bound: str = "") -> float | None:
    """Return the mean over networks of what `bound` certifies, or the best bound of each; None where one of them lacks it."""
    values = [ladder.certified.get(bound) if bound else ladder.best[1] if ladder.best else None for ladder in ladders]
    return _mean(values)


def survived(ladders: Sequence[Ladder], attack: str = "") -> float | None:
    """Return the mean over networks of what `attack` leaves, or the strongest attack on each; None where one of them lacks it."""
    return _mean([ladder.survived.get(attack) if attack else ladder.attacked for ladder in ladders])


def interval(ladders: Sequence[Ladder], fraction: float) -> tuple[float, float]:
    """Return the 95 % interval of a mean fraction over samples: the networks saw the same ones, so that these count once."""
    samples = ladders[0].samples
    return clopper_pearson(round(fraction * samples), samples)


def arithmetic(ladders: Sequence[Ladder]) -> str:
    """Return in words for which arithmetic the best bounds are, where it is not single precision: "exact arithmetic"."""
    return ", ".join(sorted({ladder.arithmetic for ladder in ladders} - {""}))


def studies(methods: Sequence[Method]) -> tuple[Boxes, ...]:
    """Return one study per shape of the box (which parameters move, and how far inputs do) and number of samples, the largest first.

    Fractions of different numbers of samples are neither averaged, nor ranked, nor joined by a line.
    """
    return _studies(tuple(methods))


@lru_cache(maxsize=8)  # every chapter, the findings and the summary ask again
def _studies(methods: tuple[Method, ...]) -> tuple[Boxes, ...]:
    found: dict[tuple[Settings, int], dict[tuple[int, float], tuple[Ladder, ...]]] = {}
    for method in methods:
        for network in method.networks:
            for (shape, z), ladder in ladders_of(network).items():
                mine = found.setdefault((shape, ladder.samples), {})
                mine[method.index, z] = (*mine.get((method.index, z), ()), ladder)
    ordered = sorted(found.items(), key=lambda item: (_order(item[0][0]), -item[0][1]))
    shapes = [shape for shape, _ in found]
    return tuple(Boxes(shape, samples, shapes.count(shape) == 1, ladders) for (shape, samples), ladders in ordered)


def ladders_of(network: Network) -> dict[tuple[Settings, float], Ladder]:
    """Return the ladder of one network in every box, by the box's shape and half-width."""
    boxes: dict[tuple[Settings, float], list[Record]] = {}
    for record in network.records:
        if name_of(record) == "box" and record.metric in _METRICS and record.split == "test":
            boxes.setdefault(_key(record), []).append(record)
    ladders = {key: _ladder(records) for key, records in boxes.items()}
    return {key: ladder for key, ladder in ladders.items() if ladder.certified or ladder.survived}


def _ladder(records: Sequence[Record]) -> Ladder:
    """Return the ladder on the most samples that were certified or attacked."""
    kept = largest([r for r in records if r.metric in ("certified", "survived")])
    samples = kept[0].n if kept else 0
    survived: dict[str, float] = {}
    for r in kept:
        if r.metric == "survived":
            attack = str(r.perturbation.get("attack", "none"))
            survived[attack] = min(r.value, survived.get(attack, 1.0))
    proved = sorted((r for r in kept if r.metric == "certified"), key=_bound)
    seconds = {_bound(r): r.value for r in records if r.metric == "seconds_certifying" and r.n == samples}
    parameters = next((round(r.value) for r in records if r.metric == "box_parameters"), None)
    return Ladder(samples, survived, {_bound(r): r.value for r in proved}, seconds, parameters)


def _bound(record: Record) -> str:
    """Return the name of a bound, with its arithmetic where that is not the usual one."""
    arithmetic = record.perturbation.get("arithmetic", _USUAL)
    return str(record.perturbation.get("bounds", _PLAIN)) + ("" if arithmetic == _USUAL else f", {arithmetic} arithmetic")


def _key(record: Record) -> tuple[Settings, float]:
    p: Mapping[str, Any] = record.perturbation
    shape = (("parameters", str(p.get("parameters", "weights"))), ("eps", str(float(p.get("eps", 0.0)))))
    return shape, round(float(p["z"]), 12)


def _order(shape: Settings) -> tuple[bool, Settings]:
    return dict(shape)["parameters"] != "weights", shape


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None
