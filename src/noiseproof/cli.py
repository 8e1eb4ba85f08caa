"""The command line: each verb parses, calls, prints. `noiseproof --help` imports neither torch nor anything heavy."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, field, make_dataclass, replace
from pathlib import Path
from typing import Any

from noiseproof._settings import Budget, Certifying, Chips, Data, FitPage, Limits, OnInputs, Out, Report, Test, Where
from noiseproof._words import parse, take_option, take_positional, take_positionals

HELP = """\
usage: noiseproof VERB [options]

What will my network do on noisy hardware, and how do I make it survive?

  demo       train a standard and two hardened networks on handwritten digits, measure them, write a report
  train      train a network: --data, --network, --method NAME with its own flags; or go on with a run folder
  evaluate   measure trained networks: simulated chips, adversary, loss landscape
  attack     attack the inputs of trained networks: --attack NAME with its own flags; says whether the figure can be trusted
  certify    what no chip within given bounds can do, proved, and what at most one chip in so many will: --box, --mismatch
  fit        which ζ is my chip? fit the noise of measured parameters (a CSV file)
  report     one self-contained HTML file from run folders
  run        a plan: several trainings, the measurements and the report; does what is missing
  data       list the data sets, say where they are, fetch them

Each verb explains itself with --help. Mismatch ζ is one standard deviation. Numbers may be fractions: 8/255.
"""

VERBS = ("demo", "train", "evaluate", "attack", "certify", "fit", "report", "run", "data")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit code 0: done; 2: something given is wrong, said in one line; 130 and 143: interrupted."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    from noiseproof.errors import NoiseproofError, unknown

    signal.signal(signal.SIGTERM, _terminate)
    try:
        if words[0] == "--version":
            from noiseproof.records import VERSION

            print(f"noiseproof {VERSION}")
        elif words[0] not in VERBS:
            raise unknown("verb", words[0], VERBS)
        else:
            with _warnings_of_one_line():
                globals()[f"_{words[0]}"](words[1:])
    except NoiseproofError as error:
        _stop(str(error), 2)
    except KeyboardInterrupt:
        _stop("interrupted; the same command goes on where this one stopped", 130)
    except BrokenPipeError:
        sys.stderr.close()


def _train(words: list[str]) -> None:
    from noiseproof.neurons import tune_allocator
    from noiseproof.plan import experiment_of
    from noiseproof.records import RunFolder
    from noiseproof.training import train_experiment

    resumed = take_positional(words)
    if resumed is not None:
        (where,) = parse(words, "train RUN", "Go on with the training of a run folder.", Where())
        run = RunFolder(resumed)
        experiment = experiment_of(run)
    else:
        about = "Train a network. --preset, --network and --method NAME decide which flags there are: --method NAME --help shows them."
        experiment, out, where = parse(words, "train", about, _experiment_defaults(words), Out(), Where())
        run = RunFolder(out.out or _default_folder(experiment))
    tune_allocator()  # this process is ours
    train_experiment(experiment, run, data_dir=where.data_dir, device=where.device)
    best = next(r for r in run.records() if r.metric == "best_epoch")
    scores = {r.at.get("epoch"): r.value for r in run.records() if r.metric == "validation_accuracy"}
    print(f"{run.path}: best epoch {best.value:.0f} of {experiment.epochs}, validation accuracy {100 * scores[best.value]:.2f} %")
    print(f"next: noiseproof evaluate {run.path}")


def _evaluate(words: list[str]) -> None:
    from noiseproof.evaluation import Measures
    from noiseproof.neurons import tune_allocator
    from noiseproof.plan import evaluate_run

    folders = take_positionals(words)
    about = "Measure trained networks and add what is new to their records."
    measures, test, chips, where = parse(words, "evaluate RUN [RUN …]", about, Measures(), Test(), Chips(), Where())
    runs = _runs(folders)
    tune_allocator()
    for run in runs:
        evaluate_run(run, measures, data_dir=where.data_dir, device=where.device, limit_test=test.limit_test, processes=chips.processes)
    _print_table(runs)
    print(f"next: noiseproof report {' '.join(folders)}")


def _attack(words: list[str]) -> None:
    from noiseproof.neurons import tune_allocator
    from noiseproof.plan import attack_run
    from noiseproof.report import attacked, warnings

    folders = take_positionals(words)
    about = "Attack the inputs of trained networks and count what is still right. --attack NAME decides which flags there are."
    chosen, settings, where = parse(words, "attack RUN [RUN …]", about, _attack_defaults(words), OnInputs(), Where())
    runs = _runs(folders)
    if settings.save is not None and len(runs) > 1:
        raise _error(f"save is {settings.save!r}: it takes one run, these are {len(runs)}; give one")
    attacks = [chosen.attack.at(eps) for eps in settings.eps or (chosen.attack.eps,)]
    tune_allocator()
    made: dict[str, Any] = {}
    for run in runs:
        done = attack_run(
            run, attacks, samples=settings.limit_test, seeds=settings.seeds, checks=settings.checks, transfer_from=settings.transfer_from,
            save=settings.save, data_dir=where.data_dir, device=where.device,
        )  # fmt: skip
        made |= {repr(attack.describe()): attack.describe() for attack in done}
    _print_tables(attacked.tables(runs, list(made.values()), settings.limit_test))
    lines = [line for run in runs for line in attacked.judgements(run, list(made.values()))]
    print("\n".join([*lines, *(f"warning: {warning}" for warning in warnings(runs))]))
    print(f"wrote {settings.save}\n" if settings.save is not None else "", end="")
    print(f"next: noiseproof report {' '.join(folders)}")


def _certify(words: list[str]) -> None:
    from noiseproof.errors import naming
    from noiseproof.evaluation import Measures
    from noiseproof.evaluation.fixed_chips import check_number
    from noiseproof.neurons import tune_allocator
    from noiseproof.plan import evaluate_run
    from noiseproof.report import certified, warnings

    folders = take_positionals(words)
    about = "Prove what no chip in a box of weights can do, attack each sample in it, and say with which confidence chips keep an accuracy."
    asked, chips, where = parse(words, "certify RUN [RUN …]", about, Certifying(), Chips(), Where())
    runs = _runs(folders)
    with _named_as_flags():
        measures = Measures(
            mismatch=asked.mismatch, chips=asked.chips, parameters=asked.parameters, box=asked.box, box_eps=asked.eps,
            box_samples=asked.limit_test, box_bounds=asked.bounds, box_arithmetic=asked.arithmetic, box_steps=asked.steps,
            box_restarts=asked.restarts, chip_seed=asked.chip_seed,
        )  # fmt: skip
    for run in runs:
        with naming(run.path):
            check_number(run.records(), measures.noises(), asked.chips, asked.chip_seed)
    tune_allocator()
    for run in runs:
        evaluate_run(run, measures, data_dir=where.data_dir, device=where.device, limit_test=asked.chip_samples, processes=chips.processes)
    said = certified.Asked(asked.yield_accuracy or None, asked.confidence, asked.failure_rate)
    tables = [*certified.tables(runs, asked.parameters), *certified.statements(runs, said, asked.parameters)]
    _print_tables(tables)
    lines = certified.sentences(runs, said, asked.chip_seed, asked.parameters) + certified.legend(tables)
    lines += [f"note: {note}" for note in certified.notes(runs, asked.parameters, asked.chips, asked.chip_seed)]
    lines += [f"warning: {warning}" for warning in warnings(runs)]
    print("".join(line + "\n" for line in lines), end="")
    flags = {"yield_accuracy": "--required-accuracy", "confidence": "--confidence", "failure_rate": "--failure-rate"}
    usual = Certifying()
    given = "".join(f" {flag} {getattr(asked, name):.12g}" for name, flag in flags.items() if getattr(asked, name) != getattr(usual, name))
    print(f"next: noiseproof report {' '.join(folders)}{given}")


def _fit(words: list[str]) -> None:
    from noiseproof.fitting import fit
    from noiseproof.report import fit as page

    path = take_positional(words)
    about = "Fit the noise of measured parameters by kind: a CSV file with the columns kind, nominal, measured. ζ: one standard deviation."
    (settings,) = parse(words, "fit CHIP.csv", about, FitPage())
    if path is None:
        raise _error("file is missing: noiseproof fit CHIP.csv, with the columns kind, nominal, measured")
    fits = fit(path)
    page.write(fits, Path(settings.out), path)
    _print_tables([page.table(fits)])
    for note in page.notes(fits):
        print(note)
    print(f"wrote {settings.out}\nnext: noiseproof evaluate RUN --noise '{page.noise_of(fits)}'")


def _report(words: list[str]) -> None:
    from noiseproof import report

    folders = take_positionals(words)
    (settings,) = parse(words, "report RUN [RUN …]", "Write one self-contained HTML file from the records of runs.", Report())
    runs = _runs(folders)
    report.write(
        runs, Path(settings.out), title=settings.title, required=settings.required_accuracy or None, confidence=settings.confidence,
        failure_rate=settings.failure_rate,
    )  # fmt: skip
    for warning in report.warnings(runs):
        print(f"warning: {warning}")
    print(f"wrote {settings.out}")


def _run(words: list[str]) -> None:
    path = take_positional(words)
    about = "Do a plan: train, measure, report. What is there already is not done again."
    budget, limits, out, chips, where = parse(words, "run PLAN.toml", about, Budget(), Limits(), Out(), Chips(), Where())
    if path is None:
        raise _error("plan is missing: noiseproof run PLAN.toml")
    default = f"runs/{Path(path).stem}" + (f"-{budget.budget}" if budget.budget else "")
    _run_plan(Path(path), Path(out.out or default), limits, chips, where, budget.budget)


def _demo(words: list[str]) -> None:
    from noiseproof.plan import BUILT_IN

    about = "Train a standard and two hardened networks on handwritten digits, measure them, write runs/demo/report.html."
    limits, out, chips, where = parse(words, "demo", about, Limits(), Out("runs/demo"), Chips(), Where())
    _run_plan(BUILT_IN / "demo.toml", Path(out.out), limits, chips, where)


def _run_plan(path: Path, out: Path, limits: Limits, chips: Chips, where: Where, budget: str | None = None) -> None:
    from noiseproof.neurons import tune_allocator
    from noiseproof.plan import run_plan
    from noiseproof.plan_file import load_plan

    given = {name: value for name, value in asdict(limits).items() if value is not None}
    chips_a_level = given.pop("chips", None)
    plan = load_plan(path, given, budget)
    if chips_a_level is not None:
        plan = replace(plan, measures=tuple(replace(measures, chips=chips_a_level) for measures in plan.measures))
    tune_allocator()
    runs = run_plan(plan, out, data_dir=where.data_dir, device=where.device, processes=chips.processes)
    _print_table(runs)
    print(f"report: {out / 'report.html'}")


def _data(words: list[str]) -> None:
    from noiseproof import _names, data

    verb = words.pop(0) if words else "list"
    if verb in ("-h", "--help"):
        print("usage: noiseproof data list | where NAME | fetch NAME   [--data-dir FOLDER]")
        return
    name = take_positional(words)
    (settings,) = parse(words, f"data {verb}", "List data sets, say where they are, fetch them.", Data())
    if verb == "list":
        for known in data.available():
            place = data.where(known, settings.data_dir)
            print(f"{known:16} {_names.find('data', 'data_set', known).title}; {place or f'not here: noiseproof data fetch {known}'}")
    elif verb not in ("where", "fetch"):
        from noiseproof.errors import unknown

        raise unknown("data verb", verb, ("list", "where", "fetch"))
    elif name is None:
        raise _error(f"name is missing: noiseproof data {verb} NAME")
    else:
        place = (data.where if verb == "where" else data.fetch)(name, settings.data_dir)
        if place is None:
            raise _error(f"data is {name!r}: it is not on this machine; noiseproof data fetch {name}, or give its folder with --data-dir")
        print(place)


def _experiment_defaults(words: list[str]) -> Any:
    """Return the experiment whose fields are `train`'s flags; preset, network and method come first, as they decide which there are."""
    from noiseproof import config

    preset = take_option(words, "--preset")
    values = config.preset(preset) if preset else {}
    for name in ("network", "method"):
        chosen = take_option(words, f"--{name}")
        if chosen is not None:
            values[name] = _part(words, name, chosen)
    return config.build(config.Experiment, values, f"preset {preset}")


