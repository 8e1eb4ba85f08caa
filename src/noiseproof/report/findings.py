"""What was found, in sentences made from the numbers. Nothing is claimed that the records do not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from noiseproof.numbers import eps_text
from noiseproof.report import certified_ladders
from noiseproof.report.input_attack_checks import in_doubt
from noiseproof.report.input_attacks import eps_words
from noiseproof.report.input_attacks import studies as input_attacks
from noiseproof.report.numbers import count, counts, level, listing, mean, p_value, percent, share
from noiseproof.report.reading import Method, baseline_of, tasks
from noiseproof.report.studies import Noise, Tolerated, attacks, clean, mean_level, spoken_about, tolerated
from noiseproof.statistics import Summary, per_network_test, summary


def findings(methods: Sequence[Method], required: float | None = None) -> list[str]:
    """Return what was found on one task, in sentences."""
    studies = spoken_about(methods)
    under_noise = _under_noise(studies[0], methods, required) if studies else []
    return under_noise + _under_input_attack(methods) + _under_attack(methods) + _certified(methods) + _tolerated(methods)


def what_was_measured(methods: Sequence[Method]) -> str:
    """Return the first sentence: how many networks, trained how and on what, on how many chips."""
    networks = sum(len(m.networks) for m in methods)
    data = sorted({m.data for m in methods if m.data})
    kinds = len({m.label for m in methods})
    start = f"{count(networks, 'network')} trained by {count(kinds, 'method')}" + (f" on {listing(data)}" if data else "")
    verb = "was" if networks == 1 else "were"
    chip_counts = [n for _, members in tasks(methods) for noise in spoken_about(members) for n in noise.chip_counts]
    on_chips = sum(any(r.chip is not None for r in network.records) for m in methods for network in m.networks)
    chips = " measured"
    if chip_counts:
        some = "" if on_chips == networks else f", {on_chips:,} of them"
        chips += f"{some} on {counts(chip_counts, 'simulated chip')} a level"
    mixed = " The runs are on different data: compare only methods on the same data." if len(data) > 1 else ""
    return f"{start} {verb}{chips}.{mixed}"


def _under_noise(noise: Noise, methods: Sequence[Method], required: float | None) -> list[str]:
    at = noise.headline
    found = {m.index: summary(noise.values(m, at), required) for m in methods if noise.values(m, at)}
    measured = [m for m in methods if m.index in found]
    if not measured:
        return []
    where = f"At {noise.family.place(at)}"
    best = max(measured, key=lambda m: found[m.index].mean)
    baseline = baseline_of(best, measured)
    if baseline is None:
        others = " No other method keeps more." if len(measured) > 1 else ""
        return [f"{where}, {best.label} keeps {_kept(found[best.index])}.{others}"]
    gain = found[best.index].mean - found[baseline.index].mean
    sentences = [
        f"{where}, {best.label} keeps {_kept(found[best.index])}, while {baseline.label} keeps {_kept(found[baseline.index])}: "
        f"{percent(gain)} points apart.",
        _is_it_the_method(noise, best, baseline, at, picked=len(measured) > 2),
    ]
    clean_best, clean_baseline = clean(best)[0], clean(baseline)[0]
    if clean_best and clean_baseline:
        first, second = percent(mean(clean_best)), percent(mean(clean_baseline))
        sentences.append(f"Without noise {best.label} reaches {first} % and {baseline.label} {second} %.")
    return sentences


def _kept(s: Summary) -> str:
    text = f"{percent(s.mean)} % on average (worst of {count(s.n, 'chip')} {percent(s.minimum)} %"
    if s.chip_yield is not None and s.required is not None:
        text += f", {percent(s.chip_yield)} % of the chips at or above {share(s.required)} %"
    return text + ")"


def _is_it_the_method(noise: Noise, best: Method, baseline: Method, at: float, picked: bool) -> str:
    p = per_network_test(noise.groups(best, at), noise.groups(baseline, at))
    if p is None:
        return "With so few networks nothing tells a difference between methods from one between two trainings; more seeds would."
    networks = f"{len(noise.groups(best, at))} and {len(noise.groups(baseline, at))} networks"
    verdict = "larger than" if p < 0.05 else "not clearly larger than"
    p_text = f"p = {p_value(p)}".replace("= <", "<")
    uncorrected = ", not corrected for having picked the highest mean" if picked else ""
    return f"Network by network ({networks}, Welch's t test, {p_text}{uncorrected}) this is {verdict} the spread between trainings."


def _under_attack(methods: Sequence[Method]) -> list[str]:
    for attack in attacks(methods)[:1]:
        at = attack.headline
        kept = {m.label: mean(attack.worst[m.index, at]) for m in methods if at is not None and (m.index, at) in attack.worst}
        if at is not None and kept:
            left = _extremes(kept, lambda accuracy: f"{percent(accuracy)} %")
            return [f"The accuracy that the worst weights found within ζ = {level(at)} leave {left}."]
    return []


def _under_input_attack(methods: Sequence[Method]) -> list[str]:
    """Return what attacks on the inputs leave, and what the single attack that papers report would have said."""
    sentences = []
    for study in input_attacks(methods):
        at = study.headline
        worst = {m: found for m in methods if (found := study.worst(m, at))}
        if not worst:
            continue
        doubted = {m.index for m in worst if in_doubt(m, at, study.norm)}
        kept = {m.label + (" (in doubt: see the warning)" if m.index in doubted else ""): left.mean for m, (_, left) in worst.items()}
        smaller = {m.label: found for m in worst if (found := study.least_from(m, at)) is not None}
        together = all(kind.several for kind, _ in worst.values()) and not smaller
        which = ", the worst of an ensemble sample by sample," if together else ""
        sentences.append(
            f"The accuracy that attacks on the inputs leave at {eps_words(at, study.norm)}{which} "
            f"{_extremes(kept, lambda accuracy: f'{percent(accuracy)} %')}."
        )
        best, (kind, left) = max(worst.items(), key=lambda item: (item[0].index not in doubted, item[1][1].mean))
        low, high = left.interval
        sentences.append(f"For {best.label} the 95 % interval over {left.samples:,} samples is {percent(low)} to {percent(high)} %.")
        usual = study.usual(best, at)
        if usual and usual[0] != kind and usual[1].mean > left.mean:
            sentences.append(f"{usual[0].title} alone would have said {percent(usual[1].mean)} %.")
        for label, found in smaller.items():
            sentences.append(f"The figure of {label} is a bound from above: it is from ε = {eps_text(found)}, which the larger ε holds.")
        if single := [m.label for m in worst if not study.is_worst_case(m, at)]:
            which = f"The figure of {listing(single)} is" if len(single) == 1 else f"The figures of {listing(single)} are"
            sentences.append(f"{which} a bound from above: only single attacks were made, and several together may leave less.")
    return sentences


def _certified(methods: Sequence[Method]) -> list[str]:
    """Return what is proved in a box on the weights, and how near the strongest attack comes to it."""
    for boxes in certified_ladders.studies(methods)[:1]:
        at = boxes.headline
        ladders = {m: found for m in methods if (found := boxes.of(m, at))}
        named = {
            m: m.label + (f" ({other} alone)" if (other := certified_ladders.arithmetic(found)) else "") for m, found in ladders.items()
        }
        proved = {named[m]: value for m, found in ladders.items() if (value := certified_ladders.certified(found)) is not None}
        if not proved:
            continue
        left = {named[m]: value for m, found in ladders.items() if (value := certified_ladders.survived(found)) is not None}
        where = f"in the box z = {level(at)} ({boxes.title})"
        sentences = [
            f"The share of {count(boxes.samples, 'test sample')} that is proved right on every chip {where} "
            f"{_extremes(proved, lambda fraction: f'{percent(fraction)} %')}."
        ]
        best = max(proved, key=lambda label: proved[label])
        if best in left:
            sentences.append(f"The strongest attack in that box leaves {percent(left[best])} % for {best}.")
        return sentences
    return []


def _tolerated(methods: Sequence[Method]) -> list[str]:
    sentences: list[str] = []
    for (family, accuracy, part), answers in tolerated(methods).items():
        reach = {m.label + _missed(answers[m.index]): mean_level(answers[m.index]) for m in methods if m.index in answers}
        condition = f"{share(part)} % of the chips stay at or above {share(accuracy)} %"
        level_of = family.words if family.setting == "zeta" else f"largest {family.symbol} of {family.words}"
        sentences.append(f"The {level_of} up to which {condition} {_extremes(reach, lambda at, family=family: family.reached(at, 2))}.")
    return sentences


def _missed(answers: Sequence[Tolerated]) -> str:
    missed = sum(answer.level is None for answer in answers)
    return f" (without {missed} of {len(answers)} networks, which tolerate none)" if 0 < missed < len(answers) else ""


def _extremes(values: Mapping[str, float], write: Callable[[float], str]) -> str:
    """Return the end of a sentence: all values where they are at most three, else the lowest and the highest; the tables have every one."""
    ordered = sorted(values.items(), key=lambda item: -item[1])
    if len(ordered) <= 3:
        return "is " + listing(f"{write(value)} for {label}" for label, value in ordered)
    (best, high), (worst, low) = ordered[0], ordered[-1]
    return f"lies between {write(low)} ({worst}) and {write(high)} ({best})"
