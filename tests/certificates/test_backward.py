"""Backward bounds: no chip that was found in the box is below them, and they are exact where that can be computed."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._graph import MaxPool
from noiseproof.certificates._interval import Interval
from noiseproof.certificates._relaxations import above_relu, below_relu, chord, of_windows
from noiseproof.certificates.backward import backward_logits, backward_margins
from noiseproof.certificates.intervals import interval_logits, interval_margins
from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.networks import MLP, adapt
from noiseproof.networks._base import Network
from noiseproof.networks._residual import ImageMean
from noiseproof.networks._spiking import Residual

IMAGE = Task("images", (1, 6, 6), 4, (0.3,), (0.4,), (0.0, 1.0))
VECTOR = Task("vectors", (7,), 3, (0.1,), (0.8,), (-1.0, 1.0))


def body(stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, stride, padding=1)
    )  # fmt: skip


LAYERS = {
    "mlp": (VECTOR, lambda: [nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 3)]),
    "one-layer": (VECTOR, lambda: [nn.Linear(7, 3)]),
    "mixed-signs": (VECTOR, lambda: [
        nn.Linear(7, 6), nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3),
    ]),
    "relu-first": (VECTOR, lambda: [nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU()]),
    "maxpool": (IMAGE, lambda: [
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.Conv2d(4, 5, 2), nn.MaxPool2d(2, 1), nn.Flatten(),
        nn.Linear(5, 4),
    ]),
    "residual": (IMAGE, lambda: [
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), Residual(body(), nn.Identity(), nn.ReLU()),
        Residual(body(2), nn.Conv2d(3, 3, 1, 2, bias=False), nn.Identity()), ImageMean(), nn.Linear(3, 4),
    ]),
    "average-pool": (IMAGE, lambda: [
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 6), nn.ReLU(), nn.Linear(6, 4),
    ]),
    "grouped": (IMAGE, lambda: [
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4),
    ]),
}  # fmt: skip


def build(name: str, seed: int = 0) -> Network:
    task, layers = LAYERS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(task, OrderedDict((f"l{i}", layer) for i, layer in enumerate(layers()))).eval()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.normal_(layer.weight)
                nn.init.normal_(layer.bias)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.3, 2)
    return network


def samples(network: Network, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    low, high = network.bounds
    x = low + (high - low) * torch.rand(n, *network.shape, generator=stream)
    x[0].flatten()[:3] = 0.0  # values at which nothing moves
    return x, network(x).argmax(1).detach()


def least_found(network: Network, box: Box, x: Tensor, y: Tensor, dtype: torch.dtype, steps: int = 4, seed: int = 0) -> Tensor:
    """Return the least margins [B, C] over random chips and inputs, corners, and a sign ascent a sample and class; +∞ at c = y."""
    stream = torch.Generator().manual_seed(seed)
    params = {name: p.detach().to(dtype) for name, p in network.named_parameters()}
    buffers = {name: b.detach().to(dtype) if b.is_floating_point() else b for name, b in network.named_buffers()}
    moving, (low, high) = list(box.half_widths(params)), network.bounds

    def logits(change: dict[str, Tensor], of_x: Tensor, one: Tensor) -> Tensor:
        chip = params | {name: params[name] + box.z * params[name].abs() * change[name] for name in moving}
        moved = (one + box.eps * of_x).clamp(low, high)
        return functional_call(network, (chip, buffers), (moved[None],))[0]

    def margin(change: dict[str, Tensor], of_x: Tensor, one: Tensor, own: Tensor, c: Tensor) -> Tensor:
        z = logits(change, of_x, one)
        return (z * own).sum() - (z * c).sum()

    def draws(n: int) -> list[Tensor]:
        return [(2 * torch.rand(n, *shape, generator=stream) - 1).to(dtype) for shape in [*(params[m].shape for m in moving), x.shape[1:]]]

    gradient, values = torch.func.vmap(torch.func.grad(margin, (0, 1))), torch.func.vmap(logits)
    eye, x = torch.eye(network(x).shape[1], dtype=dtype), x.to(dtype)
    found = torch.full((len(x), len(eye)), torch.inf, dtype=dtype)

    def try_all(change: dict[str, Tensor], of_x: Tensor) -> None:
        z = values(change, of_x, x)
        found.copy_(torch.minimum(found, z.gather(1, y[:, None]) - z))

    with torch.no_grad():
        for attempt in range(12):
            *weights, inputs = [d.sign() if attempt % 2 else d for d in draws(len(x))]
            try_all(dict(zip(moving, weights, strict=True)), inputs)
        for c in range(len(eye)):
            *weights, inputs = draws(len(x))
            change, one = {name: 0.1 * d for name, d in zip(moving, weights, strict=True)}, 0.1 * inputs
            for step in range(steps):
                slopes, of_x = gradient(change, one, x, eye[y], eye[c].expand(len(x), -1))
                size = 2.0 if step == 0 else 0.7
                change = {name: (change[name] - size * slopes[name].sign()).clamp(-1, 1) for name in moving}
                one = (one - size * of_x.sign()).clamp(-1, 1)
                try_all(change, one)
    return found.scatter(1, y[:, None], torch.inf)


BOXES = [Box(0.02), Box(0.3), Box(0.05, "all"), Box(0.01, "all", eps=0.05), Box(0.9, eps=0.3)]


@pytest.mark.parametrize("name", LAYERS)
def test_no_chip_is_below_the_bounds(name: str) -> None:
    network = build(name).requires_grad_(False)
    x, y = samples(network, 3)
    for at, box in enumerate(BOXES):
        graph = graph_of(network, box)
        plain = interval_margins(graph, x, y)
        bounds = [backward_margins(graph, x, y), backward_margins(graph, x, y, full=True), backward_margins(graph, x, y, optimise=3)]
        logits = backward_logits(graph, x, full=True)
        bounds.append((logits.low.gather(1, y[:, None]) - logits.high).scatter(1, y[:, None], torch.inf))
        found = least_found(network, box, x, y, (torch.float32, torch.float64)[at % 2]).double()
        for bound in bounds:
            assert (found >= bound).all(), (box, (found - bound).min())
        assert all((bound >= plain).all() for bound in bounds[:3])
        assert (bounds[2] >= bounds[0]).all()


@pytest.mark.parametrize("name", LAYERS)
def test_a_box_of_no_width_gives_the_forward_pass(name: str) -> None:
    network = build(name, seed=1)
    x, y = samples(network, 4)
    graph = graph_of(network, Box(0.0), arithmetic="exact")
    z = network.double()(x.double())
    for full in (False, True):
        low, high = backward_logits(graph, x, full)
        torch.testing.assert_close(low, z, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(high, z, rtol=1e-12, atol=1e-12)
        wanted = (z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf)
        torch.testing.assert_close(backward_margins(graph, x, y, full), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "box"), [("mlp", Box(0.05)), ("maxpool", Box(0.02)), ("residual", Box(0.02, "all")), ("mlp", Box(0.0, eps=0.05))]
)
def test_rounding_in_float32_falls_to_the_outside(name: str, box: Box) -> None:
    """Bounds computed in float32 are below those of real numbers, by little."""
    network = build(name, seed=2)
    x, y = samples(network, 6)
    exact = backward_margins(graph_of(network, box, arithmetic="exact"), x, y)
    rounded = backward_margins(graph_of(network, box, arithmetic="float32", dtype=torch.float32), x, y)
    finite = exact.isfinite()
    assert rounded.dtype == torch.float32
    assert (rounded.double() < exact)[finite].all()
    assert ((exact - rounded)[finite] < 1e-2).all()
    doubled = copy.deepcopy(network).double()
    bound = backward_margins(graph_of(doubled, box, arithmetic="float64", dtype=torch.float32), x, y)
    assert (least_found(network, box, x, y, torch.float64) >= bound).all()


def test_exact_without_hidden_layers() -> None:
    """(W_y − W_c) x − z (|W_y| + |W_c|) |x|: no chip does worse and one does so."""
    network = build("one-layer")
    x, y = samples(network, 20)
    for box in (Box(0.2), Box(0.1, "all"), Box(0.05, "all", eps=0.1)):
        bound = backward_margins(graph_of(network, box, arithmetic="exact"), x, y)
        found = least_found(network, box, x, y, torch.float64, steps=12)
        assert (found >= bound - 1e-12).all()
        torch.testing.assert_close(found, bound, rtol=1e-9, atol=1e-9)


def test_a_weight_of_a_convolution_is_one_weight() -> None:
    """Linear in its weights, a network whose convolution alone moves has its worst chip in closed form: the bound attains it."""
    network = build("grouped")
    for layer in [name for name, child in network.named_children() if isinstance(child, nn.ReLU)]:
        setattr(network, layer, nn.Identity())
    x, y = samples(network, 3)
    for moving in ("l0.weight", "l2.weight"):
        box = Box(0.1, moving)
        bound = backward_margins(graph_of(network, box, arithmetic="exact"), x, y)
        found = least_found(network, box, x, y, torch.float64, steps=2)
        torch.testing.assert_close(found, bound, rtol=1e-9, atol=1e-9)
        assert (interval_margins(graph_of(network, box), x, y) < bound - 1e-3)[bound.isfinite()].all()


def test_hidden_layers_lose_little_of_what_an_attack_finds() -> None:
    network = build("mlp", seed=3).requires_grad_(False)
    x, y = samples(network, 30)
    box = Box(0.005)
    nominal = least_found(network, Box(0.0), x, y, torch.float64)
    found, bound = least_found(network, box, x, y, torch.float64, steps=12), backward_margins(graph_of(network, box), x, y, full=True)
    plain = interval_margins(graph_of(network, box), x, y)
    finite = bound.isfinite()
    lost = [float((nominal - ends)[finite].mean()) for ends in (found, bound, plain)]
    assert lost[0] <= lost[1] < 1.2 * lost[0] < lost[2]


def test_zero_weights() -> None:
    network = build("maxpool")
    for parameter in network.parameters():
        parameter.data.zero_()
    x, y = samples(network, 2)
    bound = backward_margins(graph_of(network, Box(0.1, "all"), arithmetic="exact"), x, y, full=True)
    assert torch.equal(bound, torch.zeros_like(bound).scatter(1, y[:, None], torch.inf))


def test_two_classes_and_one_sample() -> None:
    network = Network(VECTOR, OrderedDict(a=nn.Linear(7, 1), r=nn.ReLU(), b=nn.Linear(1, 2))).eval()
    x, y = samples(network, 1)
    graph = graph_of(network, Box(0.1))
    bound = backward_margins(graph, x, y, full=True)
    assert bound.shape == (1, 2)
    assert (least_found(network, Box(0.1), x, y, torch.float64) >= bound).all()
    assert backward_margins(graph, x[:0], y[:0]).shape == (0, 2)
    assert backward_logits(graph, x[:0]).low.shape == (0, 2)


@pytest.mark.parametrize("full", [False, True])
def test_blocks_change_nothing(full: bool) -> None:
    network = build("maxpool").requires_grad_(False)
    x, y = samples(network, 2)
    graph = graph_of(network, Box(0.005))
    whole, parts = backward_margins(graph, x, y, full), backward_margins(graph, x, y, full, most_bytes=1)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        backward_logits(graph, x, full, most_bytes=1).low, backward_logits(graph, x, full).low, rtol=1e-12, atol=1e-12
    )
    assert torch.equal(backward_margins(graph, x, y, full=True, most_neurons=0), backward_margins(graph, x, y))
    plain = interval_logits(graph, x)
    assert (backward_logits(graph, x, full).low >= plain.low).all()
    assert (backward_logits(graph, x, full).high <= plain.high).all()


@pytest.mark.parametrize("name", ["mlp", "maxpool", "residual"])
def test_gradients_are_those_of_the_bound(name: str) -> None:
    """The slopes of chords are held; all else is the derivative, seen by a small step of the parameters."""
    network = build(name)
    x, y = samples(network, 4)
    params = {key: p.detach().double().requires_grad_() for key, p in network.named_parameters()}
    bound = backward_margins(graph_of(network, Box(0.02), params=params), x, y)
    loss = -bound[bound.isfinite()].mean()
    gradients = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    assert all(g is not None and g.isfinite().all() for key, g in zip(params, gradients, strict=True) if "weight" in key)
    step = 1e-3 / sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
    moved = {key: p.detach() - (0 if g is None else step * g) for (key, p), g in zip(params.items(), gradients, strict=True)}
    after = backward_margins(graph_of(network, Box(0.02), params=moved), x, y)
    expected = step * sum(float(g.square().sum()) for g in gradients if g is not None)
    assert float(loss.detach() + after[after.isfinite()].mean()) == pytest.approx(expected, rel=0.2)


def test_an_outside_network(outside: nn.Module) -> None:
    """A convolution, batch norm, ReLU and dropout as functions, a dense layer: of a module that is not ours."""
    network, x = adapt(outside).eval().requires_grad_(False), torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    graph = graph_of(network, Box(0.01), shape=(1, 28, 28))
    bound = backward_margins(graph, x, y)
    assert (bound > interval_margins(graph, x, y))[bound.isfinite()].all()
    stream = torch.Generator().manual_seed(1)
    for _ in range(20):
        chip = {
            name: p * (1 + 0.01 * (2 * torch.rand(p.shape, generator=stream) - 1).sign())
            for name, p in network.named_parameters()
            if p.ndim > 1
        }
        z = functional_call(network, chip, (x,))
        assert ((z.gather(1, y[:, None]) - z).scatter(1, y[:, None], torch.inf) >= bound).all()


def test_refusals() -> None:
    lif = MLP(hidden=(4,), neuron="lif", steps=2).build(VECTOR, torch.Generator().manual_seed(0))
    x, y = samples(build("mlp"), 3)
    with pytest.raises(NoiseproofError, match="layer .* is Neurons"):
        backward_margins(graph_of(lif, Box(0.1)), x, y)
    graph = graph_of(build("mlp"), Box(0.1))
    with pytest.raises(NoiseproofError, match="y is of shape .2,. for 3 samples"):
        backward_margins(graph, x, y[:2])
    with pytest.raises(NoiseproofError, match="give one class of 0 to 2 a sample"):
        backward_margins(graph, x, y + 3)
    with pytest.raises(NoiseproofError, match="x is of shape"):
        backward_margins(graph, x[:, :5], y)
    with pytest.raises(NoiseproofError, match="optimise is -1"):
        backward_margins(graph, x, y, optimise=-1)


# --- the parts


# far from the least numbers there are: no bound here allows for underflow
ENDS = st.tuples(st.integers(-3000, 3000), st.integers(0, 3000), st.integers(0, 40)).map(
    lambda drawn: (drawn[0] / 1000, drawn[0] / 1000 + drawn[1] / 1000 * 2.0 ** -drawn[2])
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ENDS, min_size=1, max_size=6), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 2**20))
def test_lines_lie_on_their_sides(ends: list[tuple[float, float]], dtype: torch.dtype, seed: int) -> None:
    low, high = (torch.tensor(end, dtype=dtype)[None] for end in zip(*ends, strict=True))
    high = torch.maximum(low, high)
    unit, exact = torch.finfo(dtype).eps / 2, (low.double(), high.double())
    between = torch.rand(50, low.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a = torch.cat((exact[0], exact[1], exact[0].clamp(min=0).minimum(exact[1]), exact[0] + (exact[1] - exact[0]) * between))

    def value(line: tuple[Tensor, Tensor]) -> Tensor:
        return line[0].double() * a + line[1].double()

    # middle and radius are rounded here as where chord is used
    assert (value(chord((low + high) / 2, (high - low) / 2, unit)) >= a.abs()).all()
    assert (value(above_relu(Interval(low, high), unit)) >= a.relu()).all()
    assert (below_relu(Interval(low, high)).double() * a <= a.relu()).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**20), st.sampled_from([(2, 2, 0), (3, 2, 1), (2, 1, 0)]))
def test_lines_around_the_largest_of_a_window(seed: int, kind: tuple[int, int, int]) -> None:
    size, stride, padding = kind
    stream = torch.Generator().manual_seed(seed)
    network = Network(IMAGE, OrderedDict(conv=nn.Conv2d(1, 3, 1), pool=nn.MaxPool2d(size, stride, padding)))
    op = graph_of(network, Box(0.1)).nodes[-1].op
    assert isinstance(op, MaxPool)
    middle = torch.randint(-2, 3, (2, 3, 6, 6), generator=stream).double()
    radius = torch.rand(2, 3, 6, 6, generator=stream).double() * torch.randint(0, 3, (2, 1, 1, 1), generator=stream)
    found = of_windows(op, Interval(middle - radius, middle + radius), 2.0**-53)
    for _ in range(10):
        a = middle + radius * (2 * torch.rand(2, 3, 6, 6, generator=stream).double() - 1).sign()
        largest, flat = op.apply(a), a.flatten(1)
        below, above = (flat.gather(1, at.flatten(1)).reshape(largest.shape) for at in (found.below, found.above))
        assert (below <= largest).all()
        assert (found.line.slope * above + found.line.offset >= largest).all()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_small_network(data: st.DataObject) -> None:
    """Layers in any order, residual or not, with weights of any size."""
    seed, side = data.draw(st.integers(0, 2**20)), 5
    channels, layers = data.draw(st.integers(1, 3)), []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers.append(nn.Conv2d(1, channels, 2))
        for kind in data.draw(st.lists(st.sampled_from(["conv", "relu", "max", "norm", "residual", "same"]), max_size=5)):
            if kind == "conv":
                layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=bool(seed % 2)))
            elif kind == "relu":
                layers.append(nn.ReLU())
            elif kind == "max":
                layers.append(nn.MaxPool2d(3, 1, 1))
            elif kind == "norm":
                layers.append(nn.BatchNorm2d(channels))
            elif kind == "residual":
                inner = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1))
                layers.append(Residual(inner, nn.Identity() if seed % 3 else nn.Conv2d(channels, channels, 1), nn.ReLU()))
            else:
                layers.append(nn.Dropout())
        layers += [nn.Flatten(), nn.Linear(channels * side * side, 4)]
        network = Network(IMAGE, OrderedDict((f"l{i}", layer) for i, layer in enumerate(layers))).eval()
        for parameter in network.parameters():
            parameter.data *= data.draw(st.sampled_from([0.0, 1.0, 3.0])) if data.draw(st.booleans()) else 1.0
    box = Box(
        data.draw(st.sampled_from([0.0, 0.01, 0.2])), data.draw(st.sampled_from(["weights", "all"])), data.draw(st.sampled_from([0.0, 0.1]))
    )
    x, y = samples(network, 2, seed)
    graph = graph_of(network, box)
    found = least_found(network, box, x, y, torch.float64, steps=3)
    for bound in (backward_margins(graph, x, y), backward_margins(graph, x, y, full=True)):
        assert (found >= bound).all()
