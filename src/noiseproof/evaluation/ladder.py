"""The ladder of a box: what attacks leave of the accuracy, and what is proved, on the same samples. No proof may stand above an attack."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from noiseproof.attacks import PerSampleWeightAttack, WeightAttack
from noiseproof.attacks.per_sample import box_edges
from noiseproof.certificates._box import Box
from noiseproof.certificates._precision import full_precision
from noiseproof.certificates._rounding import Arithmetic
from noiseproof.certificates.certify import certifiable, chosen_bounds, costly, margins_by, proved, usual
from noiseproof.data import Split
from noiseproof.errors import NoiseproofError, require, require_number
from noiseproof.evaluation.ledger import Ledger
from noiseproof.files import write_atomically
from noiseproof.networks import adapt
from noiseproof.parameters import Params, call_inference, parameters_of, select
from noiseproof.progress import Progress
from noiseproof.randomness import children, draw_normal, draw_uniform, generator
from noiseproof.records import Record

BLOCK = 25  # samples that are bounded, or searched one by one, at a time: memory grows with it
OBJECTIVES = ("kl", "ce")  # of the attack that all samples share
LOSSES: tuple[Literal["margin", "ce"], ...] = ("margin", "ce")  # of that on each sample, one after the other


@dataclass(frozen=True)
class Rungs:
    """How the rungs are measured: the bounds, and how hard the attacks search.

    Raises `NoiseproofError` for a number out of its range.
    """

    # intervals, backward, backward-full, spiking, spiking-backward; none: all that fit the network,
    # but backward-full and spiking-backward on at most 16,384 units alone
    bounds: tuple[str, ...] = ()
    # in which the network is computed, and whose rounding is counted in: float32, float64 (networks in it), exact
    arithmetic: Arithmetic = "float32"
    # gradient steps of every start, of the shared attack and of that on each sample
    steps: int = 10
    # starts of the shared attack for each objective, and random corners from which each sample is attacked
    restarts: int = 1
    # random corners of the box, and as many points inside, that all samples share
    points: int = 5

    def __post_init__(self) -> None:
        require(not isinstance(self.bounds, str), "bounds", self.bounds, f"give names, as ({self.bounds!r},)")
        for name, low in (("steps", 1), ("restarts", 1), ("points", 0)):
            require_number(name, getattr(self, name), low, whole=True)


@full_precision()
def ladder(
    network: nn.Module,
    split: Split,
    boxes: Sequence[Box],
    *,
    samples: int = 200,
    rungs: Rungs | None = None,
    seed: int = 0,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    save_folder: str | Path = ".",
) -> list[Record]:
    """Return, for every box, which share of the first `samples` samples attacks leave right, and which share is proved right.

        certified ≤ survived(per-sample) ≤ survived(shared), survived(random) ≤ survived(none)

    none: the network as it is; random: right at all of the random points of the box; shared: at the worst chip for all samples
    together, KL and cross-entropy; per-sample: at the worst chip for each sample, whose search starts from all of these. The last
    three steps hold by construction, as each rung counts what the ones above it broke. The first is a theorem, and is checked
    sample by sample: a certified sample that any attack breaks is saved in `save_folder` and stops everything. Samples that are
    wrong from the start count as neither. Beside every certified share stand the seconds that it took. What is in `ledger` is not
    measured again; the rungs of one box are measured together. On a GPU, TF32 is off meanwhile.

    Raises `NoiseproofError` for a layer without a bound, before any search, and when a proof is broken.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=20)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> records = ladder(network, data.test, [Box(z=0.01)], rungs=Rungs(bounds=("intervals",)), samples=10)
        >>> [record.perturbation["attack"] for record in records if record.metric == "survived"]
        ['none', 'random', 'shared', 'per-sample']
    """
    require_number("samples", samples, 1, whole=True)
    network, ledger, rungs = adapt(network), ledger or Ledger(), rungs or Rungs()
    split = Split(split.x[:samples], split.y[:samples])
    found: list[Record] = []
    for box in boxes:
        found += _Boxed(network, split, box, rungs, seed, ledger, progress, Path(save_folder)).records()
    return found


def blocks_of(boxes: Sequence[Box], samples: int) -> int:
    """Return how many steps of progress `ladder` makes."""
    return 2 * len(boxes) * math.ceil(samples / BLOCK)


def check_certifiable(network: nn.Module, x: Tensor, y: Tensor, boxes: Sequence[Box], rungs: Rungs) -> None:
    """Raise `NoiseproofError` when no bound is known for the network, or one that is asked for does not fit it.

    x [B, …] with classes y [B] hold a few samples.
    """
    for box in boxes[:1]:
        graph = certifiable(network, x, box, arithmetic=rungs.arithmetic)
        for asked in rungs.bounds or ("intervals",):
            for name in chosen_bounds(graph, asked):
                margins_by(graph, name, x[:1], y[:1])


class _Boxed:
    """All rungs of one network in one box."""

    def __init__(
        self, network: nn.Module, split: Split, box: Box, rungs: Rungs, seed: int, ledger: Ledger, progress: Progress | None, folder: Path
    ) -> None:
        self.network, self.x, self.y, self.box, self.rungs, self.seed = network, split.x, split.y, box, rungs, seed
        self.ledger, self.progress, self.folder = ledger, progress, folder
        self.params: Params = {name: p.detach() for name, p in parameters_of(network).items()}
        self.chosen = select(self.params, box.parameters)
        self.graph = certifiable(network, self.x, box, arithmetic=rungs.arithmetic)

    def records(self) -> list[Record]:
        """Return the records of all rungs; where one is missing, all are measured, as each proof is held against each attack."""
        named = self._named()
        attacks = [self._blank("box_parameters"), *(self._blank("survived", attack) for attack in self._attacks())]
        proofs = [self._blank(metric, self._described(name)) for name in named for metric in ("certified", "seconds_certifying")]
        blank = [*attacks, *proofs]
        there = [record for record in map(self.ledger.find, blank) if record is not None]
        if len(there) == len(blank):
            if self.progress is not None:
                self.progress.advance(blocks_of([self.box], len(self.y)))
            return there
        masks, seconds = self._certify(named)
        certified = torch.stack(list(masks.values())).any(0)
        survived, where = self._attack(certified)
        self._check(masks, survived, where)
        values = [sum(int((p != 0).sum()) for p in self.chosen.values()), *(_share(mask) for mask in survived.values())]
        values += [value for name in named for value in (_share(masks[name]), seconds[name])]
        made = [replace(record, value=float(value)) for record, value in zip(blank, values, strict=True)]
        self.ledger.add([record for record in made if self.ledger.find(record) is None])
        return [record for record in map(self.ledger.find, blank) if record is not None]

    def _named(self) -> list[str]:
        """Return the bounds to compute; where none is asked for, those that know all of the network."""
        if self.rungs.bounds:
            return list(dict.fromkeys(name for asked in self.rungs.bounds for name in chosen_bounds(self.graph, asked)))
        known = list[str]()
        for name in usual(self.graph):
            if self.ledger.find(self._blank("certified", self._described(name))) is None:
                try:
                    margins_by(self.graph, name, self.x[:1], self.y[:1])
                except NoiseproofError as error:
                    if name == "intervals":
                        raise
                    if self.progress is not None:
                        self.progress.say(f"bounds {name!r} are left out: {error}")
                    continue
            known.append(name)
        return known

    def _certify(self, named: Sequence[str]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return which samples [n] each bound proves right, and the seconds that it took."""
        masks: dict[str, list[Tensor]] = {name: [] for name in named}
        seconds = dict.fromkeys(named, 0.0)
        for x, y in zip(self.x.split(BLOCK), self.y.split(BLOCK), strict=True):
            with torch.no_grad():
                right = call_inference(self.network, self.params, x).argmax(-1) == y
            for name in named:
                begun = time.perf_counter()
                # the cheap bounds are asked about wrong samples too: to prove one of them would be a mistake that has to be seen
                asked = right if costly(name) else torch.ones_like(right)
                masks[name].append(asked.clone())
                if bool(asked.any()):
                    masks[name][-1][asked] = proved(margins_by(self.graph, name, x[asked], y[asked]))
                seconds[name] += time.perf_counter() - begun
            self._advance(f"z = {self.box.z:g}: bounds")
        return {name: torch.cat(parts) for name, parts in masks.items()}, seconds

    def _attack(self, certified: Tensor) -> tuple[dict[str, Tensor], dict[int, tuple[Params, Tensor]]]:
        """Return which samples [n] each attack leaves right, and where certified ones were broken: parameters and input."""
        where: dict[int, tuple[Params, Tensor]] = {}
        none = self._right([self.params], certified, where)
        random = none & self._right(points := list(self._random_points()), certified, where)
        worst = [self._worst(objective, k) for objective in OBJECTIVES for k in range(self.rungs.restarts)]
        shared = none & self._right(worst, certified, where)
        alone = random & shared
        attacks = [
            PerSampleWeightAttack(self.box.z, self.box.eps, loss, self.rungs.steps, self.rungs.restarts, self.box.parameters)
            for loss in LOSSES
        ]
        for place, rows in enumerate(torch.arange(len(self.y), device=self.y.device).split(BLOCK)):
            for attack in attacks:
                left = rows[alone[rows]]
                if not len(left):
                    break
                stream = generator("per-sample attack", self.seed, place)
                found = attack(self.network, self.x[left], self.y[left], stream, starts=[*worst, *points], keep=certified[left])
                alone[left] = ~found.broken
                where |= {int(left[i]): (params, found.x[i]) for i, params in found.params.items()}
            self._advance(f"z = {self.box.z:g}: attacks")
        return {"none": none, "random": random, "shared": shared, "per-sample": alone}, where

    @torch.no_grad()
    def _right(self, points: Sequence[Params], certified: Tensor, where: dict[int, tuple[Params, Tensor]]) -> Tensor:
        """Return which samples [n] are right at all of the points; adds to `where` the certified ones that are not."""
        right = torch.ones_like(self.y, dtype=torch.bool)
        for point in points:
            logits = torch.cat([call_inference(self.network, point, x) for x in self.x.split(4 * BLOCK)])
            correct = logits.argmax(-1) == self.y
            where |= {i: (point, self.x[i : i + 1]) for i in (certified & ~correct).nonzero().flatten().tolist()}
            right &= correct
        return right

    def _random_points(self) -> Iterator[Params]:
        """Yield random corners of the box, and points drawn uniformly inside."""
        for k in range(self.rungs.points):
            streams = children(generator("corner of the box", self.seed, k), list(self.chosen))
            yield self._inside({name: p * (1 + self.box.z * draw_normal(p, streams[name]).sign()) for name, p in self.chosen.items()})
        for k in range(self.rungs.points):
            streams = children(generator("point of the box", self.seed, k), list(self.chosen))
            yield self._inside({name: p * (1 + self.box.z * (2 * draw_uniform(p, streams[name]) - 1)) for name, p in self.chosen.items()})

    def _worst(self, objective: Any, restart: int) -> Params:
        """Return the worst chip that is found for all samples together."""
        attack = WeightAttack(zeta=self.box.z, objective=objective, steps=self.rungs.steps, parameters=self.box.parameters)
        batches = list(zip(self.x.split(4 * BLOCK), self.y.split(4 * BLOCK), strict=True))
        return self._inside(attack(self.network, self.params, batches, generator("shared attack", self.seed, restart)).params)

    def _inside(self, point: Params) -> Params:
        """Return a point inside the box to the last digit."""
        return self.params | {name: point[name].clamp(*box_edges(p, self.box.z)) for name, p in self.chosen.items()}

    def _check(self, masks: dict[str, Tensor], survived: dict[str, Tensor], where: dict[int, tuple[Params, Tensor]]) -> None:
        """Raise `NoiseproofError`, with the sample saved, when a certified sample was broken."""
        broken = (torch.stack(list(masks.values())).any(0) & ~survived["per-sample"]).nonzero().flatten().tolist()
        if not broken:
            return
        i = broken[0]
        names = ", ".join(name for name, mask in masks.items() if bool(mask[i]))
        path = self.folder / f"violation-z{self.box.z:g}-sample{i}.safetensors"
        params, x = where[i]
        described = {**self.box.describe(), "bounds": names, "arithmetic": self.rungs.arithmetic, "sample": i}
        _save(path, params, x, self.y[i : i + 1], described)
        raise NoiseproofError(
            f"test sample {i} is certified by {names} and broken all the same at z = {self.box.z:g}: a bug of noiseproof, or the network "
            f"is not computed in {self.rungs.arithmetic} as PyTorch does; saved in {path}, please report it"
        )

    def _attacks(self) -> list[dict[str, Any]]:
        """Return what stands in the records of each attack, the weakest first."""
        rungs = self.rungs
        return [
            {"attack": "none"},
            {"attack": "random", "points": rungs.points},
            {"attack": "shared", "steps": rungs.steps, "restarts": rungs.restarts},
            {"attack": "per-sample", "steps": rungs.steps, "restarts": rungs.restarts, "points": rungs.points},
        ]

    def _described(self, name: str) -> dict[str, Any]:
        return {"bounds": name, "arithmetic": self.rungs.arithmetic}

    def _blank(self, metric: str, described: dict[str, Any] | None = None) -> Record:
        """Return a record without its value; what draws random numbers has a seed."""
        drawn = metric == "survived" and described != {"attack": "none"}
        perturbation = {**self.box.describe(), **(described or {})}
        return self.ledger.make(metric, 0.0, len(self.y), perturbation, seed=self.seed if drawn else None)

    def _advance(self, note: str) -> None:
        if self.progress is not None:
            self.progress.advance(1, note)


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())


def _save(path: Path, params: Params, x: Tensor, y: Tensor, described: dict[str, Any]) -> None:
    """Write a sample with the parameters at which it is broken, atomically."""
    import safetensors.torch

    tensors = {"x": x, "y": y, **{f"parameter.{name}": p for name, p in params.items()}}
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    content = safetensors.torch.save(plain, metadata={"box": json.dumps(described)})
    write_atomically(path, lambda file: file.write(content))
