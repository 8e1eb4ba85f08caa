"""The loop: best epoch, checkpoints, damaged files, full disks, non-finite losses, interruptions by real signals."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

import noiseproof as npf
from noiseproof import checkpoint, training
from noiseproof.data import Splits
from noiseproof.methods import ABCD, AWP, Combined, ForwardNoise, Standard, WeightAdversary
from noiseproof.randomness import generator
from noiseproof.records import RunFolder
from noiseproof.training import train_experiment

SMALL = {"data": "digits", "network": npf.networks.MLP(hidden=(16,)), "epochs": 3, "limit_train": 200, "limit_test": 100}


def small(**changes) -> npf.Experiment:
    return npf.Experiment(**{**SMALL, **changes})


def weights(run: RunFolder) -> bytes:
    return run.weights_file.read_bytes()


def test_the_best_epoch_on_validation_is_kept(mlp: nn.Module, digits: Splits) -> None:
    done = npf.train(mlp, digits, epochs=6, batch_size=20, progress=False)
    accuracies = [scores["validation_accuracy"] for scores in done.history]
    assert accuracies[done.best_epoch - 1] == max(accuracies)
    right = (mlp(digits.validation.x).argmax(-1) == digits.validation.y).double().mean().item()
    assert right == max(accuracies)


def test_no_epoch_of_a_ramp_is_the_best_one(mlp: nn.Module, digits: Splits) -> None:
    rising = [ForwardNoise(eta=0.9, ramp_up=4), WeightAdversary(steps=1, warmup=3, ramp_up=4, eta=0.9), AWP(gamma=0.5, ramp_up=4)]
    for method in (*rising, Combined(weights=rising[1])):
        assert method.risen_after == 4
        with pytest.raises(npf.NoiseproofError, match="epochs is 4: the ramp or warm-up of .* takes 4 of them"):
            npf.train(mlp, digits, method, epochs=4, progress=False)
    # of size 0, nothing rises
    assert ForwardNoise(eta=0.0, ramp_up=4).risen_after == WeightAdversary(ramp_up=4).risen_after == 0
    done = npf.train(mlp, digits, rising[0], epochs=6, batch_size=20, progress=False)
    last = [scores["validation_accuracy"] for scores in done.history[4:]]
    assert done.best_epoch in (5, 6)
    assert (mlp(digits.validation.x).argmax(-1) == digits.validation.y).double().mean().item() == max(last)


def test_a_better_epoch_of_the_ramp_does_not_count(mlp: nn.Module) -> None:
    done = training.Training()
    for accuracy in (0.9, 0.5, 0.6, 0.6):
        done.epoch += 1
        done.history.append({"validation_accuracy": accuracy, "validation_loss": 1.0})
        training._keep_best(done, mlp, risen_after=1)
    assert done.best_epoch == 3


def test_an_optimiser_whose_moments_are_shared_is_refused_where_a_half_stands_still(mlp: nn.Module, digits: Splits) -> None:
    with pytest.raises(npf.NoiseproofError, match="optimizer is 'Adafactor': its moments are shared between weights"):
        npf.train(mlp, digits, ABCD(), epochs=1, optimizer="Adafactor", progress=False)
    npf.train(mlp, digits, epochs=1, optimizer="Adafactor", progress=False)


def test_equal_seeds_give_equal_networks_and_the_users_generator_is_left_alone(digits: Splits, outside: nn.Module) -> None:
    import copy

    twin, other = copy.deepcopy(outside), copy.deepcopy(outside)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    npf.train(outside, digits, epochs=1, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)  # their dropout draws from the global generator; it is seeded per epoch
    npf.train(twin, digits, epochs=1, progress=False)
    npf.train(other, digits, epochs=1, progress=False, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(outside.parameters(), twin.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(outside.parameters(), other.parameters(), strict=True))


def test_a_finished_run_is_not_trained_again(tmp_path) -> None:
    run = RunFolder(tmp_path / "run")
    train_experiment(small(), run, progress=False)
    stamp = run.weights_file.stat().st_mtime_ns
    network = train_experiment(small(name="a new label"), run, progress=False)
    assert run.weights_file.stat().st_mtime_ns == stamp
    again = RunFolder(tmp_path / "again")
    train_experiment(small(), again, progress=False)
    assert weights(again) == weights(run)
    assert {r.metric for r in run.records()} == {
        "best_epoch", "train_loss", "validation_accuracy", "validation_loss",
        "weight_magnitude", "gradient_evaluations_per_step", "gradient_evaluations",
    }  # fmt: skip
    assert json.loads(run.environment_file.read_text())["training_seconds"] >= 0
    assert isinstance(network, nn.Module)


def test_another_experiment_is_kept_out_of_the_folder(tmp_path) -> None:
    run = RunFolder(tmp_path)
    train_experiment(small(), run, progress=False)
    before = weights(run)
    with pytest.raises(npf.NoiseproofError, match=r"holds another experiment: epochs is 3 there and 4 here"):
        train_experiment(small(epochs=4), run, progress=False)
    assert weights(run) == before


def test_bfloat16_trains(mlp: nn.Module, digits: Splits) -> None:
    method = npf.methods.WeightAdversary(steps=1)
    done = npf.train(mlp, digits, method, epochs=4, batch_size=20, precision="bfloat16", progress=False)
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]
    assert all(p.dtype == torch.float32 for p in mlp.parameters())


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "nadam", "Adadelta"])
def test_any_optimiser_by_name(name: str, mlp: nn.Module, digits: Splits) -> None:
    npf.train(mlp, digits, epochs=1, optimizer=name, learning_rate=1e-3, weight_decay=1e-4, progress=False)


def test_a_loss_that_is_not_finite_says_where(mlp: nn.Module, digits: Splits) -> None:
    with pytest.raises(npf.NoiseproofError, match=r"loss is (nan|inf) in epoch \d+, step \d+ of it, learning rate 1e\+30"):
        npf.train(mlp, digits, epochs=3, optimizer="SGD", learning_rate=1e30, progress=False)


def test_cuda_where_there_is_none(tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA GPU, so nothing is missing")
    with pytest.raises(npf.NoiseproofError, match="finds no CUDA GPU here; use --device cpu"):
        train_experiment(small(), RunFolder(tmp_path / "run"), device="cuda")
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_when_the_data_is_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("NOISEPROOF_DATA", raising=False)
    with pytest.raises(npf.NoiseproofError, match="fashion-mnist"):
        train_experiment(npf.Experiment(data="fashion-mnist"), RunFolder(tmp_path / "run"), data_dir=str(tmp_path))
    assert not (tmp_path / "run").exists()


class StoppedError(Exception):
    pass


def stopped_after(epochs: int, run: RunFolder, monkeypatch, experiment: npf.Experiment | None = None) -> None:
    """Leave a run as one that was killed after `epochs` epochs."""
    save = checkpoint.save_state

    def then_stop(path, state):
        save(path, state)
        if state["epoch"] == epochs:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(training.checkpoint, "save_state", then_stop)
        with pytest.raises(StoppedError):
            train_experiment(experiment or small(), run, progress=False)


def test_a_converted_network_is_fine_tuned_and_an_interruption_changes_nothing(tmp_path, monkeypatch) -> None:
    plain = RunFolder(tmp_path / "plain")
    train_experiment(small(), plain, progress=False)
    network = npf.networks.MLP(hidden=(16,), neuron="lif", steps=4, trainable=("threshold", "leak"))
    experiment = small(network=network, start_from=str(plain.path), calibration=50, learning_rate=1e-4)
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    train_experiment(experiment, whole, progress=False)
    stopped_after(2, stopped, monkeypatch, experiment)
    train_experiment(experiment, stopped, progress=False)
    assert weights(stopped) == weights(whole)
    assert [(r.key, r.value) for r in stopped.records()] == [(r.key, r.value) for r in whole.records()]
    assert stopped.log_file.read_text().count("converted from a plain network") == 1
    found = {r.metric: r for r in whole.records()}
    assert (found["converted_threshold"].n, found["converted_threshold"].split) == (50, "train")
    assert found["converted_accuracy"].split == "validation"


@pytest.mark.parametrize("field", ["seed", "validation"])
def test_a_start_from_weights_that_have_seen_the_validation_samples_is_refused(field: str, tmp_path) -> None:
    plain = RunFolder(tmp_path / "plain")
    train_experiment(small(epochs=1), plain, progress=False)
    other = {"seed": 1, "validation": 0.2}[field]
    with pytest.raises(npf.NoiseproofError, match=rf"{field} is {other}: start_from is .*plain.*give both the same {field}"):
        train_experiment(small(start_from=str(plain.path), **{field: other}), RunFolder(tmp_path / "run"), progress=False)
    assert not (tmp_path / "run").exists()


def test_a_limit_moves_no_sample_from_training_to_validation() -> None:
    """So a start from a run of another limit is none that has seen them."""
    few, many = (training.load_data(small(limit_train=limit)) for limit in (50, None))
    for one, other in ((few.train, many.validation), (many.train, few.validation)):
        assert not (one.x[:, None] == other.x).flatten(2).all(2).any()


def test_the_thresholds_are_those_of_convert_on_training_samples_that_the_seed_draws(tmp_path) -> None:
    plain = RunFolder(tmp_path / "plain")
    trained = train_experiment(small(), plain, progress=False)
    network = npf.networks.MLP(hidden=(16,), neuron="lif", steps=4)
    run = RunFolder(tmp_path / "run")
    train_experiment(small(network=network, start_from=str(plain.path), calibration=150), run, progress=False)
    data = training.load_data(small())
    twin = network.build(data.task, generator("weights", 0))
    chosen = torch.randperm(len(data.train), generator=generator("calibration", 0))[:150]
    expected = npf.networks.convert(trained, twin, data.train.x[chosen].split(100))  # pyright: ignore
    (found,) = [r.value for r in run.records() if r.metric == "converted_threshold"]
    assert found == expected.thresholds["lif1"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "pickle"])
@pytest.mark.parametrize("file", ["state.pt", "weights.safetensors"])
def test_damaged_files_are_named_and_never_executed(file: str, damage: str, tmp_path, monkeypatch) -> None:
    run = RunFolder(tmp_path / "run")
    if file == "state.pt":
        stopped_after(2, run, monkeypatch)
    else:
        train_experiment(small(), run, progress=False)
    path = run.path / file
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[len(content) * 2 // 3] ^= 0xFF  # in the middle of the numbers
    elif damage == "pickle":
        content = bytearray(b"cos\nsystem\n(S'touch " + str(tmp_path / "executed").encode() + b"'\ntR.")
    else:
        content = bytearray(b"" if damage == "empty" else b"not a checkpoint")
    path.write_bytes(content)
    with pytest.raises(npf.NoiseproofError, match=f"{file} is damaged: "):
        train_experiment(small(), run, progress=False)
    assert not (tmp_path / "executed").exists()
    assert path.read_bytes() == content


def test_a_full_disk_while_saving_loses_nothing(tmp_path, monkeypatch) -> None:
    """The temporary file is a link to /dev/full, where every write really fails with ENOSPC."""
    run = RunFolder(tmp_path / "run")
    stopped_after(1, run, monkeypatch)
    before = run.state_file.read_bytes()
    (run.path / ".state.pt.tmp").symlink_to("/dev/full")
    with pytest.raises(npf.NoiseproofError, match=r"cannot write .*state.pt: No space left on device; make room"):
        train_experiment(small(), run, progress=False)
    assert run.state_file.read_bytes() == before
    assert not run.weights_file.exists()
    train_experiment(small(), run, progress=False)
    whole = RunFolder(tmp_path / "whole")
    train_experiment(small(), whole, progress=False)
    assert weights(run) == weights(whole)


def test_a_folder_in_use_is_refused(tmp_path) -> None:
    from noiseproof.files import locked

    with locked(tmp_path), pytest.raises(npf.NoiseproofError, match="in use by another noiseproof process"):
        train_experiment(small(), RunFolder(tmp_path), progress=False)


COMMAND = [
    *(sys.executable, "-m", "noiseproof", "train", "--data", "digits", "--network", "mlp", "--network.hidden", "64"),
    *("--method", "weight-adversary", "--method.steps", "2", "--method.eta", "0.2"),
    *("--epochs", "12", "--limit-train", "300", "--batch-size", "10"),
]


def run_command(out, **options) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # a shell that started the tests in the background left SIGINT ignored, and children inherit that
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*COMMAND, "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, **options)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_training_stopped_by_a_signal_ends_with_the_same_weights(sent: signal.Signals, tmp_path) -> None:
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    assert run_command(whole.path).wait() == 0
    instant = random.Random(sent.value)
    codes = []
    for _ in range(3):
        process = run_command(stopped.path)
        deadline = time.monotonic() + 60
        seen = stopped.state_file.stat().st_mtime_ns if stopped.state_file.exists() else 0
        while time.monotonic() < deadline and process.poll() is None:  # until one more epoch is saved, so that every attempt gets on
            if stopped.state_file.exists() and stopped.state_file.stat().st_mtime_ns > seen:
                break
            time.sleep(0.002)
        time.sleep(instant.uniform(0, 0.2))
        process.send_signal(sent)
        codes.append(process.wait())
    assert codes[0] in (130, 143, -9), "the first attempt was to be stopped in the middle"
    assert run_command(stopped.path).wait() == 0
    assert weights(stopped) == weights(whole)

    def measured(run: RunFolder) -> list[tuple[str, float]]:
        return [(record.key, record.value) for record in run.records()]

    assert measured(stopped) == measured(whole)


def test_python_runs_resume_too(digits: Splits, tmp_path, monkeypatch) -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    done = npf.train(network(), digits, Standard(), epochs=2, folder=tmp_path, progress=False)
    again = network()
    assert npf.train(again, digits, Standard(), epochs=2, folder=tmp_path, progress=False).history == done.history
    with pytest.raises(npf.NoiseproofError, match="holds another experiment: network"):
        npf.train(nn.Sequential(nn.Flatten(), nn.Linear(784, 5), nn.Linear(5, 10)), digits, epochs=2, folder=tmp_path, progress=False)
