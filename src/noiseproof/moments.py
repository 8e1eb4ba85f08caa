"""Steps of an optimiser in which some entries stand still: their values, and their moments in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from noiseproof.config import Recipe
from noiseproof.errors import require
from noiseproof.methods import Method
from noiseproof.parameters import Params


@contextlib.contextmanager
def kept(optimizer: torch.optim.Optimizer, params: Params, free: Params) -> Iterator[None]:
    """Put back at the end what a step did to entries that are not free: their values, and their moments in the optimiser."""
    fixed = [(params[name], ~mask.bool()) for name, mask in free.items()]
    before = [(p.detach().clone(), {k: v.clone() for k, v in _moments(optimizer, p).items()}) for p, _ in fixed]
    yield
    with torch.no_grad():
        for (p, mask), (value, moments) in zip(fixed, before, strict=True):
            # not by indexing with the mask, which takes several times as long
            p.copy_(value.where(mask, p))
            for key, now in _moments(optimizer, p).items():
                # a moment that was not there before the first step was zero
                now.copy_(moments[key].where(mask, now) if key in moments else now.masked_fill(mask, 0.0))


def _moments(optimizer: torch.optim.Optimizer, p: Tensor) -> dict[str, Tensor]:
    return {k: v for k, v in optimizer.state.get(p, {}).items() if isinstance(v, Tensor) and v.shape == p.shape and v.ndim > 0}


def check_moments(method: Method, recipe: Recipe) -> None:
    """Raise `NoiseproofError` for an optimiser whose moments are not one number a parameter: a part of them cannot be kept."""
    p = torch.zeros(2, 3, requires_grad=True)
    p.grad = torch.zeros_like(p)
    optimizer = method.make_optimizer([p]) or recipe.make_optimizer([p])
    optimizer.step()
    of_all = [v for v in optimizer.state[p].values() if isinstance(v, Tensor) and v.ndim > 0 and v.shape != p.shape]
    remedy = "its moments are shared between weights, half of which must stand still; take Adam or SGD"
    require(not of_all, "optimizer", recipe.optimizer, remedy)
