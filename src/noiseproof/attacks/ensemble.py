from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from noiseproof.attacks._base import Attack
from noiseproof.attacks._members import Members
from noiseproof.attacks.apgd import APGD
from noiseproof.attacks.pgd import PGD
from noiseproof.attacks.random_noise import RandomNoise
from noiseproof.attacks.rate_gradient import RateGradient
from noiseproof.attacks.square import Square
from noiseproof.attacks.transfer import Transfer
from noiseproof.attacks.tuned_surrogate import TunedSurrogate
from noiseproof.errors import require_number
from noiseproof.networks import SpikingNetwork, UnderNoise, adapt


@dataclass(frozen=True)
class Ensemble(Members):
    """The worst case per sample over what attackers choose: surrogate gradient, loss, optimiser, or no gradient at all. Cheapest first.

    Spiking networks: random corners, rate gradients (RGA, BPTR), PGD, with momentum on the margin too, transfer, APGD on cross-entropy
    and DLR, all these with the surrogate of the training; then `tuned-surrogate` (shape × sharpness, chosen for every sample), Square;
    with Poisson coding PGD at the expected input too. Networks without spikes: the same, targeted APGD in place of surrogates and rates.
    With the defaults a sample that survives all costs about 520 gradient evaluations, a query counted as a third of one: 26 × PGD-20.

    Raises `NoiseproofError` when a setting is out of its range, and for a source that does not fit.

    Example:
        >>> import torch
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif").build(data.task, torch.Generator().manual_seed(0))
        >>> attack = Ensemble(eps=0.1, steps=5, screening=2, queries=20)
        >>> found = attack(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> [member.attack.describe()["name"] for member in found.members][-2:]
        ['tuned-surrogate', 'square']
    """

    # gradient steps of every member
    steps: int = 20
    # gradient steps of the short runs by which the surrogate of a sample is chosen
    screening: int = 5
    # forward passes of Square
    queries: int = 500
    # tries of random corner noise
    draws: int = 8
    # network for the transfer, or the folder of its run; empty: no transfer
    source: nn.Module | str = ""
    # what records call it; empty: the label and the seed of its run, or its class
    label: str = ""
    # identity of its run, filled in
    identity: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "screening", "queries", "draws"):
            require_number(name, getattr(self, name), 1, whole=True)

    def members(self, network: nn.Module) -> tuple[Attack, ...]:
        own, share, steps = adapt(network), self.share, self.steps
        spiking = is_spiking(own)
        found: list[Attack] = [RandomNoise(**share, draws=self.draws)]
        if spiking:
            found += [RateGradient(**share, steps=steps, rule="rga"), RateGradient(**share, steps=steps, rule="bptr")]
        found += [PGD(**share, steps=steps), PGD(**share, steps=steps, momentum=1.0, loss="margin")]
        if getattr(own, "coding", "") == "poisson":
            found.append(PGD(**share, steps=steps, expected=True, survivors_only=False))
        if self.source != "":
            found.append(self._transfer(**share, attack=f"pgd(steps={steps}, momentum=1)"))
        found += [APGD(**share, steps=steps), APGD(**share, steps=steps, loss="dlr")]
        if spiking:
            found.append(TunedSurrogate(**share, steps=steps, screening=self.screening))
        else:
            found.append(APGD(**share, steps=steps, loss="dlr", targets=3))
        return *found, Square(**share, queries=self.queries)

    def describe(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("source", "label", "identity")}
        source = self._transfer().describe() if self.source != "" else {"source": ""}
        return {"name": "ensemble", **plain, **{name: source[name] for name in ("source", "identity") if name in source}}

    def _transfer(self, **settings: Any) -> Transfer:
        return Transfer(source=self.source, label=self.label, identity=self.identity, **settings)


def is_spiking(network: nn.Module) -> bool:
    """Return whether there are spiking neurons inside that noiseproof knows."""
    inside = network.network if isinstance(network, UnderNoise) else network
    return isinstance(inside, SpikingNetwork) or bool(getattr(inside, "spiking", False))


attack = Ensemble
