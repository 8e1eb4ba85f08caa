"""Figures of attacks, loss landscapes and trainings: one line per method, a band over networks or directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from noiseproof.report.figures import Drawing, line, named
from noiseproof.report.numbers import counts, level, mean, percent
from noiseproof.report.reading import Method
from noiseproof.report.selecting import Curve
from noiseproof.report.studies import Attack, Course, Landscape, clean
from noiseproof.report.svg import canvas, style, svg


def attack(study: Attack, methods: Sequence[Method], name: str) -> Drawing:
    """Accuracy under the worst perturbation found, and at random points of the same set."""
    figure, axes = canvas()
    shown, words = [], []
    for method in methods:
        worst = [(at, study.worst[method.index, at]) for at in study.levels if (method.index, at) in study.worst]
        random = [(at, study.random[method.index, at]) for at in study.levels if (method.index, at) in study.random]
        if not worst:
            continue
        shown.append(method)
        without = clean(method)[0]
        start = [(0.0, without)] if without and study.levels[0] > 0 else []
        look = style(method.look)
        worst, random = start + worst, start + random if random else []
        x = [at for at, _ in worst]
        axes.fill_between(x, [100 * min(v) for _, v in worst], [100 * max(v) for _, v in worst], color=look.colour, alpha=0.16, linewidth=0)
        axes.plot([at for at, _ in random], [100 * mean(v) for _, v in random], color=look.colour, linestyle=(0, (1, 2)), linewidth=1.1)
        line(axes, x, [100 * mean(v) for _, v in worst], method)
        words.append(f"{method.label}: " + ", ".join(f"{percent(mean(v))} % at {level(at)}" for at, v in worst) + _random_words(random))
    axes.set_xlabel("ζ: size of the set, relative to each weight")
    axes.set_ylabel("accuracy, %")
    title = f"Worst weights found ({study.title})"
    return Drawing(
        title,
        "Line: lowest accuracy over all searches, mean over networks; band: lowest and highest network. "
        f"Dotted: random points of the same set. {counts(study.samples, 'test sample')}.",
        svg(figure, name, title, "Accuracy under attack. " + "; ".join(words) + "."),
        named(shown),
    )


def landscape(study: Landscape, methods: Sequence[Method], name: str) -> Drawing:
    """Cross-entropy along random directions: the mean and the range over directions and networks."""
    about = study.about
    look = _Bundle(
        "Loss along random directions" + (f" ({about})" if about else ""),
        "Line: mean over directions and networks; band: lowest and highest. A flat line is an insensitive network. "
        f"{counts(study.samples, 'training sample' if study.split == 'train' else f'{study.split} sample')}.",
        "distance α along the direction",
        "cross-entropy, nats",
    )
    return _bundle(study.curves, methods, name, look)


_BY_EPOCH = "Line: mean over networks; band: lowest and highest."
_COURSES = {
    "validation_accuracy": ("Validation accuracy", "accuracy, %", 100.0),
    "validation_loss": ("Validation loss", "loss, nats", 1.0),
    "train_loss": ("Training loss", "loss (the method's own)", 1.0),
    "ms_mppd": ("MS-MPPD of the last layer during training", "mean of ε²", 1.0),
    "weight_magnitude": ("Size of the weights during training", "mean of |w|", 1.0),
    "accuracy": ("Accuracy {} during training", "accuracy, %", 100.0),
    "cross_entropy": ("Cross-entropy {} during training", "cross-entropy, nats", 1.0),
}


_ABOUT_COURSES = {
    "train_loss": "The whole loss, with what a method adds to the cross-entropy, such as ρ times a distance.",
    "ms_mppd": "ε[t] = λ·ε[t − 1] + Δ[t], Δ: difference of the input currents for validation samples as they are and perturbed.",
}


def course(study: Course, methods: Sequence[Method], name: str) -> Drawing:
    """One metric over the epochs: the mean and the range over networks."""
    plain = study.metric.replace("_", " ")
    title, axis, scale = _COURSES.get(study.metric, (plain.capitalize(), plain, 1.0))
    title = title.format("under attack" if study.searched else "under noise")
    title += f" ({study.about})" if study.about else ""
    caption = " ".join(filter(None, [_ABOUT_COURSES.get(study.metric), _BY_EPOCH]))
    return _bundle(study.curves, methods, name, _Bundle(title, caption, "epoch", axis, scale, whole=True))


@dataclass(frozen=True)
class _Bundle:
    """How a bundle of curves is labelled."""

    title: str
    caption: str
    x: str
    y: str
    scale: float = 1.0  # 100 for per cent
    whole: bool = False  # the horizontal axis counts


def _bundle(curves: Mapping[int, Sequence[Curve]], methods: Sequence[Method], name: str, look: _Bundle) -> Drawing:
    """Draw for every method the mean and the range of its curves."""
    figure, axes = canvas()
    shown, words, every = [], [], []
    for method in methods:
        points = _by_place(curves.get(method.index, ()))
        if not points:
            continue
        shown.append(method)
        x = list(points)
        low, middle, high = ([look.scale * reduce(v) for v in points.values()] for reduce in (min, mean, max))
        every += low + high
        axes.fill_between(x, low, high, color=style(method.look).colour, alpha=0.16, linewidth=0)
        line(axes, x, middle, method, every=max(1, len(x) // 8))
        digits = 1 if look.scale == 100 else 3
        words.append(f"{method.label}: from {middle[0]:.{digits}f} at {level(x[0])} to {middle[-1]:.{digits}f} at {level(x[-1])}")
    caption = look.caption
    if look.scale == 1 and every and min(every) > 0 and max(every) > 50 * min(every):
        axes.set_yscale("log")
        caption += " The scale is logarithmic."
    if look.whole:
        axes.locator_params(axis="x", integer=True)
    axes.set_xlabel(look.x)
    axes.set_ylabel(look.y)
    return Drawing(look.title, caption, svg(figure, name, look.title, "; ".join(words) + "."), named(shown))


def _by_place(curves: Sequence[Curve]) -> dict[float, list[float]]:
    places: dict[float, list[float]] = {}
    for curve in curves:
        for x, value in curve:
            places.setdefault(round(x, 9), []).append(value)
    return dict(sorted(places.items()))


def _random_words(random: Sequence[tuple[float, Sequence[float]]]) -> str:
    if not random:
        return ""
    at, values = random[-1]
    return f" (random points at {level(at)}: {percent(mean(values))} %)"
