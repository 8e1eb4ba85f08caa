"""Attacks on weights: the worst chip inside a box or an ellipsoid around the nominal parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from noiseproof.attacks.ascent import Box, Ellipsoid, EuclideanEllipsoid, Shape, ascend, displace, radii, start_near
from noiseproof.attacks.objectives import Batch, mean_gradient, mean_value, reference_of
from noiseproof.errors import require, require_number
from noiseproof.parameters import Call, Params, call_inference, select
from noiseproof.randomness import children


@dataclass(frozen=True)
class Perturbation:
    """Perturbed parameters: `params` = θ + δ·(ζ|θ| + c), the relative perturbation `delta`, and the objective that was reached."""

    params: Params
    delta: Params
    objective: float


@dataclass(frozen=True)
class WeightAttack:
    """Search for the parameters θ* near θ that make an objective largest, by projected ascent in relative coordinates.

        θ*_0 = θ + (r/ζ)·σ0·R,   θ*_t = Π(θ*_{t−1} + (r/N)·sign(∇_{θ*} KL(p(θ) ‖ p(θ*_{t−1})))),   r = ζ|θ| + c

    Batch norm and dropout behave as in inference; mode, buffers and parameters of the network stay as they are.
    Source: Büchel, Faber, Muir, arXiv:2106.05009, Algorithm 1.

    Raises `NoiseproofError` when a setting is out of its range, when `parameters` selects nothing, or when CE or DLR is
    asked for without labels.

    Example:
        >>> network = nn.Linear(4, 3)
        >>> params = dict(network.named_parameters())
        >>> batch = (torch.rand(8, 4), None)
        >>> worst = WeightAttack(zeta=0.1)(network, params, [batch], torch.Generator().manual_seed(0))
        >>> bool((worst.params["weight"] - params["weight"]).abs().le(0.1001 * params["weight"].abs()).all())
        True
    """

    # half-width of the relative box (one radius of the ellipsoid)
    zeta: float = 0.1
    # shape of the set: box, ellipsoid in its own metric, ellipsoid with Euclidean steps and projection
    norm: Literal["linf", "l2", "l2-euclidean"] = "linf"
    # what is made large; kl needs no labels
    objective: Literal["kl", "ce", "dlr"] = "kl"
    # gradient steps N, each 1/N of the set wide
    steps: int = 10
    # σ0: standard deviation of the relative start noise
    initial_std: float = 1e-3
    # independent starts; the one with the largest objective is returned
    restarts: int = 1
    # c: constant part of the radius, in the unit of the parameters
    zeta_const: float = 0.0
    # radius of the l2 ball in relative coordinates; mismatch of the same ζ lies near the square root of the number of parameters
    l2_radius: float = 1.0
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("zeta", self.zeta, 0)
        require(self.norm in ("linf", "l2", "l2-euclidean"), "norm", self.norm, "give linf, l2 or l2-euclidean")
        require(self.objective in ("kl", "ce", "dlr"), "objective", self.objective, "give kl, ce or dlr")
        require_number("steps", self.steps, 0, whole=True)
        require_number("initial_std", self.initial_std, 0)
        require_number("restarts", self.restarts, 1, whole=True)
        require_number("zeta_const", self.zeta_const, 0)
        require_number("l2_radius", self.l2_radius, 0, open_low=True)

    def __call__(self, network: nn.Module, params: Params, batches: Sequence[Batch], generator: torch.Generator) -> Perturbation:
        """Return the worst parameters found, one perturbation shared by all `batches`; call it once a batch for one each.

        `batches`: pairs (x [B, …], y [B] or None). The objective is the mean over all samples.
        """
        fixed = {name: p.detach() for name, p in params.items()}
        references = [reference_of(self.objective, network, fixed, x) for x, _ in batches]
        delta = self.search(network, fixed, batches, references, generator)
        found = displace(fixed, delta, self.zeta, self.zeta_const)
        return Perturbation(found, delta, mean_value(self.objective, network, found, batches, references))

    def search(
        self,
        network: nn.Module,
        params: Params,
        batches: Sequence[Batch],
        references: Sequence[Tensor | None],
        generator: torch.Generator,
        call: Call = call_inference,
    ) -> Params:
        """Return the δ that was found, the worst of all starts.

        `references`: log p(θ) [B, C] a batch, for KL, computed once; `call`: how the network is called, in inference by default.
        """
        fixed = {name: p.detach() for name, p in params.items()}
        starts = (self._one_start(network, fixed, batches, references, generator, call) for _ in range(self.restarts))
        if self.restarts == 1:
            return next(starts)

        def objective(delta: Params) -> float:
            return mean_value(self.objective, network, displace(fixed, delta, self.zeta, self.zeta_const), batches, references, call)

        return max(starts, key=objective)

    def _one_start(
        self,
        network: nn.Module,
        params: Params,
        batches: Sequence[Batch],
        references: Sequence[Tensor | None],
        generator: torch.Generator,
        call: Call,
    ) -> Params:
        chosen = select(params, self.parameters)
        radius = radii(chosen, self.zeta, self.zeta_const)
        start = start_near(self.shape, radius, self.zeta, self.initial_std, children(generator, list(chosen)))

        def gradient_at(point: Params) -> Params:
            return mean_gradient(self.objective, network, params | point, list(point), batches, references, call)

        # an empty set holds one point
        moves = any(bool(r.any()) for r in radius.values())
        return ascend(gradient_at, chosen, radius, start, self.shape, self.steps if moves else 0)

    def random_point(self, network: nn.Module, params: Params, generator: torch.Generator) -> Params:
        """Return a random point on the rim of the same set (a random corner of the box): what an unlucky, not hostile, chip could be."""
        chosen = {name: p.detach() for name, p in select(params, self.parameters).items()}
        delta = self.shape.random(radii(chosen, self.zeta, self.zeta_const), children(generator, list(chosen)))
        return displace({name: p.detach() for name, p in params.items()}, delta, self.zeta, self.zeta_const)

    @property
    def shape(self) -> Shape:
        """The set of the perturbations, as the engine knows it."""
        if self.norm == "linf":
            return Box()
        return Ellipsoid(self.l2_radius) if self.norm == "l2" else EuclideanEllipsoid(self.l2_radius)

    def describe(self) -> dict[str, Any]:
        """Return name and settings, as they stand in every record."""
        return {"name": "weight-attack", **asdict(self)}

    def describe_random(self) -> dict[str, Any]:
        """Return name and settings of `random_point`."""
        kept = ("zeta", "norm", "zeta_const", "l2_radius", "parameters")
        return {"name": "random-point", **{key: value for key, value in asdict(self).items() if key in kept}}
