"""Tables of attacks on inputs: what is left in the worst case, method × attack with budgets, and what each member of an ensemble adds."""

from __future__ import annotations

from collections.abc import Sequence

from noiseproof.numbers import eps_text
from noiseproof.report.attack_names import member_label
from noiseproof.report.input_attack_checks import Check, Checklist, in_doubt
from noiseproof.report.input_attacks import InputAttacks, Left, Survival, eps_words, norm_words, unattacked
from noiseproof.report.numbers import MINUS, counts, level, mean, percent, unbroken
from noiseproof.report.reading import Method
from noiseproof.report.tables import EMPTY, Cell, Column, Table

COST = "Cost per sample: g gradient evaluations and q queries, mean over all samples."
_METHOD = Column("Method", numeric=False)


def words(study: InputAttacks, methods: Sequence[Method]) -> tuple[str, ...]:
    """Return what must be known to read the tables: what was changed, by whom, and what the figures are worth."""
    change = (
        "every entry of an input may change by up to ε"
        if study.norm == "linf"
        else f"an input may change by up to ε in its {study.norm} norm"
    )
    found = [(m, eps) for m in methods for eps in study.asked if study.worst(m, eps)]
    if not found:
        return (f"Only noise was tried: {change}. Noise looks for nothing, so that no robust accuracy follows from it.",)
    lines = [
        f"In the unit of the data, {change}. Robust accuracy is the least that any attack leaves; an ensemble leaves the samples that "
        "stay right under all of its members. An attack that nobody has made yet may leave less. The interval is over samples: all "
        f"networks saw the same ones, so that each counts once. {counts(study.samples, 'test sample')}. {COST}",
    ]
    if any(study.least_from(m, eps) is not None for m, eps in found):
        lines.append("≤, from a smaller ε: what attacks within it fooled, a larger ε fools too, though the attacks there did not find it.")
    if any(not study.is_worst_case(m, eps) for m, eps in found):
        lines.append(
            "≤: only single attacks were made, so that the figure is a bound from above; noiseproof attack RUN --attack ensemble looks for "
            "the worst case."
        )
    return tuple(lines)


def worst_table(study: InputAttacks, methods: Sequence[Method]) -> Table:
    """Return, for every method and ε, the least that all attacks leave: interval over samples, spread over networks, budget."""
    columns = (
        _METHOD,
        Column("ε", norm_words(study.norm)),
        Column("Clean", "%"),
        Column("Robust accuracy", "95\xa0%\xa0interval,\xa0%"),
        Column("Networks", "lowest\xa0to\xa0highest,\xa0%"),
        Column("Found by", numeric=False),
        Column("Cost", "per\xa0sample"),
    )
    rows = []
    for method in methods:
        for eps in study.asked:
            worst = study.worst(method, eps)
            if worst is None:
                continue
            kind, left = worst
            without = unattacked(method, left.samples)
            doubt, smaller = in_doubt(method, eps, study.norm), study.least_from(method, eps)
            origin = "" if smaller is None else f"from ε = {eps_text(smaller)}; "
            remarks = [
                kind.detail,
                "" if study.is_worst_case(method, eps) else "a single attack",
                "in doubt" if doubt else "",
            ]
            rows.append(
                (
                    Cell(method.label),
                    Cell(eps_text(eps), value=eps),
                    Cell(percent(mean(without)), value=mean(without)) if without else EMPTY,
                    Cell(study.sign(method, eps) + percent(left.mean), origin + _to(*left.interval), left.mean, alarm=doubt),
                    _networks(left),
                    Cell(kind.title, "; ".join(filter(None, remarks))),
                    Cell(_budget(left.gradient_evaluations, left.queries) or "–", value=left.gradient_evaluations),
                )
            )
    return Table(f"Robust accuracy ({norm_words(study.norm)})", columns, tuple(rows))


def attack_table(study: InputAttacks, methods: Sequence[Method], eps: float) -> Table:
    """Return method × attack at one ε: the accuracy left, beneath it gradient evaluations and queries per sample."""
    shown = [m for m in methods if study.attacks(m, eps)]
    usual = {found[0] for m in shown if (found := study.usual(m, eps))}
    # of those that differ in their steps, which have a figure of their own, the usual number, else the largest
    skipped = {kind for group in study.along_steps(eps) for kind in group if kind not in (usual & {*group} or {group[-1]})}
    kinds = [k for k in study.kinds if k not in skipped and any(k in study.attacks(m, eps) for m in shown)]
    columns = (_METHOD, Column("Clean", "%"), *(Column(k.title, study.labels[k].removeprefix(k.title).strip(", ")) for k in kinds))
    return Table(
        f"Every attack at {eps_words(eps, study.norm)}",
        columns,
        tuple((Cell(m.label), _clean(study, m, eps), *(_left(study.attacks(m, eps).get(k)) for k in kinds)) for m in shown),
    )


