"""What a plan's file says: tasks, budgets, equal budgets, fine-tuning; and what it must not say."""

from pathlib import Path

import pytest
import torch

from noiseproof import NoiseproofError, config
from noiseproof.plan import run_plan
from noiseproof.plan_file import Plan, load_plan
from noiseproof.records import RunFolder

EXPERIMENTS = Path(__file__).parents[1] / "experiments"

TWO_TASKS = """
seeds = [0, 1]
[defaults]
epochs = 12
network = { name = "mlp", hidden = [8] }
[[task]]
name = "A"
limit_train = 100
budget.small = { limit_train = 50 }
[[task]]
name = "B"
limit_train = 200
evaluation = { chips = 7 }
[[training]]
method = "standard"
[[training]]
name = "β"
method = { name = "weight-adversary", steps = 4, beta_rob = 0.25 }
in_task.B = { method = { beta_rob = 0.5 } }
budget.small = { method = { steps = 2 } }
[evaluation]
chips = 10
budget.small = { chips = 3 }
"""


def plan(tmp_path: Path, text: str, budget: str | None = None) -> Plan:
    (tmp_path / "plan.toml").write_text(text)
    return load_plan(tmp_path / "plan.toml", {}, budget)


def test_every_training_is_done_on_every_task_with_its_own_settings(tmp_path) -> None:
    made = plan(tmp_path, TWO_TASKS)
    by_folder = dict(zip(made.folders, made.experiments, strict=True))
    assert list(by_folder) == [f"{task}-{method}-seed{seed}" for task in "ab" for method in ("standard", "beta") for seed in (0, 1)]
    assert [by_folder[f"{task}-beta-seed0"].limit_train for task in "ab"] == [100, 200]
    assert [by_folder[f"{task}-beta-seed0"].method.beta_rob for task in "ab"] == [0.25, 0.5]  # pyright: ignore
    assert [by_folder[f"{task}-beta-seed0"].method.steps for task in "ab"] == [4, 4]  # pyright: ignore
    assert [m.chips for m in made.measures] == [10] * 4 + [7] * 4


def test_a_budget_changes_what_it_names_and_says_so(tmp_path) -> None:
    made = plan(tmp_path, TWO_TASKS, "small")
    by_folder = dict(zip(made.folders, made.experiments, strict=True))
    assert made.title.endswith("(budget: small)")
    assert [by_folder[f"{task}-beta-seed0"].limit_train for task in "ab"] == [50, 200]
    assert [(e.steps, e.beta_rob) for e in (by_folder[f"{task}-beta-seed0"].method for task in "ab")] == [(2, 0.25), (2, 0.5)]  # pyright: ignore
    assert [m.chips for m in made.measures] == [3] * 4 + [7] * 4
    with pytest.raises(NoiseproofError, match="budget is 'smal': did you mean 'small'"):
        plan(tmp_path, TWO_TASKS, "smal")


def test_equal_gradients_share_one_number_of_gradient_evaluations(tmp_path) -> None:
    made = plan(tmp_path, 'equal = "gradients"\n' + TWO_TASKS)
    for experiment in made.experiments:
        assert experiment.epochs == round(12 / experiment.method.gradient_evaluations)
    one = plan(tmp_path, TWO_TASKS.replace('name = "β"', 'name = "β"\nequal = "gradients"'))
    assert {e.label: e.epochs for e in one.experiments} == {"standard": 12, "β": 2}


def test_a_sweep_is_one_training_for_every_combination(tmp_path) -> None:
    made = plan(tmp_path, TWO_TASKS.replace('name = "β"', 'name = "β"\nsweep = { zeta_attack = [0.05, 0.1], steps = [1, 2] }'))
    found = {e.label: (e.method.zeta_attack, e.method.steps, e.method.beta_rob) for e in made.experiments if e.label != "standard"}  # pyright: ignore
    assert list(found)[1] == "β, zeta_attack 0.05, steps 2"
    assert list(found.values()) == [(0.05, 1, 0.5), (0.05, 2, 0.5), (0.1, 1, 0.5), (0.1, 2, 0.5)]  # those of task B came last


