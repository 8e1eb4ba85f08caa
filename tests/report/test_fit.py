"""The verb fit and its page: right numbers, escaped names, nothing loaded, no torch; and its noise used again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from noiseproof.config import spelled_noises
from noiseproof.fitting import fit
from noiseproof.noise import Measured
from noiseproof.report import fit as page


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chip with weights of ζ = 0.2 that are 10 % too large, and thresholds all of one nominal value with a long tail."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 4000)
    rows = [f"weight,{a!r},{b!r}" for a, b in zip(x.tolist(), (1.1 * x * (1 + 0.2 * rng.normal(size=4000))).tolist(), strict=True)]
    rows += [f"thresh<b>&old,1,{0.9 + 0.1 * e!r}" for e in rng.exponential(size=300).tolist()]
    path = tmp_path_factory.mktemp("lab") / "chip.csv"
    path.write_text("\n".join(["kind,nominal,measured", *rows]))
    return path


def noiseproof(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from noiseproof.cli import main; main(sys.argv[1:]); assert 'torch' not in sys.modules, 'torch was imported'"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False)


def test_it_prints_the_answer_and_writes_a_page_without_torch(chip: Path, tmp_path: Path) -> None:
    done = noiseproof("fit", chip, "--out", "fit.html", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    fits = fit(chip)
    assert f"{fits['weight'].model.zeta:.4g}" in done.stdout
    assert "all devices have one nominal value" in done.stdout
    assert "the residuals are not normal (p < 0.001)" in done.stdout
    text = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert text.count('<svg class="figure"') == 6
    assert "thresh&lt;b&gt;&amp;old" in text
    assert "thresh<b>" not in text
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert "Made by noiseproof" in text
    assert "from chip.csv alone" in text
    before = (tmp_path / "fit.html").read_bytes()
    noiseproof("fit", chip, "--out", "fit.html", folder=tmp_path)
    assert (tmp_path / "fit.html").read_bytes() == before


def test_the_noise_that_it_prints_is_the_noise_of_the_file(chip: Path, tmp_path: Path) -> None:
    done = noiseproof("fit", chip, folder=tmp_path)
    printed = re.search(r"--noise '(.*)'", done.stdout)
    assert printed is not None
    assert spelled_noises(printed[1], "noise") == [Measured(file=str(chip))]
    assert spelled_noises(f'measured(file="{chip}")', "noise") == [Measured(file=str(chip))]


def test_the_table_has_the_numbers_of_the_fit(chip: Path) -> None:
    fits = fit(chip)
    rows = {row[0].text: dict(zip([c.title for c in page.table(fits).columns], row, strict=True)) for row in page.table(fits).rows}
    assert rows["weight"]["ζ"].value == fits["weight"].model.zeta == pytest.approx(0.2, rel=0.05)
    assert rows["weight"]["Gain"].value == pytest.approx(1.1, rel=0.02)
    assert rows["weight"]["Constant"].text == "–"
    assert rows["weight"]["Model"].text == "relative with gain"
    assert rows["thresh<b>&old"]["R²"].text == "–"
    low, high = fits["weight"].zeta_interval or (0, 0)
    assert rows["weight"]["ζ"].detail == f"{low:.3g} to {high:.3g}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "file is missing: noiseproof fit CHIP.csv"),
        (["fit", "nothing.csv"], "cannot read nothing.csv"),
        (["fit", "bad.csv"], "bad.csv line 3: measured is 'two'; give a finite number"),
        (["fit", "bad.csv", "--outt", "x"], "--out"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("kind,nominal,measured\nw,1,1\nw,1,two\n")
    done = noiseproof(*words, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
