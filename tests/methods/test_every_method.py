"""One battery for every method: a new method is one more row."""

import copy

import pytest
import torch

import noiseproof as npf
from noiseproof import _names, config, training
from noiseproof.data import Splits
from noiseproof.methods import Context, Dropout, ForwardNoise, Method, Standard, WeightAdversary
from noiseproof.randomness import generator

METHODS = {
    "standard": Standard(),
    "dropout": Dropout(p=0.3),
    "forward-noise": ForwardNoise(eta=0.3, parameters="all"),
    "weight-adversary": WeightAdversary(steps=2),
    "weight-adversary, all options": WeightAdversary(
        steps=2, eta=0.2, zeta_const=0.01, warmup=1, constant_perturbation=True, parameters="all"
    ),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
every_network = pytest.mark.parametrize("kind", ["mlp", "cnn", "outside"])


def test_the_table_is_complete() -> None:
    assert {key.partition(",")[0] for key in METHODS} == set(_names.available("methods", "method"))


@every_method
def test_training_learns(method: Method, mlp: torch.nn.Module, digits: Splits) -> None:
    done = npf.train(mlp, digits, method, epochs=12, batch_size=20, progress=False)
    assert done.history[-1]["train_loss"] < 0.6 * done.history[0]["train_loss"]
    assert max(scores["validation_accuracy"] for scores in done.history) > 0.6  # ten classes, 200 images


@every_method
@every_network
def test_a_loss_leaves_parameters_mode_and_buffers(method: Method, kind: str, digits: Splits, request: pytest.FixtureRequest) -> None:
    network = npf.adapt(request.getfixturevalue(kind))
    network.train()
    next(network.modules()).training = True
    list(network.modules())[-1].training = False  # a mode of its own, as users freeze layers
    before = copy.deepcopy(network.state_dict())
    modes = [m.training for m in network.modules()]
    batch = (digits.train.x[:8], digits.train.y[:8])
    loss = method.loss(network, dict(network.named_parameters()), batch, Context(torch.Generator().manual_seed(0)))
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in gradients)
    assert [m.training for m in network.modules()] == modes
    for name, value in network.state_dict().items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):  # these follow the task loss, as in plain training
            assert torch.equal(value, before[name]), name
    tracked = [v for name, v in network.state_dict().items() if name.endswith("num_batches_tracked")]
    assert all(int(v) == 1 for v in tracked), "batch norm saw more than the one pass of the task loss"


@every_method
def test_equal_generators_give_equal_losses(method: Method, mlp: torch.nn.Module, digits: Splits) -> None:
    batch = (digits.train.x[:8], digits.train.y[:8])
    first, again, other = (
        method.loss(mlp, dict(mlp.named_parameters()), batch, Context(torch.Generator().manual_seed(seed))).item() for seed in (1, 1, 2)
    )
    assert first == again
    if method != Standard():
        assert first != other


@every_method
def test_config_round_trip(method: Method) -> None:
    experiment = npf.Experiment(method=method)
    assert config.from_dict(config.to_dict(experiment)) == experiment
    assert config.from_dict(config.to_dict(experiment)).identity == experiment.identity


@every_method
def test_interrupted_equals_uninterrupted(method: Method, digits: Splits, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> torch.nn.Module:
        return npf.networks.MLP(hidden=(16,)).build(digits.task, generator("weights", 0))

    settings = {"epochs": 3, "batch_size": 30, "progress": False, "track_attack": 0.1}
    whole = network()
    npf.train(whole, digits, method, **settings)

    first = network()
    with monkeypatch.context() as patch:
        patch.setattr(training, "_validate", _interrupt_in_epoch(2, training._validate))
        with pytest.raises(KeyboardInterrupt):
            npf.train(first, digits, method, folder=tmp_path, **settings)
    second = network()
    npf.train(second, digits, method, folder=tmp_path, **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def _interrupt_in_epoch(number: int, validate):
    def interrupted(network, split, recipe, epoch):
        if epoch + 1 == number:
            raise KeyboardInterrupt
        return validate(network, split, recipe, epoch)

    return interrupted


def test_dropout_is_inverted_and_per_sample() -> None:
    """On a linear read-out of constant hidden units the mean is kept and samples differ."""
    network = torch.nn.Sequential(torch.nn.ReLU())
    from noiseproof.methods.dropout import _HiddenDropout

    with _HiddenDropout(0.3, torch.Generator().manual_seed(0)) as mode:
        seen = network(torch.ones(200, 500))
    assert mode.layers == 1
    assert seen.mean().item() == pytest.approx(1.0, abs=0.01)
    assert seen.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert not torch.equal(seen[0], seen[1])


def test_dropout_needs_hidden_units(digits: Splits) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.raises(npf.NoiseproofError, match="no hidden units"):
        npf.train(network, digits, Dropout(), epochs=1, progress=False)


def test_forward_noise_has_jacobian_one() -> None:
    """The gradient is that of the loss at the noisy point, applied to the nominal parameters."""
    network = torch.nn.Linear(5, 3).double()
    x, y = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
    params = dict(network.named_parameters())
    method = ForwardNoise(eta=0.5)
    loss = method.loss(network, params, (x, y), Context(torch.Generator().manual_seed(0)))
    noisy = npf.noise.Mismatch(zeta=0.5)(params, torch.Generator().manual_seed(0))
    leaves = {name: p.detach().requires_grad_() for name, p in noisy.items()}
    expected = torch.nn.functional.cross_entropy(torch.func.functional_call(network, leaves, (x,)), y)
    for found, wanted in zip(
        torch.autograd.grad(loss, list(params.values())), torch.autograd.grad(expected, list(leaves.values())), strict=True
    ):
        assert torch.allclose(found, wanted, atol=1e-12)
