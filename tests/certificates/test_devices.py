"""Statements about all chips: against scipy, brute force and simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from noiseproof.certificates import devices
from noiseproof.certificates.devices import (
    chips_needed,
    combined,
    coverage,
    failure_rate_bound,
    half_width_for,
    mean_accuracy_bound,
    mismatch_covered,
    simultaneous,
    state,
    yield_bound,
)
from noiseproof.errors import NoiseproofError


@pytest.mark.parametrize(("chips", "percent"), [(100, 2.95), (300, 0.99), (1000, 0.30)])
def test_no_failure_of_so_many_chips(chips, percent):
    assert 100 * failure_rate_bound(0, chips) == pytest.approx(percent, abs=0.005)
    assert yield_bound(chips, chips) == 1 - failure_rate_bound(0, chips)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize("chips", [1, 2, 7, 100, 1000])
def test_the_bound_is_scipys_and_solves_its_equation(chips, confidence):
    for failures in {0, 1, chips // 3, chips - 1}:
        bound = failure_rate_bound(failures, chips, confidence)
        if failures == chips:
            continue
        interval = stats.binomtest(failures, chips, alternative="less").proportion_ci(confidence, method="exact")
        assert bound == pytest.approx(interval.high, abs=1e-12)
        assert stats.binom.cdf(failures, chips, bound) == pytest.approx(1 - confidence, abs=1e-9)
    assert failure_rate_bound(chips, chips, confidence) == 1


@given(st.integers(1, 40), st.floats(0.001, 0.999), st.floats(0.5, 0.99))
def test_the_bound_holds_with_the_confidence_at_every_rate(chips, rate, confidence):
    failures = np.arange(chips + 1)
    holds = np.array([failure_rate_bound(int(k), chips, confidence) >= rate for k in failures])
    assert stats.binom.pmf(failures, chips, rate)[holds].sum() >= confidence - 1e-9


@pytest.mark.parametrize(
    ("rate", "confidence", "failures"), [(0.001, 0.95, 0), (0.01, 0.95, 3), (0.5, 0.99, 0), (0.3, 0.6, 7), (0.9, 0.1, 0)]
)
def test_chips_needed_is_the_first_number_that_suffices(rate, confidence, failures):
    n = chips_needed(rate, confidence, failures)
    assert failure_rate_bound(failures, n, confidence) <= rate
    assert n - 1 <= failures or failure_rate_bound(failures, n - 1, confidence) > rate
    if failures == 0:
        assert n == max(1, math.ceil(math.log(1 - confidence) / math.log(1 - rate)))


@pytest.mark.parametrize(("rate", "chips"), [(0.05, 20), (0.01, 100), (0.01, 50), (0.001, 100)])
def test_after_a_first_look_the_statement_is_made_from_fresh_chips_alone(rate, chips):
    """Two stages: so many chips, then as many fresh ones as are said to be needed. The rate is just above what is stated in the end."""
    for true in rate * np.array([1 + 1e-9, 1.1, 1.5, 2]):
        wrong = 0.0
        for failures in range(chips + 1):
            first = state([0.9] * (chips - failures) + [0.5] * failures, 100, required=0.8)
            fresh = first.fresh_needed(rate)
            stated = fresh is not None and (fresh == 0 or failure_rate_bound(0, fresh) <= rate)
            wrong += stats.binom.pmf(failures, chips, true) * stated * (1 - true) ** (fresh or 0)
        assert wrong <= 0.05


@pytest.mark.parametrize("method", ["student-t", "empirical-bernstein", "hoeffding"])
@pytest.mark.parametrize("shape", [(60, 8), (5, 5)])
def test_the_bound_of_the_mean_holds_as_often_as_it_says(method, shape):
    rng, chips, often = np.random.default_rng(0), 40, 600
    draws = rng.beta(shape[0], shape[1], size=(often, chips))
    holds = np.mean([mean_accuracy_bound(draw, 0.9, method) <= shape[0] / sum(shape) for draw in draws])
    assert holds >= 0.9 - 2.5 * math.sqrt(0.9 * 0.1 / often)
    assert holds < 1 or method != "student-t"  # a bound that can never be wrong says too little


def test_only_bounds_free_of_a_distribution_survive_a_rare_bad_chip():
    """One chip in 300 is dead: 100 chips often show none, and then Student's bound lies above the mean."""
    mean = 0.9 * (1 - 1 / 300)
    seen = np.append(np.full(99, 0.9), 0.9)
    assert mean_accuracy_bound(seen) > mean
    assert mean_accuracy_bound(seen, method="empirical-bernstein") < mean
    assert state(seen, 1000).mean_surely < mean


