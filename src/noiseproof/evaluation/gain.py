from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, require_number
from noiseproof.evaluation._figures import observed
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.perturbation import INPUT
from noiseproof.networks import SpikingNetwork, adapt
from noiseproof.networks._spiking import Pass, walk
from noiseproof.neurons import DLIF, Neuron, Recurrent
from noiseproof.neurons.dynamics import layer_dynamics, perturbation_dynamics
from noiseproof.neurons.neuron import _Spread
from noiseproof.progress import Progress
from noiseproof.randomness import generator, stochastic
from noiseproof.records import Record


def dynamics_matrix(leak: Tensor | float, steps: int, gain: Tensor | float = 1.0) -> Tensor:
    """Return the matrix [T, T] that takes Δ[1..T] to ε[1..T], ε[t] = λ[t]·ε[t−1] + g[t]·Δ[t], in float64.

    It is lower triangular, with g[s]·λ[s+1]·…·λ[t] at (t, s); for a constant leak it is the Toeplitz matrix of λ^k. For DLIF λ[t] is
    λ·a[t]. `leak` and `gain`: a number, or one a step [T]. After Ding et al., ICML 2024, eqs. (11) and (22).

    Raises `NoiseproofError` for steps below 1.

    Example:
        >>> dynamics_matrix(0.5, 3).tolist()
        [[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.25, 0.5, 1.0]]
    """
    require_number("steps", steps, 1, whole=True)
    # an impulse at every step: column s is the answer to the one at s
    leak, gain = (torch.as_tensor(given, dtype=torch.float64).detach() for given in (leak, gain))
    return perturbation_dynamics(torch.eye(steps, dtype=torch.float64) * gain, leak)


def dynamics_gain(leak: Tensor | float, steps: int, gain: Tensor | float = 1.0) -> float:
    """Return the exact L2 gain of the perturbation dynamics over T steps: max ‖ε‖/‖Δ‖ over all Δ[1..T], ‖·‖² = Σ_t ‖·[t]‖².

    The spectral norm of `dynamics_matrix`. Times ‖W‖₂ it is the gain from the spikes before a layer, W·Δs[t], exactly: the operator
    is a Kronecker product. Ding et al., ICML 2024, Theorem 3.1, claim at most (1/(1 − λ))^½, which is too small.

    Example:
        >>> round(dynamics_gain(0.5, 4), 3), round((1 / (1 - 0.5)) ** 0.5, 3)
        (1.593, 1.414)
    """
    return float(torch.linalg.matrix_norm(dynamics_matrix(leak, steps, gain), 2))


def dynamics_bound(leak: Tensor | float, steps: int, gain: Tensor | float = 1.0) -> float:
    """Return a bound on `dynamics_gain` that holds: (‖M‖₁·‖M‖_∞)^½, which is (1 − λ^T)/(1 − λ) for a constant leak.

    Example:
        >>> dynamics_bound(0.5, 4) == (1 - 0.5**4) / (1 - 0.5)
        True
    """
    M = dynamics_matrix(leak, steps, gain)
    return float((torch.linalg.matrix_norm(M, 1) * torch.linalg.matrix_norm(M, torch.inf)).sqrt())


def claimed_gain(leak: float) -> float:
    """Return (1/(1 − λ))^½, what Theorem 3.1 of Ding et al., ICML 2024, says of `dynamics_gain`; it does not hold."""
    return (1 / (1 - leak)) ** 0.5


