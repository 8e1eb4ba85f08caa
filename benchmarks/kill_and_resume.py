"""A plan killed with SIGKILL again and again ends with the same records as one that was left alone.

    python benchmarks/kill_and_resume.py PLAN.toml [--kills 20] [-- options of noiseproof run]

Half of the kills come as soon as a file begins to be written, half of them at random instants after that.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("plan")
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    chosen, extra = options.parse_known_args()
    extra = [word for word in extra if word != "--"]
    instant = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        if start(chosen.plan, whole, extra).wait() != 0:
            sys.exit("the plan does not run")
        print(f"left alone: {sum(map(len, records(whole).values()))} records of {len(records(whole))} runs", flush=True)
        kills = saving = 0
        while kills < chosen.kills:
            process = start(chosen.plan, killed, extra)
            wait_for_a_change(process, killed, changes=instant.randint(1, 8))
            if kills % 2:
                time.sleep(instant.uniform(0, 2))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                saving += any(killed.glob("**/.*.tmp"))  # what a save leaves behind when it is cut off
            else:
                forget(killed, instant)
        if start(chosen.plan, killed, extra).wait() != 0:
            sys.exit("FAILED: the plan does not go on")
        same = records(whole) == records(killed)
        files = list(whole.glob("*/weights.safetensors"))
        weights = all((killed / path.relative_to(whole)).read_bytes() == path.read_bytes() for path in files)
        words = {True: "equal", False: "DIFFERENT"}
        print(f"killed {kills} times, {saving} of them during a save: records {words[same]}, weights {words[weights]}")
        sys.exit(0 if same and weights else 1)


def start(plan: str, out: Path, extra: list[str]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "noiseproof", "run", plan, "--out", str(out), *extra]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_a_change(process: subprocess.Popen[bytes], out: Path, changes: int) -> None:
    """Return when the process began to write its `changes`-th file, or ended; a folder's time changes with every new file."""
    seen: dict[Path, int] = {}
    while process.poll() is None:
        folders = [out, *(out.iterdir() if out.is_dir() else ())]
        now = {folder: folder.stat().st_mtime_ns for folder in folders if folder.exists()}
        if seen and now != seen:
            changes -= 1
            if changes <= 0:
                return
        seen = now
        time.sleep(0.0002)


def forget(out: Path, instant: random.Random) -> None:
    """The plan was done: delete what one random run has, so that there is something left to interrupt."""
    run = instant.choice(sorted(path.parent for path in out.glob("*/experiment.toml")))
    for path in sorted(run.iterdir()):
        path.unlink()


def records(out: Path) -> dict[str, dict[str, float]]:
    """Return every measured value by run and by what was measured."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(out.glob("*/records.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = {
            json.dumps({k: v for k, v in line.items() if k != "value"}, sort_keys=True): line["value"] for line in lines
        }
    return found


if __name__ == "__main__":
    main()
