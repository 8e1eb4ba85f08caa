from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from noiseproof.attacks.pgd import PGD
from noiseproof.errors import require
from noiseproof.neurons.rate_rules import RATE_RULES, RateRule, rate_rule


@dataclass(frozen=True)
class RateGradient(PGD):
    """PGD on a spiking network whose gradient goes through firing rates in place of time, which no surrogate can mask.

    Each layer keeps its exact spikes; in backward they are a function f of the mean current, see `noiseproof.neurons.rate_rules`:
    "rga", a line of slope γ below the rheobase and a steeper one above; "bptr", straight through where a neuron spiked at all.
    Nothing goes back through time, and recurrent weights pass no gradient. Networks without neurons of noiseproof are refused.
    Source: Bu et al., CVPR 2023 (rga); Ding et al., NeurIPS 2022 (bptr).

    Raises `NoiseproofError` when a setting is out of its range, and when a surrogate is given, for which there is no place.

    Example:
        >>> import torch
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.networks.MLP(hidden=(20,), neuron="lif").build(data.task, torch.Generator().manual_seed(0))
        >>> found = RateGradient(eps=0.1, steps=5)(network, data.test.x, data.test.y, torch.Generator().manual_seed(0))
        >>> found.success.shape
        torch.Size([20])
    """

    # f: rga or bptr
    rule: Literal["rga", "bptr"] = "rga"

    def __post_init__(self) -> None:
        require(self.rule in RATE_RULES, "rule", self.rule, "give rga or bptr")
        require(not self.surrogate, "surrogate", self.surrogate, "the gradient goes through rates; leave it out, or take pgd")
        super().__post_init__()

    @property
    def attackers_surrogate(self) -> RateRule:
        return rate_rule(self.rule)


attack = RateGradient
