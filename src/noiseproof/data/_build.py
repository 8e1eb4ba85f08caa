"""From tensors (`as_samples`, `as_labels`) to `Splits`, the one way for named sets and outside data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from noiseproof.data._augment import Augmentation, CropAndFlip, augmented, check_images
from noiseproof.data._checks import labels_within, same_length
from noiseproof.data._splits import Split, Splits, Task, check_limit, hold_out, hold_out_groups, statistics
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
    groups: Tensor | None = None,  # [N] of the training samples: validation takes whole groups
    published: Pair | None = None,  # a validation split of its own: nothing is held out
    divisor: float = 1.0,  # brings the samples to their own units: 255 for images kept as bytes
    augmentation: Augmentation = "none",
    cutout: int = 0,
    limit_train: int | None = None,
    limit_test: int | None = None,
) -> Splits:
    """Check all pairs, hold out validation, limit, measure mean and std, augment: in this order."""
    import torch

    from noiseproof.randomness import generator

    require(isinstance(seed, int) and not isinstance(seed, bool), "seed", seed, "give a whole number")
    check_limit("limit_train", limit_train)
    check_limit("limit_test", limit_test)
    shape = tuple(train[0].shape[1:])
    for (x, y), field in ((train, ""), (test, "test "), *([(published, "validation ")] if published else [])):
        same_length(x, y, field)
        labels_within(y, classes, f"{field}y")
        other = tuple(x.shape[1:])
        require(other == shape, f"shape of {field}samples", other, f"training samples have {shape}; bring both to one shape")
    if groups is not None:
        held_out, rest = hold_out_groups(groups, validation, seed, "validation")
    elif published is None:
        held_out, rest = hold_out(len(train[1]), validation, seed, "validation")
    else:  # in random order as well: a limit takes the first of them
        order = generator("validation", seed)
        held_out, rest = (torch.randperm(len(y), generator=order) for y in (published[1], train[1]))

    def take(pair: Pair, which: Tensor | slice) -> Split:
        x, y = pair[0][which].float(), pair[1][which]
        return Split(x.div_(divisor) if divisor != 1 else x, y)

    kept = take(train, rest[:limit_train])
    mean, std = statistics(kept.x)
    task = Task(name, shape, classes, mean, std, bounds)
    validating = take(published or train, held_out[:limit_train])
    testing = take((test[0].clone(), test[1].clone()), slice(limit_test))  # a value of our own, never the caller's memory
    if augmentation == "rotated copies":
        kept = augmented(kept, task, generator("augment", seed))
    elif augmentation == "crop and flip":
        check_images(task)
        require(cutout <= min(shape[1:]), "cutout", cutout, f"images of {name} are {shape[1]}×{shape[2]}; give at most the shorter side")
        return Splits(task, kept, validating, testing, CropAndFlip(cutout=cutout, blank=mean))
    return Splits(task, kept, validating, testing)
