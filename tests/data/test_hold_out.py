"""How a split is divided: what the seed decides, what limits do, what is refused."""

from __future__ import annotations

import pytest
import torch

from noiseproof import data
from noiseproof.data._build import build
from noiseproof.data._splits import hold_out_groups
from noiseproof.errors import NoiseproofError

LARGE = 2**20


def rows(split: data.Split) -> set[int]:
    return set(split.x[:, 0].int().tolist())


def numbered(n: int = 200, **options: object) -> data.Splits:
    """Sample i is (i, 0.5) with label i % 4."""
    x = torch.stack([torch.arange(n).float(), torch.full((n,), 0.5)], dim=1)
    return data.from_tensors(x, torch.arange(n) % 4, **options)  # pyright: ignore[reportArgumentType]


def test_splits_are_disjoint_and_complete():
    splits = numbered()
    parts = [rows(splits.train), rows(splits.validation), rows(splits.test)]
    assert [len(p) for p in parts] == [162, 18, 20]
    assert set.union(*parts) == set(range(200))
    for split in (splits.train, splits.validation, splits.test):
        assert torch.equal(split.x[:, 0].long() % 4, split.y)  # labels went with their samples
        assert (split.x.dtype, split.y.dtype, len(split)) == (torch.float32, torch.int64, len(split.y))


def test_seed_decides_validation_but_not_test():
    first, again, other = numbered(seed=1), numbered(seed=1), numbered(seed=2)
    assert torch.equal(first.train.x, again.train.x)
    assert rows(first.validation) != rows(other.validation)
    assert rows(first.test) == rows(other.test)


def test_global_generator_neither_matters_nor_moves():
    torch.manual_seed(5)
    first, before = numbered(seed=3), torch.get_rng_state()
    torch.manual_seed(6)
    assert torch.equal(first.train.x, numbered(seed=3).train.x)
    torch.manual_seed(5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("validation", "count"), [(0.1, 144), (0.5, 718), (1, 1), (100, 100), (100.0, 100), (1436, 1436)])
def test_validation_is_a_fraction_or_a_count(validation: float, count: int):
    splits = data.load("digits", validation=validation)
    assert (len(splits.validation), len(splits.train)) == (count, 1437 - count)


@pytest.mark.parametrize("validation", [0, 0.0, -0.1, -5, 1.5, float("nan"), float("inf"), 1437, 0.9999, 1e-9, True, "0.1"])
def test_hold_out_that_leaves_nothing(validation: float):
    with pytest.raises(NoiseproofError, match=r"^validation is .*"):
        data.load("digits", validation=validation)


def test_limits_keep_the_first_samples():
    whole, limited = data.load("digits", seed=4), data.load("digits", seed=4, limit_train=50, limit_test=20)
    assert [len(s) for s in (limited.train, limited.validation, limited.test)] == [50, 50, 20]
    assert torch.equal(limited.train.x, whole.train.x[:50])
    assert torch.equal(limited.validation.x, whole.validation.x[:50])
    assert torch.equal(limited.test.y, whole.test.y[:20])
    assert limited.task.mean == pytest.approx([float(limited.train.x.mean())])


def test_limits_above_what_there_is():
    splits = data.load("digits", limit_train=LARGE, limit_test=LARGE)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [1293, 144, 360]


