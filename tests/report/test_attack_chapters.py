"""Attacks on inputs in the report: the least that all leave, what each finds, and whether the figures can be trusted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up import EPS, MEMBERS, attacked

from noiseproof import report
from noiseproof._names import find
from noiseproof.cli import main
from noiseproof.records import Record
from noiseproof.report import attack_names, input_attack_checks, input_attack_tables, input_attacks
from noiseproof.report.attack_names import distinct_labels, kind_of, member_label
from noiseproof.report.attacked import judgements, tables
from noiseproof.report.findings import findings
from noiseproof.report.reading import read
from noiseproof.report.studies import value_of
from noiseproof.statistics import clopper_pearson


def page(runs, tmp_path, **options) -> str:
    path = tmp_path / "out" / "report.html"
    report.write(runs, path, **options)
    return path.read_text(encoding="utf-8").replace("\xa0", " ")


@pytest.fixture
def honest(make_run):
    """Two methods with two networks each, whose gradients lead somewhere."""
    return [
        make_run(attacked(f"{kind}{seed}", 0.88, left + 0.02 * seed), kind=kind, seed=seed, data="cifar-10")
        for kind, left in (("standard", 0.06), ("hire", 0.3))
        for seed in (0, 1)
    ]


@pytest.fixture
def masked(make_run):
    return make_run(attacked("m", 0.88, 0.52, masked=True), kind="masked", data="cifar-10")


@pytest.mark.parametrize(
    ("settings", "label"),
    [
        ({"name": "fgsm", "loss": "ce", "surrogate": ""}, "FGSM"),
        ({"name": "pgd", "steps": 20, "loss": "ce", "restarts": 1, "momentum": 0.0, "expected": False}, "PGD-20"),
        (
            {"name": "pgd", "steps": 7, "loss": "dlr", "restarts": 5, "momentum": 0.75, "eot": 20},
            "PGD-7, DLR, momentum 0.75, 5 restarts, EOT 20",
        ),
        (
            {"name": "apgd", "steps": 100, "loss": "dlr", "targets": 0, "surrogate": "atan", "surrogate_settings": [2.0]},
            "APGD-100, DLR, surrogate atan 2",
        ),
        ({"name": "apgd", "steps": 100, "loss": "dlr", "targets": 9}, "APGD-T-100, DLR"),
        ({"name": "square", "queries": 5000, "loss": "margin"}, "Square, 5,000 queries"),
        ({"name": "rate-gradient", "steps": 20, "rule": "bptr"}, "Rate gradient, BPTR, 20 steps"),
        ({"name": "transfer", "source": "hire, seed 1", "attack": "pgd(steps=20)"}, "Transfer, from hire, seed 1"),
        ({"name": "random-noise", "kind": "corner", "draws": 50}, "Noise, corners, 50 draws"),
        ({"name": "ensemble", "steps": 20, "queries": 500, "draws": 8, "source": ""}, "Ensemble"),
        ({"name": "autoattack", "version": "rand", "steps": 100}, "AutoAttack, rand"),
        ({"name": "mine:Mine", "strength": 2}, "mine:Mine"),
    ],
)
def test_attacks_have_the_names_of_the_field(settings, label):
    assert kind_of({"eps": EPS, "norm": "linf", **settings}).label == label


def test_members_are_named_from_their_spelling():
    assert member_label("apgd(steps=20, loss=margin, surrogate=atan, surrogate_settings=2.0)") == "APGD-20, margin, surrogate atan 2"
    assert member_label('pgd(steps=40, surrogate=triangle, surrogate_settings="0.3 1.0")') == "PGD-40, surrogate triangle 0.3 1"
    assert member_label("rate-gradient(momentum=1)") == "Rate gradient, RGA, momentum 1, 20 steps"
    assert member_label("square()") == "Square, 5,000 queries"
    assert member_label("not to be (read") == "not to be (read"


def test_defaults_that_a_spelling_leaves_out_are_those_of_the_attacks():
    for name, defaults in attack_names._DEFAULTS.items():
        described = find("attacks", "attack", name)().describe()
        assert {key: described[key] for key in defaults} == defaults, name


def test_one_label_for_two_attacks_gets_the_settings_that_differ():
    kinds = [kind_of({"name": "pgd", "eps": EPS, "norm": "linf", "steps": 20, "step": step}) for step in (0.0, 0.01)]
    assert list(distinct_labels(kinds).values()) == ["PGD-20 (step 0)", "PGD-20 (step 0.01)"]


def test_the_least_that_all_attacks_leave(honest):
    methods = read(honest)
    (study,) = input_attacks.studies(methods)
    assert study.norm == "linf"
    # the curve against ε is no list of levels to speak about
    assert study.asked == (pytest.approx(EPS),)
    assert len(study.levels) == 8
    kind, left = study.worst(methods[1], study.headline)
    assert kind.label == "Ensemble"
    assert left.values == (0.26, 0.28)
    assert left.interval == clopper_pearson(270, 1000)
    assert study.sign(methods[1], study.headline) == ""
    usual, its = study.usual(methods[1], study.headline)
    assert (usual.label, its.mean) == ("PGD-20", pytest.approx(0.31))
    assert study.along_eps().label == "PGD-20"
    (group,) = study.along_steps(study.headline)
    assert [kind.number("steps") for kind in group] == [1, 2, 5, 10, 20, 40]


def test_of_several_attack_seeds_the_samples_that_survive_all_count(make_run):
    perturbation = {"name": "pgd", "eps": EPS, "norm": "linf", "steps": 20}
    seeds = [Record("a", "accuracy", value, 100, perturbation=perturbation, seed=seed) for seed, value in enumerate((0.4, 0.38))]
    method = read([make_run(seeds)])[0]
    (study,) = input_attacks.studies([method])
    assert study.worst(method, study.headline)[1].values == (0.38,)
    together = Record("a", "accuracy_over_seeds", 0.35, 100, perturbation=perturbation, at={"seeds": 2.0}, seed=0)
    method = read([make_run([*seeds, together])])[0]
    (study,) = input_attacks.studies([method])
    left = study.worst(method, study.headline)[1]
    assert (left.values, left.seeds) == ((0.35,), 2)


def test_only_what_was_measured_on_the_same_samples_is_compared(make_run):
    def record(name: str, value: float, n: int, **settings) -> Record:
        return Record("a", "accuracy", value, n, perturbation={"name": name, "eps": EPS, "norm": "linf", **settings}, seed=0)

    gaussian = record("random-noise", 0.1, 500, kind="gaussian", draws=1)
    method = read([make_run([record("ensemble", 0.3, 500), record("square", 0.2, 50), record("fgsm", 0.25, 500), gaussian])])[0]
    (study,) = input_attacks.studies([method])
    # neither the one on 50 samples nor noise that leaves the ball
    assert study.worst(method, study.headline)[0].label == "FGSM"
    noisy = read([make_run([gaussian])])[0]
    (study,) = input_attacks.studies([noisy])
    assert study.worst(noisy, study.headline) is None


def test_tables_have_budgets_and_what_each_member_adds(honest):
    methods = read(honest)
    (study,) = input_attacks.studies(methods)
    worst = input_attack_tables.worst_table(study, methods)
    titles = [column.title for column in worst.columns]
    hire = dict(zip(titles, worst.rows[1], strict=True))
    assert hire["Robust accuracy"].text == "27.0"
    assert hire["Robust accuracy"].detail == "24.3 to 29.9"
    assert hire["Networks"].text == "26.0 to 28.0"
    assert hire["Cost"].text == "25.5\xa0g + 226\xa0q"
    every = input_attack_tables.attack_table(study, methods, study.headline)
    assert [c.title for c in every.columns] == [
        "Method", "Clean", "Noise", "Noise", "Noise", "Square", "Transfer", "FGSM", "PGD-20", "Ensemble",
    ]  # fmt: skip
    (members,) = input_attack_tables.member_tables(study, methods, study.headline)
    assert [row[0].text for row in members.rows] == [member_label(member) for member, *_ in MEMBERS]
    lefts = [row[3].value for row in members.rows]
    assert lefts == sorted(lefts, reverse=True)
    assert lefts[-1] == pytest.approx(0.27)
    assert members.rows[1][3].detail.startswith("\N{MINUS SIGN}")
    assert members.rows[1][3].detail.endswith("9.1\xa0g + 1\xa0q")
    # no figure is lost
    assert len(input_attack_tables.numbers_table(study, methods).rows) == len(study.found)


def test_an_honest_network_has_no_banner(honest, tmp_path):
    text = page(honest, tmp_path)
    assert 'role="alert"' not in text
    assert report.warnings(honest) == []
    for words in ("Attacks on the inputs", "Attack by attack", "Can the figures under attack be trusted?", "PGD by number of steps"):
        assert words in text
    said = " ".join(findings(read(honest)))
    assert "at ε = 8/255 (l∞), the worst of an ensemble sample by sample, is 27.0 % for hire and 3.0 % for standard." in said
    assert "For hire the 95 % interval over 1,000 samples is 24.3 to 29.9 %. PGD-20 alone would have said 31.0 %." in said


def test_masked_gradients_have_a_banner_and_do_not_lead_the_findings(honest, masked, tmp_path):
    runs = [*honest, masked]
    text = page(runs, tmp_path)
    banner = text.partition('role="alert">')[2].partition("</div>")[0]
    assert "Accuracy under attack of masked at ε = 8/255 (l∞) may be wrong:" in banner
    assert "Square fools 122 samples that PGD with 20 steps does not" in banner
    assert "hire" not in banner
    assert text.index('role="alert"') < text.index('class="findings"')
    (line,) = report.warnings(runs)
    assert line.startswith("accuracy under attack of masked at ε = 8/255 (l∞) may be wrong: ")
    said = " ".join(findings(read(runs)))
    assert "39.0 % for masked (in doubt: see the warning)" in said
    assert "For hire the 95 % interval" in said
    summary = report.summarise(runs)
    cell = summary.rows[-1][-1]
    assert cell.alarm
    assert cell.detail.startswith("in doubt")


def test_the_command_line_says_it_too(masked, tmp_path, capsys):
    main(["report", str(masked.path), "--out", str(tmp_path / "report.html")])
    said = capsys.readouterr().out
    assert "warning: accuracy under attack of masked at ε = 8/255 (l∞) may be wrong: FGSM fools" in said


def test_a_method_fails_where_one_of_its_networks_does(make_run):
    runs = [make_run(attacked(f"a{seed}", 0.88, 0.5, masked=bool(seed)), seed=seed) for seed in (0, 1)]
    (found,) = input_attack_checks.checklists(read(runs))
    outcomes = {check.key: (check.outcome, check.networks) for check in found.checks}
    assert outcomes["black-box"] == ("fail", "on 1 of 2 networks")
    assert outcomes["steps"] == ("pass", "")
    assert "(on 1 of 2 networks)" in report.warnings(runs)[0]


def test_many_banners_are_short(make_run, tmp_path):
    runs = [make_run(attacked(f"m{i}", 0.88, 0.5, masked=True), name=f"masked {i}") for i in range(4)]
    text = page(runs, tmp_path)
    banner = text.partition('role="alert">')[2].partition("</div>")[0]
    assert banner.count("of 9 checks fail") == 4
    assert "<ul>" not in banner


def test_a_single_attack_is_called_a_bound(make_run, tmp_path):
    runs = [make_run(attacked("a", 0.9, 0.3, checks=False, ensemble=False), name="only PGD")]
    text = page(runs, tmp_path)
    assert "The figure of only PGD is a bound from above" in text
    assert "≤ 30.0" in text
    assert "Not checked for obfuscated gradients at ε = 8/255 (l∞): only PGD." in text
    assert 'role="alert"' not in text


def test_what_few_samples_cannot_decide_is_a_soft_note(make_run, tmp_path):
    text = page([make_run(attacked("a", 0.9, 0.3, n=20), name="few")], tmp_path)
    assert "Checks of accuracy under attack that could not decide: few at ε = 8/255 (l∞) (" in text
    assert 'role="alert"' not in text


def test_norms_and_tasks_are_kept_apart(make_run, tmp_path):
    runs = [
        make_run([*attacked(f"a{data}", 0.9, 0.3), *attacked(f"a{data}", 0.9, 0.4, eps=0.5, norm="l2")], data=data)
        for data in ("cifar-10", "fashion-mnist")
    ]
    runs.append(make_run(attacked("m", 0.9, 0.5, masked=True), data="fashion-mnist", name="masked"))
    text = page(runs, tmp_path)
    assert text.count("Attacks on the inputs (l2)</h3>") == 2
    assert "Accuracy under attack of masked on fashion-mnist at ε = 8/255 (l∞) may be wrong" in text
    assert 'href="#task-1-checks"' in text
    assert 'id="task-1-checks"' in text


def test_budgets_of_training_are_not_those_of_attacks(make_run):
    (method,) = read([make_run(attacked("a", 0.9, 0.3))])
    assert value_of(method.networks[0], "gradient_evaluations") is None


def test_an_ensemble_far_below_a_single_attack_stands(make_run, tmp_path):
    def lower(record: Record) -> Record:
        least = record.perturbation.get("name") == "ensemble" and record.metric == "accuracy"
        return replace(record, value=0.1) if least else record

    runs = [make_run([lower(r) for r in attacked("a", 0.9, 0.4)], name="fooled")]
    (method,) = methods = read(runs)
    (found,) = input_attack_checks.checklists(methods)
    assert [check.key for check in found.of("fail")] == ["ensemble"]
    assert not input_attack_checks.in_doubt(method, found.eps, "linf")
    (alert,) = input_attack_checks.alerts(methods)
    assert alert.text.replace("\xa0", " ") == "single attacks on fooled at ε = 8/255 (l∞) mislead"
    assert not report.summarise(runs).rows[-1][-1].alarm
    assert "in doubt" not in page(runs, tmp_path)


def plain(value: float, eps: float = EPS, norm: str = "linf", name: str = "pgd", n: int = 100) -> Record:
    settings = {"steps": 20} if name == "pgd" else {}
    return Record("a", "accuracy", value, n, perturbation={"name": name, "eps": eps, "norm": norm, **settings}, seed=0)


def test_what_a_smaller_eps_fools_a_larger_fools_too(make_run, tmp_path):
    records = [plain(0.25, name="ensemble"), plain(0.48), plain(0.4, 0.1), plain(0.3, 0.1, name="fgsm"), plain(0.1, 0.01, n=50)]
    runs = [make_run([*records, plain(0.05, 0.01, "l2")], name="up")]
    (method,) = methods = read(runs)
    study = input_attacks.studies(methods)[0]
    small, large = study.levels[1:]
    # not from another norm, nor from fewer samples
    assert study.worst(method, small)[1].values == (0.25,)
    assert (study.least_from(method, small), study.sign(method, small)) == (None, "")
    assert study.worst(method, large)[1].values == (0.25,)
    assert study.least_from(method, large) == small
    cell = input_attack_tables.worst_table(study, methods).rows[-1][3]
    assert cell.text == "≤\xa025.0"
    assert cell.detail.startswith("from ε = 8/255; ")
    assert "≤, from a smaller ε" in page(runs, tmp_path)


def test_what_attack_prints_names_the_norm_and_the_least_on_record(make_run):
    run = make_run([*attacked("a", 0.9, 0.4, n=100), plain(0.633), plain(0.5, 0.5, "l2")])
    mine, other = plain(0.633).perturbation, plain(0.5, 0.5, "l2").perturbation
    (table,) = tables([run], [mine, other], 100)
    assert [row[2].text for row in table.rows] == ["0", "8/255", "0.5 (l2)"]
    said = judgements(run, [mine])
    assert said[1] == "  checked with PGD-20; your attack left 63.3 %, the least on record is 36.0 %"
    ensemble = next(r.perturbation for r in attacked("a", 0.9, 0.4) if r.perturbation.get("name") == "ensemble" and r.metric == "accuracy")
    assert "checked with" not in " ".join(judgements(run, [ensemble]))
