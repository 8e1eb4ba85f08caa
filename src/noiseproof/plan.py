"""A plan: several trainings, the same measurements on all of them, one report. It does what is missing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from noiseproof import checkpoint, config, training
from noiseproof.attacks import Attack
from noiseproof.config import Experiment
from noiseproof.data import Splits
from noiseproof.errors import NoiseproofError, naming, require
from noiseproof.evaluation import Ledger, Measures, check_attack, check_measures, measure_all, robustness
from noiseproof.evaluation.robustness import blocks_of
from noiseproof.evaluation.sources import with_source
from noiseproof.files import locked
from noiseproof.fine_tuning import check_start
from noiseproof.methods import Context
from noiseproof.parameters import Params
from noiseproof.plan_file import Plan
from noiseproof.progress import Progress, duration
from noiseproof.randomness import generator, stochastic
from noiseproof.records import RunFolder
from noiseproof.rehearsal import rehearse

BUILT_IN = Path(__file__).parent / "plans"


def run_plan(
    plan: Plan, out: Path, *, data_dir: str | None = None, device: str = "cpu", processes: int | None = None, progress: bool = True
) -> list[RunFolder]:
    """Train, measure and report; whatever is in `out` already is not done again. Return the run folders."""
    training.check_device(device)
    runs = [RunFolder(out / folder) for folder in plan.folders]
    experiments = [replace(e, start_from=str(out / e.start_from)) if e.start_from else e for e in plan.experiments]
    for experiment, run in zip(experiments, runs, strict=True):
        if run.experiment_file.exists():
            training.claim(run, config.to_dict(experiment))
    todo = [(e, m) for e, m, run in zip(experiments, plan.measures, runs, strict=True) if not run.weights_file.exists()]
    _rehearse(todo, {str(run.path): e for e, run in zip(experiments, runs, strict=True)}, data_dir, device, progress)
    for experiment, run in zip(experiments, runs, strict=True):
        training.train_experiment(experiment, run, data_dir=data_dir, device=device, progress=progress)
    for experiment, measures, run in zip(experiments, plan.measures, runs, strict=True):
        if measures.transfer_from:
            measures = replace(measures, transfer_from=str(out / measures.transfer_from))
        evaluate_run(run, measures, data_dir=data_dir, device=device, processes=processes, progress=progress, experiment=experiment)
    required = {m.required_accuracy for m in plan.measures}
    # tasks that require different accuracies have each its own in the report
    write_report(runs, out / "report.html", plan.title, (required.pop() or None) if len(required) == 1 else None)
    return runs


def evaluate_run(
    run: RunFolder,
    measures: Measures,
    *,
    data_dir: str | None = None,
    device: str = "cpu",
    limit_test: int | None = None,
    processes: int | None = None,
    progress: bool = True,
    experiment: Experiment | None = None,
) -> None:
    """Measure a finished run and append what is new to its records.

    Raises `NoiseproofError` when the run is not finished, is damaged, or was made from Python with an outside network.
    """
    with naming(run.path), _opened(run, data_dir, device, limit_test, experiment) as (network, data, ledger, name):
        measure_all(network, data, measures, ledger, name=name, processes=processes, progress=progress, folder=run.path)


def attack_run(
    run: RunFolder,
    attacks: Sequence[Attack],
    *,
    samples: int = 1000,
    seeds: int = 1,
    checks: bool = True,
    transfer_from: str = "",
    save: str | None = None,
    data_dir: str | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> list[Attack]:
    """Attack the inputs of a finished run and append what is new to its records; return the attacks, with those made on another network.

    `transfer_from`: the folder of a run on whose network the attacks by gradients are made too, and which ensembles get as their
    source. The rest is as for `robustness`.

    Raises `NoiseproofError` as `evaluate_run` does, and when an attack does not fit, before any long work.
    """
    with _opened(run, data_dir, device) as (network, data, ledger, name):
        test = data.test.to(device)
        attacks = with_source(network, attacks, transfer_from, data, device)
        require(save is None or len(attacks) == 1, "save", save, f"it takes one attack at one ε, these are {len(attacks)}; give one")
        for attack in attacks:
            check_attack(network, test.x[:2], attack)
        work = blocks_of(attacks, min(samples, len(test)), seeds, checks)
        with stochastic(0), Progress(f"attacking {name}", work, quiet=not progress) as bar:
            for attack in attacks:
                robustness(network, test, attack, samples=samples, seeds=seeds, checks=checks, save=save, ledger=ledger, progress=bar)
    return attacks


@contextlib.contextmanager
def _opened(
    run: RunFolder, data_dir: str | None, device: str, limit_test: int | None = None, experiment: Experiment | None = None
) -> Iterator[tuple[nn.Module, Splits, Ledger, str]]:
    """Open a finished run for this process: its network, its data, its ledger, its name."""
    training.check_device(device)
    experiment = experiment or experiment_of(run)
    # of the training split, only what is no copy is measured
    data = training.load_data(replace(experiment, limit_test=limit_test or experiment.limit_test, augment=False), data_dir)
    network = training.build_network(experiment, data)
    checkpoint.load_weights(run.weights_file, network)
    with locked(run.path):
        ledger = Ledger(experiment.identity, run.records(), run.append, device)
        yield network.to(device), data, ledger, f"{experiment.label}, seed {experiment.seed}"


def experiment_of(run: RunFolder) -> Experiment:
    """Return the experiment of a run folder, ready to be trained again.

    Raises `NoiseproofError` when its network is one from outside that only the script which made it can build.
    """
    values = run.settings()
    if "shapes" in values.get("network", {}):
        raise NoiseproofError(f"{run.path} holds a network from outside noiseproof: train and evaluate it from the script that made it")
    return config.from_dict(values)


def write_report(runs: Sequence[RunFolder], path: Path, title: str, required: float | None) -> None:
    """Write the report of `runs` to `path`."""
    from noiseproof import report

    report.write(runs, path, title=title, required=required)


def _rehearse(
    todo: list[tuple[Experiment, Measures]], by_folder: Mapping[str, Experiment], data_dir: str | None, device: str, progress: bool
) -> None:
    """Try every kind of training, and what is measured on it, before any long work; say how long the trainings will take."""
    kinds = [replace(experiment, seed=0, name="").identity for experiment, _ in todo]
    seconds: dict[str, float] = {}
    loaded: dict[str, Splits] = {}
    for kind, (experiment, measures) in zip(kinds, todo, strict=True):
        if kind in seconds:
            continue
        source = repr((experiment.data, experiment.augment, experiment.cutout, experiment.limit_train, experiment.validation))
        if source not in loaded:
            loaded[source] = training.load_data(experiment, data_dir)
        data = loaded[source]
        network = training.build_network(experiment, data)
        rehearse(network, data, experiment.method, experiment)
        if experiment.start_from:
            check_start(by_folder[experiment.start_from], experiment, data.task)
        # the network of another training is not there yet
        check_measures(network, data, replace(measures, transfer_from=""))
        seconds[kind] = _seconds(experiment, data, device) if progress and len(todo) > 1 else 0.0
    if progress and len(todo) > 1:
        with Progress("plan", len(todo)) as bar:
            total = duration(sum(seconds[kind] for kind in kinds))
            bar.say(f"{len(todo)} trainings, about {total} in all; an interrupted plan goes on where it stopped")


def _seconds(experiment: Experiment, data: Splits, device: str) -> float:
    """Return the time of a training, estimated from the faster of two steps on a network that is thrown away."""
    network = training.build_network(experiment, data).to(device)
    batch = (data.train.x[: experiment.batch_size].to(device), data.train.y[: experiment.batch_size].to(device))
    context = Context(generator("estimate", 0, device=device), state=experiment.method.start(network))

    def update(loss: Tensor, gradient: Params | None = None, free: Params | None = None) -> None:
        if gradient is None:
            loss.backward()

    def step() -> float:
        begun = time.perf_counter()
        with stochastic(0):
            experiment.method.step(network, batch, context, update)
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    return min(step(), step()) * experiment.epochs * -(-len(data.train) // experiment.batch_size)
