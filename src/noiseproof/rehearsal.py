"""All that can be wrong with a training, found before it begins."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from noiseproof import tracking
from noiseproof.config import Experiment, Recipe
from noiseproof.data import Split, Splits
from noiseproof.errors import NoiseproofError, require
from noiseproof.methods import Context, Method
from noiseproof.moments import check_moments
from noiseproof.networks.adapt import check_fits
from noiseproof.neurons.rates import RatePenalty
from noiseproof.parameters import Params, parameters_of
from noiseproof.randomness import generator, globally_seeded, stochastic


def rehearse(network: nn.Module, data: Splits, method: Method, recipe: Recipe) -> None:
    """Take the loss once on a copy of the network, on as few samples as the last batch has: what cannot work is found now.

    Raises `NoiseproofError` when the network does not fit the data, or the method does not fit the network.
    """
    if isinstance(recipe, Experiment) and not recipe.augment:
        require(not recipe.cutout, "cutout", recipe.cutout, "it is a part of the augmentation; set augment too, or leave it out")
    method.check_epochs(recipe.epochs)
    check_fits(network, data.train.x, data.task.classes)
    if recipe.rate_penalty:
        RatePenalty(network, recipe.rate_penalty, recipe.rate_target)
    last = len(data.train) % recipe.batch_size or min(recipe.batch_size, len(data.train))
    twin = copy.deepcopy(network).cpu().train()
    context = Context(generator("rehearsal", 0), state=method.start(twin))
    batch = (data.train.x[: min(last, 2)], data.train.y[: min(last, 2)])

    def update(loss: Tensor, gradient: Params | None = None, free: Params | None = None) -> None:
        if free is not None:
            check_moments(method, recipe)

    try:
        with globally_seeded(0, torch.device("cpu")), stochastic(0):
            method.step(twin, batch, context, update)
        for project in recipe.projections():
            project(dict(twin.named_parameters()), generator("rehearsal", 0))
        few = Split(*batch)
        for followed in tracking.followed(recipe):
            followed.score(twin, parameters_of(twin), few, 0)
    except NoiseproofError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise NoiseproofError(f"the network cannot be trained with batch_size {recipe.batch_size}, last batch {last}: {reason}") from error
