"""What several methods share: the search of one batch for worse parameters or inputs, made aside from the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import CutBox, Shape, ascend
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


def worse_inputs(
    network: nn.Module, params: Params, batch: Batch, eps: float, step: float, steps: int, generator: torch.Generator
) -> Tensor:
    """Return inputs within `eps` of x, inside the network's `bounds`, that ascent of the CE makes worse; a random start.

    x_0 = x + U(−ε, ε), x_t = Π(x_{t−1} + step·sign(∇_x CE)). Source: Madry et al., arXiv:1706.06083.
    """
    x, y = batch
    low, high = network.bounds  # type: ignore[misc]  (every network of noiseproof, and every adapted one, has its range)
    radius = {"x": x.new_tensor(eps)}
    shape = CutBox({"x": ((low - x) / eps).clamp_min(-1)}, {"x": ((high - x) / eps).clamp_max(1)})
    start = torch.rand(x.shape, generator=generator, device=generator.device).to(x).mul_(2).sub_(1)
    fixed = {name: p.detach() for name, p in params.items()}

    def gradient_at(at: Params) -> Params:
        inputs = at["x"].detach().requires_grad_()
        with torch.enable_grad():
            loss = cross_entropy(call_aside(network, fixed, inputs), y)
        return {"x": torch.autograd.grad(loss, inputs)[0]}

    delta = ascend(gradient_at, {"x": x}, radius, {"x": start}, shape, steps, step / eps)
    return (x + delta["x"] * eps).clamp_(low, high)  # what rounding puts outside
