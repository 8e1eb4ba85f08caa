"""Train, validation and test: held out by seed, before anything else happens to the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noiseproof.errors import NoiseproofError, require

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What a network must know about its data: shapes, classes, normalisation and the valid range of inputs.

    `mean` and `std` are one number per channel, of the training split before augmentation: per C for images [C, H, W] and
    for sequences of images [T, C, H, W], per F for sequences [T, F], one number in all for vectors [F]. A constant channel
    gets std 1.

    >>> Task("digits", (1, 28, 28), 10, (0.1,), (0.2,), (0.0, 1.0)).classes
    10
    """

    name: str
    shape: tuple[int, ...]  # of one sample, e.g. (1, 28, 28)
    classes: int
    mean: tuple[float, ...]  # per channel, in the data's own units
    std: tuple[float, ...]  # per channel, above 0
    bounds: tuple[float, float]  # valid input range, e.g. (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Split:
    """Samples `x` (float32 [N, *shape], the data's own units) and labels `y` (int64 [N])."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: str) -> Split:
        """Return the same samples on `device`."""
        return Split(self.x.to(device), self.y.to(device))


@dataclass(frozen=True, eq=False)
class Splits:
    """A task and its three splits; `validation` never shares a sample with `train`, augmented or not.

    `augment_batch`, where there is one, alters x of a training batch: (x, generator) → x of the same shape. Training calls it
    on every batch of every epoch; it is never given validation or test samples.
    """

    task: Task
    train: Split
    validation: Split
    test: Split
    augment_batch: Callable[[Tensor, torch.Generator], Tensor] | None = None


def hold_out(total: int, share: float, seed: int, field: str) -> tuple[Tensor, Tensor]:
    """Return the indices (held out, rest) of `total` samples, both in the random order that belongs to `field` and `seed`.

    `share` below 1 is a fraction (rounded to whole samples), from 1 on a count.

    Raises `NoiseproofError` when either part would be empty; the message names `field`.
    """
    import torch

    from noiseproof.randomness import generator

    count = counted(total, share, field)
    order = torch.randperm(total, generator=generator(field, seed))
    return order[:count], order[count:]


def hold_out_groups(groups: Tensor, share: float, seed: int, field: str) -> tuple[Tensor, Tensor]:
    """Return the indices (held out, rest) like `hold_out`, such that no group (equal numbers in `groups` [N]) is in both.

    Groups are taken in the random order that belongs to `field` and `seed`, each one that brings the number of samples
    closer to `share`: it is met approximately. A class that only few groups have may be missing in either part.

    Raises `NoiseproofError` as `hold_out`, and when all samples are of one group.
    """
    import torch

    from noiseproof.randomness import generator

    wanted = counted(len(groups), share, field)
    _, member, sizes = groups.unique(return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise NoiseproofError(f"{field} is {share!r}: all samples are of one group (such as one patient), which cannot be divided")
    source = generator(field, seed)
    taken, chosen = 0, []
    for group in torch.randperm(len(sizes), generator=source).tolist():
        size = int(sizes[group])
        if abs(taken + size - wanted) < abs(taken - wanted) and len(chosen) < len(sizes) - 1:
            taken += size
            chosen.append(group)
    chosen = chosen or [int(sizes.argmin())]  # every group is more than twice what is wanted
    order = torch.randperm(len(groups), generator=source)
    held_out = torch.isin(member, torch.tensor(chosen))[order]
    return order[held_out], order[~held_out]


def counted(total: int, share: float, field: str) -> int:
    """Return how many of `total` samples `share` asks for; raise `NoiseproofError` when nothing would be taken or left."""
    real = isinstance(share, int | float) and not isinstance(share, bool)
    valid = real and (0 < share < 1 or (1 <= share < float("inf") and share == int(share)))
    require(valid, field, share, "give a fraction between 0 and 1 or a whole number of samples")
    count = round(total * share) if share < 1 else int(share)
    if not 0 < count < total:
        raise NoiseproofError(f"{field} is {share!r}: it takes {count} of {total} samples; choose it so that something is taken and left")
    return count


def check_limit(field: str, limit: int | None) -> None:
    """Raise `NoiseproofError` unless `limit` is None or a whole number of at least 1."""
    whole = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1
    require(limit is None or whole, field, limit, "give a whole number of at least 1, or leave it out to use all samples")


def statistics(x: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (over N, not N − 1) per channel of x [N, *shape]; see `Task` for what a channel is."""
    import torch

    channel = {2: None, 3: 2, 5: 2}.get(x.ndim, 1)  # [N, F]: one for all; [N, T, F]: F; [N, T, C, H, W] and [N, C, H, W]: C
    dims = [d for d in range(x.ndim) if d != channel]
    std, mean = torch.std_mean(x, dim=dims, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    return tuple(mean.reshape(-1).tolist()), tuple(std.reshape(-1).tolist())
