"""What a comparison of many methods shows: levels of any noise, two settings at once, sweeps, training noise, tasks, budgets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from made_up import METHODS, TIMES, chip_records, cost, everything, on_grid, on_memory

from noiseproof import report
from noiseproof.records import Record
from noiseproof.report import budgets, figures, sections, sweep_figures, sweeps, tables
from noiseproof.report.device_chips import Asked
from noiseproof.report.numbers import p_value
from noiseproof.report.quantities import level_text, span
from noiseproof.report.reading import Method, read, tasks
from noiseproof.report.selecting import Families
from noiseproof.report.studies import courses, grids, noises
from noiseproof.statistics import holm


@pytest.fixture
def trained(make_run):
    """Return methods, each of one run: (kind, settings of the method, accuracy of its two chips by ζ)."""

    def make(trainings: Sequence[tuple[str, Mapping[str, Any], Mapping[float, float]]], **more: Any) -> tuple[Method, ...]:
        runs = [
            make_run(chip_records(f"r{i}", {z: [a - 0.01, a + 0.01] for z, a in at.items()}), kind=kind, method=settings, **more)
            for i, (kind, settings, at) in enumerate(trainings)
        ]
        return read(runs)

    return make


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("zeta", 0.3, "ζ = 0.3"),
        ("std", 1e-3, "s = 0.001"),
        ("p", 1e-5, "p = 1e-05"),
        ("bits", 8, "8 bits"),
        ("bits of step 2", 8, "8 bits in step 2"),
        ("zeta of step 2", 0.1, "ζ of step 2 = 0.1"),
        ("time", 3600, "t = 1 h"),
        ("strange_name", 2, "strange name = 2"),
        ("", 0, "on chips"),
    ],
)
def test_a_level_in_words(setting, value, text):
    assert level_text(setting, value) == text


def test_times_of_the_paper():
    assert [span(t) for t in (0, *TIMES, 90, 31_557_600)] == ["0 s", "25 s", "1 h", "1 d", "30 d", "1 y", "1.5 min", "1 y"]


@pytest.mark.parametrize(
    ("perturbations", "axes"),
    [
        ([{"zeta": 0.1, "bits": 8}], ("zeta",)),  # one level: by what is known
        ([{"zeta": 0.1, "bits": 8}, {"zeta": 0.1, "bits": 4}], ("bits",)),  # what varies
        ([{"zeta": 0.1, "range": 2.0}, {"zeta": 0.1, "range": 3.0}], ("range",)),
        ([{"zeta": 0.1, "bits": 8}, {"zeta": 0.3, "bits": 4}, {"zeta": 0.1, "bits": 4}], ("zeta", "bits")),
        ([{"zeta": 0.1, "bits": 8}, {"zeta": 0.3, "bits": 4}], ("zeta",)),  # one sweep, written twice
        ([{"time": 25.0, "zeta": 0.1, "rows": r} for r in (128, 256)], ("rows",)),
        ([{"parameters": "all"}], ()),
    ],
)
def test_the_level_is_what_varies(perturbations, axes):
    named = [{"name": "noise", "parameters": "all", **p} for p in perturbations]
    assert Families(named).axes(named[0]) == axes


def test_a_title_has_room_for_what_tells_noises_apart():
    pcm = {"name": "pcm", "g_max": 25.0, "mapping": "tile", "dac": "none", "parameters": "weights"}
    every = [{**pcm, "time": t, "gdc": gdc} for t in (25.0, 3600.0) for gdc in (True, False)]
    families = Families(every)
    assert [families.of(p).title for p in every[:2]] == ["PCM, gdc True, weights only", "PCM, gdc False, weights only"]
    assert ("mapping", "tile") in families.of(every[0]).hidden
    assert Families([{"name": "quantisation > mismatch", "bits": 8, "zeta": 0.1}]).of(
        {"name": "quantisation > mismatch", "bits": 8, "zeta": 0.1}
    ).title == "Quantisation → mismatch"  # fmt: skip


def test_memory_through_time(make_run, tmp_path):
    runs = [
        make_run([*on_memory(k, 0.9, loss), Record(k, "accuracy", 0.95, 1000)], kind=k) for k, loss in (("standard", 0.05), ("b", 0.01))
    ]
    table = report.noise_tables(runs)[0]
    assert [c.title for c in table.columns] == ["Method", "t = 25 s", "t = 1 h", "t = 1 d", "t = 30 d", "t = 1 y"]
    at_25_s = [r.value for r in on_memory("standard", 0.9, 0.05) if r.perturbation["time"] == 25]
    assert table.rows[0][1].value == pytest.approx(sum(at_25_s) / len(at_25_s))
    path = tmp_path / "r.html"
    report.write(runs, path, required=0.85)
    page = path.read_text(encoding="utf-8")
    for text in (
        "Accuracy against time",
        "Yield against time at a required accuracy of 85 %",
        "Thin dashes: without noise",
        ">30 d</text>",
    ):
        assert text in page
    assert "standard: 95.0 % without noise" in page
    (noise,) = noises(read(runs))
    assert noise.noisy_levels == TIMES
    assert not noise.starts_clean


def test_two_settings_of_a_noise_make_one_heat_map_per_method(make_run, tmp_path):
    runs = [make_run([*on_grid(k, 0.9, fall)], kind=k) for k, fall in (("standard", 0.9), ("dropout", 0.3))]
    methods = read(runs)
    assert noises(methods) == ()
    (grid,) = grids(methods)
    assert (grid.setting, grid.family.setting, grid.columns) == ("bits", "zeta", (0.1, 0.3, 0.5))
    heats = tables.heat_maps(grid, methods)
    assert [heat.caption for heat in heats] == ["standard", "dropout"]
    shades = [cell.shade for heat in heats for row in heat.rows for cell in row[1:]]
    assert (min(shades), max(shades)) == (0.0, 1.0)
    best = max((cell for heat in heats for row in heat.rows for cell in row[1:]), key=lambda cell: cell.value)
    assert best.shade == 1.0
    values = [r.value for r in runs[0].records() if (r.perturbation["bits"], r.perturbation["zeta"]) == (4, 0.3)]
    assert heats[0].rows[1][0].text == "4"
    assert heats[0].rows[1][2].value == pytest.approx(sum(values) / len(values))
    assert len(report.noise_tables(runs)[0].rows) == 6
    assert "ζ = 0.3" in [column.title for column in report.summarise(runs).columns], "the middle slice stands in the summary"
    path = tmp_path / "r.html"
    report.write(runs, path)
    assert "At quantisation → mismatch ζ\xa0=\xa00.3 (4 bits, per channel), dropout keeps" in path.read_text(encoding="utf-8")


ADVERSARY = {"zeta_attack": 0.1, "steps": 10, "eta": 0.0, "parameters": "all"}


def test_a_sweep_of_one_setting(trained):
    betas = (1.0, 0.1, 0.25)
    methods = trained(
        [("standard", {}, {0.3: 0.5, 0.5: 0.4}), ("dropout", {}, {0.3: 0.55, 0.5: 0.4})]
        + [("weight-adversary", {**ADVERSARY, "beta_rob": b}, {0.3: 0.6 + 0.1 * b, 0.5: 0.5 + 0.1 * b}) for b in betas]
        + [("weight-adversary", {**ADVERSARY, "beta_rob": 0.1, "parameters": "weights"}, {0.3: 0.6, 0.5: 0.5})]
    )
    (sweep,), planes = sweeps.sweeps_and_planes(methods)
    assert planes == ()
    assert (sweep.key, [value for value, _ in sweep.points]) == ("method.beta_rob", sorted(betas))
    assert sweep.title == "weight-adversary: sweep of β_rob"
    assert [m.label for m in sweeps.alone(methods)][:2] == ["standard", "dropout"]
    (noise,) = noises(methods)
    drawn = sweep_figures.accuracy_by_setting(noise, sweep, methods[0], "x")
    assert drawn is not None
    assert "ζ = 0.3: 61.0 at 0.1, 62.5 at 0.25, 70.0 at 1 (standard: 50.0)" in drawn.picture
    assert [text for _, text in drawn.legend] == ["ζ = 0.3", "ζ = 0.5"]
    titles = [s.title for s in sections.sections(methods, Asked())]
    assert "weight-adversary: sweep of β_rob" in titles
    beside = sweep_figures.against_others(noise, 0.3, sweep, methods[:2], "y")
    assert "dropout: 55.0 %" in beside.picture


def test_two_settings_of_the_training_make_a_grid(trained):
    methods = trained(
        [("standard", {}, {0.3: 0.5})]
        + [("weight-adversary", {**ADVERSARY, "beta_rob": b, "zeta_attack": z}, {0.3: b + z}) for b in (0.1, 0.2, 0.4) for z in (0.1, 0.3)]
    )
    found, (plane,) = sweeps.sweeps_and_planes(methods)
    assert found == ()
    assert (plane.rows, plane.columns) == ((0.1, 0.3), (0.1, 0.2, 0.4))
    (section,) = [s for s in sections.sections(methods, Asked()) if s.heats]
    assert section.title == "weight-adversary: grid of ζ_attack and β_rob"
    assert "For comparison at mismatch ζ = 0.3: standard 50.0 %." in section.text
    (heat,) = section.heats
    assert [[cell.value for cell in row[1:]] for row in heat.rows] == [pytest.approx([0.2, 0.3, 0.5]), pytest.approx([0.4, 0.5, 0.7])]


def test_of_many_levels_of_a_grid_one_is_open(trained):
    at = {z: 0.9 - z for z in (0.1, 0.2, 0.3, 0.5, 0.7)}
    settings = [{**ADVERSARY, "beta_rob": b, "zeta_attack": z} for b in (0.1, 0.2) for z in (0.1, 0.3)]
    methods = trained([("weight-adversary", each, at) for each in settings])
    (section,) = [s for s in sections.sections(methods, Asked()) if s.heats]
    assert [heat.caption for heat in section.heats] == ["mismatch ζ = 0.3"]
    assert [heat.caption for heat in section.folded] == [f"mismatch ζ = {z}" for z in (0.1, 0.2, 0.5, 0.7)]


def test_three_settings_make_a_grid_for_each_value_of_one(trained):
    methods = trained(
        [
            ("weight-adversary", {**ADVERSARY, "beta_rob": b, "zeta_attack": z, "steps": n}, {0.3: 0.5})
            for b in (0.1, 0.2, 0.3)
            for z in (0.1, 0.2, 0.3)
            for n in (1, 3)
        ]
    )
    _, planes = sweeps.sweeps_and_planes(methods)
    assert [plane.title for plane in planes] == [
        "weight-adversary: grid of β_rob and ζ_attack at 1 step",
        "weight-adversary: grid of β_rob and ζ_attack at 3 steps",
    ]


def test_what_is_no_sweep(trained):
    """Two published settings of one kind differ in two numbers: no line goes through them."""
    methods = trained(
        [
            ("weight-adversary", {**ADVERSARY, "beta_rob": 0.25, "eta": 0.0}, {0.3: 0.5}),
            ("weight-adversary", {**ADVERSARY, "beta_rob": 0.1, "eta": 0.3}, {0.3: 0.5}),
        ]
    )
    assert sweeps.sweeps_and_planes(methods) == ((), ())


def test_epochs_that_follow_the_number_of_steps(make_run):
    def runs(epochs: Mapping[int, int]):
        return [make_run(chip_records(f"r{n}", {0.3: [0.8]}), kind="a", method={"steps": n}, epochs=e) for n, e in epochs.items()]

    (sweep,), _ = sweeps.sweeps_and_planes(read(runs({1: 24, 3: 8})))
    assert (sweep.key, sweep.follows) == ("method.steps", True)
    (sweep,), _ = sweeps.sweeps_and_planes(read(runs({2: 8, 4: 8})))
    assert not sweep.follows


def test_training_noise_and_test_noise(trained):
    at = (0.1, 0.3, 0.5)

    def reached(trained_at: float, bonus: float) -> dict[float, float]:
        return {z: 0.8 + bonus - abs(z - trained_at) for z in at}

    both = {**ADVERSARY, "beta_rob": 0.1, "relative_to": "weight"}
    methods = trained(
        [("standard", {}, {0.1: 0.6, 0.3: 0.5, 0.5: 0.4})]
        + [("forward-noise", {"eta": e, "relative_to": "weight"}, reached(e, 0.0)) for e in (0.1, 0.3)]
        + [("weight-adversary", {**both, "eta": e}, reached(e, 0.05)) for e in (0.0, 0.1, 0.5)]
        + [("forward-noise", {"eta": e, "relative_to": "max"}, {0.3: 0.5}) for e in (0.01, 0.02)]
        + [("noise-injection", {"noise": f"mismatch(zeta={e})"}, reached(e, 0.1)) for e in (0.3, 0.5)]
        + [("asam", {"eta": e}, {0.3: 0.5}) for e in (0.01, 0.02)]
    )
    groups = {g.stem: g for g in sweeps.matched(methods) if g.noise == "mismatch"}
    assert set(groups) == {"forward-noise", "weight-adversary", "noise-injection"}
    (noise,) = noises(methods)

    def means(group) -> list[tuple[float, float]]:
        return [(z, round(sum(v) / len(v), 3)) for z, v in sweep_figures.meeting(noise, group)]

    assert means(groups["forward-noise"]) == [(0.1, 0.8), (0.3, 0.8)]
    assert means(groups["weight-adversary"]) == [(0.1, 0.85), (0.5, 0.85)]
    assert means(groups["noise-injection"]) == [(0.3, 0.9), (0.5, 0.9)]
    drawn = sweep_figures.unmatched(noise, groups["weight-adversary"], "x")
    assert [text for _, text in drawn.legend] == ["trained without noise", "trained at 0.1", "trained at 0.5"]
    assert "test noise equal to training noise: 85.0 % at 0.1, 85.0 % at 0.5" in drawn.picture
    assert "Training noise and test noise: mismatch" in [s.title for s in sections.sections(methods, Asked())]


def test_training_noise_on_other_parameters_is_not_the_test_noise(make_run):
    def same(trained_on: str, tested_on: str, kind: str, **settings: str) -> bool:
        name, setting = ("mismatch", "zeta") if kind == "weight" else ("max-relative-gaussian", "eta")
        runs = [
            make_run(
                chip_records(f"r{e}", {z: [0.8, 0.7] for z in (0.1, 0.3)}, name=name, setting=setting, parameters=tested_on, **settings),
                kind="forward-noise", method={"eta": e, "relative_to": kind, "parameters": trained_on},
            )
            for e in (0.1, 0.3)
        ]  # fmt: skip
        (group,), (noise,) = sweeps.matched(methods := read(runs)), noises(methods)
        return group.is_of(noise.family)

    assert same("all", "all", "weight")
    assert same("weights", "weights", "max", per="channel")
    assert not same("weights", "all", "weight")
    assert not same("weights", "weights", "max", per="tensor")


@pytest.mark.parametrize(
    ("noise", "clean"),
    [
        ({"name": "mismatch", "setting": "zeta"}, True),
        ({"name": "temperature", "setting": "kelvin", "spread": 0.01}, True),
        ({"name": "stuck", "setting": "stuck_at_zero", "stuck_at_max": 0.0}, True),
        ({"name": "stuck", "setting": "stuck_at_max", "stuck_at_zero": 0.05}, False),
        ({"name": "bit-errors", "setting": "p", "bits": 4}, False),
        ({"name": "pcm", "setting": "output_noise", "time": 3600.0}, False),
        ({"name": "quantisation > mismatch", "setting": "zeta", "bits": 4}, False),
    ],
)
def test_level_0_is_the_network_as_it_is_only_where_that_is_known(noise, clean, make_run):
    def study(levels: Sequence[float]):
        records = chip_records("r", {at: [0.6 - at, 0.5 - at] for at in levels}, **noise)
        (found,) = noises(methods := read([make_run([*records, Record("r", "accuracy", 0.95, 1000)])]))
        return found, [at for at, _ in figures._accuracy_points(found, methods[0])]

    assert study((0.1, 0.2))[1] == ([0.0, 0.1, 0.2] if clean else [0.1, 0.2])
    assert study((0.0, 0.1, 0.2))[0].noisy_levels == ((0.1, 0.2) if clean else (0.0, 0.1, 0.2))


def test_p_values_stand_beside_what_they_are_among_all_of_the_table(trained):
    methods = trained([("standard", {}, {0.3: 0.5})] + [("asam", {"eta": e}, {0.3: 0.5 + e}) for e in (0.01, 0.02, 0.1)])
    (noise,) = noises(methods)
    table = tables.statistics_table(noise, methods, [0.3], "x")
    tests = [row[-2] for row in table.rows if row[-2].value is not None]
    adjusted = holm([cell.value for cell in tests])
    assert [cell.detail for cell in tests] == [p_value(p) for p in adjusted]
    assert max(adjusted) > min(cell.value for cell in tests)


@pytest.fixture
def three_tasks(make_run):
    """Five methods on three data sets, which differ in more than the data."""
    return [
        make_run(
            everything(f"{data}-{kind}-{seed}", kind, seed, chips=8), name=kind, kind="standard" if kind == "standard" else "other",
            seed=seed, data=data, extra=f"limit_train = {1000 * (place + 1)}",
        )
        for place, data in enumerate(("fashion-mnist", "ecg", "speech"))
        for kind in METHODS
        for seed in (0, 1)
    ]  # fmt: skip


def test_several_tasks(three_tasks, tmp_path):
    methods = read(three_tasks)
    by_task = tasks(methods)
    assert [data for data, _ in by_task] == ["fashion-mnist", "ecg", "speech"]
    for _, members in by_task:
        assert [m.label for m in members] == list(METHODS), "a label is short: it is distinct within its task"
        assert [m.look for m in members] == list(range(5)), "a method has one colour in all tasks"
    table = report.summarise(three_tasks)
    assert [c.title for c in table.columns][:3] == ["Method", "Data", "Networks"]
    assert len(table.rows) == 15
    assert [t.caption for t in report.noise_tables(three_tasks)] == [f"{d}: Mismatch, all parameters" for d, _ in by_task]
    path = tmp_path / "r.html"
    report.write(three_tasks, path)
    page = path.read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert re.findall(r"<h2[^>]*>([^<]*)", page) == ["Summary", "fashion-mnist", "ecg", "speech", "Provenance"]
    assert page.count("while standard keeps") == 3, "a baseline for each task"
    assert page.count("three-sigma") == 1


def test_a_task_has_its_own_required_accuracy(make_run, tmp_path):
    def run(data: str, accuracy: float):
        asked = Record(
            data, "tolerated_zeta", 0.2, 100, perturbation={"name": "mismatch"}, at={"required_accuracy": accuracy, "yield": 0.9}
        )
        return make_run([*chip_records(data, {0.1: [0.9, 0.8], 0.3: [0.7, 0.6]}), asked], data=data)

    path = tmp_path / "r.html"
    report.write([run("digits", 0.85), run("ecg", 0.6)], path)
    page = path.read_text(encoding="utf-8")
    assert "Yield at a required accuracy of 85 %" in page
    assert "Yield at a required accuracy of 60 %" in page


def test_fine_tuning_from_several_seeds_is_one_method(make_run):
    runs = [
        make_run([Record(f"r{i}", "accuracy", 0.9, 10)], name="tuned", seed=i, extra=f'start_from = "runs/a-seed{i}"\nstarted_from = "{i}"')
        for i in (0, 1)
    ]
    assert [row[0].text for row in report.summarise(runs).rows] == ["tuned"]


@pytest.mark.parametrize(
    ("evaluations", "epochs", "words"),
    [
        ((1, 1), (8, 8), "All methods had the same epochs (8) and about the same number of gradient evaluations."),
        ((1, 12), (8, 8), "All methods had the same epochs (8), not the same number of gradient evaluations: 4,320 for a to 51,840 for b."),
        ((1, 4), (8, 2), "All methods had about the same number of gradient evaluations, not the same epochs: 2 for b to 8 for a."),
        ((1, 4), (8, 4), "The methods had neither the same epochs (4 for b to 8 for a) nor the same number of gradient evaluations "),
    ],
)
def test_budgets_in_words(make_run, evaluations, epochs, words):
    runs = [
        make_run(cost(name, n, e), name=name, extra="batch_size = 100", epochs=e, method={"epsilon": 0.01, "steps": n})
        for name, n, e in zip("ab", evaluations, epochs, strict=True)
    ]
    methods = read(runs)
    assert budgets.budget_words(methods)[0].startswith(words)
    table = budgets.budget_table(methods)
    assert [cell.text for cell in table.rows[1]] == [
        "b", "standard", str(epochs[1]), "54,000", "100", str(evaluations[1]), f"{540 * epochs[1] * evaluations[1]:,}", "1 h 10 min",
    ]  # fmt: skip
    assert table.rows[0][1].detail == "ε = 0.01, 1 step"


def test_courses_of_weights_and_under_noise(make_run):
    records = [Record("r", "weight_magnitude", 0.1 * e, 100, "train", at={"epoch": e}) for e in (1, 2)]
    for noise in (
        {"name": "gaussian", "std": 0.1},
        {"name": "mismatch", "zeta": 0.3},
        {"name": "weight-attack", "zeta": 0.1, "norm": "linf"},
    ):
        records += [Record("r", "accuracy", 0.5, 100, "validation", perturbation=noise, at={"epoch": e}) for e in (1, 2)]
    (section,) = sections.sections(read([make_run(records)]), Asked())
    assert [drawing.title for drawing in section.drawings] == [
        "Size of the weights during training",
        "Accuracy under noise during training (gaussian, s = 0.1)",
        "Accuracy under noise during training (mismatch, ζ = 0.3)",
        "Accuracy under attack during training (ζ = 0.1, l∞)",
    ]
    assert len(courses(read([make_run(records)]))) == 4


def test_landscapes_of_training_data_are_shown_apart(make_run):
    def along(split: str, steep: float) -> list[Record]:
        noise = {"name": "direction", "zeta": 0.2}
        return [
            Record("r", "cross_entropy", steep * a * a, 10, split, perturbation=noise, at={"alpha": a, "direction": 0}) for a in (-1, 0, 1)
        ]

    found = sections.sections(read([make_run([*along("test", 1.0), *along("train", 0.5)])]), Asked())
    landscape = next(s for s in found if s.title == "Loss landscape")
    assert [(table.caption, table.rows[0][1].value) for table in landscape.tables] == [
        ("Slope of the loss landscape (ζ = 0.2)", 1.0),
        ("Slope of the loss landscape (training data, ζ = 0.2)", 0.5),
    ]


def test_a_setting_that_an_older_version_did_not_write_makes_no_other_method(trained):
    at = {0.3: 0.8}
    (one,) = trained([("weight-adversary", {"steps": 3}, at), ("weight-adversary", {"steps": 3, "norm": "linf"}, at)])
    assert (one.label, len(one.networks)) == ("weight-adversary", 2)
    apart = trained([("weight-adversary", {"steps": 3}, at), ("weight-adversary", {"steps": 4, "norm": "linf"}, at)])
    assert len(apart) == 2
