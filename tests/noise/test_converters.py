"""Converters, against plain loops over tiles in float64; what they see, and what they refuse."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import noiseproof as npf
from noiseproof.data import Split, Task
from noiseproof.errors import NoiseproofError
from noiseproof.evaluation import monte_carlo
from noiseproof.networks import LSNN
from noiseproof.noise import PCM, Compose, Drift, Mismatch, Program, Read
from noiseproof.parameters import call
from noiseproof.randomness import chip_generator, generator

SETTINGS = [
    {"dac_bits": 6, "adc_bits": 5},
    {"dac_bits": 8},
    {"adc_bits": 8, "adc_range": 4.0},
    {"dac_bits": 1, "adc_bits": 1},
    {"dac_bits": 7, "adc_bits": 7, "input_range": 0.8},
    {"dac_bits": 6, "adc_bits": 6, "mapping": "column"},
    {"dac_bits": 16, "adc_bits": 16, "adc_range": 100.0},
]


def read(noise: PCM, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights that are read and, by output and weight, what a device at G_max stands for."""
    params = noise({"w": w}, chip_generator(0, 0))
    units = params.units["w"]  # pyright: ignore
    return params["w"], units.repeat_interleave(noise.rows, 1)[:, : w[0].numel()]


def plain(noise: PCM, w: Tensor, units: Tensor, x: Tensor) -> Tensor:
    """Return what x [K] is multiplied to by w [O, K], tile by tile."""
    total = torch.zeros(len(w), dtype=torch.float64)
    for i in range(0, w.shape[1], noise.rows):
        part, xs, unit = w[:, i : i + noise.rows], x[i : i + noise.rows], units[:, i]
        largest = noise.input_range or xs.abs().max()
        xs = (xs / largest).clamp(-1, 1) if largest else xs
        if noise.dac_bits:
            steps = max(1, 2 ** (noise.dac_bits - 1) - 1)
            xs = (xs * steps).round() / steps
        current = (part @ xs) / unit
        if noise.adc_bits:
            steps = max(1, 2 ** (noise.adc_bits - 1) - 1)
            current = (current / noise.adc_range).clamp(-1, 1).mul(steps).round() / steps * noise.adc_range
        total += current * unit * largest
    return total


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_products_are_those_of_a_loop_over_tiles(settings) -> None:
    g = chip_generator(0, 3)
    noise = PCM(time=3600.0, rows=30, columns=9, **settings)
    w, units = read(noise, torch.randn(20, 70, generator=g, dtype=torch.float64))
    x, bias = torch.randn(6, 70, generator=g, dtype=torch.float64), torch.randn(20, generator=g, dtype=torch.float64)
    x[2] = 0
    expected = torch.stack([plain(noise, w, units, one) for one in x])
    params = noise({"w": torch.randn(20, 70, generator=chip_generator(0, 3), dtype=torch.float64)}, chip_generator(0, 0))
    w = params["w"]
    with noise.converters(params):
        found = {
            "linear": F.linear(x, w, bias) - bias,
            "of three dimensions": F.linear(x.view(2, 3, 70), w).reshape(6, 20),
            "of one": torch.stack([F.linear(one, w) for one in x]),
            "operator": x @ w.T,
            "method": x.matmul(w.mT),
            "from the left": (w @ x.T).T,
            "vectors": torch.stack([torch.mv(w, one) for one in x]),
            "vectors from the right": torch.stack([one @ w.t() for one in x]),
            "mm": torch.mm(x, w.t()),
            "bmm": torch.bmm(x.view(2, 3, 70), w.t().expand(2, 70, 20)).reshape(6, 20),
            "addmm": torch.addmm(bias, x, w.t()) - bias,
            "scaled": (torch.addmm(bias, x, w.t(), beta=2, alpha=3) - 2 * bias) / 3,
            "masked": x @ (w * torch.ones_like(w)).mT,
            "copied": F.linear(x, w.clone().contiguous()),
        }
    for name, value in found.items():
        assert torch.allclose(value, expected, atol=1e-10), name
    if settings.get("adc_bits") != 16:
        assert not torch.allclose(x @ w.T, expected, atol=1e-4)
    else:
        assert torch.allclose(x @ w.T, expected, atol=0.1)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[4]], ids=str)
