"""The worst chip for every sample by itself: what a certificate, which also holds for each sample by itself, is to be held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from noiseproof.attacks._ball import Ball
from noiseproof.attacks.objectives import margin_values
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.networks import Network, adapt
from noiseproof.parameters import Params, call_inference, functional_call, inference_mode, parameters_of, select
from noiseproof.randomness import draw_normal
from noiseproof.randomness import generator as generator_of

MOST_BYTES = 2**28  # of memory for the parameters of all samples that are searched at once
_COPIES = 5  # of each sample's parameters: δ, the point, the gradient, and what the next step makes of them
_BLOCK = 100  # samples that are tried at once at one point


@dataclass(frozen=True, eq=False)
class Broken:
    """Which samples [B] the network gives wrong somewhere in the box, and, for those asked for, where: parameters and input [1, …]."""

    broken: Tensor
    params: dict[int, Params] = field(default_factory=dict)
    x: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class PerSampleWeightAttack:
    """Search, for every sample by itself, for parameters in the box |θ' − θ| ≤ z|θ| at which the network gives it wrong.

        δ_0 ∈ {0, a given point, random corners},   δ_{k+1} = Π(δ_k + s_k·sign(∇_{θ'} L)),   s_k = 2(1 − k/N),   θ' = θ + δ·z|θ|

    L is the margin max_{c≠y} z_c − z_y, or the cross-entropy. The first step goes from any point to the corner that the gradient
    points to, the later ones turn fewer and fewer parameters. With ε the input moves too. A sample counts as broken once the network
    itself, called with this one sample at parameters that lie in the box to the last digit, gives another class.
    Networks of noiseproof are searched for many samples at once, adapted ones sample by sample.

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 3))
        >>> x, y = torch.rand(8, 4), torch.zeros(8, dtype=torch.int64)
        >>> found = PerSampleWeightAttack(z=0.9)(network, x, y, torch.Generator().manual_seed(0))
        >>> found.broken.shape
        torch.Size([8])
    """

    # half-width of the relative box, below 1
    z: float = 0.01
    # largest change of an input, in the unit of the data; inputs stay within its bounds
    eps: float = 0.0
    # what is made large: margin or ce
    loss: Literal["margin", "ce"] = "margin"
    # gradient steps N of every start
    steps: int = 10
    # random corners of the box that are starts, beside the nominal parameters and the worst of the points that are given
    restarts: int = 1
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("z", self.z, 0)
        require(self.z < 1, "z", self.z, "give a half-width below 1")
        require_number("eps", self.eps, 0)
        require(self.loss in ("margin", "ce"), "loss", self.loss, "give margin or ce")
        require_number("steps", self.steps, 1, whole=True)
        require_number("restarts", self.restarts, 0, whole=True)

    def __call__(
        self,
        network: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        *,
        params: Params | None = None,
        starts: Sequence[Params] = (),
        keep: Tensor | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> Broken:
        """Return which of the samples x [B, …] with classes y [B] the network gives wrong somewhere in the box around `params`.

        `params`: the network's own by default. `starts`: parameters that are tried for every sample, and of which the worst is a
        start of its search; what lies outside the box is brought to its rim. `keep` [B]: samples whose breaking parameters are
        returned too. The same samples are searched in the same way in any number at once.
        """
        network = adapt(network)
        search = _Search(self, network, params or parameters_of(network), x, y, keep)
        base = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        worst = search.try_points(starts)
        if self.z == self.eps == 0:
            return search.found
        size = sum(p.numel() * p.element_size() for p in search.chosen.values())
        at_once = max(1, min(len(x), most_bytes // (_COPIES * size))) if isinstance(network, Network) else 1
        for rows in torch.arange(len(x), device=x.device).split(at_once):
            search.climb(rows, lambda left: search.nominal(len(left)))
            if starts:
                search.climb(rows, lambda left: search.relative([starts[i] for i in worst[left].tolist()]))
            for k in range(self.restarts):
                search.climb(rows, lambda left, k=k: search.corners((base, int(i) * self.restarts + k) for i in left))
        return search.found

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": "per-sample-weight-attack", **asdict(self)}


class _Search:
    """One search under way: which samples are broken so far, and where."""

    def __init__(
        self, attack: PerSampleWeightAttack, network: nn.Module, params: Params, x: Tensor, y: Tensor, keep: Tensor | None
    ) -> None:
        self.attack, self.network, self.x, self.y, self.keep = attack, network, x, y, keep
        self.fixed = {name: p.detach() for name, p in params.items()}
        self.buffers = {name: b.clone() for name, b in network.named_buffers()}
        self.chosen = select(self.fixed, attack.parameters)
        self.edges = {name: box_edges(p, attack.z) for name, p in self.chosen.items()}
        bounds: tuple[float, float] = network.bounds  # pyright: ignore[reportAssignmentType] (every network of noiseproof has it)
        self.ball = Ball(x, x.new_full((len(x),), attack.eps, dtype=torch.float64), "linf", bounds) if attack.eps else None
        self.found = Broken(torch.zeros(len(x), dtype=torch.bool, device=x.device))

    def try_points(self, points: Sequence[Params]) -> Tensor:
        """Try the nominal parameters and every point on all samples; return for each sample the point with the largest margin, [B]."""
        reached = [self._tried(point) for point in ({}, *points)][1:]
        return torch.stack(reached).argmax(0) if reached else self.y.new_zeros(len(self.y))

    @torch.no_grad()
    def _tried(self, point: Params) -> Tensor:
        inside = {name: point.get(name, p).clamp(*self.edges[name]) for name, p in self.chosen.items()}
        logits = torch.cat([call_inference(self.network, self.fixed | inside, x) for x in self.x.split(_BLOCK)])
        for i in (logits.argmax(-1) != self.y).logical_and(~self.found.broken).nonzero().flatten().tolist():
            self._note(i, inside, self.x[i])
        return margin_values(logits, self.y)

    def nominal(self, rows: int) -> Params:
        """Return δ = 0, for so many samples."""
        return {name: p.new_zeros(rows, *p.shape) for name, p in self.chosen.items()}

    def relative(self, points: Sequence[Params]) -> Params:
        """Return the δ of a point each."""
        found = {}
        for name, p in self.chosen.items():
            radius = self.attack.z * p.abs()
            moved = torch.stack([point.get(name, p) for point in points]) - p
            found[name] = torch.where(radius > 0, moved / radius, 0.0).clamp(-1, 1)
        return found

    def corners(self, seeds: Iterable[tuple[int, int]]) -> Params:
        """Return the δ of a random corner each."""
        streams = [generator_of("corner", *seed) for seed in seeds]
        return {name: torch.stack([draw_normal(p, stream).sign() for stream in streams]) for name, p in self.chosen.items()}

    def climb(self, rows: Tensor, start: Any) -> None:
        """Search from a start for those of the samples `rows` that are not broken yet; `start` (rows) → δ."""
        left = rows[~self.found.broken[rows]]
        if not len(left):
            return
        delta, x = start(left), self.x[left]
        for k in range(self.attack.steps + 1):
            point = self._place(delta)
            slopes, input_slope, logits = self._gradients(point, x, self.y[left])
            survives = ~self._lost(left, point, x, logits)
            if not bool(survives.any()) or k == self.attack.steps:
                return
            size = 2 * (1 - k / self.attack.steps)
            delta = {name: (d[survives] + size * slopes[name][survives].sign()).clamp_(-1, 1) for name, d in delta.items()}
            left, x = left[survives], x[survives]
            if self.ball is not None and input_slope is not None:
                x = self.ball[left].project(x + size * self.attack.eps * input_slope[survives].sign())

    def _place(self, delta: Params) -> Params:
        """Return the parameters at δ, one set a sample, inside the box to the last digit."""
        return {name: (p + delta[name] * (self.attack.z * p.abs())).clamp(*self.edges[name]) for name, p in self.chosen.items()}

    def _lost(self, left: Tensor, point: Params, x: Tensor, logits: Tensor) -> Tensor:
        """Return which samples are broken, after the network was asked again for each of them alone."""
        wrong = (logits.argmax(-1) != self.y[left]).nonzero().flatten().tolist()
        for place in wrong:
            self._note(int(left[place]), {name: p[place] for name, p in point.items()}, x[place])
        return self.found.broken[left]

    @torch.no_grad()
    def _note(self, i: int, point: Params, x: Tensor) -> None:
        for name, p in self.chosen.items():
            if not bool(inside_box(point[name], p, self.attack.z)):
                raise NoiseproofError(f"parameter {name} left the box of half-width {self.attack.z}: this is a bug of noiseproof")
        if int(call_inference(self.network, self.fixed | point, x[None]).argmax()) == int(self.y[i]):
            return
        self.found.broken[i] = True
        if self.keep is not None and bool(self.keep[i]):
            self.found.params[i] = self.fixed | {name: p.clone() for name, p in point.items()}
            self.found.x[i] = x[None].clone()

    def _gradients(self, point: Params, x: Tensor, y: Tensor) -> tuple[Params, Tensor | None, Tensor]:
        """Return the gradient of the loss of every sample to its own parameters, and input, and its logits [R, C]."""
        if len(x) > 1:
            with inference_mode(self.network):
                if self.ball is None:
                    slopes, logits = vmap(grad(self._value, has_aux=True), randomness="same")(point, x, y)
                    return slopes, None, logits
                (slopes, input_slope), logits = vmap(grad(self._value, (0, 1), has_aux=True), randomness="same")(point, x, y)
                return slopes, input_slope, logits
        leaves = {name: p[0].detach().requires_grad_() for name, p in point.items()}
        x = x.detach().requires_grad_(self.ball is not None)
        with torch.enable_grad(), inference_mode(self.network):
            value, logits = self._value(leaves, x[0], y[0])
            wanted = [*leaves.values(), *([x] if self.ball is not None else [])]
            found = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
        slopes = {name: g[None] for name, g in zip(leaves, found, strict=False)}
        return slopes, found[-1] if self.ball is not None else None, logits.detach()[None]

    def _value(self, point: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = functional_call(self.network, (self.fixed | point, self.buffers), (x[None],))
        y = y[None]
        value = cross_entropy(logits, y) if self.attack.loss == "ce" else margin_values(logits, y).sum()
        return value, logits[0]


def box_edges(theta: Tensor, z: float) -> tuple[Tensor, Tensor]:
    """Return the least and the largest θ' with |θ' − θ| ≤ z|θ| in float64, in the type of θ: rounded inwards.

    Example:
        >>> low, high = box_edges(torch.tensor([1.0, -2.0, 0.0]), 0.5)
        >>> low.tolist(), high.tolist()
        ([0.5, -3.0, 0.0], [1.5, -1.0, 0.0])
    """
    exact = theta.double()
    low, high = ((exact + side * z * exact.abs()).to(theta) for side in (-1.0, 1.0))
    low, high = (torch.where(_outside(edge, theta, z), torch.nextafter(edge, theta), edge) for edge in (low, high))
    return low, high


def inside_box(point: Tensor, theta: Tensor, z: float) -> Tensor:
    """Return whether |θ' − θ| ≤ z|θ| for all parameters, in float64."""
    return ~_outside(point, theta, z).any()


def _outside(point: Tensor, theta: Tensor, z: float) -> Tensor:
    exact = theta.double()
    return (point.double() - exact).abs() > z * exact.abs()
