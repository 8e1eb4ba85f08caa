"""What `noiseproof attack` prints: the figures of its attacks, what their members did, and the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from noiseproof.checklist import Outcome, Verdict, checked, verdicts
from noiseproof.numbers import eps_text
from noiseproof.records import Record
from noiseproof.report.attack_names import kind_of, member_label
from noiseproof.report.input_attacks import eps_words, is_input_attack, norm_words
from noiseproof.report.numbers import count, percent
from noiseproof.report.quantities import level
from noiseproof.report.reading import Run
from noiseproof.report.selecting import name_of
from noiseproof.report.tables import EMPTY, Cell, Column, Table
from noiseproof.statistics import clopper_pearson

Described = Mapping[str, Any]  # name and settings of an attack, as in records

_MARKS: dict[Outcome, str] = {"pass": "✓", "fail": "✗", "undecided": "?"}
_COST = (Column("Gradients", "per sample"), Column("Queries", "per sample"))


def tables(runs: Sequence[Run], attacks: Sequence[Described], samples: int) -> list[Table]:
    """Return what the attacks left of the runs, then, for every attack of several, what each of its members left."""
    columns = (Column("Run", numeric=False), Column("Attack", numeric=False), Column("ε"), Column("Accuracy left", "%"))
    columns += (Column("95\xa0% interval", "over samples, %"), Column("Attack seeds", "least to most, %"), *_COST)
    named = [(_name(run), _of_size(run.records(), samples)) for run in runs]
    rows = [row for name, records in named for attack in ({}, *attacks) for row in _rows(name, records, attack)]
    n = {r.n for _, records in named for r in records}
    caption = f"Accuracy left by attacks on the inputs ({' and '.join(count(one, 'sample') for one in sorted(n))})"
    members = [t for name, records in named for attack in attacks for t in _members(name, records, attack)]
    return [Table(caption, columns, tuple(rows)), *members]


def judgements(run: Run, attacks: Sequence[Described]) -> list[str]:
    """Return the verdicts on the figures of a run at the sizes of these attacks, one line each; nothing where no checks were made."""
    records = run.records()
    sizes = {(round(a["eps"], 12), a["norm"]) for a in attacks}
    lines = []
    for eps, norm in checked(records):
        if (eps, norm) in sizes:
            lines.append(f"{_name(run)}: can the accuracy under attack at {eps_words(eps, norm)} be trusted?")
            lines += _beside_the_least(records, [a for a in attacks if (round(a["eps"], 12), a["norm"]) == (eps, norm)])
            lines += [_line(verdict) for verdict in verdicts(records, eps, norm)]
    return lines


def _beside_the_least(records: Sequence[Record], attacks: Sequence[Described]) -> list[str]:
    """Return one line where another attack of this size, on record on the same samples, left less than those that were asked for."""
    size = [r for r in records if r.metric in ("accuracy", "accuracy_over_seeds") and _alike(r, attacks[0])]
    asked = [r for r in size if r.perturbation in attacks]
    n = max((r.n for r in asked), default=0)
    left, least = (min((r.value for r in some if r.n == n), default=0.0) for some in (asked, size))
    if left <= least:
        return []
    return [f"  checked with PGD-20; your attack left {percent(left)} %, the least on record is {percent(least)} %"]


def _alike(record: Record, attack: Described) -> bool:
    """Whether a record is about an attack that stays within the size of this one."""
    p = record.perturbation
    sized = is_input_attack(record) and kind_of(p).confined
    return sized and (round(p["eps"], 12), p["norm"]) == (round(attack["eps"], 12), attack["norm"])


def _line(verdict: Verdict) -> str:
    return f"  {_MARKS[verdict.outcome]} {verdict.title}: {verdict.sentence}"


def _name(run: Run) -> str:
    return Path(str(getattr(run, "path", "network"))).name


def _of_size(records: Iterable[Record], samples: int) -> list[Record]:
    """Return the records of attacks on as many samples as were asked for, or on all where there are fewer."""
    on_test = [r for r in records if r.split == "test"]
    n = max((r.n for r in on_test if r.n <= samples and "eps" in r.perturbation and name_of(r) != "box"), default=0)
    return [r for r in on_test if r.n == n]


def _rows(name: str, records: Sequence[Record], attack: Described) -> list[tuple[Cell, ...]]:
    mine = [r for r in records if r.perturbation == attack]
    by_metric = {metric: [r.value for r in mine if r.metric == metric] for metric in {r.metric for r in mine}}
    if "accuracy" not in by_metric:
        return []
    seeds, n = by_metric["accuracy"], mine[0].n
    least = min(by_metric.get("accuracy_over_seeds", seeds))
    low, high = clopper_pearson(round(least * n), n)
    spread = f"{percent(min(seeds))} to {percent(max(seeds))}" if len(seeds) > 1 else ""
    costs = (_mean(by_metric.get(metric)) for metric in ("gradient_evaluations", "queries"))
    norm = "" if attack.get("norm", "linf") == "linf" else f" ({norm_words(attack['norm'])})"
    which = (kind_of(attack).label, eps_text(attack["eps"]) + norm) if attack else ("none", "0")
    text = (name, *which, percent(least), f"{percent(low)} to {percent(high)}", spread)
    return [(*map(Cell, text), *costs)]


def _members(name: str, records: Sequence[Record], attack: Described) -> list[Table]:
    """Return one table of the members of an attack, for its first seed; none where it has none."""
    mine = [r for r in records if "member" in r.perturbation and {k: v for k, v in r.perturbation.items() if k != "member"} == attack]
    first = min((r.seed or 0 for r in mine), default=0)
    places: dict[float, dict[str, Record]] = {}
    for r in mine:
        if r.seed == first:
            places.setdefault(r.at["place"], {})[r.metric] = r
    rows = tuple(
        (
            Cell(f"{place:.0f}"),
            Cell(member_label(next(iter(found.values())).perturbation["member"])),
            Cell(percent(found["surviving"].value)) if "surviving" in found else Cell("left out: says nothing about this network"),
            *(_mean([found[metric].value] if metric in found else None) for metric in ("member_gradient_evaluations", "member_queries")),
        )
        for place, found in sorted(places.items())
    )
    columns = (Column("", ""), Column("Member", numeric=False), Column("Still right", "%"), *_COST)
    caption = f"{name}: {kind_of(attack).label} at {eps_words(attack['eps'], attack['norm'])}, what is left after each member"
    return [Table(caption, columns, rows)] if rows else []


def _mean(values: Sequence[float] | None) -> Cell:
    return Cell(level(round(sum(values) / len(values), 2))) if values else EMPTY
