"""What goes into a kernel and what comes out, the same for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Inputs(NamedTuple):
    """x [T, B, …], or [1, B, …] where it stays the same; state [B, …], None at rest; constants of as many dimensions as x."""

    x: Tensor
    v: Tensor | None
    s: Tensor | None
    b: Tensor | None
    r: Tensor | None
    leak: Tensor
    theta: Tensor
    gain: Tensor | None
    beta: Tensor | None
    rho: Tensor | None
    recurrent: Tensor | None  # W [N, N], to unit from unit


class Outputs(NamedTuple):
    """Spikes [T, B, …] and the final state but for the last spikes; b and r are None where the form has none."""

    spikes: Tensor
    v: Tensor
    b: Tensor | None
    r: Tensor | None


class Gradients(NamedTuple):
    """One gradient for each of `Inputs` but r, None where there is none; as `wanted`, whether there shall be one."""

    x: Any
    v: Any
    s: Any
    b: Any
    leak: Any
    theta: Any
    gain: Any
    beta: Any
    rho: Any
    recurrent: Any


def laid_out(x: Tensor, steps: int) -> Tensor:
    """Return an empty [T, B, …] in the memory layout of x: time outermost, the other dimensions in the order of their strides."""
    order = memory_order(x)
    empty = x.new_empty([steps, *(x.shape[d] for d in order[1:])])
    return empty.permute([order.index(d) for d in range(x.ndim)])


def memory_order(x: Tensor) -> list[int]:
    """Return the dimensions of x from the outermost in memory to the innermost, time always first."""
    return [0, *sorted(range(1, x.ndim), key=lambda d: (-x.stride(d), d))]