def test_a_training_may_be_skipped_and_have_tasks_seeds_and_measures_of_its_own(tmp_path) -> None:
    own = TWO_TASKS.replace('name = "β"', 'name = "β"\nseeds = [1]\nevaluation = { chips = 4 }')
    made = plan(tmp_path, own)
    assert [f for f in made.folders if "beta" in f] == ["a-beta-seed1", "b-beta-seed1"]
    assert [m.chips for m, e in zip(made.measures, made.experiments, strict=True) if e.label == "β"] == [4, 4]
    assert [m.chips for m, e in zip(made.measures, made.experiments, strict=True) if e.label != "β"] == [10, 10, 7, 7]
    only = TWO_TASKS.replace('name = "β"', 'name = "β"\ntasks = ["A"]').replace("in_task.B", "in_task.A")
    assert [f for f in plan(tmp_path, only).folders if "beta" in f] == ["a-beta-seed0", "a-beta-seed1"]
    skipped = TWO_TASKS.replace("budget.small = { method", "budget.small = { skip = true, method").replace(
        "= { limit_train = 50 }", "= { skip = true }"
    )
    assert plan(tmp_path, skipped).folders == plan(tmp_path, TWO_TASKS).folders
    assert plan(tmp_path, skipped, "small").folders == ("b-standard-seed0", "b-standard-seed1")


FINE_TUNED = """
[defaults]
network = { name = "mlp", hidden = [8] }
limit_train = 60
limit_test = 20
epochs = 1
[[training]]
name = "pretrained"
method = "standard"
[[training]]
name = "fine-tuned"
start_from = "pretrained"
method = "forward-noise"
learning_rate = 1e-9
[evaluation]
mismatch = [0.1]
chips = 1
"""


def test_fine_tuning_starts_from_the_weights_of_another_training(tmp_path) -> None:
    made = plan(tmp_path, FINE_TUNED)
    first, second = run_plan(made, tmp_path / "out", processes=1, progress=False)
    from safetensors.torch import load_file

    before, after = load_file(first.weights_file), load_file(second.weights_file)
    assert all(torch.allclose(after[name], w, atol=1e-6) for name, w in before.items())  # at a learning rate of nearly 0
    assert config.from_dict(second.settings()).started_from == config.from_dict(first.settings()).identity
    # a second run of the plan does nothing, wherever the folder is moved to
    (tmp_path / "out").rename(tmp_path / "moved")
    stamp = second.records_file.name, (tmp_path / "moved" / "fine-tuned-seed0" / "weights.safetensors").stat().st_mtime_ns
    again = run_plan(made, tmp_path / "moved", processes=1, progress=False)
    assert (again[1].records_file.name, again[1].weights_file.stat().st_mtime_ns) == stamp


