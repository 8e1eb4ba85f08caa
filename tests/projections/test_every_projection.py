"""One battery for every projection: a new projection is one more row."""

import copy

import pytest
import torch

import noiseproof as npf
from noiseproof import _names, config, training
from noiseproof.data import Splits
from noiseproof.projections import RAT, Clip, Projection, WeightMagnitude

PROJECTIONS = {"clip": Clip(k=1.0), "weight-magnitude": WeightMagnitude(at_most=0.01), "rat": RAT(beta=0.01)}
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
    # rat is about matrices: a vector has no directions to be made orthogonal
    assert torch.equal(values["fc.bias"], before["fc.bias"]) == isinstance(projection, RAT)


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


def test_filters_without_a_spread_stay() -> None:
    for w in (torch.tensor([[2.0], [-0.5]]), torch.full((3, 4), 0.1), torch.ones(5)):
        clipped = w.clone()
        Clip(k=2.0, parameters="all")({"w": clipped})
        assert torch.equal(clipped, w)


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


def test_retraction_leads_all_singular_values_to_1() -> None:
    draw = torch.Generator().manual_seed(0)
    for shape in ((6, 4), (4, 6), (5, 2, 3, 3)):
        w = 0.5 * torch.randn(shape, generator=draw, dtype=torch.float64)
        flat = w.flatten(1)
        by_hand = 1.1 * flat - 0.1 * flat @ flat.T @ flat
        RAT(beta=0.1)({"w": w})
        assert torch.allclose(w.flatten(1), by_hand)
        for _ in range(200):
            RAT(beta=0.1)({"w": w})
        assert torch.allclose(torch.linalg.svdvals(w.flatten(1)), torch.ones(min(w.flatten(1).shape)).double(), atol=1e-6)


def test_of_a_large_layer_some_rows_are_drawn() -> None:
    w = torch.randn(200, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 15
    before = w.clone()
    RAT(beta=0.1, share=0.3)({"w": w}, torch.Generator().manual_seed(1))
    moved = (w != before).any(1)
    assert int(moved.sum()) == 60
    part = before[moved]
    assert torch.allclose(w[moved], 1.1 * part - 0.1 * part @ part.T @ part)
    again = before.clone()
    RAT(beta=0.1, share=0.3)({"w": again}, torch.Generator().manual_seed(1))
    assert torch.equal(again, w)
    with pytest.raises(npf.NoiseproofError, match="rat draws the rows of large layers; give a torch.Generator"):
        RAT()({"w": w})


def test_a_training_with_rat_goes_on_to_the_same_weights(digits: Splits, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(folder=None, stop: bool = False) -> torch.nn.Module:
        network = npf.networks.MLP(hidden=(220,)).build(digits.task, torch.Generator().manual_seed(0))
        with monkeypatch.context() as patch:
            if stop:
                patch.setattr(training, "_validate", _interrupted_after_one_epoch(training._validate))
            npf.train(network, digits, epochs=2, batch_size=50, after_step=("rat(beta=0.05)",), folder=folder, progress=False)
        return network

    whole = trained()
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, stop=True)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), trained(tmp_path).parameters(), strict=True))


def _interrupted_after_one_epoch(validate):
    def interrupted(network, split, recipe, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return validate(network, split, recipe, epoch)

    return interrupted
