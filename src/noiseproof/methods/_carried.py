"""A perturbation of the inputs that is carried from update to update, and climbs by the gradient of the training itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError
from noiseproof.methods._perturbing import within_bounds


def carried(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Return the perturbation kept in `state`, one row a sample of x [B, …], to be changed in place; zero where none was kept yet.

    A batch that is smaller than others, as the last one may be, takes the first rows, and leaves the rest as they are.
    """
    kept = state.get(name, x[:0])
    if len(kept) < len(x):
        state[name] = torch.cat([kept, torch.zeros_like(x[len(kept) :])])
    return state[name][: len(x)]


def shown(network: nn.Module, x: Tensor, kappa: Tensor, *, clip: bool = True) -> Tensor:
    """Return x + κ, inside the range of the network's inputs with `clip`; a leaf, so that a backward pass leaves its gradient there."""
    moved = within_bounds(network, x + kappa) if clip else x + kappa
    return moved.detach().requires_grad_()


@torch.no_grad()
def climb(network: nn.Module, kappa: Tensor, point: Tensor, step: float, eps: float) -> None:
    """Change κ in place, κ ← clip(κ + step·sign(g), −ε, ε), with the gradient g that the update has left at `point`.

    Raises `NoiseproofError` when the update went down a gradient and none came to the inputs.
    """
    if point.grad is not None:
        kappa.add_(point.grad.sign(), alpha=step).clamp_(-eps, eps)
    # an update that moves nothing, as that of a rehearsal, leaves no gradients at all
    elif any(p.grad is not None for p in network.parameters()):
        raise NoiseproofError("the network passes no gradient to its input: nothing can be crafted from it; train it at noise instead")
