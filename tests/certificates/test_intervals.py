"""Plain intervals, attacked: no chip of the box may leave them, in float32 as in float64."""

import itertools
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from noiseproof.certificates._box import Box
from noiseproof.certificates._build import graph_of
from noiseproof.certificates._graph import Graph, Linear
from noiseproof.certificates._interval import Interval, margins, point, through
from noiseproof.certificates._layers import dense
from noiseproof.certificates._rounding import Rounding
from noiseproof.certificates.intervals import interval_logits, interval_margins, interval_spikes, interval_values
from noiseproof.data import Task
from noiseproof.errors import NoiseproofError
from noiseproof.networks import CNN, LSNN, MLP, VGG5, Network, ResNet12, ResNet32, SpikingNetwork
from noiseproof.networks._residual import ImageMean
from noiseproof.networks._spiking import Readout, Residual
from noiseproof.neurons import ALIF, DLIF, IF, LIF, Recurrent

IMAGES = Task("images", (1, 28, 28), 10, (0.28,), (0.35,), (0.0, 1.0))
PHOTOS = Task("photos", (3, 32, 32), 10, (0.5, 0.5, 0.5), (0.2, 0.25, 0.3), (0.0, 1.0))
SEQUENCES = Task("sequences", (12, 5), 4, (0.1,) * 5, (0.9,) * 5, (-5.0, 5.0))
SMALL = Task("small", (1, 6, 6), 3, (0.3,), (0.4,), (0.0, 1.0))
DTYPES = (torch.float64, torch.float32)

ARCHITECTURES = {
    "mlp": (MLP(hidden=(64, 32)), IMAGES),
    "cnn": (CNN(), IMAGES),
    "batch norm": (VGG5(neuron="relu", width=0.1, dense=16, batch_norm=True), PHOTOS),
    "residual": (ResNet32(), PHOTOS),
    "lif": (MLP(hidden=(64, 32), neuron="lif"), IMAGES),
    "dlif cnn": (CNN(neuron="dlif", steps=3), IMAGES),
    "spiking vgg": (VGG5(width=0.1, dense=16, steps=4), PHOTOS),
    "spiking residual": (ResNet12(width=0.1, steps=3), PHOTOS),
    "lsnn": (LSNN(units=20), SEQUENCES),
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def own_margins(logits: Tensor, y: Tensor) -> Tensor:
    """z_y − z_c of logits [..., B, C], +∞ at c = y."""
    own = y.expand(logits.shape[:-1])[..., None]
    return (logits.gather(-1, own) - logits).scatter(-1, own, torch.inf)


def within(values: Tensor, bounds: Interval) -> bool:
    return bool(((bounds.low <= values.double()) & (values.double() <= bounds.high)).all())


# --- no box


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_without_a_box_the_bounds_are_the_forward_pass(name: str) -> None:
    architecture, task = ARCHITECTURES[name]
    network = architecture.build(task, seeded()).eval().double()
    x, y = torch.rand(2, *task.shape, generator=seeded(1)).double(), torch.tensor([0, 3])
    graph = graph_of(network, Box(z=0.0), arithmetic="exact")
    low, high = interval_logits(graph, x)
    run = network.run(x, record=("spikes",) if graph.spiking else ())
    assert torch.equal(low, high)
    torch.testing.assert_close(low, run.logits, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(interval_margins(graph, x, y), own_margins(run.logits, y), rtol=1e-9, atol=1e-9)
    for at, found in interval_spikes(graph, x).items():
        spikes = run.traces["spikes"][graph.nodes[at].name.removesuffix(".neuron")]
        assert torch.equal(found.spikes.low, spikes)
        assert torch.equal(found.spikes.high, spikes)
        assert torch.equal(found.counts.low, spikes.sum(0))
        assert torch.equal(found.potential.low, found.potential.high)


# --- attacked


def inputs(network: Network, count: int) -> Tensor:
    low, high = network.bounds
    return low + (high - low) * torch.rand(count, *network.shape, generator=seeded(1))


def plain(*layers: tuple[str, nn.Module]) -> Network:
    return Network(SMALL, OrderedDict(layers))


def residual_cnn() -> Network:
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1, generator=seeded(2))  # pyright: ignore
    norm.running_var.uniform_(0.5, 2, generator=seeded(3))  # pyright: ignore
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=2), norm)
    return plain(
        ("conv", nn.Conv2d(1, 4, 3, padding=1)), ("relu", nn.ReLU()), ("pool", nn.MaxPool2d(2)),
        ("block", Residual(body, nn.Identity(), nn.ReLU())), ("average", nn.AvgPool2d(3, 2, 1)), ("mean", ImageMean()),
        ("out", nn.Linear(4, 3)),
    )  # fmt: skip


