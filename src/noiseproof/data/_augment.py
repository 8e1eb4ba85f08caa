"""Augmentation as published for paper A: two more copies of the training split, every image rotated and perhaps flipped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from noiseproof.data._splits import Split, Task
from noiseproof.errors import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor

COPIES = 2  # beside the images as they are
DEGREES = 10.0


def augmented(split: Split, task: Task, source: torch.Generator) -> Split:
    """Return `split` followed by two altered copies of it, 3 N samples in all (PAPERS.md A6).

    As in the paper's public code (`CNN/import_data.py`): in each copy every image is rotated by its own angle, uniform in
    [−10°, 10°], then flipped left to right with probability 1/2; where the rotation needs values from outside the image
    it takes the nearest pixel. Only ever given the training split, after hold-out and limits (public code augments
    before it holds out). Values stay within `task.bounds`.

    Raises `NoiseproofError` for data that are not images [C, H, W].
    """
    import torch

    require(len(task.shape) == 3, "augment", True, f"only images [C, H, W] can be augmented, {task.name} has {task.shape}; leave it out")
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
