"""Can an accuracy under attack be trusted? Records of attacks → one verdict a check. Imports no torch.

The first five are the list of Athalye et al., arXiv:1802.00420, section 3.1 (Kundu et al., ICCV 2021, table 4): what a network shows
whose gradients are obfuscated, so that an attack by gradients fails while the network is not robust. The other four are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from noiseproof.numbers import eps_text
from noiseproof.records import Record
from noiseproof.statistics import clopper_pearson, sign_test

Outcome = Literal["pass", "fail", "undecided"]

# The reference of all checks, PGD with the network's own surrogate: its settings but ε, norm, eot and steps
REFERENCE = {
    "name": "pgd", "loss": "ce", "surrogate": "", "survivors_only": True, "step": 0.0, "restarts": 1, "random_start": True, "momentum": 0.0,
    "expected": False,
}  # fmt: skip
STEPS = 20  # of the reference
STEPS_CURVE = (1, 2, 5, 10, 20, 40)
DRAWS = 50  # of the random search
EPS_BELOW = (0.25, 0.5)  # of ε; above it doubles up to the width of the data

ALPHA = 0.05  # one-sided error of every test
TOLERANCE = 0.03  # share of the samples that counts as none: what a hundred samples without a case can just exclude
ENOUGH = 100  # samples that exclude that share where none of them is a case
FAR = 0.10  # share of the samples by which an ensemble is far below a single attack

# metrics of one attack beside the reference of the same seed and samples, at {"eps": ε of the reference}: share that only one of both fools
ONLY_HERE, ONLY_REFERENCE = "fooled_only_here", "fooled_only_by_reference"


@dataclass(frozen=True)
class Verdict:
    """One check: `outcome`, one `sentence` that says why, and the numbers it rests on, `evidence` (name, value).

    Names that begin with "accuracy" and "share" have fractions in [0, 1] as values. `single`: whether it speaks about the figures of
    single attacks alone, and that of the ensemble stands.
    """

    key: str
    title: str
    outcome: Outcome
    sentence: str
    evidence: tuple[tuple[str, float], ...] = ()
    single: bool = False


def verdicts(records: Sequence[Record], eps: float, norm: str) -> tuple[Verdict, ...]:
    """Return the verdicts on the accuracy of one network under attacks of size `eps` in `norm`, always all nine, in their order.

    `records`: those of one network; others than of attacks are passed over. Of several numbers of samples, of draws and of attack seeds
    those count on which most checks were made, then the most samples and draws and the smallest seed; what was not measured on these is
    judged on the next. A check whose records are missing is undecided, and says so. Two attacks
    are compared sample by sample (sign test), a share with a tolerance (Clopper-Pearson), both one-sided at 95 %: a single sample
    decides nothing.
    """
    attacks = [r for r in records if _of_one_size(r) and r.split == "test" and r.perturbation["norm"] == norm]
    checks = (_single_step, _black_box, _larger_eps, _unbounded, _random_search, _zero_gradients, _flat_steps, _ensemble, _draws)
    found = [[check(figures) for check in checks] for figures in _groups(attacks, _rounded(eps))]
    # an ensemble is asked for, the others are made together
    found.sort(key=lambda judged: -sum(bool(verdict.evidence) for verdict in judged if verdict.key != "ensemble"))
    return tuple(_first_made(each) for each in zip(*found, strict=True))


def reference(eps: float, norm: str, eot: int = 1, steps: int = STEPS) -> dict[str, Any]:
    """Return name and settings of the attack that all checks compare with, at one of its numbers of steps."""
    return {**REFERENCE, "surrogate_settings": [], "eps": eps, "norm": norm, "eot": eot, "steps": steps}


def _first_made(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first verdict that rests on numbers, else the first."""
    return next((verdict for verdict in verdicts if verdict.evidence), verdicts[0])


def checked(records: Iterable[Record]) -> tuple[tuple[float, str], ...]:
    """Return every (ε, norm) whose checks were measured, sorted."""
    found = set()
    for r in filter(_of_one_size, records):
        if r.metric == ONLY_HERE:
            found.add((_rounded(r.at["eps"]), str(r.perturbation["norm"])))
        elif r.metric == "zero_gradient_share" and r.value == 1 and _is_reference(r.perturbation):
            # nothing could be compared
            found.add((_eps(r), str(r.perturbation["norm"])))
    return tuple(sorted(found))


