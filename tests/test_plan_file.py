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
        (("budget.small = { chips = 3 }", "budget = 3"), "budget is 3: give tables"),
        (("evaluation = { chips = 7 }", "evaluation = { chips = 0 }"), "chips is 0"),
    ],
)
def test_what_makes_no_plan_is_named(change, message, tmp_path) -> None:
    assert change[0] in TWO_TASKS
    with pytest.raises(NoiseproofError, match=message):
        plan(tmp_path, TWO_TASKS.replace(*change))
