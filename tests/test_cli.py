"""The command line as a user has it: real processes, exit codes, one-line errors, nothing half-written."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from noiseproof.cli import main

SMALL = ("--data", "digits", "--network", "mlp", "--epochs", "2", "--limit-train", "200", "--limit-test", "100")


def noiseproof(*words: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}
    full.pop("NOISEPROOF_DATA", None)
    return subprocess.run(
        [sys.executable, "-m", "noiseproof", *map(str, words)], cwd=folder, env=full, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run in it."""
    made = tmp_path_factory.mktemp("user")
    done = noiseproof("train", *SMALL, "--method", "forward-noise", "--method.eta", "3/10", "--out", "runs/one", folder=made)
    assert done.returncode == 0, done.stderr
    assert "best epoch" in done.stdout
    return made


def test_train_evaluate_report(folder: Path) -> None:
    levels = ("--mismatch", "0", "0.3", "1/2", "--chips", "10")
    others = ("--attack", "0.1", "--attack-restarts", "1", "--landscape", "1", "--required-accuracy", "0.2")
    done = noiseproof("evaluate", "runs/one", *levels, *others, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "ζ = 0.5" in done.stdout
    lines = (folder / "runs/one/records.jsonl").read_text().splitlines()
    again = noiseproof("evaluate", "runs/one", *levels, folder=folder)
    assert again.returncode == 0
    assert (folder / "runs/one/records.jsonl").read_text().splitlines() == lines
    done = noiseproof("report", "runs/one", "--out", "r.html", "--title", "<b>mine</b>", folder=folder)
    assert done.returncode == 0, done.stderr
    text = (folder / "r.html").read_text()
    assert "&lt;b&gt;mine&lt;/b&gt;" in text
    assert "<b>mine" not in text


def test_attack_counts_what_is_left_and_says_whether_to_trust_it(folder: Path) -> None:
    import numpy as np

    words = ("attack", "runs/one", "--attack", "pgd", "--eps", "2/10", "--attack.steps", "5", "--limit-test", "60")
    done = noiseproof(*words, "--save", "x.npz", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "PGD-5" in done.stdout
    assert "60 samples" in done.stdout
    assert re.search("[✓✗?] One step does not beat many: ", done.stdout)
    saved = np.load(folder / "x.npz")
    left = 100 * (1 - saved["success"].mean())
    assert f" {left:.1f} " in done.stdout
    assert np.abs(saved["perturbed"].astype(float) - saved["x"]).max() <= 0.2
    lines = (folder / "runs/one/records.jsonl").read_text().splitlines()
    again = noiseproof(*words, folder=folder)
    assert again.stdout == done.stdout.replace("wrote x.npz\n", "")
    assert (folder / "runs/one/records.jsonl").read_text().splitlines() == lines
    members = noiseproof("attack", "runs/one", "--eps", "0.2", "0.1", "--limit-test", "20", "--no-checks", "--seeds", "2", folder=folder)
    assert members.returncode == 0, members.stderr
    assert members.stdout.count("what is left after each member") == 2
    assert "One step" in members.stdout  # of the size that was checked before
    assert noiseproof("report", "runs/one", "--out", "attacked.html", folder=folder).returncode == 0


def test_processes_and_blocks_see_the_same_chips(folder: Path) -> None:
    import json

    found = []
    for processes in ("1", "2"):
        run = folder / f"runs/copy{processes}"
        subprocess.run(["cp", "-r", str(folder / "runs/one"), str(run)], check=True)
        (run / "records.jsonl").unlink()
        done = noiseproof("evaluate", run, "--mismatch", "0.4", "--chips", "20", "--processes", processes, folder=folder)
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]
        found.append([(r["chip"], r["value"]) for r in records if r["chip"] is not None])
    assert len(found[0]) == 20
    assert all(a[0] == b[0] and abs(a[1] - b[1]) <= 1.001 / 100 for a, b in zip(*found, strict=True))


def test_a_plan_is_done_once_and_goes_on(folder: Path) -> None:
    (folder / "plan.toml").write_text(
        'title = "two"\nseeds = [0, 1]\n[defaults]\ndata = "digits"\nnetwork = "mlp"\nepochs = 1\nlimit_train = 100\nlimit_test = 50\n'
        '[[training]]\nmethod = "standard"\n[[training]]\nname = "noise + β"\n'
        'method = { name = "weight-adversary", steps = 1, eta = "3/10" }\n'
        "[evaluation]\nmismatch = [0, 0.3]\nchips = 5\n"
    )
    done = noiseproof("run", "plan.toml", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "noise + β" in done.stdout
    runs = sorted((folder / "runs/plan").glob("*/weights.safetensors"))
    assert [run.parent.name for run in runs] == ["noise-and-beta-seed0", "noise-and-beta-seed1", "standard-seed0", "standard-seed1"]
    stamps = [run.stat().st_mtime_ns for run in runs]
    report = (folder / "runs/plan/report.html").read_text()
    assert noiseproof("run", "plan.toml", folder=folder).returncode == 0
    assert [run.stat().st_mtime_ns for run in runs] == stamps
    assert (folder / "runs/plan/report.html").read_text() == report
    other = noiseproof("run", "plan.toml", "--epochs", "2", folder=folder)
    assert other.returncode == 2
    assert "holds another experiment: epochs is 1 there and 2 here" in other.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "verb is 'trian': did you mean 'train'"),
        (["train", "--method", "weight-adversry"], "did you mean 'weight-adversary'"),
        (["train", "--network", "cn"], "network is 'cn': did you mean 'cnn'"),
        (["train", "--data", "digit"], "data is 'digit': did you mean 'digits'"),
        (["train", "--method"], "--method is without a name"),
        (["train", "--method", "forward-noise", "--method.eta", "-0.1"], "eta is -0.1: give a number of at least 0"),
        (["train", "--method", "forward-noise", "--method.eta", "nan"], "eta is nan"),
        (["train", "--method", "forward-noise", "--method.eta", "1/0"], "'1/0' is no number"),
        (["train", "--method", "forward-noise", "--method.etta", "1"], "Perhaps you meant: --method.eta"),
        (["train", "--epochs", "0"], "epochs is 0"),
        (["train", "--epochs", "two"], "--epochs: invalid literal"),
        (["train", "--preset", "a-fashion"], "did you mean 'a-fashion-mnist'"),
        (["train", "--device", "cuda"], "finds no CUDA GPU here"),
        (["train", "--device", "tpu"], "device is 'tpu': give cpu, cuda or cuda:1"),
        (["train", "nowhere"], "nowhere is no run folder"),
        (["train", "--data", "fashion-mnist", "--data-dir", "nowhere"], "nowhere"),
        (["evaluate"], "run is missing"),
        (["evaluate", "nowhere"], "nowhere is no run folder"),
        (["evaluate", "runs/one", "--mismatch", "-0.1"], "zeta is -0.1"),
        (["evaluate", "runs/one", "--parameters", "conv*"], "parameters is 'conv*'"),
        (["evaluate", "runs/one", "--processes", "0"], "processes is 0"),
        (["attack"], "run is missing"),
        (["attack", "runs/one", "--attack", "pgdd"], "did you mean 'pgd'"),
        (["attack", "runs/one", "--attack", "pgd", "--eps", "8"], "eps is 8: the data runs from 0 to 1"),
        (["attack", "runs/one", "--attack", "pgd", "--eps", "0.1", "0.2", "--save", "x.npz"], "save is 'x.npz': it takes one attack"),
        (["attack", "runs/one", "--attack", "pgd", "--attack.surrogate", "atan"], "no spiking neurons"),
        (["attack", "runs/one", "--attack", "transfer"], "--attack pgd --transfer-from RUN"),
        (["report"], "run is missing"),
        (["run"], "plan is missing"),
        (["run", "nothing.toml"], "cannot read nothing.toml"),
        (["data", "wher", "digits"], "did you mean 'where'"),
        (["data", "where", "fashion-mnist", "--data-dir", "nowhere"], "nowhere"),
        (["data", "fetch"], "name is missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    words: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    # in this process: thirty starts of torch would take minutes
    monkeypatch.chdir(folder)
    monkeypatch.delenv("NOISEPROOF_DATA", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    before = sorted(p for p in folder.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main([*words])
    said = capfd.readouterr()
    assert stop.value.code == 2, said.out + said.err
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.err.startswith("noiseproof: ")
    assert sorted(p for p in folder.rglob("*") if p.name != ".lock") == [p for p in before if p.name != ".lock"]


def test_a_wrong_verb_ends_the_process_with_exit_code_2(folder: Path) -> None:
    done = noiseproof("trian", folder=folder)
    assert done.returncode == 2
    assert done.stderr.startswith("noiseproof: verb is 'trian': did you mean 'train'")


def test_a_run_that_is_not_finished_cannot_be_evaluated(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "half"
    run.mkdir()
    (run / "experiment.toml").write_bytes((folder / "runs/one/experiment.toml").read_bytes())
    done = noiseproof("evaluate", run, folder=folder)
    assert done.returncode == 2
    assert "is not trained to the end: run noiseproof train" in done.stderr
    (run / "experiment.toml").write_text("epochs = ")
    assert "experiment.toml is damaged" in noiseproof("train", run, folder=folder).stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["data", "list"], ["data", "where", "digits"], ["report", "runs/one", "--out", "x.html"]]
)
def test_what_needs_no_torch_does_not_import_it(words: list[str], folder: Path) -> None:
    code = "import sys; from noiseproof.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_lists_every_verb_and_each_explains_itself(folder: Path) -> None:
    from noiseproof.cli import VERBS

    shown = noiseproof("--help", folder=folder).stdout
    for verb in VERBS:
        assert f"\n  {verb} " in shown
        done = noiseproof(verb, "--help", folder=folder)
        assert done.returncode == 0
        assert done.stdout.startswith("usage: noiseproof")
    shown = noiseproof("train", "--method", "weight-adversary", "--help", folder=folder).stdout
    assert "--method.beta-rob" in shown


def test_importing_noiseproof_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'scipy', 'matplotlib', 'tyro', 'rich'}"
    code = f"import sys, noiseproof; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)
