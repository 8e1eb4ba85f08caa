"""The chapters on what happens inside spiking networks: spikes, energy, perturbations layer by layer, gain."""

from __future__ import annotations

import pytest

from noiseproof import report
from noiseproof.records import Record
from noiseproof.report import by_layer, energy, gain, perturbations, spiking_activity
from noiseproof.report.reading import read

LAYERS = ("lif1", "lif2")
FP32 = {"costs": "fp32", "ac": 0.9, "mac": 4.6}
PGD = {"name": "pgd", "eps": 8 / 255, "norm": "linf", "steps": 20}


def by_layers(run: str, metric: str, values: tuple[float, ...], n: int = 100, **perturbation) -> list[Record]:
    return [
        Record(run, metric, value, n, perturbation={**perturbation, "layer": layer}, at={"layer": float(place)})
        for place, (layer, value) in enumerate(zip(LAYERS, values, strict=True))
    ]


def latency_records(run: str, right: tuple[float, ...], ever: tuple[float, ...]) -> list[Record]:
    metrics = {"accuracy_after_steps": right, "right_by_step": ever}
    return [
        Record(run, metric, value, 100, at={"steps": float(t)})
        for metric, values in metrics.items()
        for t, value in enumerate(values, start=1)
    ]


def energy_records(run: str, layers: tuple[float, float], plain: float, first_layer: str = "every-step") -> list[Record]:
    asked = {"first_layer": first_layer}
    found = by_layers(run, "energy_pj", layers, **asked, operation="ac", **FP32) + by_layers(run, "input_activity", (4.0, 0.5), **asked)
    total = Record(run, "energy_pj", sum(layers), 100, perturbation=asked | FP32)
    return [*found, total, Record(run, "plain_energy_pj", plain, 100, perturbation=FP32)]


def perturbation_records(run: str, scale: float, attack: dict) -> list[Record]:
    found = [Record(run, "perturbation_distance", 2.0, 100, perturbation=attack | {"layer": "input"}, at={"layer": -1.0})]
    for metric in ("spike_perturbation_distance", "tasad", "spike_train_distance", "ms_mppd"):
        found += by_layers(run, metric, (scale, 2 * scale), **attack)
    for place, layer in enumerate(LAYERS):
        at = [{"layer": float(place), "step": float(t)} for t in (1, 2, 3)]
        found += [Record(run, "mppd", scale * (place + 1) * a["step"], 100, perturbation=attack | {"layer": layer}, at=a) for a in at]
    return found + [Record(run, "distance_after_lif", scale * leak, 100, perturbation=attack, at={"leak": leak}) for leak in (0.5, 1.0)]


def gain_records(run: str, claimed: tuple[float, float]) -> list[Record]:
    figures = {"weight_norm": (1.0, 2.0), "l2_gain": (3.0, 6.0), "l2_gain_bound": (4.0, 8.0), "l2_gain_claimed": claimed}
    return [r for metric, values in figures.items() for r in by_layers(run, metric, values, n=0)]


def page(runs, tmp_path) -> str:
    path = tmp_path / "out" / "report.html"
    report.write(runs, path)
    return path.read_text(encoding="utf-8").replace("\xa0", " ")


def test_layers_in_the_order_of_the_network_with_the_range_of_the_networks(make_run) -> None:
    runs = [make_run(by_layers(f"a{seed}", "spiking_activity", (1.0 + seed, 0.5)), seed=seed, name="A") for seed in (0, 1)]
    methods = read(runs)
    found = by_layer.study(methods, "spiking_activity")
    assert found is not None
    assert found.layers == LAYERS
    table = by_layer.table(found, methods, "Spikes")
    assert [(cell.text, cell.detail) for cell in table.rows[0][1:]] == [("1.5", "1 to 2"), ("0.5", "0.5 to 0.5")]
    assert by_layer.study(methods, "tasad") is None


def test_latency_says_when_the_first_right_answer_comes(make_run, tmp_path) -> None:
    run = make_run([Record("a", "accuracy", 0.8, 100), *latency_records("a", (0.2, 0.5, 0.8), (0.2, 0.6, 0.8))])
    methods = read([run])
    found = spiking_activity.study(methods)
    assert found is not None
    # 0.2 at step 1, 0.4 more at 2, 0.2 more at 3, of 0.8 in all
    assert found.first(methods[0]) == pytest.approx(((0.2 + 0.8 + 0.6) / 0.8,))
    assert [cell.text for cell in spiking_activity.table(found, methods).rows[0]] == ["standard", "20.0", "50.0", "80.0", "2.00"]
    assert "standard: 20.0 % after 1, 50.0 % after 2, 80.0 % after 3" in page([run], tmp_path)


def test_energy_beside_the_same_layers_without_spikes(make_run, tmp_path) -> None:
    plain = [Record("b", "energy_pj", 9000.0, 100, perturbation=FP32)]
    runs = [make_run(energy_records("a", (2000.0, 1000.0), 9000.0), name="SNN"), make_run(plain, name="ANN", kind="dropout")]
    table = energy.table(read(runs))
    assert [[cell.text for cell in row] for row in table.rows] == [["SNN", "3", "9", "3.00"], ["ANN", "9", "–", "–"]]
    text = page(runs, tmp_path)
    assert "Estimated, not measured" in text
    assert "counted at every step" in text
    assert "SNN: 2 in lif1, 1 in lif2" in text


