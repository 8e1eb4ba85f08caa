"""TF32 and bfloat16 stay out of certificates, and come back afterwards. The flags are the same on a machine without CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from noiseproof.certificates import Box, bounds, margins
from noiseproof.certificates._precision import full_precision
from noiseproof.data import Split
from noiseproof.evaluation.ladder import Rungs, ladder

State = tuple[object, ...]
backends: Any = torch.backends


def state() -> State:
    newer = (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv)
    older = (torch.get_float32_matmul_precision, lambda: backends.cudnn.allow_tf32, lambda: backends.cuda.matmul.allow_tf32)
    return (*map(_told, older), *(setting.fp32_precision for setting in newer))


def _told(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except RuntimeError:  # the older and the newer way say different things
        return "refused"


def exact(found: State) -> bool:
    return found[0] == "highest" and found[1] in (False, "refused") and found[2] is False and "tf32" not in found and "bf16" not in found


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = state()
    yield
    torch.set_float32_matmul_precision("highest")
    backends.fp32_precision = "none"
    backends.cudnn.allow_tf32 = True
    backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = backends.mkldnn.conv.fp32_precision = "none"
    assert state() == before


def _older_way() -> None:
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = True


def _newer_way() -> None:
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.cudnn.conv.fp32_precision = "ieee"


def _everything() -> None:
    backends.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("medium")


@pytest.mark.parametrize("ask", [lambda: None, _older_way, _newer_way, _everything])
def test_all_ways_to_less_precision_are_closed_and_opened_again(ask: Callable[[], None]) -> None:
    ask()
    before = state()
    with pytest.raises(KeyError), full_precision():
        assert exact(state())
        assert backends.fp32_precision == "tf32" or backends.cudnn.allow_tf32 is False  # can be read, as both ways say the same
        raise KeyError
    assert state() == before


def test_certificates_and_the_ladder_are_computed_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    _older_way()
    before, seen = state(), list[State]()
    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *given: (seen.append(state()), linear(*given))[1])
    network = nn.Sequential(nn.Linear(4, 3))
    x, y = torch.rand(6, 4), torch.arange(6) % 3
    for work in (
        lambda: bounds(network, x, Box(z=0.01)),
        lambda: margins(network, x, y, Box(z=0.01)),
        lambda: ladder(network, Split(x, y), [Box(z=0.01)], samples=6, rungs=Rungs(bounds=("intervals",), steps=1, points=1)),
    ):
        seen.clear()
        work()
        assert seen
        assert all(exact(one) for one in seen)
        assert state() == before
