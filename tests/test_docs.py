"""The documents are kept true: names exist, equation numbers are listed, the README's commands are the real ones."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAPERS = (ROOT / "docs" / "papers.md").read_text()


def resolve(dotted: str) -> object:
    """Return what a dotted name stands for: what the package calls so, else a module of that name."""
    first, *rest = dotted.split(".")
    found: object = importlib.import_module(first)
    for depth, name in enumerate(rest, start=1):
        if not hasattr(found, name):
            importlib.import_module(".".join([first, *rest[:depth]]))
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(noiseproof\.[\w.]+)`", PAPERS))))
def test_every_name_in_papers_md_exists_and_is_documented(name: str) -> None:
    assert (resolve(name).__doc__ or "").strip(), f"{name} has no docstring"


def test_every_equation_in_the_source_is_in_papers_md() -> None:
    mentioned = {number for path in (ROOT / "src").rglob("*.py") for number in re.findall(r"#.*\b(A eq\. \(\d+\))", path.read_text())}
    assert mentioned
    assert all(number in PAPERS for number in mentioned)


@pytest.mark.parametrize("package", ["methods", "noise", "networks", "evaluation", "attacks"])
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(f"noiseproof.{package}")
    for name in module.__all__:
        assert (getattr(module, name).__doc__ or "").strip(), f"noiseproof.{package}.{name}"


def test_the_table_of_public_names_is_complete() -> None:
    import noiseproof

    for name in noiseproof.__all__:
        assert getattr(noiseproof, name) is not None
    assert set(dir(noiseproof)) == set(noiseproof.__all__)


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_exist() -> None:
    from noiseproof.cli import VERBS

    readme = (ROOT / "README.md").read_text()
    assert set(re.findall(r"^noiseproof (\w+)", readme, re.MULTILINE)) <= set(VERBS)
    targets = re.findall(r"^make (\w+)", readme, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
