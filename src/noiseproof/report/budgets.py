"""What each method was given: settings, epochs, samples, gradient evaluations, time; and in words whether that was the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noiseproof.report.numbers import duration, listing, mean
from noiseproof.report.quantities import TRAINING
from noiseproof.report.reading import Method, Network, choices
from noiseproof.report.studies import total, value_of
from noiseproof.report.sweeps import setting_text
from noiseproof.report.tables import EMPTY, Cell, Column, Table

_MOST_SETTINGS = 5  # that a cell has room for; all of them stand under provenance
_ABOUT_THE_SAME = 1.1  # a ratio that whole epochs and last batches explain
_WORDS = {"noise": "{}", "form": "{} form", "relative_to": "relative to {}"}  # settings in words that say what the perturbation is


def budget_table(methods: Sequence[Method]) -> Table:
    """Return one row per method: how it was trained and what that cost."""
    columns = (
        Column("Method", numeric=False),
        Column("Trained by", "settings that matter", numeric=False),
        Column("Epochs"),
        Column("Samples", "training"),
        Column("Batch"),
        Column("Gradients", "evaluations a step"),
        Column("Gradients", "evaluations in all"),
        Column("Time", "mean over networks"),
    )
    return Table("Budgets", columns, tuple(_row(method) for method in methods if _was_trained(method)))


def budget_words(methods: Sequence[Method]) -> tuple[str, ...]:
    """Return whether the methods had the same epochs, or the same number of gradient evaluations."""
    epochs = {m.label: e for m in methods if (e := _setting(m, "epochs")) is not None}
    gradients = {m.label: g for m in methods if (g := _mean(m, "gradient_evaluations")) is not None}
    if len(methods) < 2 or len(epochs) < len(methods):
        return ()
    same_epochs = len(set(epochs.values())) == 1
    first = f"All methods had the same epochs ({next(iter(epochs.values())):g})"
    if len(gradients) < len(methods):
        return (f"{first}." if same_epochs else f"The methods had {_range(epochs)} epochs.",)
    same_gradients = max(gradients.values()) <= _ABOUT_THE_SAME * min(gradients.values())
    if same_epochs and same_gradients:
        return (f"{first} and about the same number of gradient evaluations.",)
    if same_epochs:
        return (f"{first}, not the same number of gradient evaluations: {_range(gradients)}.",)
    if same_gradients:
        return (f"All methods had about the same number of gradient evaluations, not the same epochs: {_range(epochs)}.",)
    return (
        f"The methods had neither the same epochs ({_range(epochs)}) nor the same number of gradient evaluations ({_range(gradients)}).",
    )


def _was_trained(method: Method) -> bool:
    return _setting(method, "epochs") is not None or _mean(method, "gradient_evaluations") is not None


def _row(method: Method) -> tuple[Cell, ...]:
    samples = [_samples(n) for n in method.networks]
    seconds = [s for n in method.networks if isinstance(s := n.environment.get("training_seconds", total(n, "seconds")), int | float)]
    known = [s for s in samples if s is not None]
    return (
        Cell(method.label),
        Cell(method.kind.replace("-", " "), _settings(method)),
        _number_cell(_setting(method, "epochs")),
        _number_cell(mean(known) if known else None),
        _number_cell(_setting(method, "batch_size")),
        _number_cell(_mean(method, "gradient_evaluations_per_step")),
        _number_cell(_mean(method, "gradient_evaluations")),
        Cell(duration(mean(seconds)), value=mean(seconds)) if seconds else EMPTY,
    )


def _settings(method: Method) -> str:
    """Return the numbers of a method that are not 0, the others than those of its perturbation only where there is room, and its words."""
    mine = method.networks[0].settings.get("method")
    mine = {k: v for k, v in mine.items() if k != "name"} if isinstance(mine, Mapping) else {}
    numbers = {k: v for k, v in mine.items() if isinstance(v, int | float) and not isinstance(v, bool) and v}
    ordered = [k for k in TRAINING if k in numbers]
    ordered += [k for k in numbers if k not in TRAINING] if len(numbers) <= _MOST_SETTINGS else []
    words = [phrase.format(mine[k]) for k, phrase in _WORDS.items() if isinstance(mine.get(k), str)]
    texts = [*words, *(setting_text(f"method.{k}", float(numbers[k])) for k in ordered)]
    return ", ".join(texts)


def _samples(network: Network) -> int | None:
    return next((r.n for r in network.records if r.split == "train" and r.metric in ("train_loss", "gradient_evaluations")), None)


def _setting(method: Method, key: str) -> float | None:
    text = choices(method.networks[0]).get(key)
    return float(text) if text is not None and text.replace(".", "", 1).isdigit() else None


def _mean(method: Method, metric: str) -> float | None:
    values = [v for network in method.networks if (v := value_of(network, metric)) is not None]
    return mean(values) if values else None


def _number_cell(value: float | None) -> Cell:
    return EMPTY if value is None else Cell(f"{value:,.4g}" if value < 100 else f"{value:,.0f}", value=value)


def _range(values: Mapping[str, float]) -> str:
    """As in "360 for standard to 4,680 for β"."""
    low, high = min(values.values()), max(values.values())

    def who(value: float) -> str:
        names = [label for label, v in values.items() if v == value]
        return listing(names) if len(names) < 3 else f"{len(names)} methods"

    return f"{low:,.0f} for {who(low)} to {high:,.0f} for {who(high)}"
