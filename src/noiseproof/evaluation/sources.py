"""Another network on which attacks are made, to be shown to the one that is measured: a black box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from noiseproof import checkpoint
from noiseproof.attacks import Attack, Ensemble, GradientAttack, Transfer
from noiseproof.checkpoint import digest
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
    identity: str = ""  # of its run: other runs may have the same label

    def transfers(self, attacks: Sequence[Attack]) -> list[Transfer]:
        """Return, for every attack by gradients, the same one made on the source and shown to another network."""
        return [
            Transfer(eps=a.eps, norm=a.norm, eot=a.eot, source=self.network, label=self.label, identity=self.identity, attack=spelled(a))
            for a in attacks
            if isinstance(a, GradientAttack)
        ]

    def inside(self, attack: Ensemble | Transfer) -> Ensemble | Transfer:
        """Return an attack with this network as its source."""
        return replace(attack, source=self.network, label=attack.label or self.label, identity=self.identity)


def with_source(network: nn.Module, attacks: Sequence[Attack], transfer_from: str, data: Splits, device: str) -> list[Attack]:
    """Return the attacks on `network` with what the run in `transfer_from` (empty: none) adds; runs that they name are opened.

    It becomes the source of every ensemble that has none, and every attack by gradients is made on it too.

    Raises `NoiseproofError` when it is the network itself, when no attack can use it, and as `open_source` does.
    """
    given = [_opened(attack, data, device) for attack in attacks]
    if not transfer_from:
        return given
    source = open_source(transfer_from, data, device)
    own, other = (digest(dict(each.named_parameters())) for each in (network, source.network))
    require(own != other, "transfer_from", transfer_from, "it is the network that is attacked; give a run of another seed or method")
    found = [source.inside(a) if isinstance(a, Ensemble) and a.source == "" else a for a in given] + source.transfers(given)
    require(found != given, "transfer_from", transfer_from, "none of the attacks can use it; add an ensemble, or an attack by gradients")
    return found


def _opened(attack: Attack, data: Splits, device: str) -> Attack:
    if isinstance(attack, Ensemble | Transfer) and isinstance(attack.source, str) and attack.source:
        return open_source(attack.source, data, device, "source").inside(attack)
    return attack


def open_source(folder: str, data: Splits, device: str, field: str = "transfer_from") -> Source:
    """Return the network of the run in `folder`, which `field` names, trained on the same data as the one that is measured.

    Raises `NoiseproofError` when it was trained on other data (other inputs, other classes), or is not finished.
    """
    # plans stand above measurements
    from noiseproof.plan import experiment_of

    run = RunFolder(folder)
    experiment = experiment_of(run)
    # a data set may come in variants, whose names go on
    same = data.task.name.startswith(experiment.data)
    require(same, field, folder, f"it was trained on {experiment.data}, this is {data.task.name}; give a run of the same data")
    try:
        network = build_network(experiment, data)
        checkpoint.load_weights(run.weights_file, network)
    except NoiseproofError as error:
        require(run.weights_file.is_file(), field, folder, "its training is not finished; finish it first")
        raise NoiseproofError(
            f"{field} is {folder!r}: its network is for other inputs or classes than this data has; give a run of the same data "
            f"({str(error)[:160]})"
        ) from None
    return Source(network.to(device), f"{experiment.label}, seed {experiment.seed}", experiment.identity)
