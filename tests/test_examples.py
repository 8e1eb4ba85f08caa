"""Every script in examples/ runs, anywhere, without a warning of ours, and writes its report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


def test_each_library_has_an_example() -> None:
    libraries = {"snntorch", "spikingjelly", "norse", "sinabs"}
    assert {f"{library}_network" for library in libraries} <= {example.stem for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_reports(example: Path, tmp_path: Path) -> None:
    # one thread each: tests run side by side
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{example.stem}.html"]
