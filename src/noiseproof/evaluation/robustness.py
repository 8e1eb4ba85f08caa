from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.attacks import Attack, Budget, Perturbed
from noiseproof.data import Split
from noiseproof.errors import require, require_number
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.obfuscation import ATTACKS, checks_of
from noiseproof.files import write_atomically
from noiseproof.measure import measure
from noiseproof.networks import adapt
from noiseproof.parameters import parameters_of
from noiseproof.progress import Progress
from noiseproof.randomness import generator, globally_seeded
from noiseproof.records import Record
from noiseproof.spelling import write

# Samples at a time. It is fixed, because every block has random numbers of its own
BLOCK = 100
_METRICS = (
    "accuracy",
    "gradient_evaluations",
    "queries",
    "zero_gradient_share",
    "surviving",
    "member_gradient_evaluations",
    "member_queries",
    "skipped",
)


def robustness(
    network: nn.Module,
    split: Split,
    attack: Attack,
    *,
    samples: int = 1000,
    seeds: int = 1,
    seed: int = 0,
    eps: Tensor | Sequence[float] | None = None,
    checks: bool = True,
    save: str | Path | None = None,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> list[Record]:
    """Return what an attack on the inputs leaves of the accuracy on the first `samples` samples, and what tells whether it can be trusted.

    First the accuracy without an attack on the same samples. Then for every attack seed (`seed`, `seed` + 1, …) an accuracy, with gradient
    evaluations and queries per sample and the share of gradients that were zero in every entry; of an attack of several also the share
    `surviving` after each member, of one that says nothing about this network `skipped` = 1. With several seeds accuracy_over_seeds is
    the share that is right under all of them. With `checks` come the measurements that `noiseproof.checklist` judges, for the first
    seed. What is in `ledger` is not measured again.

    `eps`: other radii than the attack's own, one a sample, [samples]; these are recorded under a hash of them, and without checks.
    `save`: a file .npz or .safetensors for x, perturbed x, y, predictions, success and ε of every sample; takes one seed.

    Raises `NoiseproofError` when the attack does not fit the data or the network passes it no gradient: this is not the same as robust.

    Example:
        >>> import noiseproof as npf
        >>> data = npf.data.load("digits", limit_test=50)
        >>> _ = torch.manual_seed(0)
        >>> network = npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> records = robustness(network, data.test, npf.attacks.PGD(eps=0.1, steps=5), checks=False)
        >>> [record.metric for record in records]
        ['accuracy', 'gradient_evaluations', 'queries', 'zero_gradient_share', 'accuracy']
    """
    for name, value in (("samples", samples), ("seeds", seeds)):
        require_number(name, value, 1, whole=True)
    require(save is None or seeds == 1, "save", str(save), "the inputs of one attack seed are saved; give seeds=1")
    figures = Figures(network, Split(split.x[:samples], split.y[:samples]), ledger or Ledger(), progress)
    path = None if save is None else _savable(save)
    if eps is not None:
        eps = torch.as_tensor(eps, dtype=torch.float64)
        require(eps.shape == (figures.n,), "eps", tuple(eps.shape), f"give one number a sample, [{figures.n}]")
    if path is not None:
        _save(path, figures, attack, seed, eps)
    found = [figures.clean()] + [record for k in range(seed, seed + seeds) for record in figures.records(attack, k, eps)]
    if seeds > 1:
        found += figures.over_seeds(attack, range(seed, seed + seeds), eps)
    if checks and eps is None and attack.eps > 0:
        found += checks_of(figures, attack, seed)
    return list({record.key: record for record in found}.values())


def blocks_of(attacks: Sequence[Attack], samples: int, seeds: int, checks: bool) -> int:
    """Return about how many blocks `robustness` attacks in all: its steps of progress."""
    sizes = {(attack.eps, attack.norm, attack.eot) for attack in attacks}
    return -(-samples // BLOCK) * (len(attacks) * seeds + (len(sizes) * ATTACKS if checks else 0))


@dataclass(frozen=True, eq=False)
class Attacked:
    """All samples after an attack: perturbed inputs, the classes given for them, whether they are fooled, what was asked, and by whom."""

    x: Tensor
    predictions: Tensor
    fooled: Tensor
    budget: Budget
    members: tuple[MemberFigures, ...]


@dataclass(frozen=True)
class MemberFigures:
    """What a member did: samples that are right after it, and what it asked; `skipped` where it says nothing about the network."""

    spelled: str
    surviving: int
    budget: Budget
    skipped: bool


class Figures:
    """The figures of one network on one set of samples: measured once, from the ledger or now."""

    def __init__(self, network: nn.Module, split: Split, ledger: Ledger, progress: Progress | None = None) -> None:
        self.network, self.split, self.ledger, self.progress = adapt(network), split, ledger, progress
        self._fooled: dict[str, Tensor] = {}

    @property
    def n(self) -> int:
        return len(self.split)

    def clean(self) -> Record:
        """Return the accuracy without an attack."""
        blank = self.ledger.make("accuracy", 0.0, self.n)
        if self.ledger.find(blank) is None:
            result = measure(self.network, parameters_of(self.network), self.split.x, self.split.y)
            self.ledger.add([replace(blank, value=result.accuracy)])
        return self.ledger.find(blank) or blank

    def records(self, attack: Attack, seed: int, eps: Tensor | None = None) -> list[Record]:
        """Return the records of an attack."""
        described = describe(attack, eps)
        # the accuracy is written last: where it is, the others are
        if self.ledger.find(self._blank("accuracy", described, seed)) is None:
            self.measure(attack, seed, eps)
        return [r for r in self.ledger.records if r.seed == seed and r.n == self.n and r.metric in _METRICS and _is_of(r, described)]

    def fooled(self, attack: Attack, seed: int, eps: Tensor | None = None) -> Tensor:
        """Return which samples an attack fools, [N]; what the ledger knows only as a number is done again, and is the same."""
        key = self._blank("accuracy", describe(attack, eps), seed).key
        if key not in self._fooled:
            self.measure(attack, seed, eps)
        return self._fooled[key]

    def shares(self, attack: Attack, seed: int, shares: dict[str, Any], at: dict[str, float] | None = None) -> list[Record]:
        """Return records of an attack whose values need every sample's result: `shares` by metric, each a function without arguments."""
        blank = [self._blank(metric, describe(attack), seed, at) for metric in shares]
        fresh = [replace(b, value=float(shares[b.metric]().double().mean())) for b in blank if self.ledger.find(b) is None]
        self.ledger.add(fresh)
        return [record for record in map(self.ledger.find, blank) if record is not None]

    def over_seeds(self, attack: Attack, seeds: range, eps: Tensor | None = None) -> list[Record]:
        """Return the share of samples that are right under every seed: the worst case, sample by sample."""
        blank = self._blank("accuracy_over_seeds", describe(attack, eps), seeds[0], {"seeds": float(len(seeds))})
        if (there := self.ledger.find(blank)) is not None:
            return [there]
        fooled = torch.stack([self.fooled(attack, k, eps) for k in seeds]).any(0)
        return self.ledger.add([replace(blank, value=_right(fooled))])

    def stochastic(self, attack: Attack, seed: int) -> list[Record]:
        """Return the record that says whether the network is stochastic (1) or not (0), beside an attack and its number of draws."""
        blank = self._blank("stochastic", describe(attack), seed)
        if (there := self.ledger.find(blank)) is not None:
            return [there]
        with globally_seeded(seed, self.split.x.device), attack.seen(self.network, seed) as view:
            return self.ledger.add([replace(blank, value=float(view.is_stochastic(self.split.x)))])

    def measure(self, attack: Attack, seed: int, eps: Tensor | None = None) -> Attacked:
        """Attack all samples and record the figures that are not yet in the ledger.

        Raises `NoiseproofError` when the attack does not fit, or no gradient of any block says anything.
        """
        attacked = self._attacked(attack, seed, eps)
        self._note(attack, seed, attacked, eps)
        return attacked

    def _attacked(self, attack: Attack, seed: int, eps: Tensor | None) -> Attacked:
        found = list(self._blocks(attack, seed, eps))
        attack.check_gradients(found)
        before, after = torch.cat([block.before for block in found]), torch.cat([block.after for block in found])
        # without labels a success is another prediction than before, which may be the right one
        fooled = (before != self.split.y) | (after != self.split.y)
        budget = sum((block.budget for block in found), Budget())
        return Attacked(torch.cat([block.x for block in found]), after, fooled, budget, _members(found))

    def _blocks(self, attack: Attack, seed: int, eps: Tensor | None) -> Iterator[Perturbed]:
        radii = [None] * -(-self.n // BLOCK) if eps is None else eps.split(BLOCK)
        parts = zip(self.split.x.split(BLOCK), self.split.y.split(BLOCK), radii, strict=True)
        for place, (x, y, radius) in enumerate(parts):
            labels = y if attack.needs_labels else None
            yield attack.on_block(self.network, x, labels, generator("input attack", seed, place), eps=radius)
            if self.progress is not None:
                self.progress.advance(1)

    def _note(self, attack: Attack, seed: int, attacked: Attacked, eps: Tensor | None) -> None:
        described, budget = describe(attack, eps), attacked.budget
        values = {"gradient_evaluations": budget.gradient_evaluations / self.n, "queries": budget.queries / self.n}
        if budget.gradient_evaluations:
            values["zero_gradient_share"] = budget.zero_gradients / budget.gradient_evaluations
        members = [
            record
            for place, member in enumerate(attacked.members, start=1)
            for record in self._member({**described, "member": member.spelled}, place, member, seed)
        ]
        accuracy = replace(self._blank("accuracy", described, seed), value=_right(attacked.fooled))
        self._fooled[accuracy.key] = attacked.fooled
        own = [replace(self._blank(metric, described, seed), value=value) for metric, value in values.items()]
        self.ledger.add([record for record in (*members, *own, accuracy) if self.ledger.find(record) is None])

    def _member(self, described: dict[str, Any], place: int, member: MemberFigures, seed: int) -> list[Record]:
        spent, at = member.budget, {"place": float(place)}
        if member.skipped:
            return [replace(self._blank("skipped", described, seed, at), value=1.0)]
        counts = {
            "surviving": member.surviving,
            "member_gradient_evaluations": spent.gradient_evaluations,
            "member_queries": spent.queries,
        }
        return [replace(self._blank(metric, described, seed, at), value=count / self.n) for metric, count in counts.items()]

    def _blank(self, metric: str, described: dict[str, Any], seed: int, at: dict[str, float] | None = None) -> Record:
        return self.ledger.make(metric, 0.0, self.n, described, at, seed=seed)


def describe(attack: Attack, eps: Tensor | None = None) -> dict[str, Any]:
    """Return name and settings of an attack; with one ε a sample the largest, and a hash of all."""
    described = attack.describe()
    if eps is not None and len(eps):
        digest = hashlib.sha256(eps.double().cpu().numpy().tobytes()).hexdigest()[:16]
        described |= {"eps": float(eps.max()), "eps_per_sample": digest}
    return described


def spelled(attack: Attack) -> str:
    """Return a member of an attack as it is spelled, without what all members have in common.

    Example:
        >>> from noiseproof.attacks import PGD
        >>> spelled(PGD(eps=0.1, surrogate="atan"))
        'pgd(surrogate=atan, steps=20)'
    """
    described = attack.describe()
    own = {f.name: f.default for f in fields(attack) if f.name not in ("eps", "norm", "eot", "identity")}
    plain = {name: _plain(described[name]) for name in own if name in described}
    given = {name: value for name, value in plain.items() if name == "steps" or value != _plain(own[name])}
    return write(described["name"], given) if given else described["name"]


def _plain(value: Any) -> Any:
    """Return a setting as it is spelled: a list by blanks."""
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _right(fooled: Tensor) -> float:
    return float((~fooled).double().mean())


def _is_of(record: Record, described: dict[str, Any]) -> bool:
    return {k: v for k, v in record.perturbation.items() if k != "member"} == described


def _members(blocks: Sequence[Perturbed]) -> tuple[MemberFigures, ...]:
    """Return what the members did on all blocks; skipped is one that could be used on none: it says nothing about the network."""
    # nothing is searched in a block whose samples are all wrong from the start
    ran = [block.members for block in blocks if block.members]
    return tuple(
        MemberFigures(
            spelled(same[0].attack),
            sum(member.surviving for member in same),
            sum((member.budget for member in same), Budget()),
            all(member.skipped for member in same),
        )
        for same in zip(*ran, strict=True)
    )


def _savable(path: str | Path) -> Path:
    path = Path(path)
    require(path.suffix in (".npz", ".safetensors"), "save", str(path), "give a file that ends in .npz or .safetensors")
    return path


def _save(path: Path, figures: Figures, attack: Attack, seed: int, eps: Tensor | None) -> None:
    """Write inputs as they were and perturbed, with classes, predictions, success and ε, atomically."""
    attacked = figures.measure(attack, seed, eps)
    tensors = {
        "x": figures.split.x,
        "perturbed": attacked.x,
        "y": figures.split.y,
        "predictions": attacked.predictions,
        "success": attacked.fooled,
        "eps": torch.full((figures.n,), attack.eps, dtype=torch.float64) if eps is None else eps,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    if path.suffix == ".npz":
        import numpy as np

        arrays: dict[str, Any] = {name: t.numpy() for name, t in tensors.items()}
        write_atomically(path, lambda file: np.savez(file, **arrays))
    else:
        from safetensors.torch import save

        write_atomically(path, lambda file: file.write(save(tensors)))