def test_the_bounds_of_the_mean_are_their_equations():
    x = np.random.default_rng(1).uniform(0.7, 0.9, 50)
    expected = stats.ttest_1samp(x, 0, alternative="greater").confidence_interval(0.95).low
    assert mean_accuracy_bound(x) == pytest.approx(expected, abs=1e-12)
    maurer_pontil = x.mean() - math.sqrt(2 * x.var(ddof=1) * math.log(40) / 50) - 7 * math.log(40) / (3 * 49)
    assert mean_accuracy_bound(x, method="empirical-bernstein") == pytest.approx(maurer_pontil, abs=1e-12)
    # at half the error, as the better of the two is taken: 10.3 and 13.6 points from 100 chips, as the documents say
    assert 0.9 - mean_accuracy_bound([0.9] * 100, 0.975, "empirical-bernstein") == pytest.approx(0.103, abs=5e-4)
    assert 0.9 - mean_accuracy_bound([0.9] * 100, 0.975, "hoeffding") == pytest.approx(0.136, abs=5e-4)


def test_coverage_of_the_weights_of_a_network():
    assert half_width_for(0.95, 109_000, zeta=1) == pytest.approx(5.04, abs=0.005)
    assert coverage(1, 1.959964, 1) == pytest.approx(0.95, abs=1e-6)
    assert coverage(109_000, 1e-3, 0.1) == 0  # a vanishing product does not fail
    assert 1 - coverage(1000, 7.5, 1) == pytest.approx(1000 * stats.norm.sf(7.5) * 2, rel=1e-2)
    assert coverage(3, 1e-200, 1) < 1e-300


@given(st.integers(1, 10**9), st.floats(1e-6, 1 - 1e-6), st.floats(1e-4, 1))
def test_the_inverses_of_coverage(parameters, share, zeta):
    z = half_width_for(share, parameters, zeta)
    assert coverage(parameters, z, zeta) == pytest.approx(share, rel=1e-6)
    assert mismatch_covered(share, parameters, z) == pytest.approx(zeta, rel=1e-9)


def test_coverage_is_the_share_of_drawn_chips():
    draws = np.abs(np.random.default_rng(2).standard_normal((4000, 50))).max(1)
    for z in (2.0, 2.5, 3.0):
        expected = coverage(50, 0.1 * z, 0.1)
        assert np.mean(draws <= z) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 4000))


def test_where_nothing_moves_every_chip_lies_in_the_box():
    assert coverage(0, 0.0, 0.1) == coverage(100, 0.0, 0.0) == 1
    assert coverage(100, 0.0, 0.1) == 0
    assert half_width_for(0.95, 0, 0.1) == half_width_for(0.95, 100, 0.0) == 0
    assert mismatch_covered(0.95, 0, 0.1) == math.inf
    assert mismatch_covered(0.95, 100, 0.0) == 0


def test_a_certified_box_holds_on_every_drawn_chip_that_lies_in_it():
    """A linear network of one row: what is certified by hand is right on at least the promised share of chips."""
    rng = np.random.default_rng(3)
    weights, x = rng.standard_normal(30), rng.uniform(0, 1, (200, 30))
    scores = x @ weights
    y, z, zeta = np.sign(scores), 0.05, 0.02
    certified = float(np.mean(np.abs(scores) > z * (x @ np.abs(weights))))
    promise = combined(certified, 200, 30, z, zeta)
    chips = weights * (1 + zeta * rng.standard_normal((500, 30)))
    reached = np.mean((np.sign(x @ chips.T) == y[:, None]).mean(0) >= promise.accuracy)
    assert 0.1 < promise.accuracy < 1
    assert 0.5 < promise.coverage < 1
    assert reached >= promise.coverage - 4 * math.sqrt(0.25 / 500)
    assert "says nothing" in combined(certified, 200, 10**6, z, zeta).sentence()


