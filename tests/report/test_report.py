"""The report as text: right numbers, escaped names, nothing missing and nothing loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from made_up import METHODS, chip_records, everything

from noiseproof import report
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation.evaluate import Evaluation
from noiseproof.records import Record, RunFolder
from noiseproof.statistics import summary

EVIL = '<script>alert("ζ")</script> & $x_1$ {{ 7 * 7 }} "q"'
VOID = {"meta", "link", "br", "use", "rect", "path"}


class Outline(HTMLParser):
    """Headings, ids and balance of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.headings: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def written(runs: list[RunFolder], tmp_path: Path, **options) -> str:
    path = tmp_path / "out" / "report.html"
    report.write(runs, path, **options)
    return path.read_text(encoding="utf-8")


def row(table: report.Table, label: str) -> dict[str, report.Cell]:
    cells = next(cells for cells in table.rows if cells[0].text == label)
    return dict(zip([column.title for column in table.columns], cells, strict=True))


def test_everything_is_shown(full_runs, tmp_path):
    page = written(full_runs, tmp_path, title="Five methods")
    outline = Outline(page)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert outline.headings == [
        "Summary", "Mismatch, all parameters", "Chip by chip", "How sure is this?",
        "Attack on the weights", "Loss landscape", "Training", "Provenance",
    ]  # fmt: skip
    for label in METHODS:
        assert label in page
    assert "Some CPU @ 2.1 GHz" in page
    assert "1 h 10 min" in page
    assert "pseudo-replication" in page
    assert len(page) < 2_000_000


def test_the_page_loads_nothing(full_runs, tmp_path):
    page = written(full_runs, tmp_path)
    assert "://" not in page
    assert "//" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"\bsrc=|@import|xlink", page)
    assert set(re.findall(r'href="([^"]*)"', page)) - {"data:,"} <= {f"#{name}" for name in Outline(page).ids}
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(Outline(page).ids)


def test_the_same_records_give_the_same_file(full_runs, tmp_path):
    assert written(full_runs, tmp_path / "a") == written(full_runs, tmp_path / "b")


def test_summary_numbers(make_run):
    rng = np.random.default_rng(0)
    draws = [rng.uniform(0.7, 0.9, 40).round(3).tolist() for _ in range(2)]
    runs = [
        make_run([*chip_records(f"r{i}", {0.3: draw}, parameters="all"), Record(f"r{i}", "accuracy", 0.9 + i / 100, 500)], seed=i)
        for i, draw in enumerate(draws)
    ]
    cells = row(report.summarise(runs, required=0.8), "standard")
    s = summary([*draws[0], *draws[1]], required=0.8)
    assert cells["Networks"].text == "2"
    assert (cells["Clean"].text, cells["Clean"].detail) == ("90.5", "90.0 to 91.0")
    assert cells["ζ = 0.3"].text == f"{100 * s.mean:.1f} ± {100 * s.std:.1f}"
    assert cells["ζ = 0.3"].detail == f"min {100 * s.minimum:.1f}"
    assert cells["ζ = 0.3"].value == pytest.approx(s.mean)
    assert cells["Yield at ζ = 0.3"].text == f"{100 * s.chip_yield:.1f}"


def test_attack_is_the_lowest_over_restarts_and_the_random_point_the_mean(make_run):
    def records(name: str, values: list[float], **settings) -> list[Record]:
        perturbation = {"name": name, "zeta": 0.1, "norm": "linf", "parameters": "all", **settings}
        return [Record("r", "accuracy", v, 100, perturbation=perturbation, at={"restart": k}) for k, v in enumerate(values)]

    few = records("weight-attack", [0.5, 0.4], objective="kl", steps=10)
    many = records("weight-attack", [0.45, 0.3], objective="kl", steps=100)
    table = report.summarise([make_run([*few, *many, *records("random-point", [0.8, 0.7])])])
    cell = row(table, "standard")["Attack ζ = 0.1"]
    assert (cell.text, cell.detail) == ("30.0", "random point 75.0")


def test_the_largest_n_counts(make_run):
    run = make_run(chip_records("r", {0.3: [0.5, 0.6]}, n=100) + chip_records("r", {0.3: [0.8, 0.9]}, n=1000))
    assert row(report.summarise([run]), "standard")["ζ = 0.3"].text.startswith("85.0")


def test_the_tolerated_mismatch_and_its_requirement(make_run, tmp_path):
    run = make_run(everything("r", "standard", 0))
    assert row(report.summarise([run]), "standard")["Tolerated mismatch"].text == "ζ = 0.055"
    page = written([run], tmp_path)
    assert "Yield at a required accuracy of 85 %" in page
    assert "95\xa0% of the chips stay at or above 85\xa0% is ζ\xa0=\xa00.05 for standard" in page


