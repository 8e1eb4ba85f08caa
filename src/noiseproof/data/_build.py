"""From tensors (`as_samples`, `as_labels`) to `Splits`, the one way for named sets and outside data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noiseproof.data._augment import augmented
from noiseproof.data._checks import labels_within, same_length
from noiseproof.data._splits import Split, Splits, Task, check_limit, hold_out, statistics
from noiseproof.errors import require

if TYPE_CHECKING:
    from torch import Tensor

Pair = tuple["Tensor", "Tensor"]


def build(
    name: str,
    train: Pair,
    test: Pair,
    *,
    classes: int,
    bounds: tuple[float, float],
    seed: int,
    validation: float,
    divisor: float = 1.0,  # brings the samples to their own units: 255 for images kept as bytes
    augment: bool = False,
    limit_train: int | None = None,
    limit_test: int | None = None,
) -> Splits:
    """Check both pairs, hold out validation, limit, measure mean and std, augment: in this order."""
    from noiseproof.randomness import generator

    require(isinstance(seed, int) and not isinstance(seed, bool), "seed", seed, "give a whole number")
    check_limit("limit_train", limit_train)
    check_limit("limit_test", limit_test)
    for (x, y), field in ((train, ""), (test, "test ")):
        same_length(x, y, field)
        labels_within(y, classes, f"{field}y")
    shapes = tuple(train[0].shape[1:]), tuple(test[0].shape[1:])
    require(shapes[0] == shapes[1], "shape of test samples", shapes[1], f"training samples have {shapes[0]}; bring both to one shape")
    held_out, rest = hold_out(len(train[1]), validation, seed, "validation")

    def take(pair: Pair, which: Tensor | slice) -> Split:
        x, y = pair[0][which].float(), pair[1][which]
        return Split(x.div_(divisor) if divisor != 1 else x, y)

    kept = take(train, rest[:limit_train])
    mean, std = statistics(kept.x)
    task = Task(name, shapes[0], classes, mean, std, bounds)
    validating = take(train, held_out[:limit_train])
    testing = take((test[0].clone(), test[1].clone()), slice(limit_test))  # a value of our own, never the caller's memory
    return Splits(task, augmented(kept, task, generator("augment", seed)) if augment else kept, validating, testing)
