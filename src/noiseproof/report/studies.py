"""Methods with their records → what the report shows: noise, alone and over two settings, attacks, landscapes, trainings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from noiseproof.numbers import eps_text
from noiseproof.records import Record
from noiseproof.report.attack_names import kind_of
from noiseproof.report.numbers import mean, phrases
from noiseproof.report.quantities import clean_at_zero, rank
from noiseproof.report.reading import Method, Network
from noiseproof.report.selecting import (
    Curve,
    Families,
    Family,
    Settings,
    chip_order,
    collect,
    curves_along,
    largest,
    level_of,
    name_of,
    noise_words,
    objective_of,
    samples,
    searched_family,
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
        return tuple(level for level in self.levels if level or not self.starts_clean) or self.levels

    @property
    def starts_clean(self) -> bool:
        """Whether level 0 is the network as it is."""
        return clean_at_zero(self.family.name, self.family.setting, dict(self.family.rest))

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
class Grid:
    """Accuracies of simulated chips where two settings of one noise vary: one study for each value of the second."""

    setting: str
    slices: tuple[tuple[float, Noise], ...]

    @property
    def columns(self) -> tuple[float, ...]:
        return tuple(sorted({level for _, noise in self.slices for level in noise.levels}))

    @property
    def family(self) -> Family:
        """What all slices have in common."""
        family = self.slices[0][1].family
        without = (tuple(pair for pair in pairs if pair[0] != self.setting) for pairs in (family.rest, family.shown))
        return Family(family.name, family.setting, *without)

    @property
    def middle(self) -> Noise:
        """The slice that is spoken about: the middle one, so that nobody picks it."""
        return self.slices[(len(self.slices) - 1) // 2][1]


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
class Tolerated:
    """The largest level that one network tolerates, and between which levels its chips leave that open (95 %)."""

    level: float | None  # None: the yield was missed even at the lowest one searched
    surely: float | None  # None: not even the lowest one is sure, or nothing was recorded
    possibly: float | None  # None: nothing was recorded


@dataclass(frozen=True)
class Landscape:
    """Loss along random directions: curves by method, one per direction and network, each a tuple of (α, loss)."""

    settings: Settings
    curves: Mapping[int, tuple[Curve, ...]]
    samples: tuple[int, ...]
    split: str = "test"

    @property
    def about(self) -> str:
        """What tells it from others: "ζ = 0.2, all parameters", "training data, ζ = 0.2, all parameters"."""
        data = {"test": "", "train": "training data"}.get(self.split, f"{self.split} data")
        return ", ".join(filter(None, [data, phrases(self.settings)]))


@dataclass(frozen=True)
class Course:
    """One metric during training: per method and network a tuple of (epoch, value)."""

    metric: str
    about: str  # what was done to the network, empty where nothing
    curves: Mapping[int, tuple[Curve, ...]]
    searched: bool = False  # by an attack or at a point of its set


def clean(method: Method, metric: str = "accuracy") -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return `metric` of the network as it is on test data, one value per network that has it, and the samples behind each."""
    found = [
        largest([r for r in network.records if r.metric == metric and r.split == "test" and not r.perturbation and not r.at])
        for network in method.networks
    ]
    return tuple(rs[-1].value for rs in found if rs), tuple(rs[-1].n for rs in found if rs)


def noises(methods: Sequence[Method]) -> tuple[Noise, ...]:
    """Return one study per family of noise that varies in one setting: mismatch first, then by name."""
    return tuple(noise for noise, axes in _families(tuple(methods)) if len(axes) != 2)


def grids(methods: Sequence[Method]) -> tuple[Grid, ...]:
    """Return one study per noise that varies in exactly two settings."""
    found: dict[Any, list[tuple[float, Noise]]] = {}
    for noise, axes in _families(tuple(methods)):
        if len(axes) == 2:
            rest = dict(noise.family.rest)
            row = float(rest.pop(axes[1]))
            found.setdefault((noise.family.name, axes, tuple(rest.items())), []).append((row, noise))
    return tuple(Grid(axes[1], tuple(sorted(slices, key=lambda s: s[0]))) for (_, axes, _), slices in found.items())


def spoken_about(methods: Sequence[Method]) -> tuple[Noise, ...]:
    """Return the noises that summary and findings are about: those of one setting, else the middle slice of each grid."""
    return noises(methods) or tuple(grid.middle for grid in grids(methods))


