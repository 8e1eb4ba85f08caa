"""A plan as a file: TOML → trainings (one experiment a task, method and seed) and what is measured on each, checked before any work."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noiseproof import config
from noiseproof.config import Experiment
from noiseproof.errors import NoiseproofError, require, unknown
from noiseproof.evaluation import Measures
from noiseproof.report.numbers import listing


@dataclass(frozen=True)
class Plan:
    """Trainings (one experiment a task, method and seed) with their folders, what is measured on each, the title of the report."""

    title: str
    experiments: tuple[Experiment, ...]
    folders: tuple[str, ...]
    measures: tuple[Measures, ...]


def load_plan(path: Path, overrides: Mapping[str, Any] | None = None, budget: str | None = None) -> Plan:
    """Return the plan of a TOML file: `title`, `seeds`, `[defaults]`, `[[task]]` …, `[[training]]` …, `[evaluation]`.

    Every training is done on every task, which may have an `evaluation` of its own. A later table overrides an earlier one:
    defaults, task, training, `in_task.NAME` of the training. `sweep` of a training lists values of settings of its method: one
    training for each combination. `equal = "gradients"`, of the plan or of a training, lets `epochs` count gradient evaluations a
    sample, so that a method which needs k of them a step has epochs/k epochs. Any table may hold `budget.NAME`: what it changes
    under that budget. `start_from` names another training, whose weights are the first ones. `overrides` are fields of
    Experiment that hold for every training, whatever the file says.

    Raises `NoiseproofError` for anything that is not right in it, before any work.
    """
    values = _within_budget(config.load_toml(path), budget)
    for key in values:
        if key not in _PARTS:
            raise NoiseproofError(f"{path}: {key!r} is no part of a plan: it has {listing(_PARTS)}")
    trainings, tasks = values.get("training", []), values.get("task", [{}])
    require(isinstance(trainings, list) and bool(trainings), "training", trainings, "a plan needs at least one [[training]]")
    require(isinstance(tasks, list) and bool(tasks), "task", tasks, "give [[task]] tables, or none")
    seeds = values.get("seeds", [0])
    require(isinstance(seeds, list) and bool(seeds), "seeds", seeds, "give a list of seeds, such as [0, 1]")
    defaults, evaluation, equal = values.get("defaults", {}), values.get("evaluation", {}), values.get("equal", "epochs")
    named = [("defaults", defaults), ("evaluation", evaluation), *(("training", t) for t in trainings), *(("task", t) for t in tasks)]
    for name, table in named:
        require(isinstance(table, dict), name, table, "give a table")
        if name != "evaluation":
            require("seed" not in table, f"seed of {name}", table.get("seed"), "say seeds = [0, 1] once, for all trainings")
    if len(tasks) > 1:
        require(all(t.get("name") for t in tasks), "name", None, "several [[task]] tables need a name each")
    trainings = [one for table in trainings for one in _swept(table)]
    _check_shared(defaults, trainings, [t.get("name", "") for t in tasks])

    experiments: dict[str, Experiment] = {}
    measures: list[Measures] = []
    for task, table, seed in itertools.product(tasks, trainings, seeds):
        experiment = _experiment(defaults, task, table, equal, {**(overrides or {}), "seed": seed}, experiments)
        folder = _folder(experiment, task.get("name", ""))
        alone = folder not in experiments
        require(alone, "name", experiment.label, f"two trainings of a plan would share the folder {folder}; they need different names")
        experiments[folder] = experiment
        measures.append(config.build(Measures, _merged(evaluation, task.get("evaluation", {})), "evaluation"))
    title = str(values.get("title", path.stem)) + (f" (budget: {budget})" if budget else "")
    return Plan(title, tuple(experiments.values()), tuple(experiments), tuple(measures))


_PARTS = ("title", "seeds", "equal", "defaults", "task", "training", "evaluation")
_EQUAL = ("epochs", "gradients")


def _experiment(
    defaults: Mapping[str, Any],
    task: Mapping[str, Any],
    table: Mapping[str, Any],
    equal: str,
    overrides: Mapping[str, Any],
    earlier: Mapping[str, Experiment],
) -> Experiment:
    """Return one training on one task; `earlier` are those before it in the plan, by folder."""
    place = task.get("name", "")
    values = _merged(
        _merged(defaults, {k: v for k, v in task.items() if k not in ("name", "evaluation")}),
        {k: v for k, v in table.items() if k != "in_task"},
    )
    values = {**_merged(values, table.get("in_task", {}).get(place, {})), **overrides}
    equal, chosen = values.pop("equal", equal), values.pop("preset", None)
    if equal not in _EQUAL:
        raise unknown("equal", equal, _EQUAL)
    first = values.get("start_from")
    if first:
        start = _folder_of(str(first), values["seed"], place)
        if start not in earlier:
            raise NoiseproofError(f"start_from is {first!r}: no training of that name stands before {table.get('name')!r} in the plan")
        # its folder is known when the plan is run
        values |= {"start_from": start, "started_from": earlier[start].identity}
    experiment = config.from_dict({**(config.preset(chosen) if chosen else {}), **values})
    if equal == "gradients":
        epochs = max(1, round(experiment.epochs / experiment.method.gradient_evaluations))
        experiment = replace(experiment, epochs=epochs)
    return experiment


def _swept(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one training for every combination of the values that `sweep` lists, its name followed by them.

    Raises `NoiseproofError` when `sweep` is no table of lists.
    """
    rest = {key: value for key, value in table.items() if key != "sweep"}
    sweep = table.get("sweep", {})
    lists = isinstance(sweep, dict) and all(isinstance(values, list) and values for values in sweep.values())
    require(lists, "sweep", sweep, "give settings of the method with the values that each takes, such as { eta = [0.1, 0.3] }")
    made = []
    for values in itertools.product(*sweep.values()):
        settings = dict(zip(sweep, values, strict=True))
        name = ", ".join([str(table.get("name", "")), *(f"{key} {value}" for key, value in settings.items())])
        made.append(_merged(rest, {"name": name, "method": settings}) if settings else rest)
    return made


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return `first` with the values of `second`; settings of a method or network are added to those there, unless it is another one."""
    made = dict(first)
    for key, value in second.items():
        there = made.get(key)
        there = {"name": there} if isinstance(there, str) and isinstance(value, dict) else there
        same = isinstance(there, dict) and isinstance(value, dict) and value.get("name", there.get("name")) == there.get("name")
        made[key] = _merged(there, value) if same else value  # pyright: ignore[reportArgumentType]
    return made


def _within_budget(values: Mapping[str, Any], budget: str | None) -> dict[str, Any]:
    """Return the plan's tables with what `budget.NAME` changes in them.

    Raises `NoiseproofError` when no table knows that budget.
    """
    known: set[str] = set()

    def settle(item: Any) -> Any:
        if isinstance(item, list):
            return [settle(one) for one in item]
        if not isinstance(item, dict):
            return item
        settled = {key: settle(value) for key, value in item.items() if key != "budget"}
        budgets = item.get("budget", {})
        require(
            isinstance(budgets, dict) and all(isinstance(b, dict) for b in budgets.values()),
            "budget",
            budgets,
            "give tables, such as budget.small = { epochs = 2 }",
        )
        known.update(budgets)
        return _merged(settled, budgets.get(budget, {}))

    settled = settle(dict(values))
    if budget is not None and budget not in known:
        raise (
            unknown("budget", budget, known)
            if known
            else NoiseproofError(f"budget is {budget!r}: this plan has one budget only; leave it out")
        )
    return settled


def _check_shared(defaults: Mapping[str, Any], trainings: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> None:
    """Raise `NoiseproofError` when the trainings of a plan have not one task in common, or name a task that is not there."""
    sets = {str(table.get("data", defaults.get("data", ""))): str(table.get("name", "")) for table in trainings}
    if len(sets) > 1:
        (one, first), (other, second) = list(sets.items())[:2]
        raise NoiseproofError(
            f"data is {one!r} in training {first!r} and {other!r} in training {second!r}: methods of one plan must share their task; give "
            "each task a [[task]] table, on which every training is then done, or make two plans"
        )
    for table in trainings:
        for name in table.get("in_task", {}):
            if name not in tasks:
                raise unknown(f"in_task of training {table.get('name', '')!r}", name, tasks)


def _folder(experiment: Experiment, task: str) -> str:
    """Return the name of the run's folder in its plan."""
    return _folder_of(experiment.label, experiment.seed, task)


def _folder_of(label: str, seed: int, task: str) -> str:
    words = f"{task} {label}".replace("β", "beta").replace("ζ", "zeta").replace("η", "eta").replace("+", " and ").lower()
    return f"{re.sub(r'[^a-z0-9]+', '-', words).strip('-') or 'training'}-seed{seed}"