def test_several_levels_hold_together():
    """Independent levels, each with a bound of its own: all hold at once as often as one alone was to."""
    rng, rate, levels, often = np.random.default_rng(4), 0.05, 4, 2000
    each = simultaneous(levels, 0.9)
    bounds = {k: failure_rate_bound(k, 60, each) for k in range(61)}
    failures = rng.binomial(60, rate, (often, levels))
    assert np.mean([all(bounds[k] >= rate for k in row) for row in failures]) >= 0.9
    assert state([0.9] * 100, 10, 0.8, levels=4).failing_at_most == pytest.approx(failure_rate_bound(0, 100, 0.9875))


def test_a_statement_about_one_chip_and_about_chips_that_all_fail():
    one = state([0.8], 100, 0.7)
    assert (one.mean_at_least, one.passed, one.mean_surely) == (None, 1, 0.0)
    assert "at most 95.00 % of the chips fall below 70 %" in one.sentence()
    bad = state([0.5] * 20, 100, 0.7)
    assert bad.one_in is None
    assert "nothing can be said" in bad.sentence()
    assert "20 of 20 chips" in bad.sentence()
    assert "on average" in state([0.5] * 20, 100).sentence()
    assert state([0.5] * 20, 100).fresh_needed(0.01) is None
    assert bad.fresh_needed(0.01) is None
    assert state([0.9] * 100, 100, 0.7).fresh_needed(0.01) == chips_needed(0.01) == 299
    assert state([0.9] * 100, 100, 0.7, levels=5).fresh_needed(0.01) == chips_needed(0.01, 0.99)
    assert state([0.9] * 300, 100, 0.7).fresh_needed(0.01) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: failure_rate_bound(3, 2), "failures is 3 of 2 chips"),
        (lambda: failure_rate_bound(0, 0), "failures is 0 of 0 chips"),
        (lambda: failure_rate_bound(0, 10, 0.0), "confidence is 0.0"),
        (lambda: failure_rate_bound(0, 10, 1.0), "confidence is 1.0"),
        (lambda: chips_needed(0.0), "failure_rate is 0.0"),
        (lambda: chips_needed(0.1, failures=-1), "failures is -1"),
        (lambda: mean_accuracy_bound([0.9]), "at least two"),
        (lambda: mean_accuracy_bound([0.9, 90.0]), "values has 90"),
        (lambda: mean_accuracy_bound([0.9, 0.9], method="normal"), "method is 'normal'"),  # pyright: ignore
        (lambda: coverage(-1, 0.1, 0.1), "parameters is -1"),
        (lambda: coverage(10, math.nan, 0.1), "z is nan"),
        (lambda: half_width_for(1.0, 10, 0.1), "coverage is 1.0"),
        (lambda: half_width_for(0.9, 10, -0.1), "zeta is -0.1"),
        (lambda: mismatch_covered(0.9, 10, math.inf), "z is inf"),
        (lambda: simultaneous(0), "levels is 0"),
        (lambda: combined(1.2, 10, 10, 0.1, 0.1), "certified is 1.2"),
        (lambda: combined(0.2, 0, 10, 0.1, 0.1), "samples is 0"),
        (lambda: state([], 10), "values is empty"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(call, said):
    with pytest.raises(NoiseproofError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_no_function_takes_a_number_of_samples_for_a_number_of_chips():
    """A bound from 100 chips does not become narrower with the samples of each."""
    few, many = state([0.9] * 100, 10, 0.8), state([0.9] * 100, 10_000, 0.8)
    assert few.failing_at_most == many.failing_at_most


def test_statements_need_no_torch():
    code = "import sys, noiseproof.certificates.devices; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert devices.__doc__
