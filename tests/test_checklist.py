"""The verdicts on made-up records: what passes, what fails, and that a single sample decides nothing."""

from collections.abc import Mapping
from typing import Any

import pytest

from noiseproof.checklist import ONLY_HERE, ONLY_REFERENCE, STEPS_CURVE, Verdict, checked, reference, verdicts
from noiseproof.records import Record

EPS = 8 / 255
SIZE = {"eps": EPS, "norm": "linf", "eot": 1}
FGSM = {"name": "fgsm", **SIZE, "loss": "ce"}
SQUARE = {"name": "square", **SIZE, "queries": 500}
TRANSFER = {"name": "transfer", **SIZE, "source": "standard, seed 1", "attack": "pgd(steps=20)"}
ENSEMBLE = {"name": "ensemble", **SIZE}


def figure(
    perturbation: Mapping[str, Any], accuracy: float, only_here: int = 0, only_reference: int = 0, *, n=1000, seed=0
) -> list[Record]:
    """The records of one attack beside the reference at EPS."""
    at = {"eps": EPS}
    counts = ((ONLY_HERE, only_here), (ONLY_REFERENCE, only_reference))
    shares = [Record("run", metric, count / n, n, perturbation=perturbation, at=at, seed=seed) for metric, count in counts]
    return [*shares, Record("run", "accuracy", accuracy, n, perturbation=perturbation, seed=seed)]


def noise(kind: str, draws: int) -> dict[str, Any]:
    return {"name": "random-noise", **SIZE, "kind": kind, "draws": draws}


