"""The equation of the spiking neurons, once. IF, LIF, ALIF and DLIF are settings of it; every kernel is held against `reference`.

Per time step, element by element, from the state (v, s, b, r) that the step before left:

    h = λ·v + g·I − q             membrane potential; q = s·(θ + β·b) where the reset comes at the next step, else 0
    b = ρ·b + (1 − ρ)·s           adaptation, from the spike of the step before
    B = θ + β·b                   threshold
    s = H(h − B), 0 where r > 0   spike, strictly above the threshold; r counts the dead steps after a spike
    v = h·(1 − s) | h − B·s | h   hard reset | soft reset | reset at the next step

The input I of a recurrent layer is x + W·s with the spikes of the step before. Sources: Kundu et al., ICCV 2021, eqs. (1)–(2)
(soft reset at the next step, not leaked); Büchel et al., arXiv:2106.05009, eq. (3) (adaptive threshold; its order of operations
within one step is this one, with the output counted one step later); Ding et al., ICML 2024, eqs. (1)–(3) (hard reset).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from noiseproof.errors import require, require_number
from noiseproof.neurons.surrogates import Surrogate, Triangle

Reset = Literal["hard", "soft", "soft-next"]
RESETS: tuple[Reset, ...] = ("hard", "soft", "soft-next")


@dataclass(frozen=True)
class Form:
    """What is fixed about a neuron: how it resets, whether it adapts, its dead steps, its surrogate.

    Raises `NoiseproofError` for another reset or negative dead steps.
    """

    # how the potential comes down after a spike
    reset: Reset = "soft"
    # the threshold rises with every spike
    adaptive: bool = False
    # dead steps after a spike
    refractory: int = 0
    # no gradient through the reset
    detach_reset: bool = False
    surrogate: Surrogate = field(default_factory=Triangle)

    def __post_init__(self) -> None:
        require(self.reset in RESETS, "reset", self.reset, f"give {', '.join(RESETS)}")
        require_number("refractory", self.refractory, 0, whole=True)

    @property
    def general(self) -> bool:
        """Whether there is more to the state than the potential and the spike."""
        return self.adaptive or self.refractory > 0


class State(NamedTuple):
    """What a neuron carries from step to step, each [B, …]: potential, spike, adaptation, dead steps left.

    The last two are None where the form has none.
    """

    v: Tensor
    s: Tensor
    b: Tensor | None = None
    r: Tensor | None = None


class Constants(NamedTuple):
    """The parameters of the equation, each of as many dimensions as x and broadcast to it; None: not there (g = 1, β = 0).

    Only leak and gain may change in time, [T, …]; for the others the first dimension is 1.
    """

    leak: Tensor  # λ
    threshold: Tensor  # θ > 0
    gain: Tensor | None = None  # g
    beta: Tensor | None = None  # β
    rho: Tensor | None = None  # ρ


class Emitted(NamedTuple):
    """What a layer of neurons gives: spikes and, where asked for, potentials before the reset [T, B, …], and the final state."""

    spikes: Tensor
    state: State
    membrane: Tensor | None = None


def initial_state(like: Tensor, form: Form) -> State:
    """Return the state of rest for neurons of the shape of `like` [B, …]."""
    zero = torch.zeros_like(like)
    return State(zero, zero, zero if form.adaptive else None, zero if form.refractory else None)


def heaviside(h: Tensor, B: Tensor, surrogate: Surrogate, alive: Tensor | None = None) -> Tensor:
    """Return s = H(h − B) with ds/dh = σ'(z)/B and ds/dB = −σ'(z)·h/B², z = (h − B)/B; nothing where `alive` is false.

    The value is exact: the smooth part enters as itself minus itself. So it can be differentiated as often as σ can.
    """
    soft = surrogate.primitive((h - B) / B)
    fires = h > B
    if alive is not None:
        fires, soft = fires & alive, soft * alive
    return fires.to(h.dtype) + (soft - soft.detach())


def reference(x: Tensor, state: State, constants: Constants, form: Form, steps: int, recurrent: Tensor | None = None) -> Emitted:
    """Return the spikes of the equation, step by step, differentiated by autograd: the truth that kernels are held against.

    `x` [T, B, …], or [1, B, …] for an input that stays the same; `recurrent` [N, N] is W, to unit from unit, for x [T, B, N].
    """
    leak = in_time(constants.leak, steps)
    gain = None if constants.gain is None else in_time(constants.gain, steps)
    theta, beta, rho = constants.threshold[0], _first(constants.beta), _first(constants.rho)
    v, s, b, r = state
    B = theta if beta is None or b is None else theta + beta * b
    spikes, membranes = [], []
    for t, current in enumerate(in_time(x, steps)):
        if recurrent is not None:
            current = current + s @ recurrent.mT
        h = leak[t] * v + (current if gain is None else gain[t] * current)
        if form.reset == "soft-next":
            h = h - (s.detach() if form.detach_reset else s) * B
        if beta is not None and rho is not None and b is not None:
            b = rho * b + (1 - rho) * s
            B = theta + beta * b
        s = heaviside(h, B, form.surrogate, None if r is None else r <= 0)
        if r is not None:
            r = torch.where(s > 0, float(form.refractory), (r - 1).clamp_min(0)).to(h.dtype)
        cut = s.detach() if form.detach_reset else s
        v = h * (1 - cut) if form.reset == "hard" else h - B * cut if form.reset == "soft" else h
        spikes.append(s)
        membranes.append(h)
    return Emitted(torch.stack(spikes), State(v, s, b, r), torch.stack(membranes))


def in_time(values: Tensor, steps: int) -> tuple[Tensor, ...]:
    """Return one tensor a step. Unbinding keeps backward linear in T, where indexing would add up a full tensor every step."""
    return values.unbind(0) if len(values) == steps else values.unbind(0) * steps


def _first(values: Tensor | None) -> Tensor | None:
    return None if values is None else values[0]
