"""Another network on which attacks are made, to be shown to the one that is measured: a black box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from noiseproof import checkpoint
from noiseproof.attacks import Attack, GradientAttack, Transfer
from noiseproof.data import Splits
from noiseproof.errors import NoiseproofError, require
from noiseproof.evaluation.robustness import spelled
from noiseproof.records import RunFolder
from noiseproof.training import build_network


@dataclass(frozen=True, eq=False)
class Source:
    """A trained network and what records call it."""

    network: nn.Module
    label: str

    def transfers(self, attacks: Sequence[Attack]) -> list[Transfer]:
        """Return, for every attack by gradients, the same one made on the source and shown to another network."""
        return [
            Transfer(eps=a.eps, norm=a.norm, eot=a.eot, source=self.network, label=self.label, attack=spelled(a))
            for a in attacks
            if isinstance(a, GradientAttack)
        ]


def open_source(folder: str, data: Splits, device: str) -> Source:
    """Return the network of the run in `folder`, trained on the same data as the one that is measured.

    Raises `NoiseproofError` when it was trained on other data (other inputs, other classes), or is not finished.
    """
    # plans stand above measurements
    from noiseproof.plan import experiment_of

    run = RunFolder(folder)
    experiment = experiment_of(run)
    # a data set may come in variants, whose names go on
    same = data.task.name.startswith(experiment.data)
    require(same, "transfer_from", folder, f"it was trained on {experiment.data}, this is {data.task.name}; give a run of the same data")
    try:
        network = build_network(experiment, data)
        checkpoint.load_weights(run.weights_file, network)
    except NoiseproofError as error:
        require(run.weights_file.is_file(), "transfer_from", folder, "its training is not finished; finish it first")
        raise NoiseproofError(
            f"transfer_from is {folder!r}: its network is for other inputs or classes than this data has; give a run of the same data "
            f"({str(error)[:160]})"
        ) from None
    return Source(network.to(device), f"{experiment.label}, seed {experiment.seed}")
