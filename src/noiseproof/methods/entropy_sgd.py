from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method, Update
from noiseproof.parameters import Params, call, trained
from noiseproof.randomness import children, draw_normal


@dataclass(frozen=True)
class EntropySGD(Method):
    """Entropy-SGD: θ goes towards the mean μ of L Langevin steps around it, so that it ends in wide valleys.

    From x' = μ = θ, with g the gradient of the CE (and of the recipe's penalty) at x' and Nesterov's momentum on it:

        x' ← x' − η'·(g − γ_t·(θ − x')) + √η'·ε·ξ,   μ ← (1 − α)·μ + α·x',   ξ ~ N(0, 1)

    Then one step of its own optimiser, SGD with Nesterov's momentum and **outer rate 1**, along θ − μ. The scope
    γ_t = γ0·(1 + γ1)^t advances with every batch t, up to 1/η', above which the pull towards θ would overshoot (that limit is ours).
    All L steps are made on the same batch, the momentum inside begins at zero, and `loss` is that of the first one. The recipe's
    optimiser, learning rate and weight decay do nothing here; its schedule multiplies the outer rate.
    Source: Chaudhari et al., "Entropy-SGD: biasing gradient descent into wide valleys", arXiv:1611.01838, Algorithm 1, section 4.3
    (L 10 here as in Büchel et al., arXiv:2106.05009). Public code weighs μ the other way round, has noise √2 times as large, and
    in that of the comparison the scope never advances and the outer rate is 0.001, with which nothing is learnt.

    Raises `NoiseproofError` when a setting is out of its range.

    Example:
        >>> EntropySGD(steps=10).gradient_evaluations
        10
    """

    # Langevin steps L a batch
    steps: int = 10
    # rate η' of the Langevin steps; as published, for networks with batch norm: without it take about 0.003
    inner_rate: float = 0.1
    # rate of the step along θ - μ
    outer_rate: float = 1.0
    # Nesterov's momentum, inside and outside
    momentum: float = 0.9
    # thermal noise ε of the Langevin steps
    thermal_noise: float = 1e-4
    # weight α of the newest point in the running mean
    mean_weight: float = 0.75
    # scope γ0 at the beginning: the strength of the pull towards θ
    scope: float = 1e-2
    # growth γ1 of the scope with every batch
    scope_growth: float = 1e-3

    def __post_init__(self) -> None:
        require_number("steps", self.steps, 1, whole=True)
        require_number("inner_rate", self.inner_rate, 0, open_low=True)
        require_number("outer_rate", self.outer_rate, 0, open_low=True)
        require_number("momentum", self.momentum, 0, 0.999)
        require_number("thermal_noise", self.thermal_noise, 0)
        require_number("mean_weight", self.mean_weight, 0, 1, open_low=True)
        require_number("scope", self.scope, 0)
        require_number("scope_growth", self.scope_growth, 0, 1)

    @property
    def gradient_evaluations(self) -> float:
        return self.steps

    def make_optimizer(self, parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.outer_rate, momentum=self.momentum, nesterov=self.momentum > 0)

    def scope_at(self, step: int) -> float:
        """Return γ of batch number `step`, from 0."""
        if not self.scope:
            return 0.0
        # in logarithms, which do not overflow in a long training
        return math.exp(min(math.log(self.scope) + step * math.log1p(self.scope_growth), -math.log(self.inner_rate)))

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        return cross_entropy(call(network, params, x), y)

    def step(self, network: nn.Module, batch: Batch, context: Context, update: Update) -> None:
        theta = {name: p.detach() for name, p in trained(dict(network.named_parameters())).items()}
        streams = children(context.generator, list(theta))
        # statistics of batch norm follow the first pass alone, as in plain training
        aside = {name: b.clone() for name, b in network.named_buffers()}
        point = {name: p.clone() for name, p in theta.items()}
        mean = {name: p.clone() for name, p in theta.items()}
        velocity = {name: torch.zeros_like(p) for name, p in theta.items()}
        scope, told = self.scope_at(context.step), torch.zeros(())
        for i in range(self.steps):
            loss, gradient = self._gradient(network, point, {} if i == 0 else aside, batch, context)
            told = told if i else loss
            for name, at in point.items():
                self._langevin(at, theta[name], gradient[name], velocity[name], scope, streams[name])
                mean[name].lerp_(at, self.mean_weight)
        update(told, gradient={name: theta[name] - mean[name] for name in theta})

    def _langevin(self, at: Tensor, theta: Tensor, gradient: Tensor, velocity: Tensor, scope: float, stream: torch.Generator) -> None:
        """Move `at`, x' of one parameter, by one step, in place."""
        velocity.mul_(self.momentum).add_(gradient)
        pull = at - theta
        at.sub_(torch.add(gradient, velocity, alpha=self.momentum), alpha=self.inner_rate)
        at.sub_(pull, alpha=self.inner_rate * scope)
        if self.thermal_noise:
            at.add_(draw_normal(at, stream), alpha=self.inner_rate**0.5 * self.thermal_noise)

    def _gradient(self, network: nn.Module, point: Params, buffers: Params, batch: Batch, context: Context) -> tuple[Tensor, Params]:
        leaves = {name: p.detach().requires_grad_() for name, p in point.items()}
        loss = self.loss(network, {**leaves, **buffers}, batch, context)
        total = loss + context.penalty()
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return loss.detach(), dict(zip(leaves, found, strict=True))


method = EntropySGD