def spiking(first: nn.Module, second: nn.Module, how: str, bias: bool = True) -> SpikingNetwork:
    layers = [
        ("flat", nn.Flatten()), ("fc1", nn.Linear(36, 8)), ("act1", first), ("fc2", nn.Linear(8, 6)), ("act2", second),
        ("out", Readout(6, 3, how, bias=bias, leak=0.9)),  # pyright: ignore
    ]  # fmt: skip
    return SpikingNetwork(SMALL, OrderedDict(layers), steps=5, sequence=False)


def recurrent() -> SpikingNetwork:
    task = Task("small", (10, 4), 3, (0.0,) * 4, (1.0,) * 4, (-2.0, 2.0))
    adaptive = Recurrent(ALIF(tau=3.0, tau_adaptation=5.0, beta=0.5, threshold=0.1, refractory=2), 7)
    layers = [("input", nn.Linear(4, 7, bias=False)), ("recurrent", adaptive), ("out", Readout(7, 3, "max", leak=0.8))]
    return SpikingNetwork(task, OrderedDict(layers), steps=10, sequence=True)


ATTACKED = {
    "mlp": lambda: plain(
        ("flat", nn.Flatten()), ("fc1", nn.Linear(36, 10)), ("r1", nn.ReLU()), ("fc2", nn.Linear(10, 8)), ("r2", nn.ReLU()),
        ("out", nn.Linear(8, 3)),
    ),
    "cnn": residual_cnn,
    "lif": lambda: spiking(LIF(leak=0.9, threshold=0.5), LIF(tau=2.0, threshold=0.3, reset="hard", refractory=1), "rate"),
    "if, dlif": lambda: spiking(IF(threshold=0.5, reset="soft-next"), DLIF(steps=5, leak=0.9, threshold=0.2), "last"),
    "alif": recurrent,
}  # fmt: skip


def outcomes(network: nn.Module, graph: Graph, x: Tensor):
    """Return a function of the parameters that gives logits and the spikes of every layer, for inputs in a corner of their box."""
    corner = (torch.rand(x.shape, generator=seeded(2)).double() - 0.5).sign() * graph.eps
    x = inside(x.double() + corner, x, graph.eps).clamp(*graph.bounds)
    if not graph.spiking:
        return lambda params: (functional_call(network, params, (x,)),)

    def run(params: dict[str, Tensor]) -> tuple[Tensor, ...]:
        found = functional_call(network, params, (x, {"record": ("spikes",)}))
        return (found.logits, *found.traces["spikes"].values())

    return run


def inside(values: Tensor, centre: Tensor, radius: Tensor | float) -> Tensor:
    """Return values in the dtype of the centre; one that rounding took out of the box goes one step back."""
    rounded = values.to(centre.dtype)
    return torch.where((rounded.double() - centre.double()).abs() > radius, torch.nextafter(rounded, centre), rounded)