def test_runs_that_differ_in_the_seed_are_one_method_others_are_not(make_run):
    data = chip_records("r", {0.3: [0.8]})
    runs = [make_run([Record(f"r{i}", "accuracy", 0.9, 100)], name="mine", seed=i) for i in range(2)]
    runs.append(make_run([Record("r3", "accuracy", 0.9, 100)], name="mine", extra="batch_size = 7"))
    runs.append(make_run(data, kind="dropout"))
    assert [(cells[0].text, cells[1].text) for cells in report.summarise(runs).rows] == [
        ("mine (batch_size = not set)", "2"),
        ("mine (batch_size = 7)", "1"),
        ("dropout", "1"),
    ]


def test_a_copy_of_a_run_is_no_second_network(make_run):
    records = chip_records("same", {0.3: [0.8, 0.9]})
    table = report.summarise([make_run(records), make_run([*records, Record("same", "accuracy", 0.95, 100)])])
    assert [cell.text for cell in table.rows[0][:3]] == ["standard", "1", "95.0"]


def test_an_evaluation_that_was_never_saved(make_run, tmp_path):
    class Evaluation:
        """As `noiseproof.evaluate` returns it."""

        def settings(self):
            return {"name": "my network", "data": "digits", "network": {"name": "Sequential"}}

        def records(self):
            return chip_records("r", {0.3: [0.8, 0.9]})

        def environment(self):
            return {}

    assert row(report.summarise([Evaluation()]), "my network")["ζ = 0.3"].text == "85.0 ± 7.1"
    assert "Sequential" in written([Evaluation()], tmp_path)


def test_names_from_users_are_escaped(make_run, tmp_path):
    runs = [
        make_run(everything("a", "standard", 0, chips=5), name=EVIL, data=EVIL, extra=f"note = '{EVIL}'"),
        make_run(everything("b", "dropout", 0, chips=5), kind="dropout"),
    ]
    page = written(runs, tmp_path, title=EVIL)
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "{{ 7 * 7 }}" in page
    assert "&lt;script&gt;alert" in page
    assert Outline(page).open == []


def test_one_level_of_noise_has_no_curve_of_yield_against_it(make_run, tmp_path):
    one, two = ([make_run(chip_records("r", {z: [0.8, 0.9] for z in levels}))] for levels in ((0.3,), (0.1, 0.3)))
    assert "Yield at a required accuracy" not in written(one, tmp_path, required=0.85)
    assert "Yield at a required accuracy" in written(two, tmp_path, required=0.85)


def test_provenance_of_networks_that_were_given_in_python_names_no_folder(make_run, tmp_path):
    given = Evaluation({"name": "mine", "data": "fashion-mnist"}, [Record("x", "accuracy", 0.9, 100)])
    run = make_run([Record("r", "accuracy", 0.8, 100)])
    page = written([given], tmp_path)
    assert "Every number above comes from the records of networks that were given in Python" in page
    assert "in these folders" not in page
    assert "Where no folder is named, numbers come from the records of networks" in written([run, given], tmp_path)
    assert "the records in these folders" in written([run], tmp_path)


def test_without_records_it_says_so(make_run, tmp_path):
    page = written([make_run([])], tmp_path)
    assert "Nothing was measured yet on 1 network" in page
    assert Outline(page).headings == ["Provenance"]
    assert "No runs were given" in written([], tmp_path)
    assert report.summarise([]).rows == ()


@pytest.mark.parametrize(
    ("keep", "headings"),
    [
        (lambda r: r.chip is not None, ["Mismatch, all parameters", "Chip by chip", "How sure is this?"]),
        (lambda r: r.perturbation.get("name") == "weight-attack" and "epoch" not in r.at, ["Attack on the weights"]),
        (lambda r: r.perturbation.get("name") == "random-point", []),
        (lambda r: r.perturbation.get("name") == "direction", ["Loss landscape"]),
        (lambda r: "epoch" in r.at, ["Training"]),
        (lambda r: r.metric == "tolerated_zeta", []),
        (lambda r: not r.perturbation and r.metric == "accuracy" and r.split == "test", []),
    ],
)
def test_a_chapter_appears_only_with_records(make_run, tmp_path, keep, headings):
    run = make_run([r for r in everything("r", "dropout", 0, chips=5) if keep(r)], kind="dropout")
    run.environment_file.unlink()
    assert Outline(written([run], tmp_path)).headings == ["Summary", *headings, "Provenance"]


