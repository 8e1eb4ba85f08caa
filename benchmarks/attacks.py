"""Attacks on inputs beside those of torchattacks, foolbox and AutoAttack: accuracy left at equal budget, and the ratio of the times.

    python benchmarks/attacks.py [--rounds 5] [--threads 1] [--samples 64] [--queries 500] [--only pgd square]

A small convolutional network trained on handwritten digits, all in one process, in turn, with the same inputs and ε. Goals: at equal work
(every sample takes every step) at least as fast as each peer, 1.5 times as fast where fooled samples are left alone, and no more
accuracy left. Then the ensemble on a spiking VGG5: at most 40 × one PGD-20.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from _timing import in_turn, ratio
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import APGD, FAB, PGD, Attack, AutoAttack, Ensemble, Square
from noiseproof.data import Task
from noiseproof.neurons import tune_allocator
from noiseproof.randomness import generator

EPS = 0.09
Peer = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Row:
    """An attack of ours at the settings of its peers; `goal`: how many times as fast as each of them it should be, 0: not said."""

    ours: Attack
    peers: tuple[str, ...]
    goal: float = 0.0


def table(queries: int) -> dict[str, Row]:
    early = {"survivors_only": True}
    whole = {"survivors_only": False}
    return {
        "pgd-20, equal work": Row(PGD(EPS, steps=20, **whole), ("torchattacks PGD", "foolbox PGD"), 1.0),
        "pgd-20, survivors": Row(PGD(EPS, steps=20, **early), ("torchattacks PGD", "foolbox PGD"), 1.5),
        "apgd-ce-100, equal work": Row(APGD(EPS, **whole), ("torchattacks APGD-CE", "AutoAttack APGD-CE"), 1.0),
        "apgd-ce-100, survivors": Row(APGD(EPS, **early), ("torchattacks APGD-CE", "AutoAttack APGD-CE"), 1.5),
        "apgd-dlr-100": Row(APGD(EPS, loss="dlr"), ("torchattacks APGD-DLR", "AutoAttack APGD-DLR")),
        "apgd-t-100, 9 targets": Row(APGD(EPS, loss="dlr", targets=9), ("AutoAttack APGD-T",)),
        "fab-t-100, 9 targets": Row(FAB(EPS), ("AutoAttack FAB-T",)),
        f"square-{queries}": Row(Square(EPS, queries=queries), ("torchattacks Square", "AutoAttack Square")),
        "autoattack": Row(AutoAttack(EPS, queries=queries), ("AutoAttack",)),
    }


def peers(network: nn.Module, queries: int) -> dict[str, Peer]:
    """Calls of the public libraries; an import that fails leaves a library out."""
    made: dict[str, Peer] = {}
    for add in (_torchattacks, _autoattack, _foolbox):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made |= add(network, queries)
        except ImportError as error:
            print(f"{add.__name__[1:]} is left out: {error}")
    return made


def _torchattacks(network: nn.Module, queries: int) -> dict[str, Peer]:
    import torchattacks

    return {
        "torchattacks PGD": torchattacks.PGD(network, EPS, 2.5 * EPS / 20, 20),
        "torchattacks APGD-CE": torchattacks.APGD(network, eps=EPS, steps=100),
        "torchattacks APGD-DLR": torchattacks.APGD(network, eps=EPS, steps=100, loss="dlr"),
        "torchattacks Square": torchattacks.Square(network, eps=EPS, n_queries=queries),
    }


def _autoattack(network: nn.Module, queries: int) -> dict[str, Peer]:
    import pyautoattack
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
    from pyautoattack.fab_pt import FABAttack_PT
    from pyautoattack.square import SquareAttack

    common = {"eps": EPS, "norm": "Linf", "device": "cpu"}
    whole = pyautoattack.AutoAttack(network, eps=EPS, device="cpu", version="standard", seed=0)
    whole.verbose, whole.square.n_queries = False, queries

    def run_whole(x: Tensor, y: Tensor) -> Tensor:
        found = whole.run_standard_evaluation(x, y, batch_size=len(x))
        return found[0] if isinstance(found, tuple) else found

    return {
        "AutoAttack APGD-CE": APGDAttack(network, n_iter=100, **common).perturb,
        "AutoAttack APGD-DLR": APGDAttack(network, n_iter=100, loss="dlr", **common).perturb,
        "AutoAttack APGD-T": APGDAttack_targeted(network, n_iter=100, n_target_classes=9, **common).perturb,
        "AutoAttack FAB-T": FABAttack_PT(network, n_iter=100, targeted=True, n_target_classes=9, verbose=False, **common).perturb,
        "AutoAttack Square": SquareAttack(network, n_queries=queries, resc_schedule=True, verbose=False, **common).perturb,
        "AutoAttack": run_whole,
    }


def _foolbox(network: nn.Module, queries: int) -> dict[str, Peer]:
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=2.5 * EPS / 20, steps=20)
    return {"foolbox PGD": lambda x, y: attack(model, x, y, epsilons=EPS)[1]}  # type: ignore[index]


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A plain convolutional network of nobody's library, and images that it has not seen."""
    data = npf.data.load("digits")
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 49, 10))
    )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(5):
        for x, y in zip(data.train.x.split(64), data.train.y.split(64), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    return network.eval().requires_grad_(), data.test.x, data.test.y


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor, moved: Tensor) -> float:
    """Accuracy on what was found, where it kept to ε."""
    inside = (moved - x).flatten(1).abs().amax(1) <= EPS * (1 + 1e-5)
    wrong = (network(moved).argmax(1) != y) & inside | (network(x).argmax(1) != y)
    return 1 - float(wrong.double().mean())