@pytest.mark.parametrize("field", ["limit_train", "limit_test"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_limits_below_one(field: str, value: int):
    with pytest.raises(NoiseproofError, match=rf"^{field} is {value}: give a whole number of at least 1"):
        data.load("digits", **{field: value})


@pytest.mark.parametrize(
    ("shape", "channel", "other"), [((3, 5, 6), 1, (0, 2, 3)), ((7, 3), 2, (0, 1)), ((4,), None, (0, 1)), ((6, 2, 4, 5), 2, (0, 1, 3, 4))]
)
def test_mean_and_std_are_of_the_training_split(shape: tuple[int, ...], channel: int | None, other: tuple[int, ...]):
    x = torch.randn(60, *shape, generator=torch.Generator().manual_seed(0)) * 3 + 1
    splits = data.from_tensors(x, torch.arange(60) % 2)
    train = splits.train.x.double()
    assert len(splits.task.mean) == len(splits.task.std) == (1 if channel is None else train.shape[channel])
    assert splits.task.mean == pytest.approx(train.mean(other).reshape(-1).tolist(), abs=1e-5)
    assert splits.task.std == pytest.approx(train.std(other, correction=0).reshape(-1).tolist(), abs=1e-5)


def test_constant_channel_gets_std_one():
    x = torch.rand(30, 2, 4, 4)
    x[:, 1] = 0.25
    task = data.from_tensors(x, torch.arange(30) % 2).task
    assert (task.mean[1], task.std[1]) == (0.25, 1.0)


def test_unknown_name_has_the_nearest():
    with pytest.raises(NoiseproofError, match="did you mean 'fashion-mnist'"):
        data.load("fashion_mnist")


@pytest.mark.parametrize("seed", [1.5, "1", None])
def test_seed_must_be_whole(seed: int):
    with pytest.raises(NoiseproofError, match=r"^seed is"):
        data.load("digits", seed=seed)


GROUPS = torch.repeat_interleave(torch.arange(12) * 7 + 100, torch.tensor([50, 40, 60, 55, 45, 50, 20, 80, 50, 50, 30, 70]))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 60, 300, 0.9])
def test_groups_stay_together(share: float):
    wanted = share * len(GROUPS) if share < 1 else share
    for seed in range(8):
        held_out, rest = hold_out_groups(GROUPS, share, seed, "validation")
        assert sorted([*held_out.tolist(), *rest.tolist()]) == list(range(len(GROUPS)))
        assert set(GROUPS[held_out].tolist()).isdisjoint(GROUPS[rest].tolist())
        assert len(rest) > 0 < len(held_out)
        assert abs(len(held_out) - wanted) <= 40  # half of the largest group


def test_groups_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = hold_out_groups(GROUPS, 0.2, 5, "validation")
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, hold_out_groups(GROUPS, 0.2, 5, "validation"), strict=True))
    assert not torch.equal(first[0], hold_out_groups(GROUPS, 0.2, 6, "validation")[0])
    assert not torch.equal(first[1], first[1].sort().values)  # in random order


def test_one_group_is_smaller_than_all_others_or_the_only_one():
    held_out, _ = hold_out_groups(torch.tensor([1] * 50 + [2] * 30 + [3] * 60), 0.01, 0, "validation")
    assert len(held_out) == 30  # every group is far more than wanted: the smallest
    with pytest.raises(NoiseproofError, match=r"validation is 0\.1: all samples are of one group"):
        hold_out_groups(torch.ones(50), 0.1, 0, "validation")
    with pytest.raises(NoiseproofError, match="validation is 0.001: it takes 0 of 50 samples"):
        hold_out_groups(torch.arange(50), 0.001, 0, "validation")


def test_groups_are_not_divided_by_a_limit():
    x = torch.stack([torch.arange(600.0), GROUPS.float()], dim=1)
    options = {"classes": 2, "bounds": (0.0, 1.0), "seed": 0, "validation": 0.2, "groups": GROUPS}
    splits = build("some", (x, GROUPS % 2), (x, GROUPS % 2), limit_train=90, **options)  # pyright: ignore[reportArgumentType]
    assert len(splits.train) == 90
    assert set(splits.validation.x[:, 1].tolist()).isdisjoint(splits.train.x[:, 1].tolist())


def test_a_published_validation_split_is_used():
    x, y = torch.rand(40, 3), torch.arange(40) % 2
    other = (torch.rand(15, 3) + 2, torch.arange(15) % 2)
    options = {"classes": 2, "bounds": (0.0, 3.0), "validation": 0.5, "published": other}
    splits = build("some", (x, y), (x, y), seed=0, **options)  # pyright: ignore[reportArgumentType]
    assert (len(splits.train), len(splits.validation)) == (40, 15)
    assert sorted(splits.validation.x[:, 0].tolist()) == sorted(other[0][:, 0].tolist())
    assert not torch.equal(splits.validation.x, other[0])  # mixed
    with pytest.raises(NoiseproofError, match=r"validation x has 15 samples but validation y has 14 labels"):
        build("some", (x, y), (x, y), seed=0, **{**options, "published": (other[0], other[1][:14])})  # pyright: ignore[reportArgumentType]
    with pytest.raises(NoiseproofError, match=r"shape of validation samples is \(2,\)"):
        build("some", (x, y), (x, y), seed=0, **{**options, "published": (other[0][:, :2], other[1])})  # pyright: ignore[reportArgumentType]