class _Figures:
    """The records of the attacks of one size, of one seed and one number of samples, beside one reference."""

    def __init__(self, records: Sequence[Record], eps: float, n: int, chosen: Record | None) -> None:
        self.eps, self.n = eps, n
        # attacks are compared that were made with one seed
        self.records = [r for r in records if r.n == n and (chosen is None or r.seed == chosen.seed)]
        self.eot = _eot(chosen) if chosen else 1
        self.pgd = [r for r in self.records if chosen and _is_reference(r.perturbation, None) and _eot(r) == self.eot]

    def value(self, metric: str, records: Iterable[Record], **settings: Any) -> float | None:
        """Return the smallest value of a metric among attacks with these settings at ε, None where there is none."""
        eps = settings.pop("eps", self.eps)
        alike = (r for r in records if r.metric == metric and _eps(r) == eps and settings.items() <= r.perturbation.items())
        return min((r.value for r in alike), default=None)

    def pair(self, records: Iterable[Record], **settings: Any) -> tuple[int, int] | None:
        """Return how many samples only an attack with these settings fools and how many only the reference; of several the strongest."""
        found: dict[str, dict[str, int]] = {}
        eps = settings.pop("eps", self.eps)
        for r in records:
            beside = r.metric in (ONLY_HERE, ONLY_REFERENCE) and _rounded(r.at["eps"]) == self.eps and _eot(r) == self.eot
            if beside and _eps(r) == eps and settings.items() <= r.perturbation.items():
                found.setdefault(json.dumps(dict(r.perturbation), sort_keys=True), {})[r.metric] = self.count(r.value)
        pairs = [(one[ONLY_HERE], one[ONLY_REFERENCE]) for one in found.values() if len(one) == 2]
        return max(pairs, key=lambda pair: pair[0] - pair[1], default=None)

    def count(self, share: float | None) -> int:
        return round((share or 0.0) * self.n)

    def sees_nothing(self, name: str) -> bool:
        """Whether an attack of several had no gradient that says anything."""
        asked = self.value("gradient_evaluations", self.records, name=name)
        return asked == 0 or self.value("zero_gradient_share", self.records, name=name) == 1

    @property
    def accuracy(self) -> float | None:
        """Accuracy under the reference."""
        return self.value("accuracy", self.pgd, steps=STEPS)


def _groups(records: Sequence[Record], eps: float) -> list[_Figures]:
    """Return one group per number of samples, draws and seed of the reference: most samples first, then most draws, then the first seed."""
    groups = []
    for n in sorted({r.n for r in records}, reverse=True):
        anchors = {(-_eot(r), r.seed or 0): r for r in records if r.n == n and _is_reference(r.perturbation) and _eps(r) == eps}
        groups += [_Figures(records, eps, n, anchors[key]) for key in sorted(anchors)] or [_Figures(records, eps, n, None)]
    return groups or [_Figures(records, eps, 0, None)]


def _is_reference(perturbation: Mapping[str, Any], steps: int | None = STEPS) -> bool:
    # a setting that an older version had not is at its default
    alike = all(perturbation.get(key, value) == value for key, value in REFERENCE.items())
    return "name" in perturbation and alike and steps in (None, perturbation.get("steps"))


def _of_one_size(record: Record) -> bool:
    """Whether a record is about an attack on inputs with one ε for all samples."""
    p = record.perturbation
    return "eps_per_sample" not in p and {"eps", "norm"} <= p.keys() and p.get("name") != "box"


def _rounded(eps: float) -> float:
    """Return ε without the last digits, in which two ways of writing it may differ."""
    return round(eps, 12)


def _eps(record: Record) -> float:
    return _rounded(record.perturbation["eps"])


def _eot(record: Record) -> int:
    return record.perturbation.get("eot", 1)


def _compared(worse: int, better: int, n: int) -> Outcome:
    """Decide whether the attack that should be the weaker one is: `worse` samples speak against it, `better` for it."""
    if _more(worse, better):
        return "fail"
    return "pass" if sign_test(better, worse) <= ALPHA or _none(worse, n) == "pass" else "undecided"


