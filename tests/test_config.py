"""Experiment ⇄ dict ⇄ TOML, presets, plans, and every wrong value named."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiseproof import config
from noiseproof.config import Experiment
from noiseproof.errors import NoiseproofError
from noiseproof.methods import WeightAdversary
from noiseproof.networks import CNN, MLP
from noiseproof.numbers import number
from noiseproof.plan import BUILT_IN
from noiseproof.plan_file import load_plan

positive = st.floats(1e-6, 10, allow_nan=False)


@settings(deadline=None)
@given(
    epochs=st.integers(1, 10**6),
    learning_rate=positive,
    seed=st.integers(0, 2**31),
    name=st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20),
    limit=st.none() | st.integers(1, 1000),
    method=st.builds(WeightAdversary, beta_rob=positive, zeta_attack=positive, steps=st.integers(1, 50), warmup=st.integers(0, 9)),
    network=st.builds(MLP, hidden=st.lists(st.integers(1, 100), max_size=4).map(tuple)) | st.just(CNN()),
)
def test_experiment_survives_toml(epochs, learning_rate, seed, name, limit, method, network) -> None:
    made = Experiment(
        epochs=epochs, learning_rate=learning_rate, seed=seed, name=name, limit_train=limit, method=method, network=network,
        schedule="steps", decay_at=(0.5, 0.8),
    )  # fmt: skip
    again = config.from_dict(tomllib.loads(config.dumps(config.to_dict(made))))
    assert again == made
    assert again.identity == made.identity


def test_the_label_is_no_part_of_the_identity_and_the_rest_is() -> None:
    assert Experiment(name="a").identity == Experiment(name="b").identity
    assert Experiment(seed=1).identity != Experiment().identity
    assert Experiment(method=WeightAdversary(eta=0.3)).identity != Experiment(method=WeightAdversary()).identity


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.1", 0.1), ("-1e-3", -1e-3), ("-1/4", -0.25)])
def test_fractions_are_numbers(text, value) -> None:
    assert number(text) == value
    assert config.from_dict({"learning_rate": "1/1000"}).learning_rate == 1 / 1000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0: give a whole number of at least 1"),
        ({"epochs": 2.0}, "epochs is 2.0: give a whole number"),
        ({"epochs": True}, "epochs is True: give a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast': give a number"),
        ({"optimizer": "Adamm"}, "did you mean 'Adam'"),
        ({"optimizer": "Rprop", "momentum": 0.9}, "optimizer is 'Rprop'.*momentum"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"decay_at": [0.5]}, "schedule is 'constant': schedule steps needs it"),
        ({"schedule": "steps", "decay_at": [1.5]}, "shares of the epochs"),
        ({"data": "fashion"}, "data is 'fashion': did you mean 'fashion-mnist'"),
        ({"network": "cnnn"}, "network is 'cnnn': did you mean 'cnn'"),
        ({"network": {"name": "mlp", "hidden": [0]}}, "hidden is"),
        ({"method": "weight_adversary"}, "did you mean 'weight-adversary'"),
        ({"method": {"name": "forward-noise", "eta": -1}}, "eta is -1.0"),
        ({"method": {"name": "forward-noise", "zeta": 1}}, "field of method is 'zeta': did you mean 'eta'"),
        ({"method": {"eta": 1}}, 'give a name, or a table with name = "…"'),
        ({"method": "no.such.module:Thing"}, "cannot import it"),
        ({"method": "collections:OrderedDict"}, "derived from Method"),
        ({"epoch": 3}, "field of experiment is 'epoch': did you mean 'epochs'"),
        ({"validation": 0}, "validation is 0"),
        ({"limit_train": 0}, "limit_train is 0"),
        ({"precision": "float16"}, "precision is 'float16'"),
    ],
)
def test_wrong_values_are_named(values, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        config.from_dict(values)


@pytest.mark.parametrize(
    ("name", "epochs", "rates"),
    [
        ("a-fashion-mnist", 40, {0: 1e-3, 31: 1e-3, 32: 1e-4, 39: 1e-4}),
        ("a-ecg", 40, {31: 1e-3, 32: 1e-4}),
        ("a-speech", 80, {63: 1e-3, 64: 1e-4}),
        ("a-resnet32", 300, {59: 1e-3, 60: 2e-4, 119: 2e-4, 120: 4e-5, 159: 4e-5, 160: 8e-6}),
        ("b-ann", 240, {0: 1e-2, 149: 1e-2, 150: 1e-3, 179: 1e-3, 180: 1e-4, 209: 1e-4, 210: 1e-5, 239: 1e-5}),
        ("b-snn", 30, {0: 1e-4, 17: 1e-4, 18: 2e-5, 23: 2e-5, 24: 4e-6, 26: 4e-6, 27: 8e-7, 29: 8e-7}),
        ("c-snn", 100, {0: 0.1, 50: 0.05, 99: 2.46720e-5}),
    ],
)
def test_presets_are_the_published_schedules(name, epochs, rates) -> None:
    recipe = config.build(config.Experiment, config.preset(name), name)
    assert recipe.epochs == epochs
    assert {e: recipe.learning_rate_at(e) for e in rates} == pytest.approx(rates)


def test_an_outside_method_is_found_by_its_module(tmp_path, monkeypatch) -> None:
    (tmp_path / "their_methods.py").write_text(
        "from dataclasses import dataclass\nfrom noiseproof.methods import Standard\n\n"
        "@dataclass(frozen=True)\nclass Mine(Standard):\n    strength: float = 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = config.from_dict({"method": {"name": "their_methods:Mine", "strength": 2}})
    assert made.method.strength == 2.0  # pyright: ignore
    assert config.from_dict(config.to_dict(made)) == made


def test_the_plans_are_valid() -> None:
    from pathlib import Path

    demo = load_plan(BUILT_IN / "demo.toml")
    assert len(demo.experiments) == 6
    paper = load_plan(Path(__file__).parents[1] / "experiments" / "a_fashion_mnist.toml")
    assert len(paper.experiments) == 10
    assert {e.epochs for e in paper.experiments} == {40}
    short = load_plan(Path(__file__).parents[1] / "experiments" / "a_fashion_mnist.toml", {"epochs": 1, "limit_train": 100})
    assert {(e.epochs, e.limit_train) for e in short.experiments} == {(1, 100)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "not valid TOML"),
        ('title = "x"', "at least one"),
        ("[[trainings]]\n", "'trainings' is no part of a plan"),
        ('[[training]]\nmethod = "standard"\n[[training]]\nmethod = "standard"\n', "need different names"),
        ('[[training]]\nmethod = "standard"\n[evaluation]\nmismatch = [-1]\n', "zeta is -1.0"),
        ('seeds = []\n[[training]]\nmethod = "standard"\n', "seeds is"),
    ],
)
def test_wrong_plans_are_named(text, message, tmp_path) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(NoiseproofError, match=message):
        load_plan(tmp_path / "plan.toml")
    with pytest.raises(NoiseproofError, match="cannot read"):
        load_plan(tmp_path / "nothing.toml")


def test_whole_numbers_and_lists_are_the_numbers_and_tuples_that_they_stand_for() -> None:
    """1 and 1.0 are one setting: identity, TOML and back."""
    from noiseproof.networks import MLP

    one = Experiment(weight_decay=1, learning_rate=1, network=MLP(neuron="lif", threshold=2, surrogate_settings=(1,), hidden=[8, 8]))  # pyright: ignore
    other = Experiment(
        weight_decay=1.0, learning_rate=1.0, network=MLP(neuron="lif", threshold=2.0, surrogate_settings=(1.0,), hidden=(8, 8))
    )
    assert one.identity == other.identity == config.from_dict(tomllib.loads(config.dumps(config.to_dict(one)))).identity
    assert config.to_dict(one) == config.to_dict(other)
