"""`noiseproof certify` as a user has it: tables, a second call that measures nothing, and wrong words in one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from noiseproof.cli import main

TRAIN = ("--data", "digits", "--network", "mlp", "--epochs", "2", "--limit-train", "200", "--limit-test", "60")
CERTIFY = ("--box", "0.0001", "1/100", "--mismatch", "0.1", "--yield-accuracy", "0.5", "--confidence", "0.9", "--chips", "6",
           "--limit-test", "20", "--steps", "2", "--bounds", "intervals", "backward")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run in it."""
    made = tmp_path_factory.mktemp("user")
    main(["train", *TRAIN, "--network.hidden", "16", "--out", str(made / "runs/one")])
    return made


def test_prints_the_tables_and_goes_on_where_it_stopped(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs/one"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "noiseproof", "certify", "runs/one", *CERTIFY, "--processes", "1"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for expected in ("20 test samples", "backward", "90 %", "0.0001", "next: noiseproof report runs/one"):
        assert expected in done.stdout, expected
    lines = (run / "records.jsonl").read_text().splitlines()
    assert sum('"certified"' in line for line in lines) == 4
    assert sum('"survived"' in line for line in lines) == 8
    assert sum('"name": "mismatch"' in line and '"accuracy"' in line for line in lines) == 6
    # how many chips there will be stands before the first of them
    (said,) = [place for place, line in enumerate(lines) if '"chips_fixed"' in line]
    assert said < min(place for place, line in enumerate(lines) if '"chip": 0' in line)
    assert done.stdout.rstrip().endswith("next: noiseproof report runs/one --required-accuracy 0.5 --confidence 0.9")
    # as after an interruption: what was measured of the second box is gone, and only this is measured again
    kept = [line for line in lines if '"z": 0.01' not in line]
    assert len(kept) < len(lines)
    (run / "records.jsonl").write_text("".join(line + "\n" for line in kept))
    main(["certify", str(run), *CERTIFY, "--processes", "1"])
    again = (run / "records.jsonl").read_text().splitlines()
    assert again[: len(kept)] == kept
    assert [_without_time(line) for line in again[len(kept) :]] == [_without_time(line) for line in lines if line not in kept]
    main(["certify", str(run), *CERTIFY, "--processes", "1"])
    assert (run / "records.jsonl").read_text().splitlines() == again
    assert "next: noiseproof report" in capsys.readouterr().out


def test_another_number_of_chips_than_was_fixed_is_refused_before_any_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = folder / "runs/one"
    alone = (str(run), "--box", "--limit-test", "5", "--processes", "1", "--yield-accuracy", "0.01")

    def refused(*words: str) -> str:
        before = (run / "records.jsonl").read_text()
        with pytest.raises(SystemExit) as stopped:
            main(["certify", *alone, *words])
        assert stopped.value.code == 2
        assert (run / "records.jsonl").read_text() == before
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    main(["certify", *alone, "--mismatch", "0.3", "--chip-seed", "5", "--chips", "4"])
    shown = capsys.readouterr().out
    assert "note:" not in shown
    assert "each on 60 test samples" in shown
    assert re.search(r"one, ζ = 0.3: With 95 % confidence, .* below 1 % accuracy: \d of 4 chips simulated did\.", shown)
    assert "0 of 4 chips simulated did. For 1 in 1,000: --chips 2995 --chip-seed 6, none failing." in shown
    reason = "seed 5 of this run has 4 chips, fixed before they were looked at; give --chips 4 or another --chip-seed"
    assert f"chips is 7: {reason}" in refused("--mismatch", "0.3", "--chip-seed", "5", "--chips", "7")
    assert f"chips is 3: {reason}" in refused("--mismatch", "0.2", "--chip-seed", "5", "--chips", "3")
    main(["certify", *alone, "--mismatch", "0.2", "--chip-seed", "5", "--chips", "4"])  # what was refused left nothing behind
    shown = capsys.readouterr().out
    assert "note:" not in shown
    assert "one, ζ = 0.2: With 95 % confidence, at all 2 levels together" in shown
    main(["evaluate", str(run), "--mismatch", "0.2", "--half-width", "30", "--max-chips", "16", "--chip-seed", "6", "--processes", "1"])
    capsys.readouterr()
    assert "chip_seed is 6: chips of this seed were simulated before their number was fixed" in refused(
        "--mismatch", "0.2", "--chip-seed", "6", "--chips", "3"
    )


def test_only_what_moves_as_asked_is_spoken_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ("--parameters", "all", "--box", "0.0001", "--mismatch", "0.4", "--limit-test", "5", "--bounds", "intervals", "--steps", "1",
             "--chips", "3", "--chip-seed", "7", "--processes", "1")  # fmt: skip
    main(["certify", str(folder / "runs/one"), *other])
    shown = capsys.readouterr().out
    assert "all parameters" in shown
    assert "weights only" not in shown
    assert re.search(r"│ +0\.4 +│", shown)
    assert not re.search(r"│ +0\.[13] +│", shown)


def test_the_report_takes_what_certify_was_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["certify", str(folder / "runs/one"), *CERTIFY, "--processes", "1"])
    out = str(folder / "report.html")
    main(["report", str(folder / "runs/one"), "--out", out, "--confidence", "0.9", "--failure-rate", "0.02", "--required-accuracy", "0.5"])
    text = Path(out).read_text(encoding="utf-8").replace("\xa0", " ")
    assert "with 90 % confidence" in text
    assert "one in 50" in text
    assert "one in 1,000" not in text


def _without_time(line: str) -> str:
    return re.sub(r'"value": [^,]+', "", line) if "seconds" in line else line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "run is missing"),
        (["nowhere"], "nowhere is no run folder"),
        (["RUN", "--box", "1.5"], "z is 1.5: give a half-width below 1"),
        (["RUN", "--box", "a"], "box"),
        (["RUN", "--bounds", "spiking", "--chips", "6"], "bounds is 'spiking': the network has no spiking neurons"),
        (["RUN", "--bounds", "intervls"], "noiseproof: bounds is 'intervls': did you mean 'intervals'"),
        (["RUN", "--confidence", "1"], "confidence is 1.0"),
        (["RUN", "--failure-rate", "1"], "failure_rate is 1.0: give a fraction below 1"),
        (["RUN", "--yield-accuracy", "1.2"], "yield_accuracy is 1.2"),
        (["RUN", "--chip-samples", "10"], "chip_samples is 10"),
        (["RUN", "--steps", "0"], "noiseproof: steps is 0"),
        (["RUN", "--arithmetic", "float16"], "float16"),
        (["RUN", "--arithmetic", "float64"], "arithmetic is 'float64': it is for networks of double precision, from Python only"),
        (["RUN", "--parameters", "nothing", "--chips", "6"], "parameters is 'nothing'"),
    ],
)
def test_wrong_words_are_one_line_and_exit_2(folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "runs/one/records.jsonl").read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["certify", *(str(folder / "runs/one") if word == "RUN" else word for word in words)])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert message in said[-1]
    assert said[-1].startswith("noiseproof: ")
    assert (folder / "runs/one/records.jsonl").read_text() == before


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["certify", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert all(flag in said for flag in ("--box", "--mismatch", "--yield-accuracy", "--confidence", "--bounds", "--arithmetic", "--eps"))
    assert "--box without a number: chips only" in " ".join(said.split())
    main(["--help"])
    assert "\n  certify " in capsys.readouterr().out