def _more(one: int, other: int) -> bool:
    """Whether the first of two attacks fools more: `one` samples are fooled by it alone, `other` by the second alone."""
    return one > other and sign_test(one, other) <= ALPHA


def _none(count: int, n: int, tolerance: float = TOLERANCE) -> Outcome:
    """Decide whether a share of the samples is none, but for the tolerance."""
    low, high = clopper_pearson(count, n, 1 - 2 * ALPHA)
    return "fail" if low > tolerance else "pass" if high <= tolerance else "undecided"


def _judged(key: str, title: str, outcome: Outcome, words: Mapping[Outcome, str], *evidence: tuple[str, float | None]) -> Verdict:
    return Verdict(key, title, outcome, words[outcome], tuple((name, value) for name, value in evidence if value is not None))


def _missing(key: str, title: str, what: str) -> Verdict:
    return Verdict(key, title, "undecided", f"Not measured: {what}.")


def _too_few(n: int) -> str:
    remedy = f"{ENOUGH} suffice where none of them is a case" if n < ENOUGH else "attack more of them"
    return f"{_samples(n)} {'is' if n == 1 else 'are'} too few to decide; {remedy}."


def _samples(n: int) -> str:
    return f"{n:,} {'sample' if n == 1 else 'samples'}"


def _single_step(f: _Figures) -> Verdict:
    key, title = "single-step", "One step does not beat many"
    pair = f.pair(f.records, name="fgsm")
    if pair is None:
        return _missing(key, title, "FGSM beside PGD with 20 steps")
    words: dict[Outcome, str] = {
        "pass": "FGSM fools no more samples than PGD with 20 steps.",
        "fail": f"FGSM fools {_samples(pair[0])} that PGD with 20 steps does not, the reverse holds for {pair[1]:,}: the steps lose their "
        "way.",
        "undecided": _too_few(f.n),
    }
    single = f.value("accuracy", f.records, name="fgsm")
    return _judged(key, title, _compared(*pair, f.n), words, ("accuracy fgsm", single), ("accuracy pgd-20", f.accuracy))


def _black_box(f: _Figures) -> Verdict:
    key, title = "black-box", "An attack without gradients does not beat one with them"
    pairs = {name: pair for name in ("square", "transfer") if (pair := f.pair(f.records, name=name))}
    if not pairs:
        return _missing(key, title, "Square or transfer beside PGD with 20 steps")
    outcomes: dict[str, Outcome] = {name: _compared(*pair, f.n) for name, pair in pairs.items()}
    outcome = _worst(outcomes.values())
    name = next(n for n, o in outcomes.items() if o == outcome)
    words: dict[Outcome, str] = {
        "pass": f"{_listing(pairs)} {'fools' if len(pairs) == 1 else 'fool'} no more samples than PGD with 20 steps.",
        "fail": f"{name.capitalize()} fools {_samples(pairs[name][0])} that PGD with 20 steps does not, the reverse holds for "
        f"{pairs[name][1]:,}: the gradients mislead.",
        "undecided": _too_few(f.n),
    }
    accuracies = [(f"accuracy {one}", f.value("accuracy", f.records, name=one)) for one in pairs]
    return _judged(key, title, outcome, words, *accuracies, ("accuracy pgd-20", f.accuracy))


def _larger_eps(f: _Figures) -> Verdict:
    key, title = "larger-eps", "A larger ε fools more"
    curve = _eps_curve(f)
    pairs = {eps: f.pair(f.pgd, eps=eps, steps=STEPS) for eps in curve if eps != f.eps}
    # what only the smaller of two ε fools speaks against, what only the larger fools for it
    known = {eps: pair if eps < f.eps else (pair[1], pair[0]) for eps, pair in pairs.items() if pair}
    if not known:
        return _missing(key, title, "PGD with 20 steps at other ε")
    outcomes: dict[float, Outcome] = {eps: _compared(*pair, f.n) for eps, pair in known.items()}
    outcome = _worst(outcomes.values())
    at = next(eps for eps, o in outcomes.items() if o == outcome)
    words: dict[Outcome, str] = {
        "pass": "The larger ε, the more samples PGD with 20 steps fools.",
        "fail": f"PGD with 20 steps fools more samples at ε = {eps_text(min(at, f.eps))} than at ε = {eps_text(max(at, f.eps))}, although "
        "the larger set holds the smaller: the gradients mislead.",
        "undecided": _too_few(f.n),
    }
    return _judged(key, title, outcome, words, *[(f"accuracy at ε = {eps_text(eps)}", value) for eps, value in curve.items()])


