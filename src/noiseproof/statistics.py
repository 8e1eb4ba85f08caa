"""What can be said about all chips from the chips that were simulated. Imports no torch.

Every value is an accuracy as a fraction in [0, 1], one per chip. The chip is the unit: pooling chips × samples would count
the samples of one chip as if they were independent chips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from noiseproof.errors import NoiseproofError

# An accuracy k/n that went through single precision is still the same accuracy; the next one, (k+1)/n, is further away
_ROUNDING = 1e-7


@dataclass(frozen=True)
class Summary:
    """What `summary` returns: the distribution of one number over chips, all in the units of the values."""

    n: int  # chips
    mean: float
    half_width: float | None  # of the Student t interval for the mean; None for one chip
    std: float | None  # over chips, ddof = 1; None for one chip
    minimum: float  # depends on n: compare only between equal numbers of chips
    q01: float
    q05: float
    median: float
    required: float | None  # the accuracy that a chip must reach
    chip_yield: float | None  # fraction of chips at or above `required`
    yield_interval: tuple[float, float] | None  # Clopper-Pearson
    confidence: float


@dataclass(frozen=True)
class Spread:
    """What `spread` returns: two standard deviations, apart."""

    between: float | None  # between networks (training seeds); None for one network
    within: float | None  # between the chips of one network; None where no network has two chips
    networks: int


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval for a probability after `successes` of `n` trials.

    low = I⁻¹(α/2; k, n−k+1), high = I⁻¹(1−α/2; k+1, n−k), α = 1 − confidence, I⁻¹ the inverse regularised incomplete beta
    function; low = 0 for k = 0 and high = 1 for k = n. Raises `NoiseproofError` unless 0 ≤ k ≤ n, n ≥ 1.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404.

    >>> low, high = clopper_pearson(95, 100)
    >>> f"{low:.4f} {high:.4f}"
    '0.8872 0.9836'
    """
    _check_confidence(confidence)
    if n < 1 or not 0 <= successes <= n:
        raise NoiseproofError(f"successes is {successes} of {n}: give n of at least 1 and successes between 0 and n")
    tail = (1 - confidence) / 2
    low = float(special.betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(special.betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return low, high


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return the mean of `values` [n] and the half-width of its Student t interval.

    half-width = t(n−1, 1−α/2)·s/√n, s with ddof = 1. With fewer than 16 chips the coverage falls below nominal, because
    accuracies over chips are skewed. Raises `NoiseproofError` for fewer than two values.

    Source: Student, Biometrika 6 (1908) 1.

    >>> mean, half_width = mean_interval([0.90, 0.91, 0.89, 0.90])
    >>> f"{mean:.3f} ± {half_width:.3f}"
    '0.900 ± 0.013'
    """
    _check_confidence(confidence)
    x = _fractions(values)
    if len(x) < 2:
        raise NoiseproofError("values has one value: an interval for the mean needs at least two chips")
    t = float(special.stdtrit(len(x) - 1, (1 + confidence) / 2))
    return float(x.mean()), t * float(x.std(ddof=1)) / math.sqrt(len(x))


def quantiles(values: ArrayLike, levels: Sequence[float] = (0.01, 0.05, 0.5)) -> tuple[float, ...]:
    """Return the quantiles of `values` [n] at `levels`, linear between order statistics (so 1 % of 100 chips lies near the minimum).

    Raises `NoiseproofError` for no values, or a level outside [0, 1].

    Source: Hyndman and Fan, Am. Stat. 50 (1996) 361, definition 7.

    >>> quantiles([0.0, 0.25, 0.5, 0.75, 1.0], (0.05, 0.5))
    (0.05, 0.5)
    """
    for level in levels:
        if not 0 <= level <= 1:
            raise NoiseproofError(f"quantile level is {level}: give a number in [0, 1]")
    return tuple(float(q) for q in np.quantile(_fractions(values), levels))


def passing(values: ArrayLike, required: float) -> int:
    """Return how many of `values` [n] are at or above `required`.

    k = #{i: values_i ≥ required}. Raises `NoiseproofError` for no values, or `required` outside [0, 1].

    >>> passing([0.84, 0.85, 0.86], 0.85)
    2
    """
    if not 0 <= required <= 1:
        raise NoiseproofError(f"required accuracy is {required}: give a fraction in [0, 1], 0.85 for 85 %")
    return int(np.count_nonzero(_fractions(values) >= required - _ROUNDING))


def yield_at(values: ArrayLike, required: float) -> float:
    """Return the yield: the fraction of `values` [n] at or above `required`.

    yield = #{i: values_i ≥ required} / n. Raises `NoiseproofError` for no values, or `required` outside [0, 1].

    >>> yield_at([0.84, 0.85, 0.86, 0.87], 0.85)
    0.75
    """
    return passing(values, required) / len(_fractions(values))


def summary(values: ArrayLike, required: float | None = None, confidence: float = 0.95) -> Summary:
    """Return the distribution of `values` [n] over chips in a few numbers, and the yield at `required` if it is given.

    Raises `NoiseproofError` for no values, values or `required` outside [0, 1], or `confidence` outside (0, 1).

    >>> s = summary([0.80, 0.90, 0.91, 0.92], required=0.85)
    >>> f"{s.mean:.4f} {s.minimum} {s.chip_yield}"
    '0.8825 0.8 0.75'
    """
    _check_confidence(confidence)
    x = _fractions(values)
    q01, q05, median = quantiles(x)
    good = None if required is None else passing(x, required)
    return Summary(
        n=len(x),
        mean=float(x.mean()),
        half_width=mean_interval(x, confidence)[1] if len(x) > 1 else None,
        std=float(x.std(ddof=1)) if len(x) > 1 else None,
        minimum=float(x.min()),
        q01=q01,
        q05=q05,
        median=median,
        required=required,
        chip_yield=None if good is None else good / len(x),
        yield_interval=None if good is None else clopper_pearson(good, len(x), confidence),
        confidence=confidence,
    )


def spread(groups: Sequence[ArrayLike]) -> Spread:
    """Return how much networks differ and how much the chips of one network differ; `groups` has one list of chips per network.

    within² = Σ_j (n_j − 1)s_j² / Σ_j (n_j − 1) (pooled over networks); between² = max(0, Var_j(mean_j) − mean_j(within²/n_j)),
    ddof = 1: the variance of the networks' means less what finitely many chips put into it. Where all networks have one chip, `within`
    is unknown and nothing is subtracted. Raises `NoiseproofError` for no groups or an empty one.

    Source: one-way random-effects analysis of variance; Searle, Casella and McCulloch, Variance Components (1992), 3.

    >>> s = spread([[0.90, 0.92], [0.80, 0.82]])
    >>> f"{s.between:.4f} {s.within:.4f}"
    '0.0700 0.0141'
    """
    networks = [_fractions(group) for group in groups]
    if not networks:
        raise NoiseproofError("groups is empty: give one list of accuracies per network")
    freedom = sum(len(x) - 1 for x in networks)
    within2 = sum(float(((x - x.mean()) ** 2).sum()) for x in networks) / freedom if freedom else None
    between = None
    if len(networks) > 1:
        means_variance = float(np.var([x.mean() for x in networks], ddof=1))
        sampling = float(np.mean([(within2 or 0.0) / len(x) for x in networks]))
        between = math.sqrt(max(0.0, means_variance - sampling))
    return Spread(between, None if within2 is None else math.sqrt(within2), len(networks))


def mann_whitney(a: ArrayLike, b: ArrayLike) -> float:
    """Return the two-sided p-value of the Mann-Whitney U test on draws `a` [n] and `b` [m], as in paper A.

    U = #{(i, j): a_i > b_j} + ½·#{a_i = b_j}. The paper pools the draws of several networks. Chips of one network are not independent
    samples of a *method*, so p is then far too small (pseudo-replication): it speaks about these networks, `per_network_test` about
    methods. Raises `NoiseproofError` for no values.

    Source: Mann and Whitney, Ann. Math. Stat. 18 (1947) 50.

    >>> f"{mann_whitney([0.90, 0.91, 0.92, 0.93], [0.80, 0.81, 0.82, 0.83]):.4f}"
    '0.0286'
    """
    from scipy import stats

    x, y = _fractions(a), _fractions(b)
    if np.ptp(np.concatenate([x, y])) == 0:
        return 1.0  # all tied: the normal approximation divides by zero
    return float(stats.mannwhitneyu(x, y, alternative="two-sided").pvalue)


def sign_test(first: int, second: int) -> float:
    """Return the one-sided p-value for `first` being the larger of two numbers of discordant pairs: exact McNemar's test.

    p = P(X ≥ first), X ~ Binomial(first + second, ½): of two attacks on the same samples, those count which only one of them fools.
    Raises `NoiseproofError` for a negative number.

    Source: McNemar, Psychometrika 12 (1947) 153, in its exact form.

    >>> sign_test(5, 0), sign_test(3, 3)
    (0.03125, 0.65625)
    """
    if min(first, second) < 0:
        raise NoiseproofError(f"discordant pairs are {first} and {second}: give numbers of at least 0")
    return float(special.betainc(first, second + 1, 0.5)) if first else 1.0


def per_network_test(groups_a: Sequence[ArrayLike], groups_b: Sequence[ArrayLike]) -> float | None:
    """Return the two-sided p-value of Welch's t test on the networks' means, one value per network.

    t = (ā − b̄)/√(s_a²/n_a + s_b²/n_b), the degrees of freedom after Welch and Satterthwaite. None with fewer than two networks on
    either side, and where neither side's networks differ at all: then nothing measures the spread between trainings.
    Raises `NoiseproofError` for an empty group.

    Source: Welch, Biometrika 34 (1947) 28.

    >>> f"{per_network_test([[0.90, 0.92], [0.91, 0.93]], [[0.80, 0.82], [0.82, 0.84]]):.4f}"
    '0.0317'
    """
    a = np.array([_fractions(group).mean() for group in groups_a])
    b = np.array([_fractions(group).mean() for group in groups_b])
    if len(a) < 2 or len(b) < 2 or (np.ptp(a) < _ROUNDING and np.ptp(b) < _ROUNDING):
        return None
    variances = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    t = (a.mean() - b.mean()) / math.sqrt(variances.sum())
    freedom = variances.sum() ** 2 / (variances**2 / (len(a) - 1, len(b) - 1)).sum()
    return float(2 * special.stdtr(freedom, -abs(t)))


def holm(ps: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values of several tests, adjusted after Holm: one below α says that, with probability 1 − α, no true null is rejected.

    p̃_(i) = max_{j ≤ i} min(1, (m − j + 1)·p_(j)) for p_(1) ≤ … ≤ p_(m). It asks nothing of how the tests depend on each other.

    Source: Holm, Scand. J. Statist. 6 (1979) 65.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    adjusted, largest = [1.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = largest
    return tuple(adjusted)


def _fractions(values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a vector, or raise `NoiseproofError`: nothing empty, nothing outside [0, 1], no NaN."""
    x = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(x) == 0:
        raise NoiseproofError("values is empty: give the accuracy of at least one chip")
    if not bool(np.all((x >= 0) & (x <= 1))):  # NaN fails both comparisons
        raise NoiseproofError(f"values has {x[~((x >= 0) & (x <= 1))][0]:g}: accuracies are fractions in [0, 1], 0.85 for 85 %")
    return x


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise NoiseproofError(f"confidence is {confidence}: give a number in (0, 1), 0.95 for 95 %")