def test_a_plain_network_is_trained_converted_and_fine_tuned_in_one_plan(tmp_path) -> None:
    text = FINE_TUNED.replace("hidden = [8]", "hidden = [32]").replace("limit_train = 60", "limit_train = 400\nbatch_size = 10")
    text = text.replace("epochs = 1", "epochs = 6")
    neurons = 'network = { neuron = "lif", steps = 8, trainable = ["threshold", "leak"] }'
    text = text.replace('start_from = "pretrained"', f'start_from = "pretrained"\n{neurons}')
    first, second = run_plan(plan(tmp_path, text), tmp_path / "out", processes=1, progress=False)
    records = {r.metric: r for r in second.records() if r.split == "validation" and not r.at}
    assert records["plain_accuracy"].value == max(r.value for r in first.records() if r.metric == "validation_accuracy")
    assert records["converted_accuracy"].value > 0.5
    thresholds = {r.perturbation["layer"]: r for r in second.records() if r.metric == "converted_threshold"}
    assert list(thresholds) == ["lif1"]
    assert "converted from a plain network: validation" in second.log_file.read_text()
    from safetensors.torch import load_file

    # trained at a learning rate of nearly 0, it is the converted one
    after = load_file(second.weights_file)
    assert float(after["lif1.threshold"]) == pytest.approx(thresholds["lif1"].value, abs=1e-6)
    assert float(after["lif1.leak"]) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(after["fc1.weight"], load_file(first.weights_file)["fc1.weight"], atol=1e-6)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            '{ neuron = "alif", tau = 5.0, decay_input = false }',
            "layer alif1 is ALIF: conversion needs neurons without recurrence or adaptation",
        ),
        ('{ neuron = "lif", hidden = [9] }', "fc1.weight of the plain network has no counterpart"),
        (
            '{ neuron = "relu", hidden = [9] }',
            r"fc1.weight is of shape \(8, 784\) there and of shape \(9, 784\) here; give both trainings the same network",
        ),
    ],
)
def test_a_start_that_is_impossible_is_said_before_any_training(network: str, message: str, tmp_path) -> None:
    made = plan(tmp_path, FINE_TUNED.replace('start_from = "pretrained"', f'start_from = "pretrained"\nnetwork = {network}'))
    with pytest.raises(NoiseproofError, match=rf"start_from is .*pretrained-seed0': {message}"):
        run_plan(made, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_experiment_are_refused(tmp_path) -> None:
    from dataclasses import replace

    from noiseproof.training import train_experiment

    made = plan(tmp_path, FINE_TUNED)
    pretrained, fine_tuned = (replace(e, start_from="") for e in made.experiments)
    train_experiment(pretrained, RunFolder(tmp_path / "one"), progress=False)
    train_experiment(replace(pretrained, seed=5), RunFolder(tmp_path / "other"), progress=False)
    train_experiment(replace(fine_tuned, start_from=str(tmp_path / "one")), RunFolder(tmp_path / "tuned"), progress=False)
    with pytest.raises(NoiseproofError, match="start_from is .*other.*holds another experiment"):
        train_experiment(replace(fine_tuned, start_from=str(tmp_path / "other")), RunFolder(tmp_path / "new"), progress=False)
    assert not (tmp_path / "new").exists()
    with pytest.raises(NoiseproofError, match="is no run folder"):
        train_experiment(
            replace(fine_tuned, start_from=str(tmp_path / "nowhere"), started_from=""), RunFolder(tmp_path / "new"), progress=False
        )


def test_an_equal_budget_counts_the_pass_that_batch_norm_costs(tmp_path) -> None:
    text = 'equal = "gradients"\n[defaults]\nepochs = 60\n[[training]]\nmethod = { name = "weight-adversary", steps = 3 }\n'
    plain, normed = (plan(tmp_path, text + more).experiments[0].epochs for more in ("", 'network = "resnet32"\ndata = "cifar-10"'))
    assert (plain, normed) == (12, 10)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_plan_is_valid_in_every_budget(path: Path) -> None:
    full = load_plan(path)
    if "budget.small" in path.read_text():
        small = load_plan(path, {}, "small")
        assert small.folders[0].rpartition("-")[0] == full.folders[0].rpartition("-")[0]
        assert sum(e.epochs for e in small.experiments) < sum(e.epochs for e in full.experiments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('method = "standard"', 'method = "standard"\ndata = "ecg"\n[[training]]\nname="x"\ndata="digits"'), "must share their task"),
        (('name = "B"', "name = ''"), "several \\[\\[task\\]\\] tables need a name each"),
        (("in_task.B", "in_task.C"), "in_task of training 'β' is 'C'"),
        (("seeds = [0, 1]", 'seeds = [0]\nequal = "gradient"'), "equal is 'gradient': did you mean 'gradients'"),
        (('name = "β"', 'name = "β"\nstart_from = "alpha"'), "no training of that name stands before 'β'"),
        (('name = "β"', 'name = "β"\nsweep = { steps = 3 }'), "sweep is .*give settings of the method"),
        (('name = "β"', 'name = "β"\nseeds = [2]'), "seeds of training 'β' is \\[2\\]: give a list of some of the plan's, 0 and 1"),
        (('name = "β"', 'name = "β"\ntasks = ["C"]'), "tasks of training 'β' is \\['C'\\]: give a list of some of the plan's, A and B"),
        (("in_task.B = { method = { beta_rob = 0.5 } }", "in_task = 3"), "in_task of training 'β' is 3: give tables"),
        (
            ("{ method = { beta_rob = 0.5 } }", '{ data = "fashion-mnist" }'),
            "data is 'digits' in training 'standard' and 'fashion-mnist' in",
        ),
        (("beta_rob = 0.25", "beta_rob = 0.25, warmup = 12"), "epochs is 12: the ramp or warm-up of weight-adversary takes 12 of them"),
        (("steps = 4, beta_rob = 0.25 }", 'steps = 4, warmup = 2 }\nequal = "gradients"'), "epochs is 2: the ramp or warm-up"),
        (('name = "β"', 'name = "β"\nskip = "yes"'), "skip of training is 'yes': give true or false"),
        (("budget.small = { chips = 3 }", "budget = 3"), "budget is 3: give tables"),
        (("evaluation = { chips = 7 }", "evaluation = { chips = 0 }"), "chips is 0"),
    ],
)
def test_what_makes_no_plan_is_named(change, message, tmp_path) -> None:
    assert change[0] in TWO_TASKS
    with pytest.raises(NoiseproofError, match=message):
        plan(tmp_path, TWO_TASKS.replace(*change))