def _unbounded(f: _Figures) -> Verdict:
    key, title = "unbounded", "With an unbounded ε every sample is fooled"
    curve = _eps_curve(f)
    missing = _missing(key, title, "PGD with 20 steps at larger ε, up to the width of the data")
    if not any(eps > f.eps for eps in curve):
        return missing
    # a larger set holds the smaller ones, so the least accuracy anywhere is that of the largest
    left, last = min(curve.values()), max(curve)
    outcome = _none(f.count(left), f.n)
    # only the curve of the checks, which stands beside the reference, is known to end at the width of the data; it may be blind there
    widest = max((_eps(r) for r in f.pgd if r.perturbation["steps"] == STEPS), default=last)
    whole = any(f.pair(f.pgd, eps=eps, steps=STEPS) for eps in curve if eps > f.eps) and last >= widest / 2
    if outcome != "pass" and left > 0 and not whole:
        return missing
    words: dict[Outcome, str] = {
        "pass": f"PGD with 20 steps leaves {_percent(left)} of the samples right at an ε of at most {eps_text(last)}.",
        "fail": f"PGD with 20 steps leaves {_percent(left)} of the samples right whatever the ε, up to {eps_text(last)}: an attack that "
        "may change everything and fails does not see the way.",
        "undecided": _too_few(f.n),
    }
    return _judged(key, title, outcome, words, ("accuracy left", left), ("largest ε", last))


def _random_search(f: _Figures) -> Verdict:
    key, title = "random-search", "Random search finds nothing that gradients do not"
    share = f.value("random_only", f.records, name="random-noise")
    if share is None:
        return _missing(key, title, f"random noise with {DRAWS} draws beside PGD with 20 steps")
    words: dict[Outcome, str] = {
        "pass": f"Random search fools {f.count(share):,} of {f.n:,} samples that PGD with 20 steps does not.",
        "fail": f"Random search fools {f.count(share):,} of {f.n:,} samples that PGD with 20 steps does not: the gradients mislead.",
        "undecided": f"Random search fools {_samples(f.count(share))} that PGD with 20 steps does not. {_too_few(f.n)}",
    }
    noises = [
        (f"accuracy {kind} noise", f.value("accuracy", f.records, name="random-noise", kind=kind, draws=1))
        for kind in ("uniform", "corner")
    ]
    return _judged(key, title, _none(f.count(share), f.n), words, ("share only random", share), *noises, ("accuracy pgd-20", f.accuracy))


def _zero_gradients(f: _Figures) -> Verdict:
    key, title = "zero-gradients", "Gradients are not zero"
    every = f.value("zero_gradient_share", f.pgd, steps=STEPS)
    # one step is one gradient a sample, where PGD begins; where the reference sees none at all, it alone was made
    share = 1.0 if every == 1 else f.value("zero_gradient_share", f.pgd, steps=1)
    if share is None:
        return _missing(key, title, "PGD with one step")
    # it is a share of those that were right from the start
    asked = (f.value("gradient_evaluations", f.pgd, steps=1) or f.eot) / f.eot
    count = f.count(share * asked)
    blind = f"{count:,} of {f.n:,} samples"
    words: dict[Outcome, str] = {
        "pass": f"{blind} have a zero gradient where PGD begins.",
        "fail": f"{blind} have a gradient that is zero in every entry where PGD begins: an attacker learns nothing from it.",
        "undecided": f"{blind} have a zero gradient where PGD begins. {_too_few(f.n)}",
    }
    shares = (("share of samples", share * asked), ("share of all gradients of pgd-20", every))
    return _judged(key, title, _none(count, f.n), words, *shares)