def counted(network: nn.Module, moved: Tensor) -> Tensor:
    """Return what a peer found, once it is known which samples it fools: ours says so."""
    with torch.no_grad():
        network(moved)
    return moved


def compare(samples: int, rounds: int, queries: int, only: list[str]) -> None:
    network, x, y = trained()
    x, y = x[:samples], y[:samples]
    rows = {name: row for name, row in table(queries).items() if not only or name.startswith(tuple(only))}
    others = peers(network, queries)
    print(f"{'attack':26} {'left':>6}   {'peer':24} {'left':>6} {'× as fast':>10} {'range':>15}")
    for name, row in rows.items():

        def ours(row: Row = row) -> Tensor:
            return row.ours(network, x, y, generator("attack", 0)).x

        chosen = [peer for peer in row.peers if peer in others]
        contenders = {name: ours} | {
            peer: lambda peer=peer: counted(network, others[peer](x.clone(), y.clone()).detach()) for peer in chosen
        }
        left = {who: accuracy(network, x, y, work()) for who, work in contenders.items()}
        seconds = in_turn(contenders, rounds)
        for peer in chosen:
            middle, low, high = ratio(seconds, peer, name)
            mark = "  below the goal" if middle < row.goal else ""
            mark += "  leaves more" if left[name] > left[peer] + 1e-9 else ""
            print(f"{name:26} {left[name]:6.3f}   {peer:24} {left[peer]:6.3f} {middle:10.2f} {f'{low:.2f} – {high:.2f}':>15}{mark}")


def ensemble(samples: int, rounds: int) -> None:
    """The whole ensemble beside one PGD-20 on a spiking VGG5, at ε = 0: every sample survives every member, the most that it can cost."""
    task = Task("images", (3, 32, 32), 10, (0.47,) * 3, (0.25,) * 3, (0.0, 1.0))
    network = npf.networks.VGG5(steps=4, threshold=0.1).build(task, generator("weights", 0))
    x = torch.rand(samples, 3, 32, 32, generator=generator("data", 0))
    with torch.no_grad(), npf.parameters.inference_mode(network):
        y = network(x).argmax(1)
    whole, one = Ensemble(0.0), PGD(0.0, steps=20, survivors_only=False)
    found = []
    contenders = {
        "ensemble": lambda: found.append(whole(network, x, y, generator("attack", 0))),
        "pgd": lambda: one(network, x, y, generator("attack", 0)),
    }
    seconds, budget = in_turn(contenders, rounds), found[0].budget
    middle, low, high = ratio(seconds, "ensemble", "pgd")
    print(
        f"ensemble, spiking VGG5, {samples} images, {found[0].accuracy:.3f} left: {middle:.1f} × PGD-20 ({low:.1f} – {high:.1f}; goal 40)"
    )
    print(f"PGD-20 {statistics.median(seconds['pgd']):.2f} s; {budget.gradient_evaluations} gradients, {budget.queries} queries")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--samples", type=int, default=64)
    options.add_argument("--queries", type=int, default=500)
    options.add_argument("--only", nargs="*", default=[], help="beginnings of names; ensemble for the last part")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    tune_allocator()
    logging.disable()
    print(f"small CNN, digits, batch {chosen.samples}, ε {EPS}, {chosen.threads} thread(s); {chosen.rounds} rounds in turn")
    if chosen.only != ["ensemble"]:
        compare(chosen.samples, chosen.rounds, chosen.queries, chosen.only)
    if not chosen.only or "ensemble" in chosen.only:
        ensemble(chosen.samples, max(1, chosen.rounds // 5))


if __name__ == "__main__":
    main()
