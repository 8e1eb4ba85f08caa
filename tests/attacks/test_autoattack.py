"""The preset runs its members in turn, and no attack of ours leaves more accuracy than that of the public libraries at equal budget."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyautoattack
import pytest
import torch
import torchattacks
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

import noiseproof as npf
from noiseproof.attacks import APGD, FAB, PGD, Attack, AutoAttack, Square
from noiseproof.config import spelled_attacks
from noiseproof.data import Splits

SIZES = {"linf": (0.04, 0.07, 0.1), "l2": (0.4, 0.8, 1.2)}
# chance: all moves of square are random, and the peers make the same ones for all samples, so that their accuracy varies by .05
SLACK = {"square": 0.05}


@pytest.fixture(scope="module")
def trained(digits: Splits) -> nn.Module:
    """A plain convolutional network of nobody's library, on handwritten digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))
        )
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(10):
        for x, y in zip(digits.train.x.split(50), digits.train.y.split(50), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()
    return network.eval()


@contextlib.contextmanager
def others_at_seed_0() -> Iterator[None]:
    """Other libraries draw from the global generators, and log."""
    before = np.random.get_state()
    logging.disable()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)
        yield
    np.random.set_state(before)
    logging.disable(logging.NOTSET)


def left_by(network: nn.Module, x: Tensor, y: Tensor, moved: Tensor, eps: float, norm: str) -> float:
    """Accuracy on what a peer found, as far as it kept to ε."""
    change = (moved - x).flatten(1)
    inside = (change.norm(dim=1) if norm == "l2" else change.abs().amax(1)) <= eps * (1 + 1e-5)
    with torch.no_grad():
        wrong = (network(moved).argmax(1) != y) & inside | (network(x).argmax(1) != y)
    return 1 - float(wrong.double().mean())


def peers_of(name: str, network: nn.Module, eps: float, norm: str) -> list:
    """Calls of the same attack in the public libraries, with the budget that the table below gives ours."""
    big = {"linf": "Linf", "l2": "L2"}[norm]
    common = {"eps": eps, "norm": big, "device": "cpu"}
    if name == "pgd":
        if norm == "linf":
            return [torchattacks.PGD(network, eps, 2.5 * eps / 10, 10)]
        return [torchattacks.PGDL2(network, eps, 2.5 * eps / 10, 10)]
    if name in ("apgd-ce", "apgd-dlr"):
        loss = name[5:]
        return [
            torchattacks.APGD(network, norm=big, eps=eps, steps=20, loss=loss),
            APGDAttack(network, n_iter=20, loss=loss, **common).perturb,
        ]
    if name == "apgd-t":
        return [APGDAttack_targeted(network, n_iter=10, n_target_classes=3, **common).perturb]
    if name == "fab":
        return [FABAttack_PT(network, n_iter=10, targeted=True, n_target_classes=3, verbose=False, **common).perturb]
    return [
        torchattacks.Square(network, norm=big, eps=eps, n_queries=100),
        SquareAttack(network, n_queries=100, resc_schedule=True, verbose=False, **common).perturb,
    ]


OURS: dict[str, Attack] = {
    "pgd": PGD(steps=10),
    "apgd-ce": APGD(steps=20),
    "apgd-dlr": APGD(steps=20, loss="dlr"),
    "apgd-t": APGD(steps=10, loss="dlr", targets=3),
    "fab": FAB(steps=10, targets=3),
    "square": Square(queries=100),
}