def _flat_steps(f: _Figures) -> Verdict:
    key, title = "steps", "More steps change nothing more"
    last = STEPS_CURVE[-1]
    pair = f.pair(f.pgd, steps=last)
    if pair is None:
        return _missing(key, title, f"PGD with {last} steps beside 20")
    gain = max(0, pair[0] - pair[1])
    # samples that only the fewer of two numbers of steps fool speak against the gradients
    shorter = {steps: one for steps in STEPS_CURVE if steps < STEPS and (one := f.pair(f.pgd, steps=steps))}
    lost = [(steps, STEPS, *one) for steps, one in shorter.items() if _more(*one)]
    lost += [(STEPS, last, pair[1], pair[0])] if _more(pair[1], pair[0]) else []
    words: dict[Outcome, str] = {
        "pass": f"From 20 to {last} steps PGD gains {gain:,} of {f.n:,} samples.",
        "fail": f"From 20 to {last} steps PGD still gains {gain:,} of {f.n:,} samples: it has not come to its end, take more steps.",
        "undecided": f"From 20 to {last} steps PGD gains {_samples(gain)}. {_too_few(f.n)}",
    }
    if lost:
        fewer, more, here, there = lost[-1]
        words["fail"] = (
            f"PGD with {fewer} {'step' if fewer == 1 else 'steps'} fools {_samples(here)} that {more} steps do not, the reverse holds for "
            f"{there:,}: the steps lose their way."
        )
    curve = [(f"accuracy pgd-{steps}", f.value("accuracy", f.pgd, steps=steps)) for steps in STEPS_CURVE]
    return _judged(key, title, "fail" if lost else _none(gain, f.n), words, *curve)


def _ensemble(f: _Figures) -> Verdict:
    key, title = "ensemble", "An ensemble of attacks is not far below a single one"
    found = {name: value for name in ("ensemble", "autoattack") if (value := f.value("accuracy", f.records, name=name)) is not None}
    for name, accuracy in found.items():
        if accuracy > 0 and f.sees_nothing(name):
            why = f"No gradient says anything to the {name}: the {_percent(accuracy)} that it leaves are what queries leave."
            return Verdict(key, title, "fail", why, ((f"accuracy {name}", accuracy),))
    if not found or f.accuracy is None:
        return _missing(key, title, "ensemble or autoattack beside PGD with 20 steps")
    name = min(found, key=lambda one: found[one])
    gap = max(0, f.count(f.accuracy) - f.count(found[name]))
    words: dict[Outcome, str] = {
        "pass": f"The {name} fools {gap:,} of {f.n:,} samples more than PGD with 20 steps.",
        "fail": f"The {name} fools {gap:,} of {f.n:,} samples more than PGD with 20 steps: single attacks mislead here (PGD-20 would "
        f"have said {_percent(f.accuracy)}); the {name}'s figure stands.",
        "undecided": f"The {name} fools {_samples(gap)} more than PGD with 20 steps. {_too_few(f.n)}",
    }
    outcome = _none(gap, f.n, FAR)
    verdict = _judged(key, title, outcome, words, (f"accuracy {name}", found[name]), ("accuracy pgd-20", f.accuracy))
    return replace(verdict, single=outcome == "fail")


def _draws(f: _Figures) -> Verdict:
    key, title = "draws", "Gradients are means over the draws of a stochastic network"
    stochastic = f.value("stochastic", f.pgd, steps=STEPS)
    if stochastic is None:
        return _missing(key, title, "whether the network is stochastic")
    words: dict[Outcome, str] = {
        "pass": f"Every gradient is the mean over {f.eot} draws." if stochastic else "The network gives the same at every call.",
        "fail": "The network is stochastic and every gradient is that of one draw: accuracy looks better than it is, give eot=10 or more.",
    }
    return _judged(key, title, "fail" if stochastic and f.eot == 1 else "pass", words, ("stochastic", stochastic), ("draws", f.eot))


def _eps_curve(f: _Figures) -> dict[float, float]:
    """Return accuracy under the reference by its ε."""
    return {_eps(r): r.value for r in sorted(f.pgd, key=_eps) if _on_curve(r)}


def _on_curve(record: Record) -> bool:
    return record.metric == "accuracy" and record.perturbation["steps"] == STEPS


def _worst(outcomes: Iterable[Outcome]) -> Outcome:
    found = set(outcomes)
    return "fail" if "fail" in found else "undecided" if "undecided" in found else "pass"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _listing(names: Iterable[str]) -> str:
    return " and ".join(names).capitalize()
