from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates.backward import backward_margins
from noiseproof.certificates.intervals import interval_margins
from noiseproof.errors import require, require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.networks import Network
from noiseproof.parameters import Params, call


@dataclass(frozen=True)
class Certified(Method):
    """Training for certificates: L = (1 − κ)·CE(f(x; θ), y) + κ·CE(−m, y), m_c a lower bound of f_y − f_c over the box |θ' − θ| ≤ z|θ|.

    −m are the worst logits less that of the true class: −m_c for c ≠ y, 0 at y. CE(−m, y) is at least the cross-entropy of any
    network of the box, and small only where all of them are right: a weight attack is a lower end of the worst case, this is an
    upper one. κ and z rise together over `warmup` epochs. The gradient flows through the bound, and so through the ends of the
    box, which move with θ; ends of spikes have the surrogate of their layer; thresholds, leaks and time constants learn from the
    first part alone. The bound has no dropout, and in batch norm the statistics of the batch at θ: by the running ones, which lag
    behind, it could be made good by weights for which these are wrong. A recurrent network must be trained before (`start_from`
    in a plan), as its first bounds say nothing.
    Source: interval bound propagation of Gowal et al., arXiv:1810.12715, and Mirman et al., ICML 2018, whose boxes are of inputs;
    "backward" after CROWN-IBP, Zhang et al., arXiv:1906.06316. Boxes of weights, which Büchel et al., arXiv:2106.05009, only
    measure (Fig. S9): ours.

    Raises `NoiseproofError` when a setting is out of its range, and before training for a network with a layer of which no bound is
    known, or with Poisson coding.

    Example:
        >>> Certified(z=0.02, warmup=5).risen_after
        5
    """

    # relative half-width of the box in which every network is to be right
    z: float = 0.01
    # weight of the worst case against the cross-entropy of the network itself
    kappa: float = 0.5
    # epochs over which kappa and z rise linearly from 0
    warmup: int = 0
    # how the margins are bounded: intervals, or backward linear bounds (tighter and slower; plain networks)
    bounds: Literal["intervals", "backward"] = "intervals"
    # which move: weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("kappa", self.kappa, 0, 1)
        require_number("warmup", self.warmup, 0, whole=True)
        require(self.bounds in ("intervals", "backward"), "bounds", self.bounds, "give intervals or backward")
        require_number("z", self.z, 0, open_low=True)
        _ = self.box  # it checks the other settings

    @property
    def gradient_evaluations(self) -> float:
        # of every product of the network two in the bound, for centre and radius; nothing of it goes through the network's own pass
        return 1 + 2 * (self.kappa > 0)

    def gradient_evaluations_on(self, network: nn.Module) -> float:
        # backward bounds take two transposed products more for every class
        return self.gradient_evaluations + (2 * _classes(network) if self.bounds == "backward" and self.kappa else 0)

    @property
    def risen_after(self) -> int:
        return self.warmup if self.kappa else 0

    @property
    def box(self) -> Box:
        """The box after the warm-up."""
        return Box(self.z, self.parameters)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        with _statistics_of_the_batch(network) as seen:
            task = cross_entropy(call(network, params, x), y)
        if not self.kappa:
            return task
        share = context.risen(self.warmup)
        kappa = share * self.kappa
        with _statistics_replaced(network, seen):
            worst = cross_entropy(-self.margins(network, params, batch, Box(share * self.z, self.parameters)), y)
        return (1 - kappa) * task + kappa * worst

    def margins(self, network: nn.Module, params: Params, batch: Batch, box: Box) -> Tensor:
        """Return m [B, C]: lower bounds of f_y − f_c over the box, 0 at c = y."""
        x, y = batch
        with torch.autocast(x.device.type, enabled=False):  # a bound of half the digits is no bound
            kind = next(iter(params.values())).dtype
            graph = graph_of(network, box, params=params, arithmetic="exact", dtype=kind, shape=x.shape[1:], proving=False)
            found = backward_margins(graph, x, y) if self.bounds == "backward" else interval_margins(graph, x, y)
        return found.scatter(-1, y[:, None], 0.0)


def _classes(network: nn.Module) -> int:
    """Return the number of logits; of an adapted network the rows of its last matrix."""
    if isinstance(network, Network):
        return network.classes
    return [len(p) for p in network.parameters() if p.ndim >= 2][-1]


Statistics = dict[_NormBase, tuple[Tensor | None, Tensor | None]]  # mean and variance [C] of a layer of batch norm


@contextlib.contextmanager
def _statistics_of_the_batch(network: nn.Module) -> Iterator[Statistics]:
    """Collect the statistics that batch norm takes inside, of every layer in training mode; they are differentiable."""
    seen: Statistics = {}

    def keep(module: _NormBase, inputs: tuple[Tensor, ...]) -> None:
        a = inputs[0].to(torch.promote_types(inputs[0].dtype, torch.float32))  # autocast may have made it shorter
        over = [dim for dim in range(a.ndim) if dim != 1]
        seen[module] = a.mean(over), a.var(over, correction=0)

    handles = [m.register_forward_pre_hook(keep) for m in network.modules() if isinstance(m, _NormBase) and m.training]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _statistics_replaced(network: nn.Module, seen: Statistics) -> Iterator[None]:
    """Let layers of batch norm hold the statistics of the batch in the place of the running ones, and these again at the end."""
    kept = {module: (module.running_mean, module.running_var) for module in seen}
    _set_statistics(seen)
    try:
        yield
    finally:
        _set_statistics(kept)


def _set_statistics(values: Statistics) -> None:
    for module, (mean, variance) in values.items():
        module.running_mean, module.running_var = mean, variance


method = Certified
