from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import Box, radii
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method, Update
from noiseproof.methods._searching import climbed
from noiseproof.parameters import Params, call, select
from noiseproof.randomness import children, draw_mask


@dataclass(frozen=True)
class ABCD(Method):
    """Adversarial block coordinate descent: L = CE(f(x; θ_A + v, θ_D), y); a random half A of the weights goes up, the rest D down.

    For every batch each selected weight is in A with probability `share`. L projected sign steps on the CE move A by v, |v| ≤ ζ|θ|;
    with A there, the optimiser goes down once on D. Then A is what it was: neither its values nor its moments in the
    optimiser have changed. Parameters that are not selected belong to D. Batch norm's statistics follow the pass at θ_A + v.
    Source: Cicek and Soatto, "Input and weight space smoothing for semi-supervised learning", ICCV workshops 2019, with the
    relative box of Büchel et al., arXiv:2106.05009 (L 2); in the public code of the latter nothing is projected, and A
    still moves with Adam's moments.

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.

    Example:
        >>> ABCD(steps=2).gradient_evaluations
        3
    """

    # half-width of the relative box for the half that goes up
    zeta_attack: float = 0.1
    # ascent steps L, each 1/L of the box wide
    steps: int = 2
    # probability that a weight is in the half that goes up
    share: float = 0.5
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("zeta_attack", self.zeta_attack, 0)
        require_number("steps", self.steps, 1, whole=True)
        require_number("share", self.share, 0, 1)

    @property
    def gradient_evaluations(self) -> float:
        return self.steps + 1

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        return self._loss(network, params, batch, self.draw_free(params, context))

    def step(self, network: nn.Module, batch: Batch, context: Context, update: Update) -> None:
        params: Params = dict(network.named_parameters())
        free = self.draw_free(params, context)
        update(self._loss(network, params, batch, free), free=free)

    def draw_free(self, params: Params, context: Context) -> Params:
        """Return D of a batch: by name of the selected parameters, True where an entry goes down."""
        chosen = select(params, self.parameters)
        streams = children(context.generator, list(chosen))
        return {name: draw_mask(p.shape, 1 - self.share, streams[name]).to(p.device) for name, p in chosen.items()}

    def _loss(self, network: nn.Module, params: Params, batch: Batch, free: Params) -> Tensor:
        x, y = batch
        chosen = {name: params[name].detach() for name in free}
        # with radius 0 nothing in D can move
        radius = {name: r.masked_fill(free[name], 0.0) for name, r in radii(chosen, self.zeta_attack).items()}
        up = climbed(network, params, batch, radius, Box(), self.steps)
        # θ_A is a constant here, so it has no gradient
        split = {name: torch.where(free[name], params[name], chosen[name] + v) for name, v in up.items()}
        return cross_entropy(call(network, params | split, x), y)


method = ABCD
