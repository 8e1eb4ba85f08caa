"""Training that starts from another run: from its weights as they are, or from a plain network converted into a spiking one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from noiseproof import checkpoint, config
from noiseproof.config import Experiment
from noiseproof.data import Splits, Task
from noiseproof.errors import NoiseproofError, require
from noiseproof.measure import measure
from noiseproof.networks import SpikingNetwork, convert
from noiseproof.networks.conversion import check_convertible
from noiseproof.parameters import parameters_of
from noiseproof.randomness import generator
from noiseproof.records import Record, RunFolder

BLOCK = 100  # calibration samples at a time
STEPS = 2000  # or fewer, so that these times their steps are no more: every current of a layer is kept for a block


def started(experiment: Experiment) -> Experiment:
    """Return the experiment with the identity of the run from whose weights it starts, so that other weights are another experiment.

    Raises `NoiseproofError` when that run is not there or not finished, or is not the one from which the experiment once started.
    """
    if not experiment.start_from:
        return experiment
    run = RunFolder(experiment.start_from)
    found = source_of(experiment).identity
    require(run.weights_file.exists(), "start_from", experiment.start_from, "its training is not finished; finish it first")
    if experiment.started_from not in ("", found):
        raise NoiseproofError(
            f"start_from is {experiment.start_from!r}: it holds another experiment ({found}) than the training started from "
            f"({experiment.started_from})"
        )
    return replace(experiment, started_from=found)


def source_of(experiment: Experiment) -> Experiment:
    """Return the experiment of the run from which `experiment` starts.

    Raises `NoiseproofError` where there is no run.
    """
    return config.from_dict(RunFolder(experiment.start_from).settings())


def converts(source: Experiment, experiment: Experiment) -> bool:
    """Whether a start from `source` is a conversion: its network is plain, and that of `experiment` has spiking neurons."""
    return experiment.network.spiking and not source.network.spiking


def check_start(source: Experiment, experiment: Experiment, task: Task) -> None:
    """Raise `NoiseproofError` unless the network of `experiment` can begin with the weights of `source`; no weights are needed.

    Nor may what this training validates on be what that one trained on. A limit changes nothing in that: it keeps the first ones of
    either part.
    """
    for field in ("seed", "validation") if source.data == experiment.data else ():
        there, here = getattr(source, field), getattr(experiment, field)
        remedy = f"its training has {there!r}, so that it has seen validation samples of this one; give both the same {field}"
        require(there == here, field, here, f"start_from is {experiment.start_from!r}, and {remedy}")
    with torch.device("meta"):  # shapes alone
        there, here = source.network.make(task), experiment.network.make(task)
    try:
        if converts(source, experiment):
            check_convertible(there, here)  # pyright: ignore[reportArgumentType] (spiking, as its architecture says)
        else:
            _check_same(there, here)
    except NoiseproofError as error:
        raise NoiseproofError(f"start_from is {experiment.start_from!r}: {error}") from None


def start(experiment: Experiment, network: nn.Module, data: Splits, device: str = "cpu") -> list[Record]:
    """Give `network`, in place, the weights of the run from which `experiment` starts; return the records of a conversion.

    A spiking network that starts from a plain one is converted: thresholds by the currents of `experiment.calibration` training
    samples, leaks 1 (`noiseproof.networks.convert`). Its records are plain_accuracy and converted_accuracy on validation data and
    the converted_threshold of every layer. Where weights are loaded as they are, there are none.

    Raises `NoiseproofError` when the weights are missing, damaged or of another network, or the conversion is impossible.
    """
    run, source = RunFolder(experiment.start_from), source_of(experiment)
    check_start(source, experiment, data.task)
    if not converts(source, experiment):
        checkpoint.load_weights(run.weights_file, network)
        return []
    plain = source.network.build(data.task, generator("weights", source.seed))
    checkpoint.load_weights(run.weights_file, plain)
    for one in (plain, network):
        one.to(device)
    chosen = torch.randperm(len(data.train), generator=generator("calibration", experiment.seed))[: experiment.calibration]
    assert isinstance(network, SpikingNetwork)
    block = max(1, min(BLOCK, STEPS // network.steps))
    converted = convert(plain, network, data.train.x[chosen].to(device).split(block))
    x, y = data.validation.x.to(device), data.validation.y.to(device)

    def record(metric: str, value: float, n: int, split: str, layer: dict[str, str] | None = None) -> Record:
        return Record(experiment.identity, metric, value, n, split, layer or {}, seed=experiment.seed, device=device)

    of_both = {"plain_accuracy": plain, "converted_accuracy": network}
    accuracies = [record(metric, measure(one, parameters_of(one), x, y).accuracy, len(y), "validation") for metric, one in of_both.items()]
    thresholds = [
        record("converted_threshold", value, len(chosen), "train", {"layer": layer}) for layer, value in converted.thresholds.items()
    ]
    return accuracies + thresholds


def say(found: list[Record]) -> str:
    """Return what the records of a conversion tell, as one line."""
    of_layers = ", ".join(f"{r.perturbation['layer']} {r.value:.4g}" for r in found if r.metric == "converted_threshold")
    plain, converted = (100 * next(r.value for r in found if r.metric == name) for name in ("plain_accuracy", "converted_accuracy"))
    return f"converted from a plain network: validation {plain:.2f} % before and {converted:.2f} % after, thresholds {of_layers}"


def _check_same(there: nn.Module, here: nn.Module) -> None:
    """Raise `NoiseproofError` unless two networks have parameters and buffers of the same names and shapes."""
    one, other = _shapes(there), _shapes(here)
    for name in [*one, *other]:
        if one.get(name) != other.get(name):
            raise NoiseproofError(
                f"{name} is {_shown(one, name)} there and {_shown(other, name)} here; give both trainings the same network"
            )


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _shown(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return f"of shape {shapes[name]}" if name in shapes else "missing"