@lru_cache(maxsize=8)  # every chapter asks again
def _families(methods: tuple[Method, ...]) -> list[tuple[Noise, tuple[str, ...]]]:
    """Return every family of noise with the settings that vary in its kind, the level first."""

    def belongs(r: Record) -> bool:
        return r.metric == "accuracy" and r.chip is not None and bool(r.perturbation) and not r.at and name_of(r) not in _ATTACKS

    families = Families(r.perturbation for m in methods for network in m.networks for r in network.records if belongs(r))
    axes: dict[Family, tuple[str, ...]] = {}

    def key(r: Record) -> tuple[Family, float]:
        family = families.of(r.perturbation)
        axes[family] = families.axes(r.perturbation)
        return family, families.level(r.perturbation)

    by_family: dict[Family, dict[float, Any]] = {}
    for (family, level), groups in collect(methods, belongs, key).items():
        by_family.setdefault(family, {})[level] = groups
    studies = []
    for family, mine in sorted(
        by_family.items(), key=lambda item: (item[0].name != "mismatch", item[0].name, rank(item[0].setting), item[0].rest)
    ):
        chips = {
            (index, level): tuple(tuple(r.value for r in sorted(rs, key=chip_order)) for rs in networks)
            for level, by_method in mine.items()
            for index, networks in by_method.items()
        }
        studies.append((Noise(family, tuple(sorted(mine)), chips, samples(mine.values())), axes[family]))
    return studies


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
    """Return one study per setting of the directions and split of the data, the test data first."""

    def belongs(r: Record) -> bool:
        return r.metric == "cross_entropy" and name_of(r) == "direction" and "alpha" in r.at

    keyed = collect(methods, belongs, lambda r: (r.split != "test", r.split, settings_of(r.perturbation)))
    return tuple(
        Landscape(
            tuple((k, v) for k, v in settings if k != "name"),
            {index: tuple(c for rs in networks for c in curves_along(rs, "alpha")) for index, networks in by_method.items()},
            samples([by_method]),
            split,
        )
        for (_, split, settings), by_method in sorted(keyed.items())
    )


def courses(methods: Sequence[Method]) -> tuple[Course, ...]:
    """Return what was followed during training: validation accuracy, losses, the accuracy under attack and under noise, the weights."""

    def belongs(r: Record) -> bool:
        return "epoch" in r.at and r.split in ("train", "validation") and r.metric != "seconds"

    keyed = collect(methods, belongs, lambda r: (r.metric, settings_of(r.perturbation)))
    order = ("validation_accuracy", "validation_loss", "train_loss", "weight_magnitude")
    keys = sorted(keyed, key=lambda k: (bool(k[1]), order.index(k[0]) if k[0] in order else len(order), k))
    return tuple(
        Course(
            metric,
            _about(dict(settings), metric),
            {
                index: tuple(c for rs in networks for c in curves_along(rs, "epoch"))
                for index, networks in keyed[(metric, settings)].items()
            },
            searched=dict(settings).get("name", "") in _ATTACKS,
        )
        for metric, settings in keys
    )


def _about(settings: Mapping[str, str], metric: str) -> str:
    """What was done to the network or its inputs, in words: "KL, ζ = 0.1, l∞", "gaussian, s = 0.1, all parameters", "R+FGSM, ε = 4/255"."""
    name = settings.get("name", "")
    if metric == "ms_mppd":
        return f"{kind_of(settings).label}, ε = {eps_text(float(settings['eps']))}"
    if name in _ATTACKS:
        named = "random point" if name == "random-point" else ""
        matter = {k: settings[k] for k in ("objective", "zeta", "norm", "parameters") if k in settings}
    else:
        named, matter = noise_words(name), {k: v for k, v in settings.items() if k != "name"}
    return ", ".join(filter(None, [named, phrases(matter.items())]))


def tolerated(methods: Sequence[Method]) -> dict[tuple[Family, float, float], dict[int, tuple[Tolerated, ...]]]:
    """Return the answers to the inverse question, by (noise, required accuracy, yield), then by method: one per network."""

    def belongs(r: Record) -> bool:
        return _TOLERATED.fullmatch(r.metric) is not None and "required_accuracy" in r.at and "yield" in r.at

    def key(r: Record) -> tuple[Family, float, float]:
        return searched_family(r.perturbation, _TOLERATED.sub(r"\3", r.metric)), r.at["required_accuracy"], r.at["yield"]

    keyed = collect(methods, belongs, key)
    ordered = sorted(keyed.items(), key=lambda item: (item[0][0].title, item[0][1:]))
    return {key: {index: tuple(map(_answer, networks)) for index, networks in by_method.items()} for key, by_method in ordered}


def mean_level(answers: Sequence[Tolerated]) -> float:
    """Return the mean over the networks that tolerate something, −∞ where none does."""
    levels = [answer.level for answer in answers if answer.level is not None]
    return mean(levels) if levels else -math.inf


_TOLERATED = re.compile(r"(not_)?(surely_|possibly_)?tolerated_(.+)")


def _answer(records: Sequence[Record]) -> Tolerated:
    """Return the answer of one network; of a level that was searched twice the last counts."""
    found: dict[str, float | None] = {}
    for record in records:
        missed, which, _ = _TOLERATED.sub(r"\1 \2 \3", record.metric).split(" ", 2)
        found[which] = None if missed else record.value
    level = found.get("")
    # before intervals were recorded, 0 stood for a miss
    return Tolerated(None if level == 0 and "possibly_" not in found else level, found.get("surely_"), found.get("possibly_"))


def value_of(network: Network, metric: str) -> float | None:
    """Return the last value of a metric that has one number per training, such as best_epoch; None where it is missing."""
    return next((r.value for r in reversed(network.records) if r.metric == metric and not r.perturbation), None)


def total(network: Network, metric: str) -> float | None:
    """Return the sum of a metric over the epochs, None where it was not recorded."""
    values = [r.value for r in network.records if r.metric == metric]
    return sum(values) if values else None
