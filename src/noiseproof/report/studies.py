"""Methods with their records → the four things that the report shows: noise, attacks, landscapes, trainings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noiseproof.records import Record
from noiseproof.report.numbers import phrases
from noiseproof.report.reading import Method, Network
from noiseproof.report.selecting import (
    Curve,
    Family,
    Settings,
    chip_order,
    collect,
    curves_along,
    family_of,
    largest,
    level_of,
    name_of,
    objective_of,
    samples,
    set_of,
    settings_of,
)

_ATTACKS = {"weight-attack", "random-point"}
Groups = tuple[tuple[float, ...], ...]  # one tuple of values per network


@dataclass(frozen=True)
class Noise:
    """Accuracies of simulated chips under one family of noise."""

    family: Family
    levels: tuple[float, ...]
    chips: Mapping[tuple[int, float], Groups]  # by (method's index, level)
    samples: tuple[int, ...]  # how many test samples stand behind an accuracy

    def values(self, method: Method, level: float) -> tuple[float, ...]:
        """All chips of all networks of `method`."""
        return tuple(value for group in self.groups(method, level) for value in group)

    def groups(self, method: Method, level: float) -> Groups:
        return self.chips.get((method.index, level), ())

    @property
    def noisy_levels(self) -> tuple[float, ...]:
        return tuple(level for level in self.levels if level > 0) or self.levels

    @property
    def headline(self) -> float:
        """The level that is spoken about: the middle one of those measured, so that nobody picks it."""
        return self.noisy_levels[(len(self.noisy_levels) - 1) // 2]

    @property
    def chip_counts(self) -> tuple[int, ...]:
        """Chips per network, all counts that occur away from level 0."""
        noisy = set(self.noisy_levels)
        return tuple(sorted({len(group) for (_, level), groups in self.chips.items() if level in noisy for group in groups}))


@dataclass(frozen=True)
class Attack:
    """Accuracy under the worst perturbation found, beside random points of the same set; one value per network."""

    objective: str
    shape: Settings  # norm, parameters: the set that is searched
    levels: tuple[float, ...]
    worst: Mapping[tuple[int, float], tuple[float, ...]]  # the lowest accuracy over restarts and steps
    random: Mapping[tuple[int, float], tuple[float, ...]]  # mean over random points
    random_lowest: Mapping[tuple[int, float], tuple[float, ...]]
    searches: tuple[int, ...]  # how many searches the lowest was taken over
    samples: tuple[int, ...]

    @property
    def title(self) -> str:
        """As in "KL, l∞, all parameters"."""
        return phrases((("objective", self.objective), *self.shape))

    @property
    def headline(self) -> float | None:
        """The level that is spoken about: the middle one of those searched, so that nobody picks it."""
        searched = sorted({level for _, level in self.worst if level > 0})
        return searched[(len(searched) - 1) // 2] if searched else None


@dataclass(frozen=True)
class Landscape:
    """Loss along random directions: curves by method, one per direction and network, each a tuple of (α, loss)."""

    settings: Settings
    curves: Mapping[int, tuple[Curve, ...]]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Course:
    """One metric during training: per method and network a tuple of (epoch, value)."""

    metric: str
    about: str
    curves: Mapping[int, tuple[Curve, ...]]


def clean(method: Method, metric: str = "accuracy") -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return `metric` of the network as it is on test data, one value per network that has it, and the samples behind each."""
    found = [
        largest([r for r in network.records if r.metric == metric and r.split == "test" and not r.perturbation and not r.at])
        for network in method.networks
    ]
    return tuple(rs[-1].value for rs in found if rs), tuple(rs[-1].n for rs in found if rs)


def noises(methods: Sequence[Method]) -> tuple[Noise, ...]:
    """Return one study per family of noise: mismatch first, then by name."""

    def belongs(r: Record) -> bool:
        return r.metric == "accuracy" and r.chip is not None and bool(r.perturbation) and not r.at and name_of(r) not in _ATTACKS

    keyed = collect(methods, belongs, lambda r: (family_of(r.perturbation), level_of(r.perturbation)))
    families = sorted({family for family, _ in keyed}, key=lambda f: (f.name != "mismatch", f.name, f.rest))
    studies = []
    for family in families:
        mine = {level: groups for (f, level), groups in keyed.items() if f == family}
        chips = {
            (index, level): tuple(tuple(r.value for r in sorted(rs, key=chip_order)) for rs in networks)
            for level, by_method in mine.items()
            for index, networks in by_method.items()
        }
        studies.append(Noise(family, tuple(sorted(mine)), chips, samples(mine.values())))
    return tuple(studies)


