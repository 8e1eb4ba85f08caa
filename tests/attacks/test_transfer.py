"""Transfer: made on another network, shown to this one; the source is an object, or the folder of a run."""

from pathlib import Path

import pytest
import torch
from torch import nn

import noiseproof as npf
from noiseproof import config
from noiseproof.attacks import PGD, Ensemble, Transfer
from noiseproof.data import Splits
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation.sources import Source
from noiseproof.randomness import generator
from noiseproof.records import RunFolder
from noiseproof.report.attack_names import kind_of
from noiseproof.training import claim, train_experiment

SMALL = npf.Experiment(data="digits", network=npf.networks.MLP(hidden=(32,)), epochs=4, limit_train=400, limit_test=100)


def test_from_itself_it_is_the_white_box_attack(digits: Splits, mlp: nn.Module) -> None:
    x, y = digits.test.x, mlp(digits.test.x).argmax(1)
    own = Transfer(eps=0.1, source=mlp, attack="pgd(steps=10)")(mlp, x, y, generator("test", 0))
    white = PGD(eps=0.1, steps=10, survivors_only=False)(mlp, x, y, generator("test", 0))
    assert torch.equal(own.x, white.x)
    assert (own.budget.gradient_evaluations, own.budget.queries) == (0, 2 * len(x))


def test_a_run_of_another_seed_fools_more_than_noise_and_less_than_the_white_box(tmp_path: Path, digits: Splits) -> None:
    network = train_experiment(SMALL, RunFolder(tmp_path / "target"), progress=False)
    folder = tmp_path / "source"
    source = train_experiment(npf.Experiment(**{**vars(SMALL), "seed": 1}), RunFolder(folder), progress=False)
    x, y = digits.test.x, digits.test.y
    attack = Transfer(eps=0.1, source=str(folder))
    found = attack(network, x, y, generator("test", 0))
    assert torch.equal(found.x, Transfer(eps=0.1, source=source)(network, x, y, generator("test", 0)).x)
    noise = npf.attacks.RandomNoise(eps=0.1)(network, x, y, generator("test", 0))
    white = PGD(eps=0.1)(network, x, y, generator("test", 0))
    assert white.accuracy < found.accuracy < noise.accuracy
    assert attack.describe()["source"].endswith("seed 1")
    assert bool(((found.x.double() - x.double()).abs() <= 0.1).all())


def test_records_tell_two_sources_of_one_label_apart(tmp_path: Path, mlp: nn.Module) -> None:
    described = []
    for epochs in (1, 2):
        run = RunFolder(tmp_path / str(epochs))
        experiment = npf.Experiment(**{**vars(SMALL), "epochs": epochs})
        claim(run, config.to_dict(experiment))
        folder = str(run.path)
        (given,) = Source(mlp, "standard, seed 0", experiment.identity).transfers([PGD()])
        for attack in (Ensemble(source=folder), Transfer(source=folder), given):
            found = attack.describe()
            assert (found["source"], found["identity"]) == ("standard, seed 0", experiment.identity)
        described.append(found)
    assert described[0] != described[1]
    assert "identity" not in Ensemble().describe()
    assert kind_of(described[0]).label == kind_of(described[1]).label == "Transfer, from standard, seed 0"


def test_a_source_that_does_not_fit_is_refused(digits: Splits, mlp: nn.Module) -> None:
    def attack(source: nn.Module | str) -> None:
        Transfer(source=source)(mlp, digits.test.x, digits.test.y, generator("test", 0))

    with pytest.raises(NoiseproofError, match="source gives 7 classes and the network 10"):
        attack(nn.Sequential(nn.Flatten(), nn.Linear(784, 7)))
    with pytest.raises(NoiseproofError, match="source is 'of bounds"):
        attack(npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), bounds=(0, 255)))
    with pytest.raises(NoiseproofError, match="source cannot take inputs of shape"):
        attack(nn.Sequential(nn.Flatten(), nn.Linear(100, 10)))
    with pytest.raises(NoiseproofError, match="is no run folder"):
        attack("nowhere")


def test_bad_settings_are_refused(mlp: nn.Module) -> None:
    with pytest.raises(NoiseproofError, match="give a network, or the folder"):
        Transfer()
    with pytest.raises(NoiseproofError, match="did you mean 'pgd'"):
        Transfer(source=mlp, attack="pdg(steps=3)")
    with pytest.raises(NoiseproofError, match="give one attack"):
        Transfer(source=mlp, attack="pgd(steps=3|4)")
