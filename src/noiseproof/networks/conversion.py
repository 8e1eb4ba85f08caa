"""A trained plain network becomes a spiking one: weights copied, thresholds set layer by layer from its own currents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, require_number
from noiseproof.measure import measure
from noiseproof.networks._base import Network
from noiseproof.networks._spiking import Pass, SpikingNetwork, walk
from noiseproof.neurons.lif import LIF
from noiseproof.neurons.neuron import Neuron
from noiseproof.neurons.recurrent import Recurrent
from noiseproof.parameters import inference_mode, parameters_of
from noiseproof.randomness import stochastic


@dataclass(frozen=True)
class Converted:
    """What a conversion reports: the threshold of every layer, and accuracies where labels were given."""

    thresholds: dict[str, float]
    plain_accuracy: float | None = None
    spiking_accuracy: float | None = None


@torch.no_grad()
def convert(
    plain: Network,
    spiking: SpikingNetwork,
    batches: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    percentile: float = 99.7,
    scale: float = 1.0,
) -> Converted:
    """Copy the weights of `plain` into `spiking` (in place) and set its thresholds, layer by layer from the input on.

    The threshold of layer l is `scale` times the largest, over the time steps and batches, of the `percentile` of its input
    current, while all earlier layers spike at their new thresholds. Leaks become 1. `plain` and `spiking` are one architecture
    with `neuron="relu"` and with spiking neurons; `batches`: calibration inputs [B, …], or pairs with labels, on which the
    accuracy of both is then reported. Use training data. Currents are kept of one layer at a time: [T, B, …] of the largest must fit.
    Source: Kundu et al., ICCV 2021, section 4 (its scaling factor is `scale`); after Rathi et al., arXiv:2005.01807.

    Raises `NoiseproofError` when the two do not have the same weights or pool in different ways, neurons are recurrent, adaptive or
    have a time constant instead of a leak, there are no batches, a layer's currents are nowhere positive, or a number is out of its
    range.

    Example:
        >>> from noiseproof.data import Task
        >>> from noiseproof.networks import MLP
        >>> task = Task("digits", (1, 28, 28), 10, (0.1,), (0.3,), (0.0, 1.0))
        >>> stream = torch.Generator().manual_seed(0)
        >>> plain = MLP(hidden=(20,)).build(task, stream)
        >>> spiking = MLP(hidden=(20,), neuron="lif", steps=8).build(task, stream)
        >>> list(convert(plain, spiking, [torch.rand(16, 1, 28, 28, generator=stream)]).thresholds)
        ['lif1']
    """
    require_number("percentile", percentile, 0, 100, open_low=True)
    require_number("scale", scale, 0, open_low=True)
    batches = list(batches)
    calibration = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    if not calibration:
        raise NoiseproofError("batches is empty: give at least one batch of inputs to set the thresholds by")
    check_convertible(plain, spiking)
    target = spiking.state_dict()
    for name, value in plain.state_dict().items():
        target[name].copy_(value)
    layers = {name: layer for name, layer in spiking.named_modules() if isinstance(layer, LIF)}
    for layer in layers.values():
        if "leak" in dict(layer.named_parameters()):
            layer.leak.fill_(1.0)
    thresholds: dict[str, float] = {}
    with inference_mode(spiking), stochastic(0):
        # in the order in which a run reaches them
        for name in list(spiking.run(calibration[0][:1], record=("current",)).traces["current"]):
            largest = max(_percentile(_current(spiking, name, x), percentile) for x in calibration)
            if largest <= 0:
                raise NoiseproofError(f"layer {name} has no positive current at the {percentile:g}th percentile: no spike could come of it")
            layers[name].threshold.fill_(scale * largest)
            thresholds[name] = scale * largest
    labelled = [batch for batch in batches if not isinstance(batch, Tensor)]
    if not labelled:
        return Converted(thresholds)
    x, y = torch.cat([b[0] for b in labelled]), torch.cat([b[1] for b in labelled])
    return Converted(thresholds, *(measure(network, parameters_of(network), x, y).accuracy for network in (plain, spiking)))


def check_convertible(plain: nn.Module, spiking: nn.Module) -> None:
    """Raise `NoiseproofError` unless `spiking` has the weights of `plain` and neurons that can be made integrate-and-fire ones."""
    _check_neurons(spiking)
    _check_weights(plain, spiking)
    _check_pooling(plain, spiking)


def _check_neurons(spiking: nn.Module) -> None:
    """Raise `NoiseproofError` for neurons that cannot be made integrate-and-fire ones."""
    for name, layer in spiking.named_modules():
        if isinstance(layer, Recurrent) or (isinstance(layer, Neuron) and not isinstance(layer, LIF)):
            raise NoiseproofError(f"layer {name} is {type(layer).__name__}: conversion needs neurons without recurrence or adaptation")
        if isinstance(layer, LIF) and (layer.decay_input or "tau" in dict(layer.named_parameters())):
            raise NoiseproofError(
                f"layer {name} has a time constant or decay_input: conversion sets the leak to 1; build it with leak alone"
            )


def _check_weights(plain: nn.Module, spiking: nn.Module) -> None:
    """Raise `NoiseproofError` unless parameters and buffers are the same by name and shape, but for those of the neurons."""
    source, target = plain.state_dict(), spiking.state_dict()
    layers = [(name, layer) for name, layer in spiking.named_modules() if isinstance(layer, Neuron)]
    of_neurons = {f"{name}.{part}" for name, layer in layers for part, _ in layer.named_parameters()}
    missing = [name for name in source if name not in target or target[name].shape != source[name].shape]
    added = [name for name in target if name not in source and name not in of_neurons]
    if missing or added:
        name, one, other = (missing[0], "plain", "spiking") if missing else (added[0], "spiking", "plain")
        raise NoiseproofError(
            f"{name} of the {one} network has no counterpart in the {other} one: build both from one architecture, "
            "with neuron='relu' and with spiking neurons"
        )


def _check_pooling(plain: nn.Module, spiking: nn.Module) -> None:
    """Raise `NoiseproofError` unless both networks pool in the same way: pooling has no weights that would tell."""
    pooling = [[repr(m) for m in network.modules() if type(m).__module__ == nn.AvgPool2d.__module__] for network in (plain, spiking)]
    if pooling[0] != pooling[1]:
        one, other = (next(iter(kinds), "none") for kinds in pooling)
        raise NoiseproofError(
            f"pooling of the plain network is {one} and that of the spiking one {other}, for which its weights are not made: "
            "take an architecture that pools alike in both, such as vgg5"
        )


def _current(spiking: SpikingNetwork, layer: str, x: Tensor) -> Tensor:
    """Return what comes into a layer of neurons [T, B, …], or [1, B, …] where that stays the same."""
    found: list[Tensor] = []

    def seen(name: str, module: nn.Module, current: Tensor) -> None:
        if name == layer:
            found.append(current)

    z, steps = spiking._in_time(x, None, None)
    passing = Pass(steps, seen=seen)
    for name, child in spiking.named_children():
        z = walk(child, z, passing, name)
        if found:
            break
    return found[0]


def _percentile(currents: Tensor, percentile: float) -> float:
    """Return the largest over time of the percentile of currents [T, B, …]. `kthvalue` instead of `quantile`, which is limited in size."""
    flat = currents.flatten(1)
    k = max(1, min(flat.shape[1], round(percentile / 100 * flat.shape[1])))
    return float(torch.stack([step.kthvalue(k).values for step in flat]).max())
