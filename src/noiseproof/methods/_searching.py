"""What several methods share: the search of one batch for worse parameters, made aside from the training."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import Shape, ascend
from noiseproof.methods._base import Batch
from noiseproof.parameters import Params, call_aside


def gradient_of_loss(network: nn.Module, params: Params, batch: Batch, at: Params) -> Params:
    """Return ∇CE of the batch at `params` with the tensors of `at` in their place, for the latter; zero for what is not used."""
    x, y = batch
    leaves = {name: p.detach().requires_grad_() for name, p in at.items()}
    with torch.enable_grad():
        loss = cross_entropy(call_aside(network, params | leaves, x), y)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def climbed(
    network: nn.Module, params: Params, batch: Batch, radius: Params, shape: Shape, steps: int, size: float | None = None
) -> Params:
    """Return the displacements δ·r that ascent of the CE finds from θ itself, constants to autograd (Jacobian 1), by name.

    `radius`: r of the parameters that may move. They may be single numbers: they broadcast.
    """
    fixed = {name: p.detach() for name, p in params.items()}
    chosen = {name: fixed[name] for name in radius}
    start = {name: torch.zeros_like(p) for name, p in chosen.items()}
    delta = ascend(lambda at: gradient_of_loss(network, fixed, batch, at), chosen, radius, start, shape, steps, size)
    return {name: delta[name] * r for name, r in radius.items()}


def displaced(params: Params, by: Params) -> Params:
    """Return θ + displacement for the parameters in `by`, all others as they are."""
    return params | {name: params[name] + d for name, d in by.items()}
