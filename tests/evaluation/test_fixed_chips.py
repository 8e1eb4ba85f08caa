"""How many chips there will be is written down before any is looked at, and never afterwards."""

from __future__ import annotations

import pytest
import torch

import noiseproof as npf
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation import Ledger
from noiseproof.evaluation.fixed_chips import check_number, fix_number
from noiseproof.noise import Gaussian, Mismatch, Noise


def numbers(ledger: Ledger, seed: int = 0) -> dict[float, float]:
    return {r.perturbation["zeta"]: r.value for r in ledger.records if r.metric == "chips_fixed" and r.seed == seed}


def simulate(ledger: Ledger, noise: Noise, chips: int, seed: int = 0, samples: int = 100) -> None:
    ledger.add([ledger.make("accuracy", 0.9, samples, noise.describe(), chip=i, seed=seed) for i in range(chips)])


def fix(ledger: Ledger, chips: int, *levels: float, seed: int = 0, samples: int = 100) -> None:
    fix_number([Mismatch(zeta=level) for level in levels], chips, seed, samples, ledger)


def test_mismatch_alone_has_a_number() -> None:
    ledger = Ledger()
    fix_number([Mismatch(zeta=0.0), Mismatch(zeta=0.1), Gaussian(std=0.1)], 10, 0, 100, ledger)
    assert numbers(ledger) == {0.1: 10}


def test_no_number_is_chosen_after_looking() -> None:
    ledger = Ledger()
    simulate(ledger, Mismatch(zeta=0.1), 16)
    fix(ledger, 16, 0.1, 0.2)
    assert numbers(ledger) == {}  # chips at another level are the same draws
    fix(ledger, 16, 0.1, seed=1)
    assert numbers(ledger, seed=1) == {0.1: 16}


@pytest.mark.parametrize("parameters", ["weights", "all"])
def test_one_seed_has_one_number(parameters: str) -> None:
    ledger = Ledger()
    fix(ledger, 10, 0.1)
    simulate(ledger, Mismatch(zeta=0.1), 10)
    fix_number([Mismatch(zeta=0.2, parameters=parameters)], 12, 0, 100, ledger)
    fix(ledger, 12, 0.1)
    assert numbers(ledger) == {0.1: 10}
    fix_number([Mismatch(zeta=0.2, parameters=parameters)], 10, 0, 100, ledger)
    assert numbers(ledger) == {0.1: 10, 0.2: 10}


def test_a_number_may_be_changed_before_the_first_chip() -> None:
    ledger = Ledger()
    fix(ledger, 10, 0.1)
    fix(ledger, 20, 0.1)
    assert numbers(ledger) == {0.1: 20}
    simulate(ledger, Mismatch(zeta=0.1), 3)  # and then interrupted
    fix(ledger, 3, 0.1)
    fix(ledger, 20, 0.1)
    assert numbers(ledger) == {0.1: 20}


def test_only_a_number_that_would_stand_passes_the_check() -> None:
    ledger, noises = Ledger(), [Mismatch(zeta=0.2)]

    def refused(chips: int, seed: int = 0) -> str:
        with pytest.raises(NoiseproofError) as error:
            check_number(ledger.records, noises, chips, seed)
        return str(error.value)

    check_number(ledger.records, noises, 10, 0)
    fix(ledger, 10, 0.1)
    check_number(ledger.records, noises, 20, 0)  # no chip was looked at
    simulate(ledger, Mismatch(zeta=0.1), 3)
    check_number(ledger.records, noises, 10, 0)
    check_number(ledger.records, noises, 20, 1)
    assert "seed 0 of this run has 10 chips" in refused(20)
    check_number(ledger.records, [Mismatch(zeta=0.0), Gaussian(std=0.1)], 20, 0)  # of these nothing is said
    simulate(ledger, Mismatch(zeta=0.3), 3)
    assert "before their number was fixed" in refused(10)


def test_evaluations_write_it_first_but_not_where_chips_are_added_by_looking() -> None:
    data = npf.data.load("digits", limit_test=20)
    network = npf.networks.MLP(hidden=(8,)).build(data.task, torch.Generator().manual_seed(0))
    settings = {"mismatch": (0.0, 0.1), "processes": 1, "progress": False}
    found = npf.evaluate(network, data, chips=4, **settings).records()
    assert repr(npf.evaluate(network, data, chips=4, **settings)) == f"Evaluation('network', {len(found)} records)"
    places = {record.metric: place for place, record in reversed(list(enumerate(found)))}
    first = min(place for place, record in enumerate(found) if record.chip is not None)
    assert places["chips_fixed"] < first
    assert found[places["chips_fixed"]].value == 4
    by_looking = npf.evaluate(network, data, half_width=20, max_chips=32, **settings).records()
    assert sum(record.chip is not None for record in by_looking) > 16
    assert not any(record.metric == "chips_fixed" for record in by_looking)
