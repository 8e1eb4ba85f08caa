"""Bounds by name: which there are, which fit a network, and what they prove."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._checks import check_classes, check_samples
from noiseproof.certificates._graph import Graph, Neurons, ReLU
from noiseproof.certificates._interval import Interval
from noiseproof.certificates._precision import full_precision
from noiseproof.certificates._rounding import Arithmetic
from noiseproof.errors import NoiseproofError, require, unknown
from noiseproof.networks import adapt
from noiseproof.parameters import Params, inference_mode

Found = TypeVar("Found")


@dataclass(frozen=True)
class _Bound:
    """Where a bound is computed: functions of a module of this package, with what they are told beside graph and samples."""

    module: str
    margins: str
    logits: str = ""  # the function that bounds logits, where there is one
    full: bool = False
    # it takes long where little can be proved
    costly: bool = False
    # which networks it is for; None: all
    spiking: bool | None = None

    def call(self, name: str) -> Callable[..., Tensor | Interval]:
        function = getattr(importlib.import_module(f"noiseproof.certificates.{self.module}"), name)
        return (lambda *given: function(*given, full=True)) if self.full else function


_BOUNDS = {
    "intervals": _Bound("intervals", "interval_margins", "interval_logits"),
    "backward": _Bound("backward", "backward_margins", "backward_logits", spiking=False),
    "backward-full": _Bound("backward", "backward_margins", "backward_logits", full=True, costly=True, spiking=False),
    "spiking": _Bound("spiking", "spiking_margins", "spiking_logits", spiking=True),
    "spiking-backward": _Bound("spiking_backward", "spiking_backward_margins", costly=True, spiking=True),
}
BOUNDS = tuple(_BOUNDS)
# costly bounds are computed beyond so many units only where they are asked for by name
MOST_UNITS = 16384


@full_precision()
def bounds(
    network: nn.Module, x: Tensor, box: Box, how: str = "best", *, params: Params | None = None, arithmetic: Arithmetic = "float32"
) -> Interval:
    """Return the interval [B, C] in which every logit lies for every chip of the box, and every input within its ε of x [B, …].

    `how`: intervals, backward, backward-full (networks without spikes), spiking (with spikes), or best, the intersection of the usual ones:
    all that fit, but those that walk back from many units on networks of at most 16,384 alone.
    `params`: other parameters than the network's own, by name; `arithmetic`: what the network is computed in, whose rounding is counted
    in: float32, float64 (of a network in float64), or exact for real numbers. Margins (`margins`) are tighter than what follows from these.

    Raises `NoiseproofError` for a layer without a bound, a bound that does not fit, or a box that selects nothing; for a network in
    half precision, hooks and whatever else is not read (see docs/certificates.md); for x, y or `params` that do not fit the network.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> found = bounds(network, torch.rand(5, 4), Box(z=0.01))
        >>> found.low.shape, bool((found.low <= found.high).all())
        (torch.Size([5, 3]), True)
    """
    graph = certifiable(network, x, box, params=params, arithmetic=arithmetic)
    named = [name for name in chosen_bounds(graph, how) if _BOUNDS[name].logits]
    if not named:
        raise NoiseproofError(f"how is {how!r}: it bounds margins alone; use noiseproof.certificates.margins, or give how='best'")
    found = _what_fits(lambda name: _logits_by(graph, name, x), named)
    return Interval(torch.stack([f.low for f in found]).amax(0), torch.stack([f.high for f in found]).amin(0))


@full_precision()
def margins(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    box: Box,
    how: str = "best",
    *,
    params: Params | None = None,
    arithmetic: Arithmetic = "float32",
) -> Tensor:
    """Return lower bounds [B, C] on z_y − z_c over the whole box, +∞ at c = y; best takes the largest of the usual ones.

    x [B, …] with classes y [B]; the rest is as for `bounds`, with spiking-backward beside them.

    Raises `NoiseproofError` as `bounds` does.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> x, y = torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])
        >>> low = margins(network, x, y, Box(z=0.01))
        >>> low.shape, bool((low.gather(1, y[:, None]) == torch.inf).all())
        (torch.Size([5, 3]), True)
    """
    graph = certifiable(network, x, box, params=params, arithmetic=arithmetic)
    check_classes(y, len(x), graph.nodes[-1].shape[-1])
    return torch.stack(_what_fits(lambda name: margins_by(graph, name, x, y), chosen_bounds(graph, how))).amax(0)


def certified(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    box: Box,
    how: str = "best",
    *,
    params: Params | None = None,
    arithmetic: Arithmetic = "float32",
) -> Tensor:
    """Return which samples [B] every chip of the box gives right, proved: min over c ≠ y of `margins` is above zero.

    Raises `NoiseproofError` as `bounds` does.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2, bias=False))
        >>> network[0].weight.data = torch.eye(2)
        >>> x, y = torch.tensor([[1.0, 0.0], [1.0, 0.99]]), torch.tensor([0, 0])
        >>> certified(network, x, y, Box(z=0.1)).tolist()
        [True, False]
    """
    return proved(margins(network, x, y, box, how, params=params, arithmetic=arithmetic))


def proved(margins: Tensor) -> Tensor:
    """Return which samples [B] have positive margins [B, C] to all other classes; a bound that is not a number proves nothing."""
    return (margins > 0).all(-1)


@full_precision()
def certifiable(network: nn.Module, x: Tensor, box: Box, *, params: Params | None = None, arithmetic: Arithmetic = "float32") -> Graph:
    """Return the operations of a network, in inference, that takes inputs like x [B, …].

    Raises `NoiseproofError` that names the layer for one without a bound.
    """
    check_samples(x)
    require(isinstance(box, Box), "box", box, "give a noiseproof.certificates.Box")
    network = adapt(network)
    with inference_mode(network):
        return graph_of(network, box, params=params, arithmetic=arithmetic, shape=tuple(x.shape[1:]))


@full_precision()
def margins_by(graph: Graph, name: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the lower bounds [B, C] of the margins that the bound `name` finds.

    Raises `NoiseproofError` where it does not know something in the network.
    """
    bound = _BOUNDS[name]
    with torch.no_grad():
        return _full_where_open(graph, x, y) if bound.full else bound.call(bound.margins)(graph, x, y)  # pyright: ignore[reportReturnType]