def test_two_ways_to_count_the_first_layer_are_kept_apart(make_run) -> None:
    runs = [
        make_run(energy_records("a", (2000.0, 1000.0), 9000.0), name="A"),
        make_run(energy_records("b", (500.0, 1000.0), 9000.0, "once"), name="B", kind="dropout"),
        make_run([Record("c", "energy_pj", 9000.0, 100, perturbation=FP32)], name="ANN", kind="awp"),
    ]
    methods = read(runs)
    table = energy.table(methods)
    assert [column.title for column in table.columns][1::3] == ["fp32, first layer every step", "fp32, first layer once"]
    assert [[row[i].text for i in (0, 1, 4)] for row in table.rows] == [["A", "3", "–"], ["B", "–", "1.5"], ["ANN", "9", "9"]]
    assert len(energy.text(methods)[0].split("counted")) == 4  # what is not counted, and both ways


def test_perturbations_attack_by_attack(make_run, tmp_path) -> None:
    weak = PGD | {"eps": 2 / 255}
    runs = [make_run([*perturbation_records("a", 1.0, PGD), *perturbation_records("a", 0.25, weak)], name="A")]
    methods = read(runs)
    attacks = perturbations.attacks(methods)
    assert list(attacks.values()) == ["PGD-20, ε = 8/255 (l∞)", "PGD-20, ε = 2/255 (l∞)"]
    drawings, tables = perturbations.drawings(methods, methods, list(attacks)[1], "x")
    assert [drawing.title for drawing in drawings][-2:] == [
        "Perturbation of the membranes of the last spiking layer",
        "Distance after one layer of LIF neurons",
    ]
    assert [cell.text for cell in tables[1].rows[0][1:]] == ["0.25", "0.5"]
    text = page(runs, tmp_path)
    assert "How far perturbations get: PGD-20, ε = 8/255 (l∞)" in text
    # of the last layer: twice that of the first
    assert "A: from 2 at 1 to 6 at 3" in text
    assert "A: from 0.5 at 0.5 to 1 at 1" in text


def test_two_attacks_of_one_label_are_two_chapters_that_say_what_differs(make_run, tmp_path) -> None:
    small, large = (PGD | {"step": step} for step in (0.001, 0.01))
    runs = [make_run([*perturbation_records("a", 0.25, small), *perturbation_records("a", 1.0, large)], name="A")]
    methods = read(runs)
    attacks = perturbations.attacks(methods)
    assert list(attacks.values()) == ["PGD-20 (step 0.001), ε = 8/255 (l∞)", "PGD-20 (step 0.01), ε = 8/255 (l∞)"]
    first = [perturbations.drawings(methods, methods, attack, "x")[1][1].rows[0][1].text for attack in attacks]
    assert first == ["0.25", "1"]


def test_ms_mppd_during_training_is_called_what_it_is(make_run, tmp_path) -> None:
    attack = {"name": "r-fgsm", "eps": 4 / 255, "norm": "linf", "eot": 1, "expected": False, "loss": "ce", "surrogate": ""}
    records = [
        Record("a", metric, 1.0 / epoch, 100, split, perturbation, {"epoch": float(epoch)})
        for metric, split, perturbation in (("ms_mppd", "validation", attack), ("train_loss", "train", {}))
        for epoch in (1, 2)
    ]
    text = page([make_run(records)], tmp_path)
    assert "MS-MPPD of the last layer during training (R+FGSM, ε = 4/255)" in text
    assert "The whole loss, with what a method adds to the cross-entropy" in text


def test_a_claim_below_the_exact_gain_is_said_to_be_violated(make_run, tmp_path) -> None:
    dlif = [Record("a", "dlif_a", 1 + 0.1 * t, 0, perturbation={"layer": "lif1"}, at={"layer": 0.0, "step": float(t)}) for t in (1, 2)]
    runs = [make_run([*gain_records("a", (3.5, 5.0)), *dlif], name="A")]
    table = gain.table(read(runs))
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [["A", "lif1", "1", "3", "4", "3.5"], ["A", "lif2", "2", "6", "8", "5"]]
    assert [(row[-1].detail, row[-1].alarm) for row in table.rows] == [("holds here", False), ("violated", True)]
    text = page(runs, tmp_path)
    assert "Theorem 3.1" in text
    assert "lif1: from 1.100 to 1.200" in text
    assert "With direct coding the input of the first layer cannot change in time" in text


def test_no_chapter_without_records(make_run, tmp_path) -> None:
    text = page([make_run([Record("a", "accuracy", 0.8, 100)])], tmp_path)
    for title in ("Spikes and steps", "Energy of one inference", "How far perturbations get", "Gain of perturbations"):
        assert title not in text
