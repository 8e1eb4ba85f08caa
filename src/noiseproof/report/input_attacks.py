"""Attacks on inputs: which records belong together, what each attack leaves, and the least that all of them leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from noiseproof.numbers import eps_text
from noiseproof.records import Record
from noiseproof.report.attack_names import Kind, distinct_labels, kind_of
from noiseproof.report.numbers import listing, mean
from noiseproof.report.reading import Method
from noiseproof.report.selecting import collect, largest, name_of
from noiseproof.statistics import clopper_pearson

_METRICS = ("accuracy", "gradient_evaluations", "queries", "zero_gradient_share")
_OVER_SEEDS = "accuracy_over_seeds"
_ON_WEIGHTS = ("weight-attack", "random-point", "direction", "box")
_STANDARD_STEPS = 20  # of the single attack that papers report


@dataclass(frozen=True)
class Left:
    """The accuracy that one attack at one ε leaves of one method: one value per network.

    Of several attack seeds it is the share that is right under all of them, where that was measured, else that of the strongest seed.
    """

    values: tuple[float, ...]
    samples: int  # behind every value
    seeds: int
    gradient_evaluations: float | None  # per sample, mean over networks and seeds
    queries: float | None
    zero_gradients: float | None  # share of all gradient evaluations

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over samples.

        The networks saw the same samples, so that these count once: k = the mean accuracy times n, rounded.
        """
        return clopper_pearson(round(self.mean * self.samples), self.samples)


@dataclass(frozen=True)
class Survival:
    """What is left after each member of an attack of several, in the order in which they ran; one value per network."""

    kind: Kind
    eps: float
    members: tuple[str, ...]  # as they are spelled
    samples: int
    left: tuple[tuple[float, ...], ...]  # by member
    gradient_evaluations: tuple[float | None, ...]  # by member, per sample
    queries: tuple[float | None, ...]
    skipped: tuple[str, ...]  # members that say nothing about the network and were left out, as they are spelled