def _attack_defaults(words: list[str]) -> Any:
    """Return the attack whose fields are the flags `--attack.…`; without a name the one that robust accuracy is taken from."""
    name = take_option(words, "--attack") or "ensemble"
    if name == "transfer":
        raise _error("attack is 'transfer': say which attack is made on the other network: --attack pgd --transfer-from RUN")
    attack = _part(words, "attack", name)
    return make_dataclass("Chosen", [("attack", type(attack), field(default=attack))], frozen=True)()


def _part(words: list[str], kind: str, name: str) -> Any:
    """Return a network or a method of that name with its defaults; the methods inside it are named first too: --method.inputs NAME."""
    from noiseproof import config

    cls = config.part_class(kind, name)
    inside = {field: take_option(words, f"--{kind}.{field}") for field in config.method_fields(cls)}
    return cls(**{field: _part(words, "method", chosen) for field, chosen in inside.items() if chosen is not None})


def _runs(folders: list[str]) -> list[Any]:
    """Return the run folders that are named; a folder of a plan stands for all of its runs."""
    from noiseproof.records import RunFolder

    if not folders:
        raise _error("run is missing: name at least one run folder, such as runs/demo/standard-seed0")
    found = []
    for folder in folders:
        inside = sorted(path.parent for path in Path(folder).glob("*/experiment.toml"))
        found += inside if inside and not (Path(folder) / "experiment.toml").exists() else [Path(folder)]
    runs = [RunFolder(path) for path in found]
    for run in runs:
        run.settings()
    return runs


