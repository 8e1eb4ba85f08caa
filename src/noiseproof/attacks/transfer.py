from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.attacks._ball import Ball
from noiseproof.attacks._base import ALL_ZERO, Attack, GradientAttack
from noiseproof.attacks._view import View
from noiseproof.errors import NoGradientError, NoiseproofError, require
from noiseproof.networks import adapt
from noiseproof.parameters import call_inference, parameters_of
from noiseproof.randomness import stochastic


@dataclass(frozen=True)
class Transfer(Attack):
    """Black box: inputs made on another network, the source, of which alone gradients are known, then shown to the target.

    The source is attacked inside the same ball and to the end, not only until it is fooled: what just fools one network seldom
    fools another. The budget counts what the target is asked: one query a sample. Kundu et al., ICCV 2021, section 5, take a source of
    the same architecture from another seed. Source: Papernot et al., arXiv:1602.02697.

    Raises `NoiseproofError` without a source, for an attack that cannot be read, and for a source of other inputs or classes.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> build = lambda seed: npf.networks.MLP(hidden=(20,)).build(data.task, torch.Generator().manual_seed(seed))
        >>> black_box = Transfer(eps=0.1, source=build(1), attack="pgd(steps=5)")
        >>> black_box(build(0), data.test.x, data.test.y, torch.Generator().manual_seed(0)).budget.gradient_evaluations
        0
    """

    # the network that is attacked in place of the target; from the command line the folder of its run
    source: nn.Module | str = ""
    # how it is attacked; ε, norm and draws are those above
    attack: str = "pgd(steps=20)"
    # what records call the source; empty: the label and the seed of its run, or its class
    label: str = ""
    # identity of the source's run, filled in, or a hash of its weights, so that another source of the same label is another one in records
    identity: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.source != "", "source", self.source, "give a network, or the folder of a finished run")
        _ = self.inner

    @property
    def inner(self) -> Attack:
        """The attack on the source."""
        # the parts that read text stand above this one
        from noiseproof.config import spelled_attacks

        found = spelled_attacks(self.attack, "attack")
        require(len(found) == 1, "attack", self.attack, "give one attack, without |")
        attack = replace(found[0], eps=self.eps, norm=self.norm, eot=self.eot)
        return replace(attack, survivors_only=False) if isinstance(attack, GradientAttack) else attack

    def network(self, device: torch.device) -> nn.Module:
        """Return the source; one that is given as an object must be on the device of the inputs."""
        if isinstance(self.source, nn.Module):
            homes = {p.device for p in self.source.parameters()}
            require(homes <= {device}, "source", ", ".join(map(str, homes)), f"the inputs are on {device}; move the network there")
            return adapt(self.source)
        weights = Path(self.source) / "weights.safetensors"
        return _of_run(self.source, weights.stat().st_mtime_ns if weights.is_file() else 0).to(device)

    def fits(self, network: nn.Module, x: Tensor) -> None:
        source = self.network(x.device)
        classes = [_classes(net, x[:1], what) for net, what in ((source, "source"), (network, "network"))]
        if classes[0] != classes[1]:
            raise NoiseproofError(
                f"source gives {classes[0]} classes and the network {classes[1]}: what fools the one says nothing about the other; give a "
                "source of the same data"
            )
        bounds = [tuple(float(b) for b in net.bounds) for net in (source, network)]  # pyright: ignore[reportGeneralTypeIssues]
        require(bounds[0] == bounds[1], "source", f"of bounds {bounds[0]}", f"the network has {bounds[1]}; give one of the same data")

    def search(self, view: View, x: Tensor, y: Tensor, ball: Ball, generator: torch.Generator) -> Tensor:
        inner = self.inner
        with inner.seen(self.network(x.device), view.seed) as seen:
            seen.stochastic = seen.is_stochastic(x)
            found = inner.search(seen, x, y, ball, generator)
        if seen.spent.all_zero:
            raise NoGradientError(f"source: {ALL_ZERO}")
        return found

    def describe(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "label"}
        return {"name": "transfer", **plain, "source": self._label(), "identity": self._identity()}

    def _label(self) -> str:
        if self.label:
            return self.label
        if isinstance(self.source, nn.Module):
            return type(self.source).__name__
        experiment = _experiment(self.source)
        return f"{experiment.label}, seed {experiment.seed}"

    def _identity(self) -> str:
        if self.identity:
            return self.identity
        if isinstance(self.source, str):
            return _experiment(self.source).identity
        from noiseproof.checkpoint import digest

        return digest(dict(self.source.named_parameters()))[:16]


def _classes(network: nn.Module, x: Tensor, what: str) -> int:
    try:
        with torch.no_grad(), stochastic(0):
            return call_inference(network, parameters_of(network), x).shape[-1]
    except (NoiseproofError, RuntimeError) as error:
        raise NoiseproofError(f"{what} cannot take inputs of shape {tuple(x.shape[1:])}: {str(error).splitlines()[0]}") from error


def _experiment(folder: str) -> Any:
    from noiseproof.plan import experiment_of
    from noiseproof.records import RunFolder

    return experiment_of(RunFolder(folder))


@lru_cache(maxsize=4)
def _of_run(folder: str, changed: int) -> nn.Module:
    """Return the trained network of a run folder; `changed`: when its weights were written, so that newer ones are read anew."""
    from noiseproof import checkpoint, training
    from noiseproof.records import RunFolder

    experiment = _experiment(folder)
    network = training.build_network(experiment, training.load_data(experiment, None))
    checkpoint.load_weights(RunFolder(folder).weights_file, network)
    return network


attack = Transfer