@dataclass(frozen=True)
class InputAttacks:
    """All attacks on inputs in one norm."""

    norm: str
    found: Mapping[tuple[int, Kind, float], Left]  # by (method's index, attack, ε)
    survivals: Mapping[int, tuple[Survival, ...]]  # by method's index

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """All attacks, in the order in which they are listed."""
        return tuple(sorted({kind for _, kind, _ in self.found}, key=lambda kind: kind.order))

    @cached_property
    def labels(self) -> dict[Kind, str]:
        return distinct_labels(self.kinds)

    @property
    def levels(self) -> tuple[float, ...]:
        """Every ε > 0."""
        return tuple(sorted({eps for _, _, eps in self.found if eps > 0}))

    @property
    def asked(self) -> tuple[float, ...]:
        """Every ε that is spoken about: where several kinds of attacks were made, not one that only draws the curve against ε."""
        several = tuple(eps for eps in self.levels if any(k.several for k in self._at(eps)) or len({k.name for k in self._at(eps)}) > 1)
        return several or tuple(eps for eps in self.levels if self._at(eps)) or self.levels

    @property
    def headline(self) -> float:
        """The ε that is spoken about: the middle one of those asked, so that nobody picks it; where ensembles were made, of theirs."""
        among = tuple(eps for eps in self.asked if any(kind.several for kind in self._at(eps))) or self.asked
        return among[(len(among) - 1) // 2]

    @property
    def samples(self) -> tuple[int, ...]:
        return tuple(sorted({left.samples for left in self.found.values()}))

    def attacks(self, method: Method, eps: float) -> dict[Kind, Left]:
        """Return what every attack leaves of `method` at `eps`."""
        return {kind: left for kind in self.kinds if (left := self.found.get((method.index, kind, eps))) is not None}

    def worst(self, method: Method, eps: float) -> tuple[Kind, Left] | None:
        """Return the attack that leaves least, among those on the samples and networks of the ensemble where there is one, else on most.

        One at a smaller ε counts where it leaves less (see `least_from`). None where nothing but noise was tried: that is no search.
        """
        at = self.least_from(method, eps)
        return self._worst_at(method, eps) if at is None else self._least_below(method, eps, at)

    def least_from(self, method: Method, eps: float) -> float | None:
        """Return the smaller ε whose attacks leave less of the same samples, where there is one: what it fools, the larger set holds."""
        worst = self._worst_at(method, eps)
        if worst is None:
            return None
        least = {at: below[1].mean for at in self.levels if at < eps and (below := self._least_below(method, eps, at))}
        at = min(least, key=lambda one: least[one], default=None)
        return at if at is not None and least[at] < worst[1].mean else None

    def _least_below(self, method: Method, eps: float, at: float) -> tuple[Kind, Left] | None:
        """Return the attack within ε = `at` that leaves least, of those on the samples and networks of the worst at `eps`."""
        worst = self._worst_at(method, eps)
        behind = (worst[1].samples, len(worst[1].values)) if worst else None
        alike = [(k, left) for k, left in self.attacks(method, at).items() if k.confined and (left.samples, len(left.values)) == behind]
        return min(alike, key=lambda item: item[1].mean, default=None)

    def _worst_at(self, method: Method, eps: float) -> tuple[Kind, Left] | None:
        confined = {kind: left for kind, left in self.attacks(method, eps).items() if kind.confined}
        reference = [left for kind, left in confined.items() if kind.several] or [left for k, left in confined.items() if not k.noise]
        if not reference:
            return None
        most = max((left.samples, len(left.values)) for left in reference)
        comparable = [(kind, left) for kind, left in confined.items() if (left.samples, len(left.values)) == most]
        return min(comparable, key=lambda item: (item[1].mean, not item[0].several))

    def is_worst_case(self, method: Method, eps: float) -> bool:
        """Whether several attacks were made one after the other on the same samples; else the figure is that of a single one."""
        return any(kind.several for kind in self.attacks(method, eps))

    def sign(self, method: Method, eps: float) -> str:
        """What stands before a figure that is one attack's, or that of a smaller ε: "≤ "."""
        exact = self.is_worst_case(method, eps) and self.least_from(method, eps) is None
        return "" if exact else "≤\N{NO-BREAK SPACE}"

    def usual(self, method: Method, eps: float) -> tuple[Kind, Left] | None:
        """Return what papers report: PGD with the training surrogate, from one start; of 20 steps, else of the most."""
        plain = {k: v for k, v in self.attacks(method, eps).items() if k.name == "pgd" and not k.detail}
        return max(plain.items(), key=lambda item: (item[0].number("steps") == _STANDARD_STEPS, item[0].number("steps")), default=None)

    def along_eps(self) -> Kind | None:
        """Return the attack that was made at the most ε, which is drawn against ε: of several such ones a PGD, then the longest."""
        kinds = [kind for kind in self.kinds if not kind.noise and kind.confined]
        reach = {kind: len({eps for _, k, eps in self.found if k == kind}) for kind in kinds}
        return max(kinds, key=lambda kind: (reach[kind], kind.name == "pgd", kind.number("steps")), default=None)

    def along_steps(self, eps: float) -> tuple[tuple[Kind, ...], ...]:
        """Return the groups of attacks that differ in nothing but the number and size of their steps, each from the shortest on."""
        groups: dict[Any, list[Kind]] = {}
        for kind in self.kinds:
            if kind in self._at(eps) and kind.number("steps") and not kind.several:
                rest = tuple(pair for pair in kind.settings if pair[0] not in ("steps", "step"))
                groups.setdefault((kind.name, rest), []).append(kind)
        return tuple(tuple(group) for group in groups.values() if len({kind.number("steps") for kind in group}) > 1)

    def ran(self, methods: Sequence[Method], eps: float) -> list[tuple[Kind, list[tuple[Method, Survival]]]]:
        """Return the attacks of several at `eps`, with the methods on which the same members of it ran."""
        groups: dict[Any, tuple[Kind, list[tuple[Method, Survival]]]] = {}
        for method in methods:
            for survival in self.survivals.get(method.index, ()):
                if survival.eps == eps:
                    groups.setdefault((survival.kind, survival.members), (survival.kind, []))[1].append((method, survival))
        return list(groups.values())

    def of_members(self, kind: Kind, ran: Sequence[tuple[Method, Survival]]) -> str:
        """Return an attack of several in words; where its members differ from method to method, with the methods."""
        others = {s.members for survivals in self.survivals.values() for s in survivals if (s.kind, s.eps) == (kind, ran[0][1].eps)}
        return kind.words + (f" on {listing(m.label for m, _ in ran)}" if len(others) > 1 else "")

    def _at(self, eps: float) -> set[Kind]:
        """Return the attacks that search within this ε."""
        return {kind for _, kind, at in self.found if at == eps and not kind.noise and kind.confined}


def studies(methods: Sequence[Method]) -> tuple[InputAttacks, ...]:
    """Return one study per norm of the attacks on inputs, l∞ first."""
    return _studies(tuple(methods))


@lru_cache(maxsize=8)  # every chapter, the findings and the warnings ask again
def _studies(methods: tuple[Method, ...]) -> tuple[InputAttacks, ...]:

    def belongs(r: Record) -> bool:
        return ((r.metric in _METRICS and not r.at) or r.metric == _OVER_SEEDS) and is_input_attack(r)

    measured = collect(methods, belongs, lambda r: (r.metric, *_key(r)))
    norms = sorted({norm for metric, norm, _, _ in measured if metric == "accuracy"}, key=lambda norm: (norm != "linf", norm))
    survivals = _survivals(methods)
    return tuple(InputAttacks(norm, _lefts(measured, norm), survivals.get(norm, {})) for norm in norms)


def is_input_attack(record: Record) -> bool:
    """Whether a record is about an attack on test inputs, its size being one number."""
    eps = record.perturbation.get("eps")
    whole = record.split == "test" and record.chip is None and not {"epoch", "layer"} & record.at.keys()
    return whole and isinstance(eps, int | float) and "norm" in record.perturbation and name_of(record) not in _ON_WEIGHTS


def unattacked(method: Method, samples: int) -> tuple[float, ...]:
    """Return the accuracy of every network as it is, on as many samples as an attack had where that was measured, else on the most."""
    found = []
    for network in method.networks:
        mine = [r for r in network.records if r.metric == "accuracy" and r.split == "test" and not r.perturbation and not r.at]
        found += ([r for r in mine if r.n == samples] or largest(mine))[-1:]
    return tuple(r.value for r in found)


def eps_words(eps: float, norm: str) -> str:
    """As in "ε = 8/255 (l∞)"."""
    return f"ε = {eps_text(eps)} ({norm_words(norm)})"


def norm_words(norm: str) -> str:
    return {"linf": "l∞"}.get(norm, norm)


def _key(record: Record) -> tuple[str, Kind, float]:
    return str(record.perturbation["norm"]), kind_of(record.perturbation), round(float(record.perturbation["eps"]), 12)


def _lefts(measured: Mapping[Any, Any], norm: str) -> dict[tuple[int, Kind, float], Left]:
    sorted_out: dict[tuple[int, Kind, float], dict[str, list[list[Record]]]] = {}
    for (metric, its_norm, kind, eps), by_method in measured.items():
        for index, networks in by_method.items():
            if its_norm == norm:
                sorted_out.setdefault((index, kind, eps), {})[metric] = networks
    return {key: _left(by_metric) for key, by_metric in sorted_out.items() if "accuracy" in by_metric}


def _left(by_metric: Mapping[str, list[list[Record]]]) -> Left:
    networks, together = by_metric["accuracy"], {r.run: r.value for records in by_metric.get(_OVER_SEEDS, ()) for r in records}
    return Left(
        tuple(min([*(r.value for r in records), *(together[r.run] for r in records if r.run in together)]) for records in networks),
        min(r.n for records in networks for r in records),
        len({r.seed for records in networks for r in records}),
        *(_mean(by_metric.get(metric, ())) for metric in _METRICS[1:]),
    )


def _survivals(methods: Sequence[Method]) -> dict[str, dict[int, tuple[Survival, ...]]]:
    """Return by norm and method's index what the members of every attack of several left; of several seeds the mean."""
    metrics = ("surviving", "member_gradient_evaluations", "member_queries", "skipped")

    def member(r: Record) -> tuple[Any, ...]:
        return *_key(r), int(r.at["place"]), str(r.perturbation.get("member", "")), r.metric

    def belongs(r: Record) -> bool:
        return r.metric in metrics and "place" in r.at and is_input_attack(r)

    wholes: dict[Any, dict[Any, dict[str, list[list[Record]]]]] = {}
    for (norm, kind, eps, *place, metric), by_method in collect(methods, belongs, member).items():
        for index, networks in by_method.items():
            wholes.setdefault((norm, index, kind, eps), {}).setdefault(tuple(place), {})[metric] = networks
    found: dict[str, dict[int, tuple[Survival, ...]]] = {}
    for (norm, index, kind, eps), members in wholes.items():
        ran = [(name, by_metric) for (_, name), by_metric in sorted(members.items()) if "surviving" in by_metric]
        if not ran:
            continue
        survival = Survival(
            kind,
            eps,
            tuple(name for name, _ in ran),
            min(r.n for _, by_metric in ran for records in by_metric["surviving"] for r in records),
            tuple(tuple(mean([r.value for r in records]) for records in by_metric["surviving"]) for _, by_metric in ran),
            *(tuple(_mean(by_metric.get(metric, ())) for _, by_metric in ran) for metric in metrics[1:3]),
            skipped=tuple(name for (_, name), by_metric in sorted(members.items()) if "surviving" not in by_metric),
        )
        by_index = found.setdefault(norm, {})
        by_index[index] = (*by_index.get(index, ()), survival)
    return found


def _mean(networks: Sequence[Sequence[Record]]) -> float | None:
    values = [r.value for records in networks for r in records]
    return mean(values) if values else None