def _default_folder(experiment: Any) -> str:
    from noiseproof.config import to_dict

    described = to_dict(experiment)
    return f"runs/{experiment.data}-{described['network']['name']}-{described['method']['name']}-seed{experiment.seed}".replace(":", ".")


def _print_table(runs: list[Any]) -> None:
    from noiseproof import report

    print("".join(f"warning: {warning}\n" for warning in report.warnings(runs)), end="")
    several = report.noise_tables(runs)
    _print_tables([report.summarise(runs), *(several if len(several) > 1 else [])])


def _print_tables(tables: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=220)  # a log has no width of its own: give the tables the room that they need
    for found in tables:
        table = Table(title=found.caption)
        for column in found.columns:
            table.add_column(f"{column.title}\n{column.detail}".strip(), justify="right" if column.numeric else "left")
        for row in found.rows:
            table.add_row(*(Text(f"{cell.text}\n{cell.detail}".strip()) for cell in row))
        console.print(table, markup=False)


@contextlib.contextmanager
def _named_as_flags() -> Iterator[None]:
    """Say in errors --bounds and not box_bounds, which is its name beside other measurements."""
    from noiseproof.errors import NoiseproofError

    try:
        yield
    except NoiseproofError as error:
        raise NoiseproofError(re.sub(r"\bbox_(?=[a-z])", "", str(error))) from None


@contextlib.contextmanager
def _warnings_of_one_line() -> Iterator[None]:
    import warnings

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"noiseproof: warning: {message}", file=sys.stderr)
        yield


def _error(message: str) -> Exception:
    from noiseproof.errors import NoiseproofError

    return NoiseproofError(message)


def _stop(message: str, code: int) -> None:
    print(f"noiseproof: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _terminate(number: int, frame: Any) -> None:
    _stop("terminated; the same command goes on where this one stopped", 128 + number)