def _full_where_open(graph: Graph, x: Tensor, y: Tensor) -> Tensor:
    """Return backward margins; backward bounds between the layers, which cost most, only for samples that are not yet proved."""
    found = margins_by(graph, "backward", x, y)
    left = ~proved(found)
    if bool(left.any()):
        full: Tensor = _BOUNDS["backward-full"].call("backward_margins")(graph, x[left], y[left])  # pyright: ignore[reportAssignmentType]
        found[left] = torch.maximum(found[left], full)
    return found


@full_precision()
def _logits_by(graph: Graph, name: str, x: Tensor) -> Interval:
    bound = _BOUNDS[name]
    with torch.no_grad():
        return bound.call(bound.logits)(graph, x)  # pyright: ignore[reportReturnType] (logits are intervals)


def costly(name: str) -> bool:
    """Return whether a bound is worth its time only for samples that the network gives right."""
    return _BOUNDS[name].costly


def fitting(graph: Graph) -> tuple[str, ...]:
    """Return the names of the bounds that there are for such a network, the loosest first."""
    return tuple(name for name, bound in _BOUNDS.items() if bound.spiking in (None, graph.spiking))


def usual(graph: Graph) -> tuple[str, ...]:
    """Return the bounds that are computed where none is named: all that fit, but costly ones on at most `MOST_UNITS` units alone."""
    units = sum(math.prod(node.shape) for node in graph.nodes if isinstance(node.op, ReLU | Neurons))
    return tuple(name for name in fitting(graph) if not costly(name) or units <= MOST_UNITS)


def chosen_bounds(graph: Graph, how: str) -> tuple[str, ...]:
    """Return the bounds that `how` names: one of them, or for "best" the usual ones.

    Raises `NoiseproofError` for one that is not known or does not fit the network.
    """
    require(isinstance(how, str), "bounds", how, f"give one name of best, {', '.join(BOUNDS)}")
    if how == "best":
        return usual(graph)
    if how not in _BOUNDS:
        raise unknown("bounds", how, ("best", *BOUNDS))
    if how not in fitting(graph):
        kind = "has spiking neurons" if graph.spiking else "has no spiking neurons"
        raise NoiseproofError(f"bounds is {how!r}: the network {kind}; give {', '.join(fitting(graph))}")
    return (how,)


def _what_fits(compute: Callable[[str], Found], names: Sequence[str]) -> list[Found]:
    """Return what each bound finds; of several, those that do not know something in the network are left out."""
    found, refused = list[Found](), list[NoiseproofError]()
    for name in names:
        try:
            found.append(compute(name))
        except NoiseproofError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    return found