def spectral_norm(affine: Callable[[Tensor], Tensor], size: int, *, tolerance: float = 1e-7, seed: int = 0) -> tuple[float, Tensor]:
    """Return max ‖A·v‖/‖v‖ of an affine map v [size] → A·v + b, any shape, in float64, and the unit vector v that reaches it.

    Lanczos iteration with A and Aᵀ, which autograd makes: for a convolution its transpose, on this size of image, with its padding.
    Power iteration would need thousands of passes where singular values lie close. `tolerance` is relative; what is returned
    is ‖A·v‖ of that v, so it is never above the norm but for rounding.

    Raises `NoiseproofError` when it does not converge.

    Example:
        >>> A = torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
        >>> norm, v = spectral_norm(lambda v: A @ v + 7, 2)
        >>> round(norm, 9), [round(abs(entry), 9) for entry in v.tolist()]
        (5.0, [1.0, 0.0])
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    offset = affine(torch.zeros(size, dtype=torch.float64)).detach()

    def linear(v: Tensor) -> Tensor:
        return affine(v) - offset

    def gram(v: np.ndarray) -> np.ndarray:
        point = torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64).reshape(-1)).requires_grad_()
        with torch.enable_grad():
            out = linear(point)
        return torch.autograd.grad(out, point, out.detach())[0].numpy()

    start = torch.randn(size, dtype=torch.float64, generator=generator("spectral norm", seed)).numpy()
    if size == 1 or not gram(start).any():
        v = torch.from_numpy(start)
    else:
        try:
            operator = LinearOperator((size, size), gram, dtype=np.float64)  # pyright: ignore[reportCallIssue]
            _, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance)  # pyright: ignore[reportArgumentType]
        except ArpackError as error:
            raise NoiseproofError(f"the norm of a layer does not converge to {tolerance:g}: {error}; give a larger tolerance") from None
        v = torch.from_numpy(vectors[:, 0].copy())
    v = v / torch.linalg.vector_norm(v)
    return float(torch.linalg.vector_norm(linear(v).detach())), v


def l2_gain(network: nn.Module, *, ledger: Ledger | None = None, progress: Progress | None = None) -> list[Record]:
    """Return the exact L2 gain of the perturbation dynamics of every layer of spiking neurons over T steps, and bounds beside it.

    From the spikes (for the first layer: the input, in the data's unit) to ε[t] = λ[t]·ε[t−1] + W·Δs[t], W being all that lies
    between two layers of neurons in inference: convolution, batch norm, pooling, sums of branches. Four records a layer, at
    {"layer": k, "steps": T}: weight_norm ‖W‖₂; l2_gain; l2_gain_bound, which holds; and, where the leak is one number,
    l2_gain_claimed, Theorem 3.1. Where every channel or neuron has its own leak, the operator of all steps is taken as it is. For
    DLIF also dlif_a, at {"layer": k, "step": t}: a[t]. Resets and recurrent spikes are no part of these dynamics.
    Source: Ding et al., ICML 2024, section 3.3 and Fig. 4; the gain is ours, since the theorem's is too small.

    Raises `NoiseproofError` for a network that has no spiking neurons of noiseproof.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=10)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif", steps=4).build(data.task, torch.Generator().manual_seed(0))
        >>> {r.metric: r.value for r in l2_gain(network)}["l2_gain"] <= {r.metric: r.value for r in l2_gain(network)}["l2_gain_bound"]
        True
    """
    network, ledger, found = spiking(network), ledger or Ledger(), []
    layers = layers_with_gain(network)
    exact: SpikingNetwork | None = None
    for place, (name, neuron) in enumerate(layers.items()):
        steps = network.shape[0] if network.sequence else network.steps
        at = {"layer": float(place), "steps": float(steps)}
        metrics = ["weight_norm", "l2_gain", "l2_gain_bound", *(["l2_gain_claimed"] if _one_leak(neuron) is not None else [])]
        blank = [ledger.make(metric, 0.0, 0, {"layer": name}, at) for metric in metrics]
        if any(ledger.find(record) is None for record in blank):
            exact = exact or copy.deepcopy(network).double().eval()
            values = _gains(exact, name, steps)
            ledger.add([ledger.make(b.metric, values[b.metric], 0, b.perturbation, b.at) for b in blank])
        found += [record for record in map(ledger.find, blank) if record is not None]
        if isinstance(neuron, DLIF):
            values = enumerate(neuron.a.tolist(), start=1)
            a = [ledger.make("dlif_a", value, 0, {"layer": name}, {"layer": float(place), "step": float(t)}) for t, value in values]
            ledger.add([record for record in a if ledger.find(record) is None])
            found += a
        if progress is not None:
            progress.advance(1)
    return found


def spiking(network: nn.Module) -> SpikingNetwork:
    """Return the network, once it is known to be a spiking one of ours.

    Raises `NoiseproofError` for any other.
    """
    network = adapt(network)
    if not isinstance(network, SpikingNetwork):
        raise NoiseproofError("gain is asked for: it is computed for spiking networks of noiseproof; leave gain out")
    return network


def layers_with_gain(network: SpikingNetwork) -> dict[str, Neuron]:
    """Return the layers of neurons by name, in the order in which a run reaches them.

    Raises `NoiseproofError` when there are none.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, Neuron | Recurrent)}
    return {name: _neuron(layers[name]) for name in _shapes(network) if name != INPUT}


def _shapes(network: SpikingNetwork) -> dict[str, tuple[int, ...]]:
    """Return the shape of one sample at one step of the input, then of every layer's spikes."""
    like = next(network.parameters())
    with stochastic(0):
        blank = torch.zeros(1, *network.shape, dtype=like.dtype, device=like.device)
        spikes = observed(network, blank, ("spikes",), "gain").traces["spikes"]
    at_a_step = network.shape[1:] if network.sequence else network.shape
    return {INPUT: tuple(at_a_step), **{name: tuple(s.shape[2:]) for name, s in spikes.items()}}


