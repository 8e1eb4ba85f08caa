"""What is followed during training, after every epoch, on validation data: accuracy under noise and attack, perturbations inside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.attacks import Attack, WeightAttack
from noiseproof.config import Recipe
from noiseproof.data import Split
from noiseproof.errors import NoiseproofError
from noiseproof.measure import measure
from noiseproof.networks import SpikingNetwork
from noiseproof.neurons import Neuron, Recurrent
from noiseproof.neurons.dynamics import layer_dynamics, ms_mppd
from noiseproof.noise import Noise
from noiseproof.parameters import Params, inference_mode
from noiseproof.randomness import generator, stochastic

SAMPLES = 1000  # validation samples at most
BLOCK = 50  # at a time, where every current of every step is kept


@dataclass(frozen=True)
class Followed:
    """One number that is followed: its name in the history, how it is measured, and what records call it."""

    name: str
    score: Callable[[nn.Module, Params, Split, int], float]  # network, its parameters, samples, epoch
    metric: str = "accuracy"
    perturbation: dict[str, Any] = field(default_factory=dict)


def followed(recipe: Recipe) -> list[Followed]:
    """Return everything that a recipe follows beside accuracy and loss."""
    return [*_under_attack(recipe), *(_under_noise(noise, recipe) for noise in recipe.tracked_noises()), *_perturbed(recipe)]


def scores(network: nn.Module, params: Params, validation: Split, recipe: Recipe, epoch: int) -> dict[str, float]:
    """Return by name what is followed, after `epoch` (from 0)."""
    few = Split(validation.x[:SAMPLES], validation.y[:SAMPLES])
    return {one.name: one.score(network, params, few, epoch) for one in followed(recipe)}


def _under_attack(recipe: Recipe) -> list[Followed]:
    """Return the accuracies at the worst weights in a box, and at a random point of it."""
    zeta = recipe.track_attack
    if not zeta:
        return []
    attacks = [WeightAttack(zeta=zeta, objective=objective, parameters="all") for objective in ("kl", "ce")]

    def worst(attack: WeightAttack) -> Callable[[nn.Module, Params, Split, int], float]:
        def score(network: nn.Module, params: Params, few: Split, epoch: int) -> float:
            with stochastic(0):
                found = attack(network, params, [(few.x, few.y)], generator("tracked attack", recipe.seed, epoch))
            return measure(network, found.params, few.x, few.y).accuracy

        return score

    def chance(network: nn.Module, params: Params, few: Split, epoch: int) -> float:
        point = attacks[0].random_point(network, params, generator("tracked point", recipe.seed, epoch))
        return measure(network, point, few.x, few.y).accuracy

    found = [Followed(f"attacked, {attack.objective}", worst(attack), perturbation=attack.describe()) for attack in attacks]
    point = {"name": "random-point", "zeta": zeta, "norm": "linf", "parameters": "all"}
    return [*found, Followed("random point", chance, perturbation=point)]


def _under_noise(noise: Noise, recipe: Recipe) -> Followed:
    @torch.no_grad()
    def score(network: nn.Module, params: Params, few: Split, epoch: int) -> float:
        total = 0.0
        for i in range(recipe.track_chips):
            # the same chips after every epoch
            chip = noise(params, generator("tracked chip", recipe.seed, i))
            with noise.converters(chip):
                total += measure(network, chip, few.x, few.y).accuracy
        return total / recipe.track_chips

    return Followed(f"under {json.dumps(noise.describe(), sort_keys=True)}", score, perturbation=noise.describe())


def _perturbed(recipe: Recipe) -> list[Followed]:
    """Return the MS-MPPD of the last layer of neurons for each attack, as Ding et al., ICML 2024, Fig. 5, follow it."""

    def followed_by(attack: Attack) -> Followed:
        def score(network: nn.Module, params: Params, few: Split, epoch: int) -> float:
            stream, fixed = generator("tracked perturbation", recipe.seed), {name: p.detach() for name, p in params.items()}
            with stochastic(0), inference_mode(network):
                blocks = zip(few.x.split(BLOCK), few.y.split(BLOCK), strict=True)
                values = [last_ms_mppd(network, x, attack.craft(network, fixed, x, y, stream)) for x, y in blocks]
            return float(torch.cat(values).double().mean())

        described = attack.describe()
        return Followed(f"ms_mppd by {json.dumps(described, sort_keys=True)}", score, "ms_mppd", described)

    return [followed_by(attack) for attack in recipe.tracked_perturbations()]


@torch.no_grad()
def last_ms_mppd(network: nn.Module, x: Tensor, moved: Tensor) -> Tensor:
    """Return the MS-MPPD of the last layer of neurons for x and x′ [B, …], one number a sample.

    Raises `NoiseproofError` for a network without spiking neurons of ours, whose leaks alone are known.
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, Neuron | Recurrent)}
    if not isinstance(network, SpikingNetwork) or not layers:
        raise NoiseproofError("track_perturbation is given: the network has no spiking neurons of noiseproof; leave it out")
    clean, other = (network.run(z, record=("current",)).traces["current"] for z in (x, moved))
    name = list(clean)[-1]
    return ms_mppd(layer_dynamics(layers[name], clean[name] - other[name]))
