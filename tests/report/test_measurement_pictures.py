"""Pictures of single measurements: noise layer by layer, membranes around the threshold, attacks by their steps, tolerated levels."""

from __future__ import annotations

import numpy as np

from noiseproof import report
from noiseproof.records import Record
from noiseproof.report import attack_steps, layers, membranes
from noiseproof.report.reading import read

LAYERS = ("conv1", "conv2", "out")


def layer_records(run: str, zeta: float, means: dict[str, float], chips: int = 5, **more: str) -> list[Record]:
    return [
        Record(
            run,
            "accuracy",
            mean + 0.01 * (chip - 2),
            1000,
            chip=chip,
            seed=0,
            at={"layer": float(LAYERS.index(layer))},
            perturbation={"name": "mismatch", "zeta": zeta, "parameters": f"{layer}.weight", "layer": layer, **more},
        )
        for layer, mean in means.items()
        for chip in range(chips)
    ]


def membrane_records(run: str, layer: str, spread: float) -> list[Record]:
    middles = np.arange(-3, 3, 0.05) + 0.025
    shares = np.exp(-((middles / spread) ** 2))
    shares *= 0.8 / shares.sum()
    found = [
        Record(run, "membrane_share", float(s), 200, perturbation={"layer": layer}, at={"bin": round(float(m), 6)})
        for m, s in zip(middles, shares, strict=True)
    ]
    near = float(shares[np.abs(middles) < 0.1].sum())
    return [*found, Record(run, "membrane_near_threshold", near, 200, perturbation={"layer": layer}, at={"within": 0.1})]


def attack_records(run: str, left: dict[tuple[float, int], float], objective: str = "kl") -> list[Record]:
    return [
        Record(
            run,
            "accuracy",
            value + 0.01 * restart,
            500,
            at={"restart": float(restart)},
            seed=0,
            perturbation={
                "name": "weight-attack",
                "zeta": zeta,
                "norm": "linf",
                "objective": objective,
                "steps": steps,
                "parameters": "all",
            },
        )
        for (zeta, steps), value in left.items()
        for restart in range(2)
    ]


def page(runs, tmp_path, **options) -> str:
    path = tmp_path / "out" / "report.html"
    report.write(runs, path, **options)
    return path.read_text(encoding="utf-8")


def test_layers_in_their_order_for_every_level(make_run, tmp_path):
    weak, strong = {"out": 0.88, "conv2": 0.8, "conv1": 0.85}, {"out": 0.7, "conv2": 0.4, "conv1": 0.6}
    runs = [
        make_run([*layer_records(f"a{seed}", 0.5, strong), *layer_records(f"a{seed}", 0.1, weak)], seed=seed, name="A") for seed in (0, 1)
    ]
    runs.append(make_run(layer_records("b", 0.5, {"conv1": 0.3}), kind="dropout"))
    methods = read(runs)
    first, second = layers.studies(methods)
    assert first.title == "Mismatch, ζ = 0.1 in one layer at a time"
    assert second.title == "Mismatch, ζ = 0.5 in one layer at a time"
    assert second.layers == LAYERS
    assert second.counts == (5,)
    assert len(second.chips[0, "conv2"]) == 10
    table = layers.table(second, methods)
    assert [column.title for column in table.columns] == ["Method", *LAYERS]
    assert [cell.text.split(" ±")[0] for cell in table.rows[0]] == ["A", "60.0", "40.0", "70.0"]
    assert table.rows[0][2].detail == "min 38.0"
    assert [cell.text for cell in table.rows[1][2:]] == ["–", "–"]
    text = page(runs, tmp_path)
    assert "Layer by layer" in text
    assert "A: 60.0 % in conv1, 40.0 % in conv2, 70.0 % in out" in text
    # noise in one layer is no noise of the whole network
    assert "ζ = 0.5</" not in text.split("Layer by layer")[0]


def test_noise_on_other_parameters_of_the_layers_is_another_study(make_run):
    records = [*layer_records("a", 0.5, {"conv1": 0.9}), *layer_records("a", 0.5, {"conv1": 0.3}, of="all")]
    found = layers.studies(read([make_run(records)]))
    assert {study.title for study in found} == {
        "Mismatch, ζ = 0.5 in one layer at a time",
        "Mismatch, all parameters, ζ = 0.5 in one layer at a time",
    }
    assert [len(study.chips[0, "conv1"]) for study in found] == [5, 5]