def test_every_kind_of_noise_has_its_chart(make_run, tmp_path):
    records = [
        *chip_records("r", {0.1: [0.9, 0.8]}, parameters="weights"),
        *chip_records("r", {0.1: [0.7, 0.6]}, parameters="all"),
        *chip_records("r", {0.02: [0.5, 0.4]}, name="gaussian", setting="sigma"),
        *chip_records("r", {0.05: [0.3, 0.2]}, name="max-relative-gaussian", setting="eta", per="tensor"),
    ]
    page = written([make_run(records)], tmp_path)
    for heading in ("Mismatch, weights only", "Mismatch, all parameters", "Gaussian", "Max relative gaussian, per tensor"):
        assert heading in Outline(page).headings
    assert page.count("three-sigma") == 1


@pytest.mark.parametrize("accuracies", [{0.0: [0.9]}, {0.3: [0.5]}, {0.0: [1.0, 1.0], 0.3: [1.0, 1.0]}, {0.3: [0.0, 0.0]}])
def test_few_or_equal_chips(make_run, tmp_path, accuracies):
    runs = [make_run(chip_records(f"r{i}", accuracies), kind=kind) for i, kind in enumerate(("standard", "dropout"))]
    written(runs, tmp_path, required=0.85)


@pytest.mark.parametrize("required", [0.0, 1.0])
def test_the_ends_of_the_required_accuracy(make_run, tmp_path, required):
    written([make_run(chip_records("r", {0.1: [0.9, 0.8], 0.2: [0.7]}))], tmp_path, required=required)


@pytest.mark.parametrize("required", [-0.1, 1.1, 85, float("nan")])
def test_a_required_accuracy_outside_the_unit_interval(make_run, tmp_path, required):
    with pytest.raises(NoiseproofError, match="required accuracy is"):
        report.write([make_run([])], tmp_path / "report.html", required=required)
    assert not (tmp_path / "report.html").exists()


def test_one_network_per_method_cannot_speak_about_methods(make_run, tmp_path):
    runs = [make_run(chip_records(k, {0.3: v}), kind=k) for k, v in (("standard", [0.7, 0.71]), ("dropout", [0.8, 0.81]))]
    page = written(runs, tmp_path)
    assert "With so few networks nothing tells a difference between methods from one between two trainings" in page
    assert "too few networks" in page


def test_runs_on_different_data_are_not_compared(make_run, tmp_path):
    runs = [
        make_run(chip_records("a", {0.3: [0.7, 0.71]}), data="digits"),
        make_run(chip_records("b", {0.3: [0.8, 0.81]}), kind="dropout", data="fashion-mnist"),
    ]
    page = written(runs, tmp_path)
    assert "compare only methods on the same data" in page
    assert "points apart" not in page


def test_a_name_in_any_script(make_run, tmp_path):
    assert "神经网络 🧠" in written([make_run(chip_records("r", {0.3: [0.7, 0.8]}), name="神经网络 🧠")], tmp_path)


def test_many_methods_have_each_its_own_style():
    from noiseproof.report.svg import style

    assert len({style(i) for i in range(40)}) == 40


def test_an_old_report_survives_a_failed_write(make_run, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(NoiseproofError, match="is no run folder"):
        report.write([RunFolder(tmp_path / "nowhere")], path)
    assert path.read_text() == "old"


def test_neither_torch_nor_pyplot_is_imported(make_run, tmp_path):
    run = make_run(everything("r", "standard", 0, chips=5))
    code = f"""
import sys
from pathlib import Path
from noiseproof import report
from noiseproof.records import RunFolder
assert not {{"matplotlib", "jinja2", "scipy.stats"}} & set(sys.modules), "heavy before it is needed"
report.summarise([RunFolder({str(run.path)!r})])
report.write([RunFolder({str(run.path)!r})], Path({str(tmp_path / "r.html")!r}))
assert not {{"torch", "matplotlib.pyplot"}} & set(sys.modules), "torch or pyplot was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_several_noises_have_a_table_each_and_the_summary_names_its_own(make_run) -> None:
    chips = {0.3: [0.8, 0.9]}
    one = chip_records("run", chips, parameters="weights")
    other = chip_records("run", {0.3: [0.4, 0.5]}, parameters="*threshold")
    assert report.summarise([make_run(one)]).caption == "Summary"
    run = make_run([*one, *other])
    assert [table.caption for table in report.noise_tables([run])] == ["Mismatch, parameters *threshold", "Mismatch, weights only"]
    assert report.summarise([run]).caption.startswith("Summary (Mismatch, parameters *threshold;")