@pytest.mark.parametrize("norm", SIZES)
@pytest.mark.parametrize("name", OURS)
def test_ours_leave_no_more_than_the_peers(name: str, norm: str, trained: nn.Module, digits: Splits) -> None:
    x, y, attack = digits.test.x[:70], digits.test.y[:70], replace(OURS[name], norm=norm)
    ours, theirs = [], []
    with others_at_seed_0():
        for eps in SIZES[norm]:
            ours.append(attack(trained, x, y, torch.Generator().manual_seed(0), eps=eps).accuracy)
            found = (peer(x.clone(), y.clone()).detach() for peer in peers_of(name, trained, eps, norm))
            theirs.append([left_by(trained, x, y, moved, eps, norm) for moved in found])
    assert ours[0] > ours[1] > ours[2], "no size at which all or none are fooled"
    for peer in zip(*theirs, strict=True):
        assert sum(ours) / 3 <= sum(peer) / 3 + SLACK.get(name, 0.01), (ours, peer)


def test_the_whole_leaves_what_the_official_one_leaves(trained: nn.Module, digits: Splits) -> None:
    """At equal settings: 20 steps, 3 targets, 100 queries."""
    x, y, eps = digits.test.x[:50], digits.test.y[:50], 0.06
    ours = AutoAttack(eps, steps=20, targets=3, queries=100)(trained, x, y, torch.Generator().manual_seed(0))
    official = pyautoattack.AutoAttack(trained, eps=eps, device="cpu", version="standard", seed=0)
    official.verbose = False
    for part in (official.apgd, official.apgd_targeted, official.fab):
        part.n_iter = 20
    official.apgd_targeted.n_target_classes = official.fab.n_target_classes = 3
    official.square.n_queries = 100
    with others_at_seed_0():
        theirs = official.run_standard_evaluation(x, y, batch_size=50)
    moved = theirs[0] if isinstance(theirs, tuple) else theirs
    assert ours.accuracy <= left_by(trained, x, y, moved, eps, "linf") + 0.02
    assert 0 < ours.accuracy < 1


def test_members_run_in_the_official_order_and_only_survivors_go_on(trained: nn.Module, digits: Splits) -> None:
    x, y = digits.test.x, digits.test.y
    found = AutoAttack(0.06, steps=8, targets=2, queries=20)(trained, x, y, torch.Generator().manual_seed(0))
    assert [member.attack.describe()["name"] for member in found.members] == ["apgd", "apgd", "fab", "square"]
    left = [member.surviving for member in found.members]
    assert left == sorted(left, reverse=True)
    assert left[-1] == round(len(x) * found.accuracy)
    assert 0 < left[-1] < left[0] + 1 <= len(x)
    gradients = [member.budget.gradient_evaluations for member in found.members]
    assert gradients[1] <= 2 * 8 * left[0]
    assert gradients[2] <= 2 * 8 * left[1]
    assert gradients[3] == 0
    assert found.budget.gradient_evaluations == sum(gradients)


def test_the_versions_have_the_official_settings() -> None:
    standard = AutoAttack(0.1, "l2").members(nn.Identity())
    assert [type(member) for member in standard] == [APGD, APGD, FAB, Square]
    assert standard == (
        APGD(0.1, "l2", steps=100, loss="ce"), APGD(0.1, "l2", steps=100, loss="dlr", targets=9),
        FAB(0.1, "l2", steps=100, targets=9), Square(0.1, "l2", queries=5000, p_init=0.8),
    )  # fmt: skip
    rand = AutoAttack(version="rand")
    assert rand.eot == rand.describe()["eot"] == 20
    assert [(member.loss, member.eot) for member in rand.members(nn.Identity()) if isinstance(member, APGD)] == [("ce", 20), ("dlr", 20)]
    assert AutoAttack(version="rand", eot=5).eot == 5
    assert AutoAttack().eot == 1


def test_it_has_a_spelling() -> None:
    (attack,) = spelled_attacks("autoattack(eps=8/255, version=rand)", "attack")
    assert attack == AutoAttack(8 / 255, version="rand")


@pytest.mark.parametrize("settings", [{"version": "plus"}, {"steps": 0}, {"targets": 0}, {"queries": 0}])
def test_settings_out_of_range_are_named(settings: dict) -> None:
    with pytest.raises(npf.NoiseproofError, match=f"{next(iter(settings))} is"):
        AutoAttack(**settings)