def test_what_chips_leave_open_of_a_tolerated_level(make_run):
    at = {"required_accuracy": 0.85, "yield": 0.95, "chips": 100.0}

    def answers(run: str, **levels: float) -> list[Record]:
        noise = {"name": "mismatch", "parameters": "weights"}
        found = [Record(run, f"{how}tolerated_zeta", v, 1000, perturbation=noise, at=at, seed=0) for how, v in levels.items()]
        return [Record(run, "accuracy", 0.9, 1000), *found]

    def cell(*networks: list[Record]) -> tuple[str, str]:
        runs = [make_run(records, name="A", seed=seed) for seed, records in enumerate(networks)]
        found = report.summarise(runs).rows[0][-1]
        return found.text, found.detail

    one = answers("a", surely_=0.19, possibly_=0.25, **{"": 0.22})
    unsure = answers("b", not_surely_=0.0, possibly_=0.3, **{"": 0.24})
    missed = answers("c", not_=0.0, not_surely_=0.0, not_possibly_=0.0)
    assert cell(one) == ("ζ = 0.220", "0.190 to 0.250")
    assert cell(one, unsure) == ("ζ = 0.230", "at most 0.300")
    assert cell(one, missed) == ("ζ = 0.220", "1 of 2 tolerate none")
    assert cell(missed) == ("none", "")
    # the network as it is, and no noise at all, is a level too
    assert cell(answers("d", possibly_=0.01, **{"": 0.0})) == ("ζ = 0.000", "at most 0.010")


def test_membranes_of_every_layer(make_run, tmp_path):
    def records(run: str, spread: float) -> list[Record]:
        return [*membrane_records(run, "lif1", spread), *membrane_records(run, "lif2", 2 * spread)]

    runs = [make_run(records("a", 0.5), name="narrow"), make_run(records("b", 1.5), name="broad", kind="dropout")]
    methods = read(runs)
    found = membranes.studies(methods)
    assert [study.layer for study in found] == ["lif1", "lif2"]
    table = membranes.table(found, methods)
    values = {row[0].text: [cell.value or 0.0 for cell in row[1:]] for row in table.rows}
    assert values["narrow"][0] > values["broad"][0] > values["broad"][1]
    text = page(runs, tmp_path)
    assert "Membrane potentials of lif2" in text
    assert "Potentials farther away: 20.0 %" in text
    assert "The scale is logarithmic" in text.split("Membrane potentials of lif1")[-1].split("Membrane potentials of lif2")[0]


def test_attacks_by_their_steps(make_run, tmp_path):
    left = {(zeta, steps): 0.9 - zeta - 0.1 * np.log10(steps) for zeta in (0.0, 0.05, 0.1, 0.2) for steps in (1, 10)}
    runs = [make_run(attack_records("a", left) + attack_records("a", {(0.1, 10): 0.5}, "ce"))]
    methods = read(runs)
    found = attack_steps.studies(methods)
    assert [(study.objective, study.zeta, study.steps) for study in found] == [("kl", z, (1, 10)) for z in (0.05, 0.1, 0.2)]
    assert found[1].worst[0, 10] == (left[0.1, 10],)
    (drawn,) = attack_steps.shown(found)
    assert drawn.zeta == 0.1
    text = page(runs, tmp_path)
    assert "Attack by number of steps (KL, l∞, all parameters, ζ\xa0=\xa00.1)" in text
    assert "standard: 80.0 % after 1, 70.0 % after 10" in text
    assert attack_steps.studies(read([make_run(attack_records("b", {(0.1, 10): 0.5}))])) == ()


def test_levels_of_any_noise_that_are_tolerated(make_run, tmp_path):
    at = {"required_accuracy": 0.85, "yield": 0.95, "chips": 100.0}

    def tolerated(run: str, time: float) -> list[Record]:
        noise = {"name": "pcm", "gdc": True, "rows": 256, "parameters": "weights"}
        zeta = Record(run, "tolerated_zeta", 0.25, 1000, perturbation={"name": "mismatch", "parameters": "weights"}, at=at, seed=0)
        return [Record(run, "accuracy", 0.9, 1000), zeta, Record(run, "tolerated_time", time, 1000, perturbation=noise, at=at, seed=0)]

    runs = [make_run(tolerated("a", 2592000.0), name="A"), make_run(tolerated("b", 0.0), name="B", kind="dropout")]
    table = report.summarise(runs)
    titles = [column.title for column in table.columns]
    assert titles[-2:] == ["Tolerated mismatch", "Tolerated PCM, t"]
    assert [row[-1].text for row in table.rows] == ["t = 30 d", "none"]
    assert [row[-2].text for row in table.rows] == ["ζ = 0.250", "ζ = 0.250"]
    text = page(runs, tmp_path).replace("\xa0", " ")
    assert "The largest t of PCM up to which 95 % of the chips stay at or above 85 % is t = 30 d for A and none for B." in text