def chips(params: dict[str, Tensor], run, box: Box, y: Tensor, count: int, generator: torch.Generator):
    """Give chips of the box: corners, uniform draws, and the corners to which gradients of logits and margins point, five times."""
    moving = box.half_widths(params)

    def at(shifts: dict[str, Tensor]) -> dict[str, Tensor]:
        rows = len(next(iter(shifts.values())))
        radii = {n: box.z * params[n].double().abs() for n in shifts}
        moved = {n: inside(params[n].double() + shift * radii[n], params[n], radii[n]) for n, shift in shifts.items()}
        return {n: moved.get(n, p.expand(rows, *p.shape)) for n, p in params.items()}

    uniform = {n: torch.rand(count, *params[n].shape, generator=generator).double() * 2 - 1 for n in moving}
    yield at(uniform)
    yield at({n: shift.sign() for n, shift in uniform.items()})

    logits = run(params)[0]
    ones = torch.eye(logits.numel(), dtype=logits.dtype).unflatten(0, logits.shape).unflatten(-1, logits.shape)
    pairs = ones - ones[torch.arange(len(y)), y][:, None]
    directions = torch.cat([kind[:5].flatten(0, 1) for kind in (ones, -ones, pairs)])
    found = {n: p.expand(len(directions), *p.shape) for n, p in params.items()}
    for _ in range(5):
        slopes = vmap(grad(lambda p, direction: (run(p)[0] * direction).sum()))(found, directions)
        found = at({n: slopes[n].sign().double() for n in moving})
        yield found


@pytest.mark.parametrize(
    ("dtype", "bounds"), [(torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float32, torch.float32)]
)
@pytest.mark.parametrize("name", ATTACKED)
@pytest.mark.parametrize("box", [Box(0.005), Box(0.02, "all", eps=0.01)], ids=str)
def test_no_chip_of_the_box_leaves_the_bounds(name: str, dtype: torch.dtype, bounds: torch.dtype, box: Box) -> None:
    torch.manual_seed(0)
    network = ATTACKED[name]().eval().to(dtype)
    graph = graph_of(network, box, arithmetic="float32" if dtype == torch.float32 else "float64", dtype=bounds)
    x, y = inputs(network, 20).to(dtype), torch.arange(20) % 3
    params = {name: value.detach() for name, value in network.named_parameters()}
    with torch.no_grad():
        logits, worst = interval_logits(graph, x), interval_margins(graph, x, y)
        spikes = [found.spikes for found in interval_spikes(graph, x).values()]
    run, seen = outcomes(network, graph, x), 0
    for group in chips(params, run, box, y, 1700, seeded(3)):
        with torch.no_grad():
            found, *trains = vmap(run)(group)
        seen += len(found)
        assert within(found, logits)
        assert (own_margins(found.double(), y) >= worst).all()
        assert all(within(train, bounds) for train, bounds in zip(trains, spikes, strict=True))
    assert seen >= 3500  # 30 settings: 10⁵ chips and more
    assert not spikes or any((bounds.low != bounds.high).any() for bounds in spikes), "no spike was left open: this says nothing"


# --- single layers


