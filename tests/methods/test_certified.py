"""Training for certificates: the loss is the equation, bounds the worst chip, teaches, and says what it cannot do."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import noiseproof as npf
from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates.intervals import interval_margins
from noiseproof.data import Splits, Task
from noiseproof.methods import Certified, Combined, Context, Standard, WeightAdversary
from noiseproof.networks import LSNN, MLP, VGG5
from noiseproof.parameters import call
from noiseproof.randomness import generator

Batch = tuple[Tensor, Tensor]
MOMENT = Context(torch.Generator())


def dense(digits: Splits, hidden: tuple[int, ...] = (16,), **settings) -> nn.Module:
    return MLP(hidden=hidden, **settings).build(digits.task, generator("weights", 0))


def batch_of(digits: Splits, n: int = 20) -> Batch:
    return digits.train.x[:n], digits.train.y[:n]


def share_certified(network: nn.Module, data: Splits, z: float) -> float:
    network.eval()
    with torch.no_grad():
        found = interval_margins(graph_of(network, Box(z)), data.test.x, data.test.y)
    return float((found > 0).all(-1).double().mean())


def random_corner(params: dict[str, Tensor], z: float, draw: torch.Generator) -> dict[str, Tensor]:
    def sign(p: Tensor) -> Tensor:
        return torch.randint(0, 2, p.shape, generator=draw).to(p) * 2 - 1

    return {name: p * (1 + z * sign(p)) if p.ndim >= 2 else p for name, p in params.items()}


def test_the_loss_is_the_equation_written_out(digits: Splits) -> None:
    """One hidden layer, every interval by hand."""
    network, (x, y) = dense(digits), batch_of(digits)
    params = dict(network.named_parameters())
    kappa, z = 0.3, 0.02
    one, two = params["fc1.weight"], params["out.weight"]
    pixels = (x - digits.task.mean[0]) / digits.task.std[0]
    pixels = pixels.flatten(1)
    centre, radius = pixels @ one.T + params["fc1.bias"], z * pixels.abs() @ one.abs().T
    low, high = (centre - radius).relu(), (centre + radius).relu()
    worst = torch.zeros(len(y), 10)
    for n in range(len(y)):
        for c in range(10):
            if c != y[n]:
                # low and high are not negative: the least of w'a over both intervals, weight by weight
                slope = two[y[n]] - two[c] - z * (two[y[n]].abs() + two[c].abs())
                margin = (slope.clamp_min(0) * low[n] + slope.clamp_max(0) * high[n]).sum()
                worst[n, c] = -(margin + params["out.bias"][y[n]] - params["out.bias"][c])
    expected = (1 - kappa) * cross_entropy(network(x), y) + kappa * cross_entropy(worst, y)
    found = Certified(z=z, kappa=kappa).loss(network, params, (x, y), MOMENT)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    for name, a, b in zip(params, *(torch.autograd.grad(loss, list(params.values())) for loss in (found, expected)), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("settings", [{}, {"neuron": "lif", "steps": 4}])
@pytest.mark.parametrize("bounds", ["intervals", "backward"])
def test_the_worst_case_is_above_the_loss_of_every_chip_of_the_box(settings: dict, bounds: str, digits: Splits) -> None:
    if bounds == "backward" and settings:
        pytest.skip("backward bounds are of plain networks")
    network, batch = dense(digits, **settings), batch_of(digits)
    params = {name: p.detach() for name, p in network.named_parameters()}
    worst = Certified(z=0.05, kappa=1.0, bounds=bounds).loss(network, params, batch, MOMENT).item()  # pyright: ignore[reportArgumentType]
    draw = torch.Generator().manual_seed(0)
    for _ in range(30):
        chip = random_corner(params, 0.05, draw)
        assert float(cross_entropy(call(network, chip, batch[0]), batch[1])) < worst


def test_without_a_worst_case_it_is_standard_training(digits: Splits) -> None:
    network, batch = dense(digits), batch_of(digits)
    params = dict(network.named_parameters())
    assert torch.equal(Certified(kappa=0).loss(network, params, batch, MOMENT), Standard().loss(network, params, batch, MOMENT))
    assert (Certified(kappa=0, warmup=7).risen_after, Certified(kappa=0).gradient_evaluations) == (0, 1)


def test_the_warm_up_raises_both_kappa_and_z(digits: Splits) -> None:
    network, batch = dense(digits), batch_of(digits)
    params = dict(network.named_parameters())
    rising = Certified(z=0.04, kappa=0.8, warmup=3)
    for epoch, share in enumerate((0.25, 0.5, 0.75, 1.0, 1.0)):
        at = rising.loss(network, params, batch, Context(torch.Generator(), epoch=epoch))
        expected = Certified(z=0.04 * share, kappa=0.8 * share).loss(network, params, batch, MOMENT)
        assert at.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(npf.NoiseproofError, match="epochs is 3: the ramp or warm-up of certified takes 3 of them"):
        rising.check_epochs(3)


def test_it_buys_certificates_and_keeps_accuracy(digits: Splits) -> None:
    found = {}
    for method in (Standard(), Certified(z=0.02, warmup=3)):
        network = dense(digits, (32,))
        npf.train(network, digits, method, epochs=15, batch_size=20, progress=False)
        with torch.no_grad():
            right = float((network(digits.test.x).argmax(-1) == digits.test.y).double().mean())
        found[type(method).__name__] = right, share_certified(network, digits, 0.02)
    (right, bound), (its_right, its_bound) = found["Standard"], found["Certified"]
    assert its_bound > bound + 0.2
    assert its_right > right - 0.1


def test_spikes_learn_from_their_bound(digits: Splits) -> None:
    """The worst case alone has a gradient in every weight, and falls."""
    network, batch = dense(digits, neuron="lif", steps=4), batch_of(digits, 60)
    method = Certified(z=0.005, kappa=1.0)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(30):
        loss = method.loss(network, dict(network.named_parameters()), batch, MOMENT)
        optimizer.zero_grad()
        loss.backward()
        assert all(bool(p.grad.any()) for p in network.parameters() if p.grad is not None and p.ndim >= 2)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_it_trains_a_recurrent_network(digits: Splits) -> None:
    """Handwritten digits, read row by row."""
    rows = npf.data.from_tensors(digits.train.x[:100].flatten(1).view(100, 28, 28), digits.train.y[:100], classes=10)
    network = LSNN(units=16).build(rows.task, generator("weights", 0))
    done = npf.train(network, rows, Certified(z=1e-4, warmup=1), epochs=3, batch_size=20, learning_rate=5e-3, progress=False)
    assert done.best_epoch > 1  # none of the warm-up counts
    assert done.history[-1]["train_loss"] < done.history[0]["train_loss"]


def test_batch_norm_bounds_have_the_statistics_of_the_batch() -> None:
    """Then the bound cannot be made good by weights for which the running statistics are wrong; these are left as training leaves them."""
    task = Task("tiny", (3, 8, 8), 4, (0.5,) * 3, (0.3,) * 3, (0.0, 1.0))
    network = VGG5(neuron="relu", width=0.1, dense=16, batch_norm=True, dropout=0).build(task, generator("weights", 0)).train()
    x, y = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 4
    params = dict(network.named_parameters())
    before = {name: b.clone() for name, b in network.named_buffers()}
    plain = Certified(z=1e-12, kappa=1.0).loss(network, params, (x, y), MOMENT)
    moved = {name: b.clone() for name, b in network.named_buffers()}
    assert plain.item() == pytest.approx(cross_entropy(network(x), y).item(), rel=1e-3)  # with nothing moved, bound and network are one
    assert all(bool(g.any()) for g in torch.autograd.grad(plain, [p for name, p in params.items() if p.ndim >= 2]))
    assert all(not b.requires_grad for b in network.buffers())
    assert {name for name, b in moved.items() if not torch.equal(b, before[name])} == {n for n in before if "running" in n or "num_" in n}
    network.eval()
    inference = Certified(z=1e-12, kappa=1.0).loss(network, params, (x, y), MOMENT)
    assert inference.item() == pytest.approx(cross_entropy(network(x), y).item(), rel=1e-3)


def test_it_goes_with_a_weight_adversary(digits: Splits) -> None:
    network, batch = dense(digits), batch_of(digits)
    params = dict(network.named_parameters())
    adversary, certified = WeightAdversary(steps=2, beta_rob=0.5), Certified(z=0.02)
    both = Combined(weights=adversary, inputs=certified)
    found = both.loss(network, params, batch, Context(torch.Generator().manual_seed(1)))
    penalty = adversary.robustness(network, params, batch[0], Context(torch.Generator().manual_seed(1)))
    expected = certified.loss(network, params, batch, MOMENT) + penalty
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert both.gradient_evaluations == 3 + 4


def test_backward_bounds_cost_two_products_for_every_class(digits: Splits) -> None:
    method = Certified(bounds="backward")
    assert method.gradient_evaluations_on(dense(digits)) == 3 + 20
    npf.train(dense(digits), digits, method, epochs=1, batch_size=50, progress=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda digits: dense(digits, neuron="lif", steps=4, coding="poisson"), "coding is 'poisson'"),
        (lambda digits: nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Softplus()), "layer 2 is Softplus"),
    ],
)
def test_networks_without_bounds_are_refused_before_training(make: Callable, message: str, digits: Splits, tmp_path) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        npf.train(make(digits), digits, Certified(), epochs=1, folder=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"z": 0}, "z is 0: give a number above 0"),
        ({"z": 1.0}, "z is 1.0: give a half-width below 1"),
        ({"z": float("nan")}, "z is nan"),
        ({"kappa": 1.5}, "kappa is 1.5: give a number of at least 0 and at most 1"),
        ({"warmup": 1.5}, "warmup is 1.5: give a whole number"),
        ({"bounds": "crown"}, "bounds is 'crown': give intervals or backward"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        Certified(**settings)
