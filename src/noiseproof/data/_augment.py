"""Augmentation as published: rotated copies (paper A's Fashion-MNIST) or a crop and flip of every batch (CIFAR in all papers)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from noiseproof.data._splits import Split, Task
from noiseproof.errors import require, require_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Augmentation = Literal["none", "rotated copies", "crop and flip"]
COPIES = 2  # beside the images as they are
DEGREES = 10.0


def check_augmentation(name: str, kind: Augmentation, augment: bool, cutout: int) -> None:
    """Raise `NoiseproofError` for an augmentation that data set `name` has not; opens no file."""
    require_number("cutout", cutout, 0, whole=True)
    require(not augment or kind != "none", "augment", augment, f"no augmentation is published for {name}; leave it out")
    require(not cutout or augment, "cutout", cutout, "it is a part of the augmentation; set augment too, or leave it out")
    with_cutout = kind == "crop and flip"
    require(
        not cutout or with_cutout, "cutout", cutout, f"{name} is augmented by {kind}; cutout is for crop and flip (CIFAR), leave it out"
    )


def check_images(task: Task) -> None:
    """Raise `NoiseproofError` unless the samples are images [C, H, W]."""
    require(len(task.shape) == 3, "augment", True, f"only images [C, H, W] can be augmented, {task.name} has {task.shape}; leave it out")


@dataclass(frozen=True)
class CropAndFlip:
    """A random crop of each image after a margin of zeros, a flip left to right with probability 1/2, perhaps cutout.

    He et al., arXiv:1512.03385, section 4.2, for CIFAR: 4 pixels on each side. Zeros are in the data's own units: black.
    Cutout (DeVries and Taylor, arXiv:1708.04552): one square of side `cutout`, centred anywhere in the image, so that a part
    of it may lie outside, becomes `blank`, the mean of each channel, as zero is after normalisation.
    """

    margin: int = 4
    cutout: int = 0
    blank: tuple[float, ...] = (0.0,)

    def __call__(self, x: Tensor, source: torch.Generator) -> Tensor:
        """Return an altered copy of x [B, C, H, W]; every image has its own draw from `source`."""
        import torch
        from torch.nn.functional import pad

        total, channels, height, width = x.shape
        image, channel, row, column = (torch.arange(n, device=x.device) for n in x.shape)

        def draw(below: int) -> Tensor:
            return torch.randint(below, (total, 1), generator=source, device=source.device).to(x.device)

        flip, top, left = draw(2).bool(), draw(2 * self.margin + 1), draw(2 * self.margin + 1)
        from_row = row + top
        from_column = torch.where(flip, width - 1 - column, column) + left
        padded = pad(x, (self.margin,) * 4)
        # one gather for the whole batch: no loop over images
        x = padded[image[:, None, None, None], channel[:, None, None], from_row[:, None, :, None], from_column[:, None, None, :]]
        if self.cutout:
            first_row, first_column = draw(height) - self.cutout // 2, draw(width) - self.cutout // 2
            in_rows = (row >= first_row) & (row < first_row + self.cutout)
            in_columns = (column >= first_column) & (column < first_column + self.cutout)
            blank = torch.tensor(self.blank, dtype=x.dtype, device=x.device).expand(channels)[:, None, None]
            x = torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], blank, x)
        return x


def augmented(split: Split, task: Task, source: torch.Generator) -> Split:
    """Return `split` followed by two altered copies of it, 3 N samples in all (PAPERS.md A6).

    As in the paper's public code (`CNN/import_data.py`): in each copy every image is rotated by its own angle, uniform in
    [−10°, 10°], then flipped left to right with probability 1/2; where the rotation needs values from outside the image
    it takes the nearest pixel. Only ever given the training split, after hold-out and limits (public code augments
    before it holds out). Values stay within `task.bounds`.

    Raises `NoiseproofError` for data that are not images [C, H, W].
    """
    import torch

    check_images(task)
    n, piece = len(split), 4096
    x = split.x.new_empty(((1 + COPIES) * n, *task.shape))
    x[:n] = split.x
    for start in range(n, len(x), n):
        angles = (2 * torch.rand(n, generator=source) - 1) * math.radians(DEGREES)
        flip = torch.rand(n, generator=source) < 0.5
        for i in range(0, n, piece):  # in pieces: the grid of coordinates is twice as large as the images
            part = slice(i, i + piece)
            turned = rotate(split.x[part], angles[part])
            chosen = torch.where(flip[part, None, None, None], turned.flip(-1), turned)
            x[start + i : start + i + len(chosen)] = chosen.clamp_(*task.bounds)  # rounding
    return Split(x, split.y.repeat(1 + COPIES))


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate image i of x [N, C, H, W] about its centre by angles[i] (radians, counter-clockwise as seen), bilinear.

    >>> import torch
    >>> corner = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> rotate(corner, torch.tensor([math.pi / 2])).round().tolist()  # from the upper left to the lower left
    [[[[0.0, 0.0], [1.0, 0.0]]]]
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    height, width = x.shape[-2:]
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # where each output pixel comes from; coordinates run over −1…1 along both sides, hence the aspect ratio
    back = torch.stack([cos, -sin * height / width, none, sin * width / height, cos, none], dim=1).view(-1, 2, 3)
    grid = affine_grid(back, list(x.shape), align_corners=False)
    return grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
