"""A plan as a file: TOML → trainings (one experiment a task, method and seed) and what is measured on each, checked before any work."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from noiseproof import _names, config
from noiseproof.config import Experiment
from noiseproof.data import Task
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

    Every training is done on every task with every seed, unless it names some of them: `tasks`, `seeds`. A later table overrides
    an earlier one: defaults, task, training, `in_task.NAME` of the training; and `evaluation` of the plan, of a task, of a
    training. `sweep` of a training lists values of settings of its method: one training for each combination.
    `equal = "gradients"`, of the plan or of a training, lets `epochs` count gradient evaluations a sample, so that a method which
    needs k of them a step has epochs/k epochs. Any table may hold `budget.NAME`: what it changes under that budget; a task or
    training with `skip = true` is left out. `start_from` names another training, whose weights are the first ones; `transfer_from`
    of an evaluation another training too, or "other-seed", on whose network attacks are made to be shown to this one. `overrides`
    are fields of Experiment that hold for every training, whatever the file says.

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
    _check_named(trainings, [t.get("name", "") for t in tasks], seeds)
    tasks = _kept(tasks, "task")
    trainings = [one for table in _kept(trainings, "training") for one in _swept(table)]

    experiments: dict[str, Experiment] = {}
    measures: list[Measures] = []
    places: list[str] = []
    for task, table, seed in itertools.product(tasks, trainings, seeds):
        if task.get("name", "") not in table.get("tasks", [task.get("name", "")]) or seed not in table.get("seeds", seeds):
            continue
        experiment = _experiment(defaults, task, table, equal, {**(overrides or {}), "seed": seed}, experiments)
        folder = _folder(experiment, task.get("name", ""))
        alone = folder not in experiments
        require(alone, "name", experiment.label, f"two trainings of a plan would share the folder {folder}; they need different names")
        experiments[folder] = experiment
        places.append(task.get("name", ""))
        measured = _merged(_merged(evaluation, task.get("evaluation", {})), table.get("evaluation", {}))
        measures.append(config.build(Measures, measured, "evaluation"))
    _check_data(list(experiments.values()), places)
    title = str(values.get("title", path.stem)) + (f" (budget: {budget})" if budget else "")
    measures = [_with_source(m, *where, experiments) for m, where in zip(measures, zip(experiments, places, strict=True), strict=True)]
    return Plan(title, tuple(experiments.values()), tuple(experiments), tuple(measures))


_PARTS = ("title", "seeds", "equal", "defaults", "task", "training", "evaluation")
_EQUAL = ("epochs", "gradients")
OTHER_SEED = "other-seed"  # the same training with the next seed of the plan
_OF_THE_PLAN = ("in_task", "tasks", "seeds", "evaluation")  # what a training has beside the fields of its experiment


def _kept(tables: Sequence[Mapping[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the tables that are not to be skipped, without that word.

    Raises `NoiseproofError` when none is left, or `skip` is neither true nor false.
    """
    for table in tables:
        require(isinstance(table.get("skip", False), bool), f"skip of {kind}", table.get("skip"), "give true or false")
    kept = [{key: value for key, value in table.items() if key != "skip"} for table in tables if not table.get("skip")]
    require(bool(kept), kind, [], "every one is skipped; leave one")
    return kept


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
        {k: v for k, v in table.items() if k not in _OF_THE_PLAN},
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
        experiment = replace(experiment, epochs=max(1, round(experiment.epochs / _gradient_evaluations(experiment))))
    experiment.method.check_epochs(experiment.epochs)
    return experiment


def _gradient_evaluations(experiment: Experiment) -> float:
    """Return what a step costs on the experiment's network; of the data only the shape is needed."""
    known = _names.find("data", "data_set", experiment.data)
    task = Task(experiment.data, known.shape, known.classes, (0.0,), (1.0,), known.bounds)
    with torch.device("meta"):
        return experiment.method.gradient_evaluations_on(experiment.network.make(task))


def _with_source(measures: Measures, folder: str, place: str, experiments: Mapping[str, Experiment]) -> Measures:
    """Return what is measured with `transfer_from` as the folder, in the plan, of the run that it names; nobody attacks from itself."""
    wanted, experiment = measures.transfer_from, experiments[folder]
    if not wanted:
        return measures
    label, seed = wanted, experiment.seed
    if wanted == OTHER_SEED:
        label = experiment.label
        seeds = [e.seed for f, e in experiments.items() if f == _folder_of(label, e.seed, place)]
        seed = seeds[(seeds.index(seed) + 1) % len(seeds)]
        require(len(seeds) > 1, "transfer_from", wanted, f"{label} is trained with one seed only; give the plan seeds = [0, 1]")
    source = _folder_of(label, seed, place)
    if source not in experiments:
        raise unknown("transfer_from", wanted, {OTHER_SEED, *(e.label for e in experiments.values())})
    return replace(measures, transfer_from=source if source != folder else "")


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


def _check_data(experiments: Sequence[Experiment], places: Sequence[str]) -> None:
    """Raise `NoiseproofError` when the trainings of one task are not all on the same data."""
    first: dict[str, Experiment] = {}
    for experiment, place in zip(experiments, places, strict=True):
        one = first.setdefault(place, experiment)
        if one.data != experiment.data:
            raise NoiseproofError(
                f"data is {one.data!r} in training {one.label!r} and {experiment.data!r} in training {experiment.label!r}: "
                "methods of one plan must share their task; give each task a [[task]] table, on which every training is then done, or "
                "make two plans"
            )


def _check_named(trainings: Sequence[Mapping[str, Any]], tasks: Sequence[str], seeds: Sequence[int]) -> None:
    """Raise `NoiseproofError` when a training names a task or seed that is not there."""
    for table in trainings:
        named = f"of training {table.get('name', '')!r}"
        within = table.get("in_task", {})
        tables = isinstance(within, dict) and all(isinstance(values, dict) for values in within.values())
        require(tables, f"in_task {named}", within, "give tables, such as in_task.ECG = { epochs = 2 }")
        for name in within:
            if name not in tasks:
                raise unknown(f"in_task {named}", name, tasks)
        for key, known in (("tasks", tasks), ("seeds", seeds)):
            chosen = table.get(key, known)
            fits = isinstance(chosen, list) and bool(chosen) and all(one in known for one in chosen)
            require(fits, f"{key} {named}", chosen, f"give a list of some of the plan's, {listing(map(str, known))}")


def _folder(experiment: Experiment, task: str) -> str:
    """Return the name of the run's folder in its plan."""
    return _folder_of(experiment.label, experiment.seed, task)


def _folder_of(label: str, seed: int, task: str) -> str:
    words = f"{task} {label}".replace("β", "beta").replace("ζ", "zeta").replace("η", "eta").replace("+", " and ").lower()
    return f"{re.sub(r'[^a-z0-9]+', '-', words).strip('-') or 'training'}-seed{seed}"
