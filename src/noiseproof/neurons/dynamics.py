"""How far a layer of neurons is moved by a perturbation of its input: membrane dynamics and distances of spike trains."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from noiseproof.errors import require
from noiseproof.neurons.lif import LIF
from noiseproof.neurons.neuron import Neuron, _Spread
from noiseproof.neurons.recurrent import Recurrent

Reduce = Literal["mean", "sum"]


def perturbation_dynamics(delta: Tensor, leak: Tensor | float) -> Tensor:
    """Return ε[t] = λ·ε[t−1] + Δ[t], ε[0] = 0: how a perturbation of the input current spreads over the membrane, without resets.

    `delta` Δ [T, B, …], clean minus perturbed current; `leak` λ: a number, one a step [T], or of the dimensions of Δ and broadcast
    to it, [T or 1, 1, …]. Returns [T, B, …] in the unit of the current.
    Source: Ding et al., ICML 2024, eqs. (10) and (11).

    Example:
        >>> perturbation_dynamics(torch.tensor([[1.0], [0.0], [0.0]]), 0.5).squeeze(1).tolist()
        [1.0, 0.5, 0.25]
    """
    decay = torch.as_tensor(leak, dtype=delta.dtype, device=delta.device)
    if decay.ndim != delta.ndim:
        decay = decay.reshape(-1, *[1] * (delta.ndim - 1))
    epsilon = delta[0]
    kept = [epsilon]
    for step, change in zip(decay.expand(len(delta), *decay.shape[1:])[1:], delta[1:], strict=True):
        epsilon = step * epsilon + change
        kept.append(epsilon)
    return torch.stack(kept)


def ms_mppd(epsilon: Tensor, reduce: Reduce = "mean") -> Tensor:
    """Return the mean square of the membrane potential perturbation ε [T, B, …] of every sample, [B].

    "sum": Σ_i Σ_t ε_i[t]², as the text has it; "mean": the mean over neurons and steps, as its public code takes it.
    Source: Ding et al., ICML 2024, eq. (14).

    Raises `NoiseproofError` for another `reduce`.

    Example:
        >>> ms_mppd(torch.tensor([[[1.0, 2.0]], [[0.0, 1.0]]]), "sum").tolist()
        [6.0]
    """
    require(reduce in ("mean", "sum"), "reduce", reduce, "give mean or sum")
    squares = epsilon.square().transpose(0, 1).flatten(1)
    return squares.mean(1) if reduce == "mean" else squares.sum(1)


def tasad(spikes: Tensor, perturbed: Tensor) -> Tensor:
    """Return the time-averaged spiking activity distance of every sample [B], ‖Σ_t s[t] − Σ_t s̃[t]‖₂/T, from spikes [T, B, …].

    Source: Ding et al., ICML 2024, eq. (12), after Kundu et al., ICCV 2021.

    Example:
        >>> tasad(torch.tensor([[[1.0]], [[0.0]]]), torch.tensor([[[0.0]], [[1.0]]])).tolist()
        [0.0]
    """
    return torch.linalg.vector_norm((spikes - perturbed).mean(0).flatten(1), dim=1)


def std_distance(spikes: Tensor, perturbed: Tensor) -> Tensor:
    """Return the spike train distance of every sample [B], (Σ_t ‖s[t] − s̃[t]‖₂²)^½, from spikes [T, B, …].

    Source: Ding et al., ICML 2024, eq. (13).

    Example:
        >>> std_distance(torch.tensor([[[1.0]], [[0.0]]]), torch.tensor([[[0.0]], [[0.0]]])).tolist()
        [1.0]
    """
    return torch.linalg.vector_norm((spikes - perturbed).transpose(0, 1).flatten(1), dim=1)


def layer_dynamics(layer: Neuron | Recurrent, delta: Tensor, *, effective: bool = False) -> Tensor:
    """Return ε [T, B, …] of a layer of ours from Δ [T, B, …]: with its λ, or `effective`, with its whole equation but the resets.

    The whole equation has a[t] of DLIF, on the leak or on the current, and the gain of the current where there is one. The paper has λ
    alone, for DLIF too. Source: Ding et al., ICML 2024, eq. (11).

    Example:
        >>> from noiseproof.neurons import DLIF
        >>> layer = DLIF(steps=2, leak=0.5)
        >>> _ = layer.a.data.fill_(0.5)
        >>> [layer_dynamics(layer, torch.ones(2, 1, 1), effective=e).flatten().tolist() for e in (False, True)]
        [[1.0, 1.5], [1.0, 1.25]]
    """
    neuron = layer.neuron if isinstance(layer, Recurrent) else layer
    spread = _Spread(neuron.per, delta)
    if isinstance(neuron, LIF) and not effective:
        return perturbation_dynamics(delta, spread(neuron.decayed()))
    constants = neuron.constants(len(delta), spread)
    if effective and constants.gain is not None:
        delta = constants.gain * delta
    return perturbation_dynamics(delta, constants.leak)