def network(*, n=1000, seed=0, zero=0.0, random_only=0, **others: list[Record]) -> list[Record]:
    """The records of a network that hides nothing; `others` take the place of some of them."""
    pgd, first = reference(EPS, "linf"), reference(EPS, "linf", steps=1)
    kept = {
        "reference": [Record("run", "accuracy", 0.3, n, perturbation=pgd, seed=seed)],
        "zeros": [Record("run", "zero_gradient_share", zero, n, perturbation=first, seed=seed)],
        "stochastic": [Record("run", "stochastic", 0.0, n, perturbation=pgd, seed=seed)],
        "fgsm": figure(FGSM, 0.4, 0, n // 10, n=n, seed=seed),
        "square": figure(SQUARE, 0.5, 2, n // 5, n=n, seed=seed),
        "small": figure(reference(EPS / 2, "linf"), 0.6, 0, 3 * n // 10, n=n, seed=seed),
        "large": figure(reference(1.0, "linf"), 0.0, 3 * n // 10, 0, n=n, seed=seed),
        "noise": [Record("run", "accuracy", 0.9, n, perturbation=noise(kind, 1), seed=seed) for kind in ("uniform", "corner")],
        "random": [Record("run", "random_only", random_only / n, n, perturbation=noise("corner", 50), seed=seed)],
        "steps": [r for k in STEPS_CURVE if k != 20 for r in figure(reference(EPS, "linf", steps=k), 0.3, 5, 5, n=n, seed=seed)],
        "ensemble": [Record("run", "accuracy", 0.29, n, perturbation=ENSEMBLE, seed=seed)],
    }
    return [record for records in {**kept, **others}.values() for record in records]


def judged(records: list[Record], key: str, eps: float = EPS) -> Verdict:
    return next(v for v in verdicts(records, eps, "linf") if v.key == key)


def test_an_honest_network_passes_all_nine() -> None:
    found = verdicts(network(), EPS, "linf")
    assert len(found) == 9
    assert [v.key for v in found if v.outcome != "pass"] == []
    assert dict(judged(network(), "steps").evidence) == {f"accuracy pgd-{k}": 0.3 for k in STEPS_CURVE}
    assert dict(judged(network(), "single-step").evidence) == {"accuracy fgsm": 0.4, "accuracy pgd-20": 0.3}


@pytest.mark.parametrize(
    ("key", "changed", "words"),
    [
        ("single-step", {"fgsm": figure(FGSM, 0.25, 60, 10)}, "60 samples that PGD with 20 steps does not, the reverse holds for 10"),
        ("black-box", {"square": figure(SQUARE, 0.2, 110, 10)}, "Square fools 110"),
        ("black-box", {"transfer": figure(TRANSFER, 0.2, 110, 10)}, "Transfer fools 110"),
        ("larger-eps", {"small": figure(reference(EPS / 2, "linf"), 0.2, 110, 10)}, "at ε = 4/255 than at ε = 8/255"),
        ("larger-eps", {"middle": figure(reference(0.5, "linf"), 0.4, 10, 110)}, "at ε = 8/255 than at ε = 0.5"),
        ("unbounded", {"large": figure(reference(1.0, "linf"), 0.2, 110, 10)}, "leaves 20.0 % of the samples right whatever the ε"),
        ("random-search", {"random_only": 60}, "fools 60 of 1,000"),
        ("zero-gradients", {"zero": 0.2}, "200 of 1,000 samples have a gradient that is zero in every entry"),
        ("steps", {"steps": figure(reference(EPS, "linf", steps=40), 0.2, 110, 10)}, "still gains 100 of 1,000"),
        ("steps", {"steps": figure(reference(EPS, "linf", steps=40), 0.4, 10, 110)}, "20 steps fools 110 samples that 40 steps do not"),
        ("steps", {"few": figure(reference(EPS, "linf", steps=5), 0.2, 110, 10)}, "5 steps fools 110 samples that 20 steps do not"),
        ("draws", {"stochastic": [Record("run", "stochastic", 1.0, 1000, perturbation=reference(EPS, "linf"), seed=0)]}, "give eot=10"),
        ("ensemble", {"ensemble": [Record("run", "accuracy", 0.1, 1000, perturbation=ENSEMBLE, seed=0)]}, "fools 200 of 1,000"),
        (
            "ensemble",
            {"asked": [Record("run", "gradient_evaluations", 0.0, 1000, perturbation=ENSEMBLE, seed=0)]},
            "No gradient says anything to the ensemble",
        ),
    ],
)
def test_each_check_fails_where_gradients_are_masked(key: str, changed: dict[str, Any], words: str) -> None:
    verdict = judged(network(**changed), key)
    assert verdict.outcome == "fail"
    assert words in verdict.sentence
    assert verdict.evidence
    assert [v.key for v in verdicts(network(**changed), EPS, "linf") if v.outcome == "fail"] == [key]


def test_a_single_sample_decides_nothing() -> None:
    n = 60
    close = network(
        n=n,
        fgsm=figure(FGSM, 0.3, 2, 1, n=n),
        square=figure(SQUARE, 0.3, 2, 1, n=n),
        small=figure(reference(EPS / 2, "linf"), 0.3, 2, 1, n=n),
        large=figure(reference(1.0, "linf"), 1 / n, 17, 0, n=n),
        steps=figure(reference(EPS, "linf", steps=40), 0.28, 2, 1, n=n),
        random_only=1,
        zero=1 / n,
    )
    undecided = [v for v in verdicts(close, EPS, "linf") if v.outcome == "undecided"]
    assert [v.key for v in undecided] == ["single-step", "black-box", "larger-eps", "unbounded", "random-search", "zero-gradients", "steps"]
    assert all("60 samples are too few to decide; 100 suffice where none of them is a case." in v.sentence for v in undecided)
    assert "PGD gains 1 sample." in next(v.sentence for v in undecided if v.key == "steps")


def test_five_against_none_decide_and_four_do_not() -> None:
    assert judged(network(fgsm=figure(FGSM, 0.3, 5, 0, n=80), n=80), "single-step").outcome == "fail"
    assert judged(network(fgsm=figure(FGSM, 0.3, 4, 0, n=80), n=80), "single-step").outcome == "undecided"
    assert judged(network(fgsm=figure(FGSM, 0.3, 0, 5, n=80), n=80), "single-step").outcome == "pass"
    # where neither fools what the other does not, a hundred samples are enough to say that there is next to nothing
    assert judged(network(fgsm=figure(FGSM, 0.3, n=100), n=100), "single-step").outcome == "pass"
    assert judged(network(fgsm=figure(FGSM, 0.3, n=90), n=90), "single-step").outcome == "undecided"


def test_what_was_not_measured_is_undecided_and_says_so() -> None:
    for records in ([], [Record("run", "accuracy", 0.9, 1000)], network(), network(reference=[])):
        found = verdicts(records, 2 * EPS, "linf") + verdicts(records, EPS, "l2")
        assert {v.outcome for v in found} == {"undecided"}
        assert all(v.sentence.startswith("Not measured: ") and not v.evidence for v in found)


def test_the_most_samples_and_the_first_seed_count() -> None:
    few, other = network(n=100, zero=0.5), network(seed=1, zero=0.6)
    records = [*few, *other, *network(zero=0.01)]
    assert dict(judged(records, "zero-gradients").evidence) == {"share of samples": 0.01}
    # one check on fewer samples is better than none
    records = [*network(ensemble=[]), *network(n=100)]
    assert "of 100 samples" in judged(records, "ensemble").sentence


def test_other_attacks_than_the_reference_do_not_stand_for_it() -> None:
    weaker = {**reference(EPS, "linf", steps=1), "surrogate": "atan"}
    momentum = {**reference(EPS, "linf", steps=1), "momentum": 1.0}
    records = [Record("run", "zero_gradient_share", 0.9, 1000, perturbation=p, seed=0) for p in (weaker, momentum)]
    assert judged(network() + records, "zero-gradients").outcome == "pass"
    # a figure followed during the training is none
    tracked = Record("run", "zero_gradient_share", 0.9, 1000, "validation", reference(EPS, "linf", steps=1), seed=0)
    assert judged([*network(zeros=[]), tracked], "zero-gradients").outcome == "undecided"


def test_the_share_of_zero_gradients_is_one_of_samples_at_the_first_point() -> None:
    """Of a thousand samples 500 were right and 20 of these see nothing; most of all gradients are those of a few stubborn ones."""
    first, pgd = reference(EPS, "linf", steps=1), reference(EPS, "linf")
    asked = Record("run", "gradient_evaluations", 0.5, 1000, perturbation=first, seed=0)
    every = Record("run", "zero_gradient_share", 0.6, 1000, perturbation=pgd, seed=0)
    verdict = judged([*network(zero=0.0), asked, every], "zero-gradients")
    assert (verdict.outcome, verdict.sentence) == ("pass", "0 of 1,000 samples have a zero gradient where PGD begins.")
    assert judged([*network(zero=0.04), asked], "zero-gradients").sentence.startswith("20 of 1,000 samples")


def test_an_epsilon_for_every_sample_is_no_reference() -> None:
    several = {**reference(EPS, "linf"), "eps_per_sample": "5d41402abc4b2a76"}
    found = [Record("run", "accuracy", 0.0, 2000, perturbation=several, seed=0), *figure(several, 0.0, 500, 0, n=2000)]
    assert verdicts([*network(), *found], EPS, "linf") == verdicts(network(), EPS, "linf")
    assert checked(found) == ()


def test_draws_of_a_stochastic_network_are_enough_from_two_on() -> None:
    averaged = reference(EPS, "linf", eot=10)
    found = [
        Record("run", metric, value, 1000, perturbation=averaged, seed=0) for metric, value in (("accuracy", 0.3), ("stochastic", 1.0))
    ]
    assert judged(found, "draws").sentence == "Every gradient is the mean over 10 draws."


def test_the_last_digits_of_eps_do_not_matter() -> None:
    assert judged(network(), "single-step", round(EPS, 12)).outcome == "pass"
    assert checked(network()) == ((round(EPS, 12), "linf"),)
    blind = Record("run", "zero_gradient_share", 1.0, 1000, perturbation=reference(0.1, "l2"), seed=0)
    assert checked([blind]) == ((0.1, "l2"),)
    assert verdicts([blind], 0.1, "l2")[5].outcome == "fail"


def at(eps: float, left: float, *, eot=1, n=1000, seed=0) -> Record:
    """PGD with 20 steps, without checks."""
    return Record("run", "accuracy", left, n, perturbation=reference(eps, "linf", eot=eot), seed=seed)


def test_a_curve_that_may_end_before_the_width_of_the_data_does_not_fail() -> None:
    short = [at(EPS, 0.48), at(0.1, 0.48)]
    verdict = judged(network(reference=short, large=[], small=[]), "unbounded")
    assert (verdict.outcome, verdict.sentence.partition(":")[0]) == ("undecided", "Not measured")
    # where nothing is left, how wide the data is does not matter
    assert judged(network(reference=[at(EPS, 0.48), at(0.1, 0.0)], large=[]), "unbounded").outcome == "pass"
    # that of the checks ends at the width
    assert judged(network(large=figure(reference(1.0, "linf"), 0.2, 110, 10)), "unbounded").outcome == "fail"
    # unless the gradients say nothing from some ε on
    blind = Record("run", "zero_gradient_share", 1.0, 1000, perturbation=reference(1.0, "linf"), seed=0)
    early = network(large=figure(reference(2 * EPS, "linf"), 0.2, 110, 10))
    assert judged([*early, blind], "unbounded").outcome == "undecided"


def test_attacks_without_checks_do_not_replace_checks() -> None:
    whole = verdicts(network(), EPS, "linf")
    for other in ({"eot": 2}, {"eot": 2, "n": 2000}, {"n": 2000}, {"seed": 1}):
        assert verdicts([*network(), *(at(eps, 0.48, **other) for eps in (EPS, 0.1))], EPS, "linf") == whole
    # of two with all checks that on more samples counts
    masked = network(n=2000, zero=0.2)
    assert judged([*network(), *masked], "zero-gradients").sentence.startswith("400 of 2,000")


def test_an_ensemble_far_below_speaks_against_single_attacks_alone() -> None:
    far = [Record("run", "accuracy", 0.0, 1000, perturbation=ENSEMBLE, seed=0)]
    verdict = judged(network(ensemble=far), "ensemble")
    assert verdict.outcome == "fail"
    assert verdict.single
    assert "single attacks mislead here (PGD-20 would have said 30.0 %); the ensemble's figure stands" in verdict.sentence
    asked = Record("run", "gradient_evaluations", 0.0, 1000, perturbation=ENSEMBLE, seed=0)
    assert not judged([*network(), asked], "ensemble").single
