from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.attacks import BitFlips, WeightAttack
from noiseproof.attacks.objectives import kl_divergence
from noiseproof.data import Split
from noiseproof.evaluation.ledger import Ledger
from noiseproof.measure import measure
from noiseproof.networks import adapt
from noiseproof.parameters import Params, call_inference, parameters_of
from noiseproof.progress import Progress
from noiseproof.randomness import generator
from noiseproof.records import Record


def attack_curves(
    network: nn.Module,
    split: Split,
    attacks: Sequence[WeightAttack | BitFlips],
    *,
    restarts: int = 3,
    samples: int = 1000,
    seed: int = 0,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return accuracy, cross-entropy and KL at the worst weights that each attack finds, and at random points of the same sets.

    One perturbation is shared by the first `samples` samples (one bad chip). Every restart is a record, at {"restart": k}:
    the reader takes the minimum. Random points are corners of the box, points on the rim of the ellipsoid, or flips of random bits.
    Source: Büchel et al., arXiv:2106.05009, Fig. 3 and S3.

    Raises `NoiseproofError` when an attack selects no parameter.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> attacks = [npf.attacks.WeightAttack(zeta=z, objective="ce") for z in (0.0, 0.5)]
        >>> records = attack_curves(network, data.test, attacks, restarts=1)
        >>> losses = [r.value for r in records if r.metric == "cross_entropy" and r.perturbation["name"] == "weight-attack"]
        >>> losses[0] < losses[1]
        True
    """
    network, ledger = adapt(network), ledger or Ledger()
    params = {name: p.detach() for name, p in parameters_of(network).items()}
    x, y = split.x[:samples], split.y[:samples]
    found: list[Record] = []
    for attack in attacks:
        batches = list(zip(x.split(500), y.split(500), strict=True))
        for k in range(restarts):
            where = (attack.describe(), {"restart": float(k)}, seed)
            found += _point(
                network,
                params,
                x,
                y,
                where,
                ledger,
                lambda a=attack, b=batches, k=k: a(network, params, b, generator("attack", seed, k)).params,
            )
            found += _point(
                network,
                params,
                x,
                y,
                (attack.describe_random(), {"restart": float(k)}, seed),
                ledger,
                lambda a=attack, k=k: a.random_point(network, params, generator("random point", seed, k)),
            )
            if progress is not None:
                progress.advance(1)
    return list({record.key: record for record in found}.values())


def _point(
    network: nn.Module, params: Params, x: Tensor, y: Tensor, where: tuple[dict[str, Any], dict[str, float], int], ledger: Ledger, make: Any
) -> list[Record]:
    """Return the three records of one point, measured only when they are missing."""
    described, at, seed = where
    blank = [ledger.make(metric, 0.0, len(x), described, at, seed=seed) for metric in ("accuracy", "cross_entropy", "kl")]
    there = [record for record in map(ledger.find, blank) if record is not None]
    if len(there) == len(blank):
        return there
    point = make()
    result = measure(network, point, x, y)
    values = (result.accuracy, result.loss, _kl(network, params, point, x))
    return ledger.add([ledger.make(b.metric, value, len(x), described, at, seed=seed) for b, value in zip(blank, values, strict=True)])


@torch.no_grad()
def _kl(network: nn.Module, params: Params, point: Params, x: Tensor) -> float:
    blocks = x.split(500)
    values = [
        float(kl_divergence(call_inference(network, params, block).log_softmax(-1), call_inference(network, point, block).log_softmax(-1)))
        * len(block)
        for block in blocks
    ]
    return sum(values) / len(x)