def _neuron(layer: nn.Module) -> Neuron:
    found = layer.neuron if isinstance(layer, Recurrent) else layer
    assert isinstance(found, Neuron)
    return found


@torch.no_grad()
def _one_leak(neuron: Neuron) -> float | None:
    """Return the leak where it is one number below 1 for all units and steps, and the gain is 1: what the claimed bound is about."""
    if neuron.per != "layer" or isinstance(neuron, DLIF):
        return None
    constants = neuron.constants(1, _Spread("layer", torch.zeros(1, 1, 1)))
    leak = float(constants.leak)
    return leak if constants.gain is None and leak < 1 else None


@dataclass
class _Told(Pass):
    """A run in which layers of neurons give the spikes that they are told, so that all between two layers is one affine map."""

    given: Mapping[str, Tensor] = field(default_factory=dict)
    currents: dict[str, Tensor] = field(default_factory=dict)

    def neurons(self, name: str, layer: Neuron | Recurrent, current: Tensor) -> Tensor:
        self.currents[name] = current
        return self.given[name]


class _Into:
    """What lies between the layers of neurons before one layer (for the first: the input) and that layer, in inference."""

    def __init__(self, network: SpikingNetwork, name: str) -> None:
        self.network, self.name, self.shapes = network, name, _shapes(network)
        like = next(network.parameters())
        given = {source: like.new_zeros(1, 1, *shape).requires_grad_() for source, shape in self.shapes.items()}
        with torch.enable_grad():
            reached = torch.autograd.grad(self._current(given).sum(), list(given.values()), allow_unused=True)
        self.sources = [source for source, slope in zip(given, reached, strict=True) if slope is not None]

    def size(self, steps: int) -> int:
        """Return how many numbers come in over some steps."""
        return steps * sum(int(np.prod(self.shapes[source])) for source in self.sources)

    def __call__(self, v: Tensor, steps: int = 1) -> Tensor:
        """Return the current [T, 1, …] for all that comes in, one vector."""
        like = next(self.network.parameters())
        given = {source: like.new_zeros(steps, 1, *shape) for source, shape in self.shapes.items()}
        parts = v.to(like).split([given[source].numel() for source in self.sources])
        given |= {source: part.reshape(given[source].shape) for source, part in zip(self.sources, parts, strict=True)}
        return self._current(given)

    def _current(self, given: Mapping[str, Tensor]) -> Tensor:
        passing, children = _Told(len(given[INPUT]), given=given), list(self.network.named_children())
        # what comes before the last neurons that stand between whole layers has no say
        earlier = takewhile(lambda child: child[0] != self.name.partition(".")[0], children)
        first = max((i for i, (_, layer) in enumerate(earlier, start=1) if isinstance(layer, Neuron | Recurrent)), default=0)
        z = given[children[first - 1][0] if first else INPUT]
        for child, layer in children[first:]:
            z = walk(layer, z, passing, child)
            if self.name in passing.currents:
                break
        return passing.currents[self.name]


def _gains(network: SpikingNetwork, name: str, steps: int) -> dict[str, float]:
    """Return the figures of one layer of a network in float64 by metric."""
    neuron, into = _neuron(network.get_submodule(name)), _Into(network, name)
    norm, v = spectral_norm(into, into.size(1))
    with torch.no_grad():
        constants = neuron.constants(steps, _Spread(neuron.per, into(v)))
    leak = constants.leak.cpu()
    gain = torch.ones_like(leak[:1]) if constants.gain is None else constants.gain.cpu()
    every = _unit_by_unit(leak, gain, steps)
    if len(every) == 1:
        exact = norm * dynamics_gain(*every[0])
    else:
        exact, _ = spectral_norm(lambda v: layer_dynamics(neuron, into(v, steps), effective=True), into.size(steps))
    figures = {"weight_norm": norm, "l2_gain": exact, "l2_gain_bound": norm * max(dynamics_bound(*one) for one in every)}
    one_leak = _one_leak(neuron)
    return figures if one_leak is None else {**figures, "l2_gain_claimed": norm * claimed_gain(one_leak)}


def _unit_by_unit(leak: Tensor, gain: Tensor, steps: int) -> list[tuple[Tensor, int, Tensor]]:
    """Return (λ [T], T, g [T]) of every unit whose dynamics are not those of another one."""
    leak, gain = torch.broadcast_tensors(leak, gain)
    both = torch.stack([values.expand(steps, *values.shape[1:]).flatten(1) for values in (leak, gain)])
    return [(one[0], steps, one[1]) for one in torch.unique(both, dim=2).unbind(2)]
