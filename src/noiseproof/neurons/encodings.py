"""How still inputs become sequences of spikes. x [B, …] in [0, 1] → [T, B, …]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from noiseproof.errors import NoiseproofError, require, require_number


def direct(x: Tensor, steps: int) -> Tensor:
    """Return the input itself at every step, [T, B, …] without copying: the first layer is computed once.

    Raises `NoiseproofError` for steps below 1.
    """
    require_number("steps", steps, 1, whole=True)
    return x.expand(steps, *x.shape)


def poisson(
    x: Tensor, steps: int, generator: torch.Generator | None, *, gradient: Literal["straight-through", "expected"] = "straight-through"
) -> Tensor:
    """Return rate-coded spikes s[t] ~ Bernoulli(x), independent at every step; E s[t] = x.

    `gradient`: "straight-through" gives ∂s/∂x = 1 to every draw; "expected" returns the rate itself, x at every step, which has
    the same gradient in expectation without the noise of the draw (for attacks).

    Raises `NoiseproofError` without a generator, for inputs outside [0, 1], or steps below 1.

    Example:
        >>> rates = poisson(torch.full((1, 1000), 0.3), 10, torch.Generator().manual_seed(0)).mean()
        >>> bool((rates - 0.3).abs() < 0.02)
        True
    """
    require_number("steps", steps, 1, whole=True)
    require(gradient in ("straight-through", "expected"), "gradient", gradient, "give straight-through or expected")
    _within_unit(x)
    if gradient == "expected":
        return direct(x, steps)
    if generator is None:
        raise NoiseproofError("generator is None: Poisson coding draws spikes; give a torch.Generator")
    # sample by sample: what a sample draws does not depend on how many come after it
    draws = torch.rand((len(x), steps, *x.shape[1:]), generator=generator, device=generator.device).to(x.device)
    spikes = (draws.transpose(0, 1) < x.detach()).to(x.dtype)
    return spikes + (x - x.detach())


def latency(x: Tensor, steps: int) -> Tensor:
    """Return one spike an input, the earlier the larger: at step round((1 − x)·(T − 1)); none for x = 0.

    The gradient of the spike goes straight through to x. Raises `NoiseproofError` for inputs outside [0, 1] or steps below 1.

    Example:
        >>> latency(torch.tensor([[1.0, 0.5, 0.0]]), 3)[:, 0].tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    require_number("steps", steps, 1, whole=True)
    _within_unit(x)
    fixed = x.detach()
    when = torch.floor((1 - fixed) * (steps - 1) + 0.5)
    step = torch.arange(steps, device=x.device).reshape(-1, *[1] * x.ndim)
    spikes = ((when == step) & (fixed > 0)).to(x.dtype)
    return spikes + spikes * (x - fixed)


def _within_unit(x: Tensor) -> None:
    low, high = (float(v) for v in x.detach().aminmax()) if x.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise NoiseproofError(
            f"x runs from {low:g} to {high:g}: spike rates and latencies need inputs in [0, 1]; scale them by their bounds"
        )
