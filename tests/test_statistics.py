"""Statistics over chips, against scipy and values from the literature."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from noiseproof import statistics
from noiseproof.errors import NoiseproofError
from noiseproof.statistics import (
    clopper_pearson,
    holm,
    mann_whitney,
    mean_interval,
    passing,
    per_network_test,
    quantiles,
    spread,
    summary,
    yield_at,
)


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_clopper_pearson_is_scipys_exact_interval(n, confidence):
    for k in {0, 1, n // 3, n // 2, n - 1, n}:
        expected = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
        assert clopper_pearson(k, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("n", "percent"), [(100, 2.95), (300, 0.99), (1000, 0.30)])
def test_no_failure_of_n_devices_bounds_the_failure_rate(n, percent):
    # one-sided 95 % = the upper end of the two-sided 90 % interval
    assert 100 * clopper_pearson(0, n, 0.90)[1] == pytest.approx(percent, abs=0.005)


def test_clopper_pearson_covers_at_least_nominally():
    n, p = 40, 0.93
    covered = sum(stats.binom.pmf(k, n, p) for k in range(n + 1) if clopper_pearson(k, n)[0] <= p <= clopper_pearson(k, n)[1])
    assert covered >= 0.95


def test_mean_interval_is_student_t():
    values = np.random.default_rng(0).uniform(0.8, 0.9, 25)
    mean, half = mean_interval(values, 0.9)
    low, high = stats.t.interval(0.9, 24, loc=values.mean(), scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-12)


def test_quantiles_and_yield():
    values = np.arange(101) / 100
    assert quantiles(values) == pytest.approx((0.01, 0.05, 0.5))
    assert yield_at(values, 0.9) == 11 / 101
    assert yield_at(values, 0.0) == 1
    assert passing(values, 1.0) == 1


@pytest.mark.parametrize("k", [83, 85, 87, 91])
def test_an_accuracy_that_went_through_single_precision_still_reaches_itself(k):
    assert yield_at([float(np.float32(k / 100))], k / 100) == 1
    assert yield_at([float(np.float32((k * 1000 - 1) / 100_000))], k / 100) == 0


def test_summary_holds_the_parts_together():
    values = np.random.default_rng(1).beta(40, 6, 200)
    s = summary(values, required=0.85, confidence=0.9)
    assert (s.n, s.mean, s.std, s.minimum) == pytest.approx((200, values.mean(), values.std(ddof=1), values.min()))
    assert (s.q01, s.q05, s.median) == quantiles(values)
    assert s.half_width == mean_interval(values, 0.9)[1]
    assert s.chip_yield == yield_at(values, 0.85)
    assert s.yield_interval == clopper_pearson(passing(values, 0.85), 200, 0.9)


def test_one_chip_has_no_spread():
    s = summary([0.9])
    assert (s.n, s.mean, s.minimum, s.std, s.half_width, s.chip_yield, s.yield_interval) == (1, 0.9, 0.9, None, None, None, None)


def test_spread_recovers_both_parts():
    rng = np.random.default_rng(2)
    networks = rng.normal(0.7, 0.03, 2000)
    groups = [np.clip(rng.normal(mean, 0.05, 20), 0, 1) for mean in networks]
    found = spread(groups)
    assert found.between == pytest.approx(0.03, rel=0.05)
    assert found.within == pytest.approx(0.05, rel=0.02)
    assert found.networks == 2000


def test_spread_of_chips_alone_shows_no_spread_of_networks():
    # equal means: the correction would go below zero
    assert spread([[0.8, 0.9], [0.9, 0.8]]).between == 0
    assert spread([[0.8, 0.9]]).between is None
    assert spread([[0.8], [0.9]]).within is None
    assert spread([[0.8], [0.9]]).between == pytest.approx(np.std([0.8, 0.9], ddof=1))


def test_spread_of_unequal_groups_pools_by_degrees_of_freedom():
    groups = [[0.90, 0.91, 0.92, 0.95], [0.80, 0.85]]
    expected = math.sqrt((3 * np.var(groups[0], ddof=1) + 1 * np.var(groups[1], ddof=1)) / 4)
    assert spread(groups).within == pytest.approx(expected)


def test_mann_whitney_is_scipys():
    rng = np.random.default_rng(3)
    a, b = rng.uniform(0.7, 0.9, 200), rng.uniform(0.72, 0.9, 200)
    assert mann_whitney(a, b) == stats.mannwhitneyu(a, b, alternative="two-sided").pvalue
    assert mann_whitney(a, b) == pytest.approx(mann_whitney(b, a))


def test_mann_whitney_of_equal_chips_finds_nothing():
    assert mann_whitney([0.9] * 20, [0.9] * 20) == 1.0


def test_per_network_test_is_welch_on_means():
    a, b = [[0.90, 0.92], [0.93, 0.95], [0.91, 0.91]], [[0.80, 0.84], [0.85, 0.87]]
    expected = stats.ttest_ind([0.91, 0.94, 0.91], [0.82, 0.86], equal_var=False).pvalue
    assert per_network_test(a, b) == pytest.approx(expected)


def test_chips_do_not_replace_networks():
    """Two trainings of one method, each on 100 chips: the pooled U test calls them different methods, the test by network does not."""
    rng = np.random.default_rng(4)
    a = [np.clip(rng.normal(mean, 0.005, 100), 0, 1) for mean in (0.89, 0.92)]
    b = [np.clip(rng.normal(mean, 0.005, 100), 0, 1) for mean in (0.90, 0.94)]
    assert mann_whitney(np.concatenate(a), np.concatenate(b)) < 1e-6
    p = per_network_test(a, b)
    assert p is not None
    assert p > 0.3


def test_per_network_test_needs_networks_that_can_differ():
    assert per_network_test([[0.9, 0.8]], [[0.9], [0.8]]) is None
    assert per_network_test([[0.9], [0.8]], [[0.9, 0.8]]) is None
    assert per_network_test([[0.9], [0.9]], [[0.8], [0.8]]) is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: clopper_pearson(1, 0), "successes is 1 of 0"),
        (lambda: clopper_pearson(3, 2), "successes is 3 of 2"),
        (lambda: clopper_pearson(-1, 2), "successes is -1 of 2"),
        (lambda: clopper_pearson(1, 2, 1.0), "confidence is 1.0"),
        (lambda: mean_interval([0.5, 0.6], 0.0), "confidence is 0.0"),
        (lambda: mean_interval([0.5, 0.6], math.nan), "confidence is nan"),
        (lambda: mean_interval([0.5]), "at least two chips"),
        (lambda: quantiles([]), "values is empty"),
        (lambda: quantiles([0.5], [1.5]), "quantile level is 1.5"),
        (lambda: yield_at([0.5], 85), "required accuracy is 85"),
        (lambda: yield_at([0.5], math.nan), "required accuracy is nan"),
        (lambda: yield_at([85.0], 0.5), "values has 85"),
        (lambda: summary([0.5, math.nan]), "values has nan"),
        (lambda: summary([]), "values is empty"),
        (lambda: spread([]), "groups is empty"),
        (lambda: spread([[0.5], []]), "values is empty"),
        (lambda: mann_whitney([], [0.5]), "values is empty"),
        (lambda: per_network_test([[]], [[0.5]]), "values is empty"),
    ],
)
def test_bad_input_says_what_is_wrong(call, says):
    with pytest.raises(NoiseproofError, match=says):
        call()


def test_importing_costs_neither_torch_nor_scipy_stats():
    code = f"import sys, {statistics.__name__}; sys.exit(bool({{'torch', 'scipy.stats'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_holm_rejects_what_his_steps_reject_and_errs_once_in_twenty_tables():
    rng = np.random.default_rng(0)
    for _ in range(200):
        ps = rng.uniform(0, 0.2, 6).tolist()
        ordered, rejected = sorted(ps), set()
        for place, p in enumerate(ordered):  # the largest first step that does not reject ends it
            if p > 0.05 / (6 - place):
                break
            rejected.add(p)
        assert {p for p, adjusted in zip(ps, holm(ps), strict=True) if adjusted <= 0.05} == rejected
    assert holm([]) == ()
    # 45 true nulls: some p is below 0.05 nearly always, some adjusted one in 5 % of the tables
    tables = rng.uniform(size=(2000, 45))
    assert (tables.min(1) < 0.05).mean() > 0.85
    assert np.mean([min(holm(ps)) < 0.05 for ps in tables.tolist()]) == pytest.approx(0.05, abs=0.02)