def numbers_table(study: InputAttacks, methods: Sequence[Method]) -> Table:
    """Return every figure: one row per method, ε and attack."""
    columns = (
        _METHOD,
        Column("ε", norm_words(study.norm)),
        Column("Attack", numeric=False),
        Column("Accuracy left", "95\xa0%\xa0interval,\xa0%"),
        Column("Networks", "lowest\xa0to\xa0highest,\xa0%"),
        Column("Gradients", "evaluations\xa0per\xa0sample"),
        Column("Queries", "per\xa0sample"),
        Column("Zero gradients", "of\xa0all,\xa0%"),
        Column("Samples"),
        Column("Seeds"),
    )
    rows = (
        (
            Cell(m.label),
            Cell(eps_text(eps), value=eps),
            Cell(study.labels[kind]),
            Cell(percent(left.mean), _to(*left.interval), left.mean),
            _networks(left),
            _number(left.gradient_evaluations),
            _number(left.queries),
            EMPTY if left.zero_gradients is None else Cell(percent(left.zero_gradients), value=left.zero_gradients),
            Cell(f"{left.samples:,}", value=left.samples),
            Cell(f"{left.seeds}", value=left.seeds),
        )
        for m in methods
        for eps in study.levels
        for kind, left in study.attacks(m, eps).items()
    )
    return Table(f"All attacks ({norm_words(study.norm)})", columns, tuple(rows))


def member_tables(study: InputAttacks, methods: Sequence[Method], eps: float) -> tuple[Table, ...]:
    """Return one table per list of members: what is left after each, what it added, and its budget."""
    return tuple(_members(ran, study.of_members(kind, ran), eps_words(eps, study.norm)) for kind, ran in study.ran(methods, eps))


def overview(found: Sequence[Checklist]) -> Table:
    """Return check × method: how each came out."""
    columns = (Column("Check", numeric=False), *(Column(one.method.label, unbroken(one.where), numeric=False) for one in found))
    rows = tuple((Cell(checks[0].title), *map(_outcome, checks)) for checks in zip(*(one.checks for one in found), strict=True))
    return Table("All checks", columns, rows)


def checks_table(found: Checklist) -> Table:
    """Return one row per check of a method: how it came out, why, and the numbers behind it."""
    columns = (Column("Check", numeric=False), Column("Outcome", numeric=False), Column("What was measured", numeric=False, prose=True))
    rows = tuple((Cell(check.title), _outcome(check), Cell(check.sentence, check.evidence)) for check in found.checks)
    return Table(unbroken(f"{found.method.label}, {found.where}"), columns, rows)


def _outcome(check: Check) -> Cell:
    text = {"pass": "✓ pass", "fail": "✗ fail", "undecided": "? not decided"}[check.outcome]
    return Cell(text, check.networks, alarm=check.outcome == "fail")


def _members(ran: Sequence[tuple[Method, Survival]], what: str, where: str) -> Table:
    columns = (Column("Member", numeric=False), Column("Place"), *(Column(m.label, "left, %") for m, _ in ran))
    rows = tuple(
        (Cell(member_label(member)), Cell(str(place + 1), value=place + 1), *(_member(m, survival, place) for m, survival in ran))
        for place, member in enumerate(ran[0][1].members)
    )
    skipped = dict.fromkeys(member for _, survival in ran for member in survival.skipped)
    rows += tuple((Cell(member_label(member)), EMPTY, *(_skipped(survival, member) for _, survival in ran)) for member in skipped)
    return Table(f"Members of {what} at {where}", columns, rows)


def _member(method: Method, survival: Survival, place: int) -> Cell:
    """What a member left, beneath it what it took and its budget."""
    left = mean(survival.left[place])
    before = survival.left[place - 1] if place else unattacked(method, survival.samples)
    added = f"{MINUS}{percent(mean(before) - left)} points" if before and mean(before) > left else "nothing more"
    return Cell(
        percent(left), "; ".join(filter(None, [added, _budget(survival.gradient_evaluations[place], survival.queries[place])])), left
    )


def _skipped(survival: Survival, member: str) -> Cell:
    return Cell("left out", "says nothing about this network") if member in survival.skipped else EMPTY


def _clean(study: InputAttacks, method: Method, eps: float) -> Cell:
    values = unattacked(method, max(left.samples for left in study.attacks(method, eps).values()))
    return Cell(percent(mean(values)), value=mean(values)) if values else EMPTY


def _left(left: Left | None) -> Cell:
    return EMPTY if left is None else Cell(percent(left.mean), _budget(left.gradient_evaluations, left.queries), left.mean)


def _budget(gradients: float | None, queries: float | None) -> str:
    return " + ".join(f"{_short(v)}\xa0{unit}" for v, unit in ((gradients, "g"), (queries, "q")) if v)


def _number(value: float | None) -> Cell:
    return EMPTY if value is None else Cell(_short(value), value=value)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else level(round(value, 1))


def _networks(left: Left) -> Cell:
    if len(left.values) < 2:
        return Cell("–", "one network")
    return Cell(_to(min(left.values), max(left.values)), f"{len(left.values)} networks", min(left.values))


def _to(low: float, high: float) -> str:
    return f"{percent(low)} to {percent(high)}"