@st.composite
def layers(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer of any known kind with random weights and the shape that it takes."""
    torch.manual_seed(draw(st.integers(0, 2**20)))
    channels, side = 2 * draw(st.integers(1, 3)), draw(st.integers(4, 7))
    image = (channels, side, side)
    kind = draw(st.sampled_from(["dense", "conv1d", "conv2d", "norm", "average", "max", "relu"]))
    stride, padding, groups = draw(st.integers(1, 2)), draw(st.integers(0, 1)), draw(st.sampled_from([1, 2]))
    if kind == "dense":
        return nn.Linear(side, channels, bias=draw(st.booleans())), (side,)
    if kind == "conv1d":
        return nn.Conv1d(channels, 4, 3, stride, padding, groups=groups), (channels, side)
    if kind == "conv2d":
        return nn.Conv2d(channels, 4, 3, stride, padding, groups=groups, bias=draw(st.booleans())), image
    if kind == "norm":
        norm = nn.BatchNorm2d(channels)
        for value, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.1, 2), (norm.weight, -1, 1), (norm.bias, -1, 1)):
            nn.init.uniform_(value, low, high)  # pyright: ignore
        return norm, image
    pools = {"average": nn.AvgPool2d(2, stride, padding), "max": nn.MaxPool2d(3, stride, padding), "relu": nn.ReLU()}
    return pools[kind], image


@settings(max_examples=60, deadline=None)
@given(made=layers(), z=st.sampled_from([0.0, 1e-6, 0.01, 0.3]), eps=st.sampled_from([0.0, 0.1]), data=st.data())
def test_no_layer_leaves_its_bounds(made: tuple[nn.Module, tuple[int, ...]], z: float, eps: float, data: st.DataObject) -> None:
    layer, shape = made
    dtype, bounds = data.draw(
        st.sampled_from([(torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float32, torch.float32)])
    )
    outside = [] if list(layer.parameters()) else [("weighted", nn.Conv2d(shape[0], shape[0], 1))]
    features = shape[0] if len(shape) == 3 else shape[-1]
    task = Task("any", shape, 2, (0.1,) * features, (0.7,) * features, (-2.0, 2.0))
    network = Network(task, OrderedDict([*outside, ("layer", layer)])).eval().to(dtype)
    x = (inputs(network, 3) * (torch.rand(3, *shape) > 0.2)).to(dtype)
    graph = graph_of(network, Box(z, "all", eps), arithmetic="float32" if dtype == torch.float32 else "float64", dtype=bounds)
    params = {name: value.detach() for name, value in network.named_parameters()}
    run = outcomes(network, graph, x)
    with torch.no_grad():
        found = interval_values(graph, x)[-1]
        for _ in range(2):
            shifts = {name: (torch.rand(50, *p.shape).double() * 2 - 1).sign() * z * p.double().abs() for name, p in params.items()}
            corners = {name: inside(p.double() + shifts[name], p, z * p.double().abs()) for name, p in params.items()}
            assert within(vmap(run)(corners)[0], found)


def corners_of(*intervals: Interval) -> list[tuple[Tensor, ...]]:
    """All corners of a product of boxes."""
    ends = [list(zip(a.low.flatten().tolist(), a.high.flatten().tolist(), strict=True)) for a in intervals]
    found = []
    for choice in itertools.product(*itertools.chain(*ends)):
        parts = torch.tensor(choice, dtype=torch.float64).split([a.low.numel() for a in intervals])
        found.append(tuple(part.reshape(a.low.shape) for part, a in zip(parts, intervals, strict=True)))
    return found


def box_of(centre: Tensor, z: float) -> Interval:
    return point(centre).widened(z)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20), z=st.floats(0.01, 0.9), still=st.booleans())
def test_bounds_of_one_layer_are_reached_at_a_corner(seed: int, z: float, still: bool) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(2, 3, generator=draw).double(), torch.randn(1, 2, generator=draw).double()
    a = Interval(*torch.randn(2, 1, 3, generator=draw).double().sort(0).values)
    a = point(a.low) if still else a
    layer = Linear(lambda a, w: a @ w.mT, weight, bias, z, 0.1)  # pyright: ignore
    found = through(layer, a)
    one = [Interval(*(end[:1] for end in box_of(weight, z))), Interval(*(end[:, :1] for end in box_of(bias, 0.1))), a]
    values = torch.stack([(x @ w.mT + b).squeeze() for w, b, x in corners_of(*one)])
    torch.testing.assert_close(torch.stack([found.low[0, 0], found.high[0, 0]]), torch.stack([values.min(), values.max()]))
    both = [box_of(weight, z), box_of(bias, 0.1), a]
    least = min(float((x @ w.mT + b)[0] @ torch.tensor([1.0, -1.0]).double()) for w, b, x in corners_of(*both))
    assert margins(layer, a, torch.tensor([0]))[0].tolist() == pytest.approx([torch.inf, least])


@pytest.mark.parametrize("z", [0.0, 0.01])
@pytest.mark.parametrize("thin", [False, True])  # an end of zero does not move when it is widened, and a thin interval has no radius
def test_bounds_computed_in_float32_hold_the_exact_hull(z: float, thin: bool) -> None:
    draw, n = seeded(4), 60
    weight, x = torch.randn(200, n, generator=draw), torch.rand(20, n, generator=draw)
    a = Interval(x.clone() if thin else torch.zeros(20, n), x)
    layer = Linear(dense, weight, None, z, slack=Rounding("float32", torch.float32).of_sum(n))
    exact = through(Linear(dense, weight.double(), None, z), Interval(a.low.double(), a.high.double()))
    found = through(layer, a)
    assert (found.low.double() <= exact.low).all()
    assert (found.high.double() >= exact.high).all()


def test_pooling_that_rounds_is_within_the_bounds() -> None:
    x = torch.rand(10, 1, 9, 9, generator=seeded(5)) * 3
    pool = nn.AvgPool2d(3)
    layer = Linear(lambda a, _: pool(a), slack=Rounding("float32").of_sum(9))
    assert within(pool(x), through(layer, point(x.double())))
    assert not torch.equal(pool(x).double(), pool(x.double()))


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_weights_that_are_zero_do_not_move(arithmetic: str) -> None:
    network = ATTACKED["lif"]()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim >= 2:
                parameter.zero_()
    x = inputs(network, 3)
    graph = graph_of(network, Box(z=0.5), arithmetic=arithmetic)  # pyright: ignore
    low, high = interval_logits(graph, x)
    torch.testing.assert_close(low, high, rtol=1e-5, atol=0)
    assert within(network(x), Interval(low, high))


# --- gradients


def test_gradients_of_margins_are_those_of_differences() -> None:
    torch.manual_seed(0)
    network = ATTACKED["mlp"]().double()
    x, y = inputs(network, 3).double(), torch.tensor([0, 1, 2])
    names = [name for name, _ in network.named_parameters()]

    def worst(*values: Tensor) -> Tensor:
        graph = graph_of(network, Box(0.02, "all"), params=dict(zip(names, values, strict=True)), arithmetic="exact")
        found = interval_margins(graph, x, y)
        return found[found.isfinite()]

    assert torch.autograd.gradcheck(worst, tuple(network.parameters()), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("name", ["lif", "alif"])
def test_without_a_box_gradients_are_those_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = ATTACKED[name]().double()
    x, y = inputs(network, 4).double(), torch.tensor([0, 1, 2, 0])
    graph = graph_of(network, Box(0.0), arithmetic="exact")
    weights = [p for p in network.parameters() if p.ndim >= 2]
    found, wanted = interval_margins(graph, x, y), own_margins(network(x), y)
    for c in range(3):
        mine, theirs = (torch.autograd.grad(m[y != c, c].sum(), weights, retain_graph=True) for m in (found, wanted))
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


# --- what is refused


def test_other_shapes_and_labels_are_refused() -> None:
    graph = graph_of(ATTACKED["mlp"](), Box(0.01))
    with pytest.raises(NoiseproofError, match=r"x is of shape \(2, 6, 6\): give \[B, 1, 6, 6\]"):
        interval_logits(graph, torch.zeros(2, 6, 6))
    for labels in (torch.tensor([0, 3]), torch.tensor([0])):
        with pytest.raises(NoiseproofError, match=r"y is .* give one class of 0 to 2 a sample"):
            interval_margins(graph, torch.zeros(2, 1, 6, 6), labels)


def test_margins_are_never_below_the_difference_of_the_logits() -> None:
    for name in ("mlp", "cnn", "lif", "if, dlif"):
        torch.manual_seed(1)
        network = ATTACKED[name]().eval()
        x, y = inputs(network, 6), torch.arange(6) % 3
        graph = graph_of(network, Box(0.05, "all", 0.02), arithmetic="exact")
        low, high = interval_logits(graph, x)
        apart = (low.gather(-1, y[:, None]) - high).scatter(-1, y[:, None], torch.inf)
        assert (interval_margins(graph, x, y) >= apart - 1e-9).all()