def attacks(methods: Sequence[Method]) -> tuple[Attack, ...]:
    """Return one study per objective and set, KL first."""

    def belongs(name: str) -> Callable[[Record], bool]:
        return lambda r: r.metric == "accuracy" and r.split == "test" and name_of(r) == name and "epoch" not in r.at

    searched = collect(methods, belongs("weight-attack"), lambda r: (objective_of(r), set_of(r.perturbation), level_of(r.perturbation)))
    random = collect(methods, belongs("random-point"), lambda r: (set_of(r.perturbation), level_of(r.perturbation)))
    kinds = sorted({(objective, shape) for objective, shape, _ in searched}, key=lambda kind: (kind[0] != "kl", kind))
    return tuple(_attack(objective, shape, searched, random) for objective, shape in kinds)


def _attack(objective: str, shape: Settings, searched: Mapping[Any, Any], random: Mapping[Any, Any]) -> Attack:
    mine = {level: by_method for (o, s, level), by_method in searched.items() if (o, s) == (objective, shape)}
    beside = {level: by_method for (s, level), by_method in random.items() if s == shape}

    def reduced(source: Mapping[float, Any], reduce: Callable[[list[float]], float]) -> dict[tuple[int, float], tuple[float, ...]]:
        return {
            (index, level): tuple(reduce([r.value for r in records]) for records in networks)
            for level, by_method in source.items()
            for index, networks in by_method.items()
        }

    searches = {len(records) for by_method in mine.values() for networks in by_method.values() for records in networks}
    return Attack(
        objective,
        shape,
        tuple(sorted(set(mine) | set(beside))),
        reduced(mine, min),
        reduced(beside, lambda values: sum(values) / len(values)),
        reduced(beside, min),
        tuple(sorted(searches)),
        samples(mine.values()),
    )


def landscapes(methods: Sequence[Method]) -> tuple[Landscape, ...]:
    """Return one study per setting of the directions."""

    def belongs(r: Record) -> bool:
        return r.metric == "cross_entropy" and name_of(r) == "direction" and "alpha" in r.at

    keyed = collect(methods, belongs, lambda r: settings_of(r.perturbation))
    return tuple(
        Landscape(
            tuple((k, v) for k, v in settings if k != "name"),
            {index: tuple(c for rs in networks for c in curves_along(rs, "alpha")) for index, networks in by_method.items()},
            samples([by_method]),
        )
        for settings, by_method in sorted(keyed.items())
    )


def courses(methods: Sequence[Method]) -> tuple[Course, ...]:
    """Return what was followed during training: validation accuracy, losses, and the accuracy under attack."""

    def belongs(r: Record) -> bool:
        return "epoch" in r.at and r.split in ("train", "validation") and r.metric != "seconds"

    keyed = collect(methods, belongs, lambda r: (r.metric, settings_of(r.perturbation)))
    order = ("validation_accuracy", "validation_loss", "train_loss")
    keys = sorted(keyed, key=lambda k: (bool(k[1]), order.index(k[0]) if k[0] in order else len(order), k))
    return tuple(
        Course(
            metric,
            phrases((k, v) for k, v in settings if k in ("objective", "zeta", "norm", "parameters")),
            {
                index: tuple(c for rs in networks for c in curves_along(rs, "epoch"))
                for index, networks in keyed[(metric, settings)].items()
            },
        )
        for metric, settings in keys
    )


def tolerated(methods: Sequence[Method]) -> dict[tuple[Family, float, float], dict[int, tuple[float, ...]]]:
    """Return the answers to the inverse question, by (noise, required accuracy, yield), then by method: one value per network."""

    def belongs(r: Record) -> bool:
        return r.metric == "tolerated_zeta" and "required_accuracy" in r.at and "yield" in r.at

    keyed = collect(methods, belongs, lambda r: (family_of(r.perturbation, level=False), r.at["required_accuracy"], r.at["yield"]))
    ordered = sorted(keyed.items(), key=lambda item: (item[0][0].title, item[0][1:]))
    return {key: {index: tuple(rs[-1].value for rs in networks) for index, networks in by_method.items()} for key, by_method in ordered}


def value_of(network: Network, metric: str) -> float | None:
    """Return the last value of a metric that has one number per training, such as best_epoch; None where it is missing."""
    return next((r.value for r in reversed(network.records) if r.metric == metric), None)


def total(network: Network, metric: str) -> float | None:
    """Return the sum of a metric over the epochs, None where it was not recorded."""
    values = [r.value for r in network.records if r.metric == metric]
    return sum(values) if values else None
