"""Can the figures under attack be trusted? The verdicts on every network, gathered by method, and the warning that stands above all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from noiseproof.checklist import Outcome, Verdict, checked, verdicts
from noiseproof.report.input_attacks import eps_words, is_input_attack, studies
from noiseproof.report.numbers import count, listing, mean, percent, unbroken
from noiseproof.report.quantities import level
from noiseproof.report.reading import Method, tasks

_GRAVITY: tuple[Outcome, ...] = ("fail", "undecided", "pass")


@dataclass(frozen=True)
class Check:
    """One check of one method at one ε: the verdicts on its networks."""

    verdicts: tuple[Verdict, ...]

    @property
    def key(self) -> str:
        return self.verdicts[0].key

    @property
    def title(self) -> str:
        return self.verdicts[0].title

    @property
    def outcome(self) -> Outcome:
        """The gravest: a method passes where all of its networks do."""
        outcomes = {v.outcome for v in self.verdicts}
        return next(outcome for outcome in _GRAVITY if outcome in outcomes)

    @property
    def doubts(self) -> bool:
        """Whether it speaks against the least that all attacks leave, not only against single attacks."""
        return any(v.outcome == "fail" and not v.single for v in self.verdicts)

    @property
    def sentence(self) -> str:
        """What the first network of the gravest outcome shows."""
        return next(v.sentence for v in self.verdicts if v.outcome == self.outcome)

    @property
    def networks(self) -> str:
        """On how many networks it came out so, where it did not on all."""
        alike = sum(v.outcome == self.outcome for v in self.verdicts)
        return f"on {alike} of {count(len(self.verdicts), 'network')}" if alike < len(self.verdicts) else ""

    @property
    def evidence(self) -> str:
        """The numbers behind it, means over the networks that have them."""
        found: dict[str, list[float]] = {}
        for verdict in self.verdicts:
            for name, value in verdict.evidence:
                found.setdefault(name, []).append(value)
        return "; ".join(_number(name, mean(values)) for name, values in found.items())


@dataclass(frozen=True)
class Checklist:
    """All checks of one method at one ε and norm."""

    method: Method
    eps: float
    norm: str
    checks: tuple[Check, ...]

    @property
    def where(self) -> str:
        return eps_words(self.eps, self.norm)

    def of(self, outcome: Outcome) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == outcome)


@dataclass(frozen=True)
class Alert:
    """What stands above the report: of which method the figures may be wrong, and why, one reason a line."""

    method: str
    where: str  # at which ε and in which norm
    reasons: tuple[str, ...]
    checks: int  # how many were made
    task: int  # its place among the tasks of the report
    single: bool = False  # whether only the figures of single attacks are wrong

    @property
    def text(self) -> str:
        """As in "accuracy under attack of hire at ε = 8/255 (l∞) may be wrong"."""
        if self.single:
            return f"single attacks on {self.method} at {self.where} mislead"
        return f"accuracy under attack of {self.method} at {self.where} may be wrong"


def checklists(methods: Sequence[Method]) -> tuple[Checklist, ...]:
    """Return the checks of every method, at every ε and norm at which they were measured."""
    return tuple(found for method in methods for found in _of_method(method))


def in_doubt(method: Method, eps: float, norm: str) -> bool:
    """Whether a check of this method fails at this ε that speaks against the least that all attacks leave."""
    return any(check.doubts for found in _of_method(method) if (found.eps, found.norm) == (eps, norm) for check in found.checks)


@lru_cache(maxsize=256)  # tables, findings, notes and the banner ask again
def _of_method(method: Method) -> tuple[Checklist, ...]:
    networks = [[r for r in network.records if is_input_attack(r)] for network in method.networks]
    places = {place for records in networks for place in checked(records)}
    found = []
    for eps, norm in sorted(places, key=lambda place: (place[1] != "linf", place[1], place[0])):
        answers = [verdicts(records, eps, norm) for records in networks if (eps, norm) in checked(records)]
        found.append(Checklist(method, eps, norm, tuple(Check(each) for each in zip(*answers, strict=True))))
    return tuple(found)


def alerts(methods: Sequence[Method]) -> tuple[Alert, ...]:
    """Return one warning per method, ε and norm at which a check fails."""
    found = tasks(methods)
    return tuple(
        Alert(
            f"{one.method.label} on {data}" if len(found) > 1 else one.method.label,
            one.where,
            tuple(f"{check.sentence} ({check.networks})" if check.networks else check.sentence for check in failing),
            len(one.checks),
            task,
            single=not any(check.doubts for check in failing),
        )
        for task, (data, members) in enumerate(found)
        for one in checklists(members)
        if (failing := one.of("fail"))
    )


def doubts(methods: Sequence[Method]) -> list[str]:
    """Return soft notes: which figures were not checked, and which checks could not decide. Those that failed are in `alerts`."""
    lists = checklists(methods)
    known = {(found.method.index, found.eps, found.norm) for found in lists}
    bare: dict[str, list[str]] = {}
    for study in studies(methods):
        for eps in study.asked:
            for method in methods:
                if study.worst(method, eps) and (method.index, eps, study.norm) not in known:
                    bare.setdefault(eps_words(eps, study.norm), []).append(method.label)
    lines = [f"Not checked for obfuscated gradients at {where}: {listing(dict.fromkeys(labels))}." for where, labels in bare.items()]
    if left_open := [f"{one.method.label} at {one.where} ({len(n)} of {len(one.checks)})" for one in lists if (n := one.of("undecided"))]:
        lines.append(
            f"Checks of accuracy under attack that could not decide: {listing(left_open)}. The list of checks says what is missing."
        )
    return [unbroken(line) for line in lines]


def _number(name: str, value: float) -> str:
    """ "accuracy pgd-20", 0.341 → "accuracy pgd-20: 34.1 %"; what is no share stays a number."""
    return f"{name}: {percent(value)}\xa0%" if name.startswith(("accuracy", "share")) else f"{name}: {level(value)}"
