"""One battery for every projection: a new projection is one more row."""

import copy

import pytest
import torch

import noiseproof as npf
from noiseproof import _names, config
from noiseproof.data import Splits
from noiseproof.projections import Clip, Projection, WeightMagnitude

PROJECTIONS = {"clip": Clip(k=1.0), "weight-magnitude": WeightMagnitude(at_most=0.01)}
every_projection = pytest.mark.parametrize("projection", PROJECTIONS.values(), ids=PROJECTIONS.keys())


def params() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {"conv.weight": torch.randn(8, 3, 5, 5, generator=g), "fc.bias": torch.randn(40, generator=g)}


def test_the_table_is_complete() -> None:
    assert set(PROJECTIONS) == set(_names.available("projections", "projection"))


@every_projection
def test_it_changes_what_is_selected_and_nothing_else(projection: Projection) -> None:
    values = params()
    before = copy.deepcopy(values)
    projection(values)
    assert not torch.equal(values["conv.weight"], before["conv.weight"])
    assert torch.equal(values["fc.bias"], before["fc.bias"])
    type(projection)(**{**vars(projection), "parameters": "all"})(values)
    assert not torch.equal(values["fc.bias"], before["fc.bias"])


@every_projection
def test_it_is_spelled(projection: Projection) -> None:
    settings = ", ".join(f"{k}={v}" for k, v in vars(projection).items() if v != float("inf"))
    text = f"{_names.name_of('projections', type(projection))}({settings})"
    assert config.Recipe(after_step=(text,)).projections() == [projection]


def test_every_weight_is_within_k_standard_deviations_of_its_filter_after_training(mlp: torch.nn.Module, digits: Splits) -> None:
    npf.train(mlp, digits, epochs=2, learning_rate=0.05, after_step=("clip(k=1.5)",), progress=False)
    for name, w in mlp.named_parameters():
        if w.ndim >= 2:
            # the clipped filter has a smaller standard deviation than the one that set the limit, so the largest weights lie at it
            ratio = w.detach().abs().amax(1) / w.detach().std(1, correction=0)
            assert float(ratio.max()) < 2.0, name


def test_clipping_by_hand() -> None:
    w = torch.tensor([[3.0, -1.0, 1.0, -1.0, 1.0], [0.1, -0.1, 0.1, -0.1, 0.1]])
    limit = 1.5 * w[0].std(correction=0)
    Clip(k=1.5)({"w": w})
    assert torch.allclose(w[0], torch.tensor([float(limit), -1.0, 1.0, -1.0, 1.0]))
    assert torch.equal(w[1], torch.tensor([0.1, -0.1, 0.1, -0.1, 0.1]))  # the filter of small weights is clipped by its own


def test_inverse_weight_decay_stops_at_its_aim() -> None:
    w = torch.tensor([[1.0, -1.0]])
    for _ in range(2000):
        WeightMagnitude(at_least=2.0, rate=1e-3)({"w": w})
    assert 2.0 <= float(w.abs().mean()) < 2.0 * 1.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip(k=0)", "k is 0.0: give a number above 0"),
        ("clip(k=2", "after_step is 'clip\\(k=2'"),
        ("clop(k=2)", "projection is 'clop': did you mean 'clip'"),
        ("clip(s=2)", "field of clip is 's'"),
        ("clip(k=2) > clip(k=1)", "give one projection an entry"),
        ("weight-magnitude(at_least=2, at_most=1)", "at_most is 1.0: it is below at_least, 2"),
    ],
)
def test_what_is_not_so_spelled_is_named(text: str, message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        config.Recipe(after_step=(text,))
