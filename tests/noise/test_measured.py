"""Fits of measured parameters against closed forms, a general solver and simulated chips; and the noise that they make."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.fitting import Model, anderson_darling, fit, fit_points
from noiseproof.networks import LSNN
from noiseproof.noise import Compose, Measured, Mismatch
from noiseproof.parameters import parameters_of
from noiseproof.randomness import chip_generator, generator

FORMS = {
    "relative": Model(zeta=0.2),
    "constant": Model(constant=0.1),
    "constant and relative": Model(constant=0.05, zeta=0.2),
    "relative with gain": Model(gain=1.2, zeta=0.2),
    "constant with gain": Model(gain=0.8, constant=0.1),
    "constant and relative with gain": Model(gain=1.2, constant=0.05, zeta=0.2),
}


def points(model: Model, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.05, 1.0, n) * rng.choice([-1, 1], n)
    return x, model.gain * x + model.std(x) * rng.normal(size=n)


def write(path: Path, kinds: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    rows = [f"{kind},{a!r},{b!r}" for kind, (x, y) in kinds.items() for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    path.write_text("\n".join(["kind,nominal,measured", *rows]) + "\n")
    return path


def test_relative_parts_are_the_closed_forms() -> None:
    x, y = points(FORMS["relative"], 400, 0)
    assert fit_points("w", x, y).model.zeta == pytest.approx(math.sqrt(np.mean((y / x - 1) ** 2)), rel=1e-12)
    x, y = points(FORMS["relative with gain"], 400, 0)
    model = fit_points("w", x, y).model
    assert model.gain == pytest.approx(np.mean(y / x), rel=1e-12)
    assert model.gain * model.zeta == pytest.approx(np.std(y / x), rel=1e-12)


@pytest.mark.parametrize("form", ["constant and relative", "constant and relative with gain"])
def test_both_parts_have_the_largest_likelihood_that_a_general_solver_finds(form: str) -> None:
    x, y = points(FORMS[form], 500, 1)
    found = fit_points("w", x, y)
    gained = "gain" in form

    def loss(parameters: np.ndarray) -> float:
        model = Model(float(parameters[2]) if gained else 1.0, *np.exp(parameters[:2]).tolist())
        std = model.std(x)
        return float(np.sum(np.log(std) + 0.5 * ((y - model.gain * x) / std) ** 2))

    start = np.array([-3.0, -1.5, 1.0] if gained else [-3.0, -1.5])
    solved = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-10, "maxiter": 5000})
    mine = [math.log(found.model.constant), math.log(found.model.zeta), *([found.model.gain] if gained else [])]
    assert found.bic[form] == 0
    assert loss(np.array(mine)) <= solved.fun + 1e-6
    assert np.allclose(mine, solved.x, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_the_true_form_is_chosen_and_its_intervals_hold_the_truth(form: str) -> None:
    truth = FORMS[form]
    fits = [fit_points("w", *points(truth, 500, seed)) for seed in range(200)]
    right = [f for f in fits if f.bic[form] == 0]
    assert len(right) >= 190
    for name in ("gain", "constant", "zeta"):
        value = getattr(truth, name)
        intervals = [getattr(f, f"{name}_interval") for f in right]
        if value == getattr(Model(), name):
            assert intervals == [None] * len(right)
        else:
            # 95 % of 200, within four standard deviations
            inside = sum(low <= value <= high for low, high in intervals)
            assert 0.95 * len(right) - 4 * math.sqrt(0.05 * 0.95 * 200) <= inside


def test_normal_residuals_pass_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    rejected = np.mean([anderson_darling(rng.normal(3, 2, 60))[1] < 0.05 for _ in range(2000)])
    assert rejected == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2000))
    assert anderson_darling(rng.uniform(size=500))[1] < 1e-4
    x = np.repeat([0.5, 1.0, 2.0], 300)
    assert fit_points("w", x, x * (1 + 0.1 * (rng.exponential(size=900) - 1))).p_normal < 1e-6
    assert fit_points("w", *points(FORMS["relative"], 900, 3)).p_normal > 0.01


def test_an_offset_is_found_out() -> None:
    x, y = points(FORMS["relative"], 600, 5)
    assert fit_points("w", x, y).p_mean > 0.01
    assert fit_points("w", x, y + 0.05).p_mean < 1e-3


def test_a_gain_leaves_less_of_a_mean_and_the_test_knows() -> None:
    # of 300 fits as many are rejected as the test says: with the variance of a mean without gain hardly one would be
    rng = np.random.default_rng(2)
    x = np.linspace(0.5, 1.5, 100)
    found = [fit_points("w", x, 1.3 * (x + 0.1 * rng.normal(size=100))) for _ in range(300)]
    ps = [f.p_mean for f in found if "gain" in min(f.bic, key=f.bic.__getitem__) and f.p_mean is not None]
    assert len(ps) > 250
    assert np.mean(np.array(ps) < 0.1) == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / len(ps)))
    # where all x/σ are one number a gain takes up every offset
    assert fit_points("w", x, 1.3 * x * (1 + 0.1 * rng.normal(size=100))).p_mean is None


def test_a_spread_that_hides_the_line_is_no_falling_line() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        x = 0.1 * rng.normal(size=50)
        try:
            model = fit_points("bias", x, x + rng.normal(size=50)).model
        except NoiseproofError:
            refused += 1  # three standard errors below 0, by chance
            continue
        assert model.gain > 0
        assert model.gain * model.constant == pytest.approx(1.0, rel=0.4)
    assert refused <= 4


def test_the_spread_is_explained_where_it_is_relative_and_not_where_it_falls() -> None:
    rng = np.random.default_rng(1)
    x = np.repeat([0.25, 0.5, 1.0, 2.0], 500)
    good = fit_points("w", x, x * (1 + 0.2 * rng.normal(size=2000)))
    assert [b.n for b in good.bins] == [500] * 4
    assert good.bins[1].std == pytest.approx(0.1, rel=0.15)
    assert good.r_squared is not None
    assert good.r_squared > 0.97
    bad = fit_points("w", x, x + 0.1 / x * rng.normal(size=2000))
    assert bad.r_squared is not None
    assert bad.r_squared < 0.5


def test_nothing_there_is_left_out() -> None:
    x, y = points(FORMS["relative"], 100, 2)
    found = fit_points("w", np.append(x, [0.0, 0.0]), np.append(y, [0.0, 0.0]))
    assert (found.n, found.left_out) == (100, 2)
    assert found.model == fit_points("w", x, y).model


def test_the_noise_is_the_numbers_and_not_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "chip.csv", {"weight": points(Model(1.1, 0.0, 0.25), 3000, 0), "threshold": points(Model(zeta=0.1), 3000, 1)})
    noise = Measured(file=str(path))
    described = noise.describe()
    assert "file" not in described
    assert noise.models["weight"].zeta == pytest.approx(0.25, rel=0.05)
    assert noise.models["weight"].gain == pytest.approx(1.1, rel=0.02)
    path.write_text("gone")
    again = Measured(fits=described["fits"])
    assert again == noise == pickle.loads(pickle.dumps(noise))
    params = {"fc.weight": torch.randn(20, 20), "lif.threshold": torch.ones(20)}
    for name, chip in again(params, chip_generator(0, 0)).items():
        assert torch.equal(chip, noise(params, chip_generator(0, 0))[name])
        assert not torch.equal(chip, params[name])


def test_each_kind_has_its_own_model_on_a_spiking_network() -> None:
    task = Task("ecg", (100, 2), 4, (0.0,) * 2, (1.0,) * 2, (-5.0, 5.0))
    params = parameters_of(LSNN(units=10).build(task, generator("weights", 0)))
    noise = Measured(fits="weight: zeta 0.2; tau: gain 1.5; threshold: gain 2; refractory: zeta 0.1")
    assert noise.kinds_of(params) == {
        "input.weight": "weight",
        "recurrent.weight": "weight",
        "out.weight": "weight",
        "recurrent.neuron.tau": "tau",
        "recurrent.neuron.threshold": "threshold",
    }
    chip = noise(params, chip_generator(0, 0))
    assert torch.equal(chip["recurrent.neuron.threshold"], 2 * params["recurrent.neuron.threshold"])
    assert torch.equal(chip["recurrent.neuron.tau"], 1.5 * params["recurrent.neuron.tau"])
    assert chip["recurrent.neuron.beta"] is params["recurrent.neuron.beta"]
    # ζ alone is mismatch: the same chip
    alone = Measured(fits="weight: zeta 0.2")({n: p.detach() for n, p in params.items()}, chip_generator(0, 0))
    mismatch = Mismatch(zeta=0.2)({n: p.detach() for n, p in params.items()}, chip_generator(0, 0))
    assert all(torch.allclose(alone[n], mismatch[n], atol=1e-6) for n in params)


def test_in_a_composition_a_limit_is_part_of_the_description() -> None:
    fits = "weight: zeta 0.1; bias: constant 2"
    every, limited = (Compose((Measured(fits=fits, **which), Mismatch(zeta=0.1))) for which in ({}, {"parameters": "weights"}))
    assert every.describe() != limited.describe()
    assert every.describe()["parameters of step 2"] == limited.describe()["parameters"] == "weights"


def test_kinds_say_which_parameters_and_parameters_limit_them() -> None:
    params = {"conv1.weight": torch.ones(3, 3), "fc.weight": torch.ones(3, 3), "fc.bias": torch.ones(3)}
    fits = "syn: gain 2; other: gain 3"
    chip = Measured(fits=fits, kinds="syn=conv*,other=fc.*")(params, chip_generator(0, 0))
    assert [float(p.flatten()[0]) for p in chip.values()] == [2, 3, 3]
    chip = Measured(fits=fits, kinds="syn=conv*,syn=fc.bias")(params, chip_generator(0, 0))
    assert [float(p.flatten()[0]) for p in chip.values()] == [2, 1, 2]
    chip = Measured(fits=fits, kinds="syn=conv*,other=fc.*", parameters="fc.weight")(params, chip_generator(0, 0))
    assert [float(p.flatten()[0]) for p in chip.values()] == [1, 3, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind,nominal\nw,1\n", "has no column measured: its first line is 'kind,nominal', give kind,nominal,measured"),
        ("", "has no column kind and no column nominal and no column measured"),
        ("kind,nominal,measured\n", "has no rows"),
        ("kind,nominal,measured\nw,1,1.1\n\nw,2,two\n", "line 4: measured is 'two'; give a finite number"),
        ("kind,nominal,measured\nw,inf,1\n", "line 2: nominal is 'inf'"),
        ("kind,nominal,measured\nw,1\n", "line 2 has 2 columns"),
        ("kind,nominal,measured\n,1,1\n", "line 2: kind is ''"),
        ("kind,nominal,measured\nmy kind,1,1\n", "line 2: kind is 'my kind'; give one word"),
        ("kind,nominal,measured\n" + "w,1,1.1\nw,1,0.9\n" * 4, "kind w has 8 points that are not 0: a spread needs at least 10"),
        ("kind,nominal,measured\n" + "w,0,0.1\nw,0,-0.1\n" * 8, "kind w has nominal values of 0 alone"),
        ("kind,nominal,measured\n" + "w,1,1\nw,2,2\n" * 8, "kind w: measured values have no spread"),
        ("kind,nominal,measured\n" + "w,1,1.5\nw,2,3\n" * 8, "kind w: measured values have no spread"),
        ("kind,nominal,measured\n" + "w,1,-1.1\nw,2,-1.9\n" * 8, "kind w: measured values fall where nominal values rise"),
    ],
)
def test_a_file_that_cannot_be_fitted_says_why(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "chip.csv").write_text(text)
    with pytest.raises(NoiseproofError, match=message):
        fit(tmp_path / "chip.csv")


def test_other_columns_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    rows = [f"{i},{1 + i % 3},w,{(1 + i % 3) * (1 + 0.1 * (-1) ** i * (1 + i / 50))}" for i in range(30)]
    (tmp_path / "chip.csv").write_text("\n".join(["device,Nominal,kind, measured", *rows]), encoding="utf-8-sig")
    assert fit(tmp_path / "chip.csv")["w"].n == 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Measured(), "give a CSV file, or what was fitted as fits"),
        (lambda: Measured(file="nowhere.csv"), "cannot read nowhere.csv"),
        (lambda: Measured(fits="weight"), "fits is 'weight': write kind: gain 1 constant 0.01 zeta 0.2"),
        (lambda: Measured(fits="weight: eta 0.1"), "write kind: gain 1"),
        (lambda: Measured(fits="weight: zeta x"), "fits has zeta 'x': give a number"),
        (lambda: Measured(fits="weight: zeta -1"), "zeta is -1.0: give a number of at least 0"),
        (lambda: Measured(fits="weight: gain 0"), "gain is 0.0: give a number above 0"),
        (lambda: Measured(fits="weight: zeta 0.1", kinds="wait=*"), "kind 'wait' was not measured; measured: weight"),
        (lambda: Measured(fits="weight: zeta 0.1", kinds="weight"), "give kind=pattern,kind=pattern"),
        (lambda: call("threshold: zeta 0.1"), "no parameter is of a kind that was measured \\(threshold\\)"),
        (lambda: call("bias: zeta 0.1", parameters="weights"), "parameters is 'weights': none of these is of a kind that was measured"),
        (lambda: call("a: zeta 0.1; b: zeta 0.2", kinds="a=fc.*,b=*.bias"), "parameter fc.bias is of kind a and of kind b"),
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()


def call(fits: str, **settings: str) -> None:
    Measured(fits=fits, **settings)({"fc.weight": torch.ones(2, 2), "fc.bias": torch.ones(2)}, chip_generator(0, 0))
