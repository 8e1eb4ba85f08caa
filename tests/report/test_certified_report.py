"""Certified boxes in the report: the ladder, what it says of all chips, and the consumers of records that must pass boxes over."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from made_up import attacked, chip_records, falling

from noiseproof import report
from noiseproof.certificates.devices import chips_needed, coverage, failure_rate_bound, half_width_for, mismatch_covered
from noiseproof.checklist import checked
from noiseproof.errors import NoiseproofError
from noiseproof.records import Record
from noiseproof.report import certified_figures, certified_ladders
from noiseproof.report.attacked import tables as attack_tables
from noiseproof.report.certified import Asked, legend, notes, sentences, shown_and_folded, statements, tables
from noiseproof.report.device_chips import up
from noiseproof.report.device_statements import down
from noiseproof.report.findings import findings
from noiseproof.report.reading import read
from noiseproof.statistics import clopper_pearson

WIDTHS = (0.001, 0.003, 0.01, 0.03, 0.1)
MOVING = 109_000


def boxed(run: str, *, n=200, parameters="weights", strength=1.0, kind="plain", moving=MOVING, eps=0.0, widths=WIDTHS) -> list[Record]:
    """The records of a ladder: what a wider box leaves falls by `strength`."""
    bounds = {"plain": {"intervals": 9.0, "backward": 5.0, "backward-full": 4.0}, "lif": {"intervals": 30.0, "spiking": 12.0}}[kind]
    lost = {"none": 0.0, "random": 0.3, "shared": 1.2, "per-sample": 3.0}
    found: list[Record] = []

    def share(value: float) -> float:
        return round(n * min(max(0.9 - value, 0.0), 0.9)) / n

    for z in widths:
        box = {"name": "box", "z": z, "parameters": parameters, "eps": eps}
        found.append(Record(run, "box_parameters", moving, n, perturbation=box))
        for attack, slope in lost.items():
            more = {"steps": 20, "restarts": 2, "norm": "linf"} if attack in ("shared", "per-sample") else {}
            found.append(Record(run, "survived", share(strength * slope * z), n, perturbation={**box, "attack": attack, **more}, seed=0))
        for place, (bound, slope) in enumerate(bounds.items()):
            how = {**box, "bounds": bound, "arithmetic": "float32"}
            found.append(Record(run, "certified", share(strength * slope * z), n, perturbation=how))
            found.append(Record(run, "seconds_certifying", 0.4 + 20 * place, n, perturbation=how))
    return found


def chips(run: str, fall: float, number=100, levels=(0.001, 0.1, 0.2), **settings) -> list[Record]:
    draws = {zeta: falling(0.9, fall * zeta, number) for zeta in levels}
    return fixed(chip_records(run, draws, parameters=settings.pop("parameters", "weights"), **settings))


def fixed(records: list[Record]) -> list[Record]:
    """The records of chips, with how many there were to be before them."""
    numbers = {str(r.perturbation): replace(r, metric="chips_fixed", value=float((r.chip or 0) + 1), chip=None) for r in records}
    return [*numbers.values(), *records]


def page(runs, tmp_path, **options) -> str:
    path = tmp_path / "out" / "report.html"
    report.write(runs, path, **options)
    return path.read_text(encoding="utf-8").replace("\xa0", " ")


def column(table, title: str) -> list:
    """Return the cells under the first column of this title."""
    place = next(i for i, c in enumerate(table.columns) if c.title == title)
    return [row[place] for row in table.rows]


@pytest.fixture
def runs(make_run):
    """Two methods, the first with two networks, with boxes and chips."""
    return [
        make_run([*boxed("a0", strength=2.0), *chips("a0", 1.0), Record("a0", "accuracy", 0.9, 200)], kind="standard", seed=0),
        make_run([*boxed("a1", strength=2.4), *chips("a1", 1.1), Record("a1", "accuracy", 0.9, 200)], kind="standard", seed=1),
        make_run([*boxed("b0"), *chips("b0", 0.2), Record("b0", "accuracy", 0.89, 200)], kind="weight-adversary"),
    ]


def test_every_run_and_width_has_a_row_from_clean_to_proved(runs):
    (table,) = tables(runs)
    assert len(table.rows) == len(runs) * len(WIDTHS)
    assert [c.title for c in table.columns[2:7]] == ["Clean", "Random", "Shared", "Per sample", "Certified"]
    for row in table.rows:
        values = [float(cell.text) for cell in row[2:7]]
        assert values == sorted(values, reverse=True)
    assert {row[0].text for row in table.rows} == {run.path.name for run in runs}
    assert "200 test samples" in table.caption
    assert table.columns[0].title == "Run"


def test_the_best_bound_counts_with_its_interval_gap_and_time(make_run):
    run = make_run(boxed("a", widths=(0.01,)))
    (table,) = tables([run])
    (best,), (gap,) = column(table, "Certified"), column(table, "Open")
    low, high = clopper_pearson(172, 200)
    assert best.value == 172 / 200
    assert best.detail == f"{100 * low:.1f} to {100 * high:.1f}"
    assert gap.text == "1.0"
    assert (column(table, "by intervals")[0].text, column(table, "by intervals")[0].detail) == ("81.0", "400 ms")
    (alone,) = tables([make_run([r for r in boxed("b", widths=(0.01,)) if r.perturbation.get("bounds") in (None, "intervals")])])
    assert column(alone, "Certified")[0].text == "81.0"
    assert column(alone, "Time")[0].text == "400 ms"


def test_of_several_settings_of_an_attack_the_strongest_counts_and_of_several_ladders_the_longest(make_run):
    box = {"name": "box", "z": 0.01, "parameters": "weights", "eps": 0.0}
    more = [
        Record("a", "survived", 0.5, 200, perturbation={**box, "attack": "per-sample", "steps": 100}),
        Record("a", "survived", 0.1, 50, perturbation={**box, "attack": "per-sample", "steps": 100}),
        Record("a", "certified", 0.99, 50, perturbation={**box, "bounds": "intervals", "arithmetic": "float32"}),
        Record("a", "certified", 0.49, 200, perturbation={**box, "bounds": "intervals", "arithmetic": "exact"}),
    ]
    (table,) = tables([make_run([*boxed("a", widths=(0.01,), strength=6.0), *more])])
    assert column(table, "Per sample")[0].text == "50.0"
    assert "by intervals, exact arithmetic" in [c.title for c in table.columns]
    assert column(table, "Certified")[0].value == 0.66  # exact arithmetic is no bound for a network in single precision


def test_a_proof_that_an_attack_breaks_is_an_alarm(make_run):
    broken = [replace(r, value=0.95) if r.perturbation.get("bounds") == "backward" else r for r in boxed("a", widths=(0.01,))]
    (table,) = tables([make_run(broken)])
    (cell,) = column(table, "Certified")
    assert cell.alarm
    assert "broken" in cell.detail
    (table,) = tables([make_run(boxed("b"))])
    assert not any(cell.alarm for cell in column(table, "Certified"))


def test_statements_of_chips_are_corrected_for_the_levels(runs):
    found, _ = statements(runs[:1], Asked(required=0.5))
    assert len(found.rows) == 3
    for cell in column(found, "Below 50 %"):
        assert cell.value == pytest.approx(failure_rate_bound(0, 100, 1 - 0.05 / 3))
        assert cell.detail == "0 of 100"
    assert [cell.text for cell in column(found, "That is")] == ["24"] * 3
    assert column(found, "Box needed")[1].text == f"{up(half_width_for(0.999, MOVING, 0.1)):g}"
    without, _ = statements(runs[:1])
    assert "Below 50 %" not in [c.title for c in without.columns]


def test_where_chips_fail_no_number_of_chips_is_promised(make_run):
    values = [0.9] * 90 + [0.5] * 10
    run = make_run(fixed(chip_records("a", {0.1: values, 0.2: [0.9] * 99 + [0.5], 0.3: [0.5] * 100}, parameters="weights")))
    (table,) = statements([run], Asked(required=0.8))
    assert [cell.text for cell in column(table, "Fresh chips")] == ["–", f"{chips_needed(0.001, 1 - 0.05 / 3):,}", "–"]
    rates = [failure_rate_bound(k, 100, 1 - 0.05 / 3) for k in (10, 1)]
    assert [cell.text for cell in column(table, "That is")] == [*(f"{math.floor(1 / rate)}" for rate in rates), "–"]


def test_certified_boxes_say_how_many_chips_they_cover(runs):
    _, table = statements(runs[:1], Asked(required=0.5))
    zeta = down(mismatch_covered(0.999, MOVING, 0.01))
    row = next(row for row in table.rows if row[1].value == 0.01)
    assert row[4].value == zeta
    assert coverage(MOVING, 0.01, zeta) >= 0.999
    assert [cell.text for cell in row[5:]] == ["99.99"]  # of the other two, which are 0 in every row, the title speaks
    assert table.caption.endswith("; at ζ = 0.1 and 0.2 hardly a chip lies in any of them")
    assert row[3].detail == "164 of 200"


def test_a_box_on_weights_covers_no_mismatch_on_all_parameters(make_run):
    run = make_run([*boxed("a", widths=(0.01,)), *chips("a", 0.1, levels=(0.001,), parameters="all")])
    chips_table, table = statements([run])
    assert (table.rows[0][-1].text, table.rows[0][-1].detail) == ("–", "mismatch varies all parameters")
    assert column(chips_table, "Chips")[0].text == "100"
    assert "Box needed" not in [c.title for c in chips_table.columns]
    wider = make_run([*boxed("b", widths=(0.01,), parameters="all"), *chips("b", 0.1, levels=(0.001,))])
    assert statements([wider])[1].rows[0][-1].text == "99.99"


def test_where_mismatch_varies_more_than_the_box_nothing_is_covered(make_run, tmp_path):
    run = make_run([*boxed("a", widths=(0.01,)), *chips("a", 0.1, levels=(0.001,), parameters="all")])
    _, table = statements([run])
    assert [cell.text for cell in column(table, "ζ covered")] == ["–"]
    assert table.caption.endswith("for mismatch of the parameters that move in the box alone")
    assert "lie in the box" not in page([run], tmp_path)


def test_chips_whose_number_was_not_fixed_bound_nothing(make_run):
    """Added until an interval was narrow, pooled from two seeds, or not all there."""
    values = [0.9] * 40
    free = chip_records("a", {0.1: values}, parameters="weights")
    (table,) = statements([make_run(free)], Asked(required=0.8))
    assert [cell.text for cell in table.rows[0][2:]] == ["40", "90.0", "–", "–", "–", "–"]
    (note,) = notes([make_run(free)])
    assert "chips of seed 0, ζ = 0.1: no bound, as how many there would be was not fixed" in note
    other = [replace(r, seed=1) for r in fixed(free)]
    (table,) = statements([make_run([*free, *other])], Asked(required=0.8))
    assert [(row[2].text, row[2].detail, row[5].detail) for row in table.rows] == [
        ("40", "seed 0; not fixed", ""),
        ("40", "seed 1", "0 of 40"),
    ]
    (table,) = statements([make_run(fixed(free)[:20])], Asked(required=0.8))
    assert [cell.text for cell in table.rows[0][2:]] == ["19", "90.0", "–", "–", "–", "–"]
    assert table.rows[0][2].detail == "seed 0; of 40"


def test_of_more_chips_than_were_to_be_the_first_ones_count(make_run):
    first = fixed(chip_records("a", {0.1: [0.9] * 30}, parameters="weights"))
    later = [replace(r, chip=30 + (r.chip or 0), value=0.1) for r in first if r.chip is not None]
    (table,) = statements([make_run([*first, *later])], Asked(required=0.8))
    assert (table.rows[0][2].text, table.rows[0][3].text, table.rows[0][5].detail) == ("30", "90.0", "0 of 30")


def test_boxes_of_several_shapes_are_told_apart(make_run, tmp_path):
    run = make_run([*boxed("a", widths=(0.001, 0.01)), *boxed("a", widths=(0.03,), parameters="all", moving=MOVING + 200)])
    (table,) = statements([run])
    assert [cell.detail for cell in column(table, "Parameters")] == ["all parameters", "weights only", "weights only"]
    text = page([run], tmp_path)
    # the middle width of each shape
    assert "lie in the box z = 0.001," in text
    assert "lie in the box z = 0.03," in text
    assert len(statements([run], parameters="all")[0].rows) == 1


def test_another_arithmetic_is_marked_and_says_nothing_of_chips(make_run, tmp_path):
    records = [r for r in boxed("a", widths=(0.01,)) if r.perturbation.get("bounds") in (None, "intervals")]
    exact = [replace(r, perturbation={**r.perturbation, "arithmetic": "exact"}) if "bounds" in r.perturbation else r for r in records]
    run = make_run([*exact, *chips("a", 0.1)])
    assert column(tables([run])[0], "Certified")[0].detail.startswith("exact arithmetic; ")
    assert len(statements([run])) == 1
    assert "for standard (exact arithmetic alone)" in " ".join(findings(read([run])))
    assert "for exact arithmetic alone at z = 0.01" in page([run], tmp_path)


def test_different_numbers_of_samples_are_neither_joined_nor_ranked(make_run, tmp_path):
    runs = [
        make_run([*boxed("a", widths=(0.001, 0.01)), *boxed("a", widths=(0.03,), n=50)], kind="standard"),
        make_run(boxed("b", widths=(0.01,), n=100), kind="awp"),
    ]
    assert [(t.caption.rsplit(", ")[-1], [row[1].value for row in t.rows]) for t in tables(runs)] == [
        ("200 test samples", [0.001, 0.01]),
        ("100 test samples", [0.01]),
        ("50 test samples", [0.03]),
    ]
    said = " ".join(findings(read(runs)))
    assert "The share of 200 test samples that is proved right on every chip in the box z = 0.001" in said
    assert "awp" not in said.partition("The share of")[2]
    text = page(runs, tmp_path)
    assert "(weights only, 50 test samples)" in text
    assert "50 to 200" not in text.partition('<section aria-labelledby="box-0">')[2]


def test_the_counts_of_chips_are_those_of_the_rows(make_run, tmp_path):
    few = [*boxed("a"), *chips("a", 0.1, number=5)]
    many = [*boxed("b"), *chips("b", 0.1, number=80)]
    text = page([make_run(few), make_run(many, kind="awp"), make_run([*boxed("c")], kind="sam")], tmp_path)
    assert "what 5 to 80 chips did" in text
    assert "were measured, 2 of them on 5 to 80 simulated chips a level." in text


def test_the_interval_presumes_a_random_order(runs, tmp_path):
    assert "data stand in random order" in " ".join(page(runs, tmp_path).split())


def test_the_chapters_say_what_is_proved(runs, tmp_path):
    text = page(runs, tmp_path, required=0.8)
    assert "What no chip in the box can do" in text
    assert "What at most one chip in so many will do" in text
    assert "The ladder of weight-adversary" in text
    assert "all levels of one network and seed of chips together with 95 %" in text
    assert "what 100 chips did" in text
    assert "Certified z = 0.01" in text
    assert "Below 80 %" in text
    assert "standard, seed 1: At least 99.90 % of chips under mismatch ζ = 0.00174 of these 109,000 parameters alone lie in" in text


def test_of_many_boxes_the_middle_ones_stand_open(runs, make_run, tmp_path):
    """Fifteen rows are many: those of z = 0.01 are read, the others wait behind a click."""
    text = page([*runs, make_run(boxed("c"), kind="awp")], tmp_path)
    for chapter, folded in (("box-0", "The ladder at all half-widths"), ("devices", "From certified boxes of all half-widths")):
        shown, _, rest = text.partition(f'<section aria-labelledby="{chapter}">')[2].partition("</section>")[0].partition("<details")
        assert folded in rest
        assert shown.count('data-value="0.01"') >= 3
        assert 'data-value="0.03"' not in shown
    few = page([make_run([*boxed("z"), *chips("z", 0.1)])], tmp_path)
    assert "all half-widths" not in few


def test_labels_of_half_widths_do_not_run_into_each_other(make_run, monkeypatch):
    for widths in (tuple(k / 10_000 for k in range(10, 21)), (0.0102, 0.01125, 0.0123, 0.0202), (0.001, 0.0015, 0.02), WIDTHS):
        drawn = []
        monkeypatch.setattr(certified_figures, "svg", lambda figure, *_, seen=drawn: seen.append(figure) or "")
        methods = read([make_run(boxed("a", widths=widths))])
        certified_figures.overview(certified_ladders.studies(methods)[0], methods, "a")
        drawn[0].draw_without_rendering()
        shown = [label for label in drawn[0].axes[0].get_xticklabels() if label.get_text()]
        assert len(shown) > 1
        assert all(left.get_window_extent().x1 < right.get_window_extent().x0 for left, right in itertools.pairwise(shown))
        assert {float(label.get_text()) for label in shown} <= set(widths)


def test_the_bounds_of_the_page_have_a_table_of_their_own(make_run):
    methods = read([make_run(boxed("a"))])
    shown, (bounds,) = shown_and_folded(certified_ladders.studies(methods)[0], methods)
    assert [c.title for c in shown.columns][-2:] == ["Certified", "Open"]
    assert [c.title for c in bounds.columns] == ["Method", "z", "by intervals", "by backward", "by backward-full"]
    assert column(bounds, "by intervals")[0].detail == "400 ms"


def test_one_fraction_is_rounded_in_one_way(make_run, tmp_path):
    records = [replace(r, value=17 / 30, n=30) if r.metric in ("certified", "survived") else replace(r, n=30) for r in boxed("a")]
    text = page([make_run(records)], tmp_path)
    assert "17 of these 30 samples right (56.7 %)" in text
    assert "56.6" not in text


def test_what_the_chips_of_a_seed_say_stands_in_a_sentence(make_run):
    (said,) = sentences([make_run(chips("a", 0.1, levels=(0.1,)))], Asked(required=0.5), 0)
    assert ", ζ = 0.1: With 95 % confidence, at most 1 chip in 33 (2.96 %) falls below 50 % accuracy: 0 of 100 chips" in said
    assert said.endswith(" For 1 in 1,000: --chips 2995 --chip-seed 1, none failing.")


def test_the_command_line_says_what_its_heads_mean(runs):
    found = [*tables(runs), *statements(runs, Asked(required=0.5))]
    assert [line.partition(":")[0] for line in legend(found)] == ["Certified", "Mean", "Fresh chips", "ζ covered", "Box needed"]
    assert [line.partition(":")[0] for line in legend(statements(runs[:1])[:1])] == ["Mean", "Box needed"]
    assert not any("for sure" in f"{c.title} {c.detail}" for table in found for c in table.columns)


def test_several_tasks_and_shapes_have_chapters_of_their_own(make_run, tmp_path):
    runs = [
        make_run([*boxed("a"), *boxed("a", parameters="all", strength=2.0)], data="fashion-mnist"),
        make_run(boxed("b", kind="lif", eps=8 / 255), data="speech"),
    ]
    text = page(runs, tmp_path)
    assert "What no chip in the box can do (all parameters)" in text
    assert "What no chip in the box can do (weights only)" in text
    assert "inputs within ε = 8/255" in text
    assert len(tables(runs)) == 3
    assert len(tables(runs, "all")) == 1
    # a box that moves inputs too says nothing about chips alone
    assert statements(runs[1:]) == []


def test_one_width_without_attacks_and_one_attack_without_bounds(make_run, tmp_path):
    certified = [r for r in boxed("a", widths=(0.01,)) if r.metric == "certified"]
    survived = [r for r in boxed("b", widths=(0.0,)) if r.metric == "survived"]
    runs = [make_run(certified, kind="standard"), make_run(survived, kind="awp")]
    rows = [row for t in tables(runs) for row in t.rows]
    assert len(rows) == 2
    assert "What no chip in the box can do" in page(runs, tmp_path)
    alone = page(runs[1:], tmp_path)
    assert "The ladder of awp" in alone
    assert "What at most one chip" not in alone


def test_the_finding_is_about_the_middle_width(runs):
    said = " ".join(findings(read(runs)))
    assert "proved right on every chip in the box z = 0.01 (weights only) is 86.0 % for weight-adversary and 81.2 %" in said
    assert "The strongest attack in that box leaves 87.0 % for weight-adversary." in said


def test_attacks_on_inputs_pass_boxes_over(make_run, tmp_path):
    """Boxes carry an ε and their attacks a norm, as attacks on inputs do."""
    plain = [*attacked("a", 0.9, 0.4, n=100)]
    run, with_boxes = make_run(plain), make_run([*plain, *boxed("a", eps=8 / 255)])
    mine = next(r.perturbation for r in plain if r.perturbation.get("name") == "pgd" and r.metric == "accuracy")
    shown = [[[cell.text for cell in row[1:]] for row in attack_tables([one], [mine], 200)[0].rows] for one in (run, with_boxes)]
    assert shown[0] == shown[1]
    assert checked(run.records()) == checked(with_boxes.records())
    before, after = report.summarise([run]), report.summarise([with_boxes])
    kept = [c for c in after.columns if not c.title.startswith("Certified")]
    assert list(before.columns) == kept
    assert report.noise_tables([with_boxes]) == report.noise_tables([run])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"required": 85.0}, "required accuracy is 85"),
        ({"failure_rate": 0.0}, "failure_rate is 0.0"),
        ({"failure_rate": 1.0}, "failure_rate is 1.0"),
    ],
)
def test_what_cannot_be_stated_is_refused(runs, tmp_path, options, said):
    with pytest.raises(NoiseproofError, match=said):
        Asked(**options)
    with pytest.raises(NoiseproofError, match=said):
        page(runs, tmp_path, **options)


def test_numbers_are_rounded_to_the_safe_side():
    assert (down(0.0019839), up(0.0019831), up(0.57), down(0.57)) == (0.00198, 0.00199, 0.57, 0.57)
    assert (down(0.0), up(12345.0)) == (0.0, 12400.0)


def test_a_ladder_without_a_common_rung_has_no_mean(make_run):
    first, second = boxed("a", widths=(0.01,)), [r for r in boxed("b", widths=(0.01,)) if r.perturbation.get("attack") != "shared"]
    (method,) = read([make_run(first, seed=0), make_run(second, seed=1)])
    (boxes,) = certified_ladders.studies([method])
    assert certified_ladders.survived(boxes.of(method, 0.01), "shared") is None
    assert certified_ladders.survived(boxes.of(method, 0.01)) == pytest.approx(0.87)