@pytest.mark.parametrize(
    ("shape", "image", "options"),
    [
        ((6, 4, 3, 3), (4, 7, 8), {}),
        ((6, 4, 3, 2), (4, 7, 8), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
        ((6, 2, 3, 3), (4, 7, 8), {"groups": 2, "padding": 1}),
        ((6, 4, 4, 3), (4, 7, 8), {"padding": "same"}),
        ((6, 4, 3, 3), (4, 7, 8), {"padding": "valid"}),
        ((5, 3, 4), (3, 11), {"stride": 2, "padding": 1}),
        ((4, 2, 2, 3, 2), (2, 4, 5, 4), {"padding": (0, 1, 0)}),
    ],
    ids=str,
)
def test_convolutions_are_products_with_each_patch(shape, image, options, settings) -> None:
    g = chip_generator(0, 4)
    conv = (F.conv1d, F.conv2d, F.conv3d)[len(shape) - 3]
    noise = PCM(time=3600.0, rows=10, columns=4, **settings)
    nominal = torch.randn(shape, generator=g, dtype=torch.float64)
    x = torch.randn(3, *image, generator=g, dtype=torch.float64)
    bias = torch.randn(shape[0], generator=g, dtype=torch.float64)
    params = noise({"w": nominal}, chip_generator(0, 0))
    w, units = params["w"], read(noise, nominal)[1]
    # the inputs under the kernel, one tap at a time: a convolution with a kernel that is 1 there and 0 elsewhere
    groups, per_group = options.get("groups", 1), w[0].numel()
    taps = torch.eye(per_group, dtype=torch.float64).view(per_group, *shape[1:])
    others = {name: value for name, value in options.items() if name != "groups"}
    expected = []
    for i in range(groups):
        mine = slice(i * shape[0] // groups, (i + 1) * shape[0] // groups)
        patches = conv(x[:, i * shape[1] : (i + 1) * shape[1]], taps, **others).movedim(1, -1)
        rows = [plain(noise, w[mine].flatten(1), units[mine], one) for one in patches.reshape(-1, per_group)]
        expected.append(torch.stack(rows).view(*patches.shape[:-1], -1).movedim(-1, 1))
    with noise.converters(params):
        found = conv(x, w, bias, **options)
        one = conv(x[0], w, bias, **options)
    expected = torch.cat(expected, 1) + bias.view(-1, *(1 for _ in shape[2:]))
    assert torch.allclose(found, expected, atol=1e-10)
    assert torch.equal(one, found[0])


def test_a_matrix_used_transposed_is_read_the_other_way_round() -> None:
    """x @ W for a W [in, out] of the user's own: tiles are walked along its first dimension."""
    noise = PCM(rows=30, columns=12, dac_bits=6, adc_bits=6)
    nominal = torch.randn(40, 40, dtype=torch.float64, generator=chip_generator(0, 5))
    params = noise({"w": nominal}, chip_generator(0, 0))
    w, units = read(noise, nominal)
    x = torch.randn(5, 40, dtype=torch.float64, generator=chip_generator(0, 6))
    with noise.converters(params):
        found = x @ params["w"]
    turned = PCM(rows=12, columns=30, dac_bits=6, adc_bits=6)
    expected = torch.stack([plain(turned, w.T, units.T, one) for one in x])
    assert torch.allclose(found, expected, atol=1e-10)
    by_column = PCM(mapping="column", dac_bits=6)
    params = by_column({"w": nominal}, chip_generator(0, 0))
    with pytest.raises(NoiseproofError, match="w is used transposed: its columns are scaled one by one"), by_column.converters(params):
        x @ params["w"]


def test_the_recurrent_product_is_converted() -> None:
    task = Task("sequence", (12, 4), 5, (0.0,), (1.0,), (-3.0, 3.0))
    network = LSNN(units=20).build(task, generator("weights", 0))
    noise = PCM(time=60.0, rows=8, columns=8, parameters="recurrent.weight", dac_bits=2, adc_bits=2)
    params = noise(dict(network.named_parameters()), chip_generator(0, 0))
    x = 3 * torch.randn(40, 12, 4, generator=chip_generator(0, 1))
    with torch.no_grad():
        exact = call(network, params, x)
        with noise.converters(params):
            converted = call(network, params, x)
        expected = by_hand(network, params, noise, x)
    assert not torch.allclose(exact, converted, atol=1e-3)
    # a spike may fall the other way where a sum rounds differently
    assert float((converted - expected).abs().gt(1e-4).any(1).float().mean()) < 0.1
    assert float((exact - expected).abs().gt(1e-4).any(1).float().mean()) > 0.5


def by_hand(network: nn.Module, params: dict[str, Tensor], noise: PCM, x: Tensor) -> Tensor:
    """Return the logits with the recurrent product replaced by a loop over tiles."""
    masked = params["recurrent.weight"] * network.get_buffer("recurrent.mask")
    units = params.units["recurrent.weight"].repeat_interleave(8, 1)[:, :20]  # pyright: ignore

    class Product(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (Tensor.__matmul__, Tensor.matmul) and args[1].shape == (20, 20):
                rows = [plain(noise, masked.double(), units.double(), one) for one in args[0].double()]
                return torch.stack(rows).float()
            return func(*args, **(kwargs or {}))

    with npf.neurons.kernels.using("reference"), Product():
        return call(network, params, x)


def test_results_do_not_depend_on_batch_or_processes(digits, cnn) -> None:
    noise = PCM(time=3600.0, dac_bits=8, adc_bits=8)
    found = [
        [r.value for r in monte_carlo(cnn, digits.test, noise, chips=2, processes=processes, block=block)]
        for processes, block in ((1, 100), (2, 7))
    ]
    # blocks round differently: at most one sample may lie on the border
    assert all(abs(a - b) <= 1.001 / len(digits.test) for a, b in zip(*found, strict=True))
    params = noise({n: p.detach() for n, p in cnn.named_parameters()}, chip_generator(0, 0))
    x = digits.test.x[:8].clone()
    with torch.no_grad(), noise.converters(params):
        together = call(cnn, params, x)
        x[1:] *= 100  # a neighbour however large is no concern of the first
        assert torch.allclose(call(cnn, params, x)[0], together[0], atol=1e-3)


def test_output_noise_is_that_of_the_current_of_a_device_at_full_input() -> None:
    """Over many products with one vector: no bias, and σ of a device at G_max with the largest input, by output; tiles add up."""
    noise = PCM(rows=30, columns=9, output_noise=0.5)
    w = torch.randn(20, 70, generator=chip_generator(0, 3), dtype=torch.float64)
    params = noise({"w": w}, chip_generator(0, 0))
    _, units = read(noise, w)
    x = torch.randn(1, 70, generator=chip_generator(0, 4), dtype=torch.float64)
    with noise.converters(params):
        found = F.linear(x.expand(20000, 70), params["w"])
        again = F.linear(x, params["w"])
    full = [x[0, i : i + 30].abs().max() for i in range(0, 70, 30)]
    expected = torch.stack([0.5 * units[:, i] * f for i, f in zip(range(0, 70, 30), full, strict=True)]).square().sum(0).sqrt()
    assert torch.allclose(found.std(0), expected, rtol=0.03)  # 20,000 draws: certain to 0.5 %
    assert ((found.mean(0) - x[0] @ params["w"].T).abs() < 5 * expected / 20000**0.5).all()
    assert not torch.equal(found[:1], again)
    with noise.converters(params):
        assert torch.equal(F.linear(x.expand(20000, 70), params["w"]), found)  # the same chip in every measurement


def test_few_bits_cost_accuracy_and_many_cost_none(digits, cnn) -> None:
    npf.train(cnn, digits, epochs=3, batch_size=20, progress=False)

    def accuracy(**settings) -> float:
        return monte_carlo(cnn, digits.test, PCM(time=25.0, **settings), chips=1, processes=1)[0].value

    assert abs(accuracy(dac_bits=12, adc_bits=12) - accuracy()) <= 0.02
    assert abs(accuracy(dac_bits=8, adc_bits=8) - accuracy()) <= 0.1
    assert accuracy(dac_bits=8, adc_bits=2, adc_range=100.0) < accuracy() - 0.2


def test_gradients_are_those_of_the_exact_product(digits, mlp) -> None:
    noise = PCM(time=25.0, dac_bits=4, adc_bits=4)
    params = noise(dict(mlp.named_parameters()), chip_generator(0, 0))
    layer = params["fc1.weight"] if "fc1.weight" in params else next(p for p in params.values() if p.ndim == 2)
    x = torch.rand(5, layer.shape[1])
    exact = F.linear(x, layer)
    (wanted,) = torch.autograd.grad(exact.sum(), layer)
    with noise.converters(params):
        out = F.linear(x, layer)
        (found,) = torch.autograd.grad(out.sum(), layer)
        F.linear(torch.rand(2, 32), next(p for p in params.values() if p.ndim == 2 and p is not layer))
    assert torch.equal(found, wanted)
    assert not torch.allclose(out, exact, atol=1e-3)


def test_nothing_is_there_without_bits_and_nothing_stays(digits, mlp) -> None:
    params = PCM()(dict(mlp.named_parameters()), chip_generator(0, 0))
    with PCM().converters(params):
        plainly = call(mlp, params, digits.test.x[:5])
    noise = PCM(dac_bits=2)
    with noise.converters(params):
        assert not torch.allclose(call(mlp, params, digits.test.x[:5]), plainly, atol=1e-3)
    assert torch.equal(call(mlp, params, digits.test.x[:5]), plainly)
    composed = Compose((Mismatch(0.1), Program(), Drift(time=60.0), Read(dac_bits=2)))
    assert composed.converts
    assert not Compose((Mismatch(0.1), Program(), Read())).converts
    params = composed(dict(mlp.named_parameters()), chip_generator(0, 0))
    with composed.converters(params):
        found = call(mlp, params, digits.test.x[:5])
    assert not torch.allclose(found, call(mlp, params, digits.test.x[:5]), atol=1e-3)


class _Odd(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.randn(10, 784))
        self.rnn = nn.LSTM(28, 10, batch_first=True) if how == "lstm" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.rnn is not None:
            return self.rnn(x[:, 0])[0][:, -1] + F.linear(x.flatten(1), self.weight)
        if self.how == "einsum":
            return torch.einsum("bi,oi->bo", x.flatten(1), self.weight)
        if self.how == "parts":
            return F.linear(x.flatten(1)[:, :100], self.weight[:, :100])
        if self.how == "scaled":
            return F.linear(x.flatten(1), 2 * self.weight)
        return x.flatten(1)[:, :10] + self.weight.sum()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("einsum", "module.weight is used in einsum: converters know linear, convolution and matrix products"),
        ("parts", "module.weight is used in parts"),
        ("nothing", "converters saw no product with module.weight: the layer computes it out of sight"),
        ("scaled", "converters saw no product with module.weight"),
        ("lstm", "module.rnn.weight_ih_l0"),
    ],
)
def test_a_product_that_cannot_be_seen_is_an_error(how, message, digits) -> None:
    network = npf.adapt(_Odd(how))
    with pytest.raises(NoiseproofError, match=message):
        monte_carlo(network, Split(digits.test.x[:4], digits.test.y[:4]), PCM(dac_bits=8), chips=1, processes=1)


def test_other_parameters_than_those_read_are_refused(mlp) -> None:
    with pytest.raises(NoiseproofError, match="converters need the parameters as they were read"):
        PCM(dac_bits=8).converters(dict(mlp.named_parameters()))
