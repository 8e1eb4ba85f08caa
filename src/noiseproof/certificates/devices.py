"""What can be said of all chips: at a confidence from those that were simulated, and from a certified box and the size of the mismatch.

Imports no torch. The chip is the unit: n is a number of chips, never chips × samples, as the samples of one chip are not independent
chips. All bounds are one-sided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from numpy.typing import ArrayLike
from scipy import special

from noiseproof.errors import NoiseproofError, require
from noiseproof.statistics import passing, summary

HARDLY, ALMOST_ALL = 1e-4, 0.9999  # a coverage below the one is written as none, one above the other as this
Method = Literal["student-t", "empirical-bernstein", "hoeffding"]


def failure_rate_bound(failures: int, chips: int, confidence: float = 0.95) -> float:
    """Return the largest rate of failing chips that `failures` of `chips` simulated ones leave open.

    p_max = I⁻¹(confidence; k+1, n−k), the rate at which k failures or fewer of n have probability 1 − confidence; 1 where all fail.
    I⁻¹ is the inverse regularised incomplete beta function. Exact for independent chips, whatever they compute.
    Raises `NoiseproofError` unless 0 ≤ failures ≤ chips, chips ≥ 1 and confidence lies in (0, 1).

    Source: Clopper and Pearson, Biometrika 26 (1934) 404, one side of it.

    >>> [f"{100 * failure_rate_bound(0, chips):.2f}" for chips in (100, 300, 1000)]
    ['2.95', '0.99', '0.30']
    """
    _check_confidence(confidence)
    if chips < 1 or not 0 <= failures <= chips:
        raise NoiseproofError(f"failures is {failures} of {chips} chips: give at least 1 chip and failures between 0 and their number")
    return float(special.betaincinv(failures + 1, chips - failures, confidence)) if failures < chips else 1.0


def yield_bound(passed: int, chips: int, confidence: float = 0.95) -> float:
    """Return the smallest yield that `passed` of `chips` simulated ones leave open: 1 − `failure_rate_bound`.

    Raises `NoiseproofError` as `failure_rate_bound` does.

    >>> f"{yield_bound(100, 100):.4f}"
    '0.9705'
    """
    return 1 - failure_rate_bound(chips - passed, chips, confidence)


def chips_needed(failure_rate: float, confidence: float = 0.95, failures: int = 0) -> int:
    """Return how many fresh chips state a rate of failing of at most `failure_rate`, when `failures` of them fail.

    The least n with `failure_rate_bound(failures, n, confidence)` ≤ failure_rate; without a failure n = ⌈ln(1−c) / ln(1−p)⌉.
    A number to plan with: fix it, simulate so many chips of a new seed, and state what these show, whatever they show. Chips that
    were looked at before do not count again: the statement would be wrong more often than 1 − confidence.
    Raises `NoiseproofError` unless failure_rate and confidence lie in (0, 1) and failures is at least 0.

    Source: Clopper and Pearson, Biometrika 26 (1934) 404, solved for n.

    >>> chips_needed(0.001), chips_needed(0.001, failures=1)
    (2995, 4742)
    """
    _check_confidence(confidence)
    require(0 < failure_rate < 1, "failure_rate", failure_rate, "give a fraction in (0, 1), 0.001 for one chip in a thousand")
    require(failures >= 0, "failures", failures, "give a number of chips, at least 0")
    low, high = failures, failures + 1  # `low` chips do not suffice
    while failure_rate_bound(failures, high, confidence) > failure_rate:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if failure_rate_bound(failures, middle, confidence) > failure_rate:
            low = middle
        else:
            high = middle
    return high


def mean_accuracy_bound(values: ArrayLike, confidence: float = 0.95, method: Method = "student-t") -> float:
    """Return a lower bound of the mean accuracy over all chips from `values` [n], one accuracy in [0, 1] per chip.

    With mean x̄, standard deviation s (ddof = 1) and δ = 1 − confidence:

    - student-t: x̄ − t(n−1, 1−δ)·s/√n. Narrow, but exact only for normal accuracies: rare very bad chips that none of the n shows
      escape it.
    - empirical-bernstein: x̄ − √(2s²·ln(2/δ)/n) − 7·ln(2/δ)/(3(n−1)). Holds for any distribution on [0, 1].
    - hoeffding: x̄ − √(ln(1/δ)/(2n)). Holds for any distribution on [0, 1], without using s.

    Never below 0. Raises `NoiseproofError` for another method, values outside [0, 1], none, or one where s is needed.

    Source: Student, Biometrika 6 (1908) 1; Maurer and Pontil, COLT 2009 (arXiv:0907.3740), theorem 4; Hoeffding, JASA 58 (1963) 13.

    >>> chips = [0.90, 0.91, 0.89, 0.90] * 100
    >>> methods = ("student-t", "empirical-bernstein", "hoeffding")
    >>> [f"{mean_accuracy_bound(chips, method=method):.3f}" for method in methods]
    ['0.899', '0.877', '0.839']
    """
    _check_confidence(confidence)
    s, delta = summary(values), 1 - confidence
    if method == "hoeffding":
        return max(0.0, s.mean - math.sqrt(math.log(1 / delta) / (2 * s.n)))
    if method not in ("student-t", "empirical-bernstein"):
        raise NoiseproofError(f"method is {method!r}: give student-t, empirical-bernstein or hoeffding")
    if s.std is None:
        raise NoiseproofError(f"values has one chip: a {method} bound needs at least two; hoeffding takes one")
    if method == "student-t":
        return max(0.0, s.mean - float(special.stdtrit(s.n - 1, confidence)) * s.std / math.sqrt(s.n))
    log = math.log(2 / delta)
    return max(0.0, s.mean - s.std * math.sqrt(2 * log / s.n) - 7 * log / (3 * (s.n - 1)))


def simultaneous(levels: int, confidence: float = 0.95) -> float:
    """Return the confidence that each of `levels` bounds must have so that all of them hold together with `confidence`.

    1 − (1 − confidence)/m. It asks nothing of how the levels depend on each other, and chips of one seed do depend. Holm's sharper
    procedure orders p-values and rejects hypotheses: it says which are false, and gives no bound for those that it keeps.
    Raises `NoiseproofError` for fewer than one level, or confidence outside (0, 1).

    Source: Dunn, JASA 56 (1961) 52 (Bonferroni's inequality).

    >>> simultaneous(5), simultaneous(1)
    (0.99, 0.95)
    """
    _check_confidence(confidence)
    require(levels >= 1, "levels", levels, "give a number of bounds, at least 1")
    return confidence if levels == 1 else 1 - (1 - confidence) / levels


def coverage(parameters: int, z: float, zeta: float) -> float:
    """Return the probability that mismatch ζ leaves a chip inside the box of half-width z.

    P(|ξ_i|·ζ ≤ z for all i) = erf(z/(ζ√2))^n, ξ_i ~ N(0, 1) independent, n the number of `parameters` that move and are not zero.
    The product is taken in logarithms, with erfc where erf is near 1. Raises `NoiseproofError` for a negative number.

    Source: the definition of mismatch, Büchel, Faber, Muir, arXiv:2106.05009, eq. (1).

    >>> f"{coverage(109_000, z=0.0504, zeta=0.01):.2f} {coverage(109_000, z=0.04, zeta=0.01):.3f}"
    '0.95 0.001'
    """
    for name, value in (("parameters", parameters), ("z", z), ("zeta", zeta)):
        require(value >= 0 and math.isfinite(value), name, value, "give a number of at least 0")
    if parameters == 0 or zeta == 0:
        return 1.0
    reach = z / zeta / math.sqrt(2)
    inside = special.erf(reach)
    if inside == 0:
        return 0.0
    return math.exp(parameters * (math.log1p(-special.erfc(reach)) if inside > 0.5 else math.log(inside)))


def half_width_for(coverage: float, parameters: int, zeta: float) -> float:
    """Return the half-width z of the box that holds a chip under mismatch ζ with probability `coverage`.

    z = ζ·√2·erfc⁻¹(1 − coverage^(1/n)). Raises `NoiseproofError` for coverage outside (0, 1) or a negative number.

    Source: `coverage`, solved for z.

    >>> f"{half_width_for(0.95, 109_000, zeta=0.1):.3f}"
    '0.504'
    """
    require(zeta >= 0 and math.isfinite(zeta), "zeta", zeta, "give a number of at least 0")
    return zeta * _deviations(coverage, parameters)


def mismatch_covered(coverage: float, parameters: int, z: float) -> float:
    """Return the largest mismatch ζ under which a chip lies in the box of half-width z with probability `coverage`.

    ζ = z / (√2·erfc⁻¹(1 − coverage^(1/n))); infinite where no parameter moves.
    Raises `NoiseproofError` for coverage outside (0, 1) or a negative number.

    Source: `coverage`, solved for ζ.

    >>> f"{mismatch_covered(0.95, 109_000, z=0.01):.5f}"
    '0.00198'
    """
    require(z >= 0 and math.isfinite(z), "z", z, "give a number of at least 0")
    deviations = _deviations(coverage, parameters)
    return z / deviations if deviations else math.inf


@dataclass(frozen=True)
class Statement:
    """What the simulated chips of one network say of all its chips at one level of noise; `state` makes it."""

    chips: int  # their number was fixed before the first was simulated
    samples: int  # test samples behind every chip's accuracy
    confidence: float  # of this statement at all `levels` together
    levels: int  # levels at which it is made
    mean: float
    mean_at_least: float | None  # Student t; None for one chip
    mean_surely: float  # the better of empirical Bernstein and Hoeffding, at half the error each
    required: float | None = None  # the accuracy that a chip must reach
    passed: int | None = None  # chips that do
    yield_at_least: float | None = None

    @property
    def failing_at_most(self) -> float | None:
        """The largest rate of failing chips."""
        return None if self.yield_at_least is None else 1 - self.yield_at_least

    @property
    def one_in(self) -> int | None:
        """The largest N with "at most one chip in N fails"; None where nothing is bounded."""
        rate = self.failing_at_most
        return None if rate is None or rate >= 1 else math.floor(1 / rate)

    def fresh_needed(self, failure_rate: float) -> int | None:
        """Return how many chips of a new seed, none of which fails, state a rate of failing of at most `failure_rate`.

        0 where these chips state it; None without a required accuracy, and where they show that more chips than that fail. The chips
        of this statement count no more, see `chips_needed`.
        """
        if self.passed is None or self.failing_at_most is None:
            return None
        each = simultaneous(self.levels, self.confidence)
        if self.failing_at_most <= failure_rate:
            return 0
        failing_at_least = 1 - failure_rate_bound(self.passed, self.chips, each)  # as the rate of passing is at most this bound
        return None if failing_at_least > failure_rate else chips_needed(failure_rate, each)

    def sentence(self) -> str:
        """Return the statement in words, every bound rounded to its safe side."""
        together = f", at all {self.levels} levels together" if self.levels > 1 else ""
        start = f"With {100 * self.confidence:.6g} % confidence{together}"
        if self.required is None or self.passed is None or self.failing_at_most is None:
            least = self.mean_surely if self.mean_at_least is None else self.mean_at_least
            return f"{start}, chips reach at least {at_least(least)} % on average ({_chips(self.chips)} simulated)."
        seen = f"{self.chips - self.passed} of {_chips(self.chips)} simulated did"
        if self.one_in is None:
            return f"{start}, nothing can be said of chips below {100 * self.required:.6g} %: {seen}."
        rate = f"{at_most(self.failing_at_most)} %"
        which = f"at most 1 chip in {self.one_in:,} ({rate})" if self.one_in > 1 else f"at most {rate} of the chips"
        verb = "falls" if self.one_in > 1 else "fall"
        return f"{start}, {which} {verb} below {100 * self.required:.6g} % accuracy: {seen}."


def state(values: ArrayLike, samples: int, required: float | None = None, confidence: float = 0.95, levels: int = 1) -> Statement:
    """Return what `values` [n], one accuracy in [0, 1] per chip of one network, say of all its chips.

    With `levels` statements made together, each is made at 1 − (1 − confidence)/levels. `required`, an accuracy in [0, 1], and n must be
    chosen without looking at these chips: chips that were added until something held, or picked from several seeds, are no such chips.
    Raises `NoiseproofError` for values, required or confidence out of range.

    Source: `failure_rate_bound`, `mean_accuracy_bound`, `simultaneous`.

    >>> print(state([0.91] * 100, samples=1000, required=0.9).sentence())
    With 95 % confidence, at most 1 chip in 33 (2.96 %) falls below 90 % accuracy: 0 of 100 chips simulated did.
    """
    each, s = simultaneous(levels, confidence), summary(values)
    half = simultaneous(2, each)
    surely = mean_accuracy_bound(values, half, "hoeffding")
    if s.n > 1:
        surely = max(surely, mean_accuracy_bound(values, half, "empirical-bernstein"))
    passed = None if required is None else passing(values, required)
    return Statement(
        s.n,
        samples,
        confidence,
        levels,
        s.mean,
        mean_accuracy_bound(values, each) if s.n > 1 else None,
        surely,
        required,
        passed,
        None if passed is None else yield_bound(passed, s.n, each),
    )


@dataclass(frozen=True)
class BoxStatement:
    """What a certified box says of chips under mismatch: no chip need be simulated; `combined` makes it."""

    right: int  # samples that every chip in the box classifies correctly
    samples: int
    parameters: int  # that move and are not zero
    z: float
    zeta: float
    coverage: float  # least share of chips that lie in the box

    @property
    def accuracy(self) -> float:
        """The accuracy on these samples that at least `coverage` of the chips reach."""
        return self.right / self.samples

    def sentence(self) -> str:
        """Return the statement in words: the share of chips rounded down, the accuracy as tables have it beside the exact count."""
        box, noise = f"the box z = {self.z:.4g}", f"mismatch ζ = {self.zeta:.4g} of these {self.parameters:,} parameters alone"
        if self.coverage < HARDLY:
            return f"Of chips under {noise} hardly one lies in {box}: its certificate says nothing of them."
        return (
            f"At least {at_least(min(self.coverage, ALMOST_ALL), 2)} % of chips under {noise} lie in {box}, where each has at least "
            f"{self.right:,} of these {self.samples:,} samples right ({100 * self.accuracy:.1f} %)."
        )


def combined(certified: float, samples: int, parameters: int, z: float, zeta: float) -> BoxStatement:
    """Return what a certificate for `certified` (a fraction) of `samples` in the box z says of chips under mismatch ζ.

    P(accuracy on these samples ≥ certified) ≥ P(chip in box) = erf(z/(ζ√2))^n: in the box so many are right for sure, outside they may
    be. Gaussian mismatch is taken at its word: it moves these parameters alone, and says nothing where others vary too.
    Raises `NoiseproofError` for certified outside [0, 1], no samples, or a negative number.

    Source: `coverage` and the certificate.

    >>> print(combined(0.6, samples=500, parameters=109_000, z=0.01, zeta=0.0015).sentence())  # doctest: +NORMALIZE_WHITESPACE
    At least 99.99 % of chips under mismatch ζ = 0.0015 of these 109,000 parameters alone lie in the box z = 0.01, where each has at
    least 300 of these 500 samples right (60.0 %).
    """
    require(0 <= certified <= 1, "certified", certified, "give a fraction in [0, 1]")
    require(samples >= 1, "samples", samples, "give a number of samples, at least 1")
    return BoxStatement(round(certified * samples), samples, parameters, z, zeta, coverage(parameters, z, zeta))


def at_least(fraction: float, digits: int = 1) -> str:
    """Return a lower bound in per cent, rounded down.

    >>> at_least(0.97049), at_least(0.57)
    ('97.0', '57.0')
    """
    scale = 10**digits
    return f"{math.floor(100 * scale * fraction + 1e-9) / scale:.{digits}f}"


def at_most(fraction: float, digits: int = 2) -> str:
    """Return an upper bound in per cent, rounded up.

    >>> at_most(0.029513), at_most(0.07)
    ('2.96', '7.00')
    """
    scale = 10**digits
    return f"{math.ceil(100 * scale * fraction - 1e-9) / scale:.{digits}f}"


def _deviations(coverage: float, parameters: int) -> float:
    """Return within how many standard deviations all of so many normal numbers stay with probability `coverage`."""
    require(0 < coverage < 1, "coverage", coverage, "give a probability in (0, 1), 0.95 for 95 %")
    require(parameters >= 0, "parameters", parameters, "give a number of at least 0")
    if parameters == 0:
        return 0.0
    return math.sqrt(2) * float(special.erfcinv(-math.expm1(math.log(coverage) / parameters)))


def _chips(number: int) -> str:
    return "1 chip" if number == 1 else f"{number:,} chips"


def _check_confidence(confidence: float) -> None:
    require(0 < confidence < 1, "confidence", confidence, "give a number in (0, 1), 0.95 for 95 %")
