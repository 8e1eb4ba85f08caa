"""The neurons: equations on known answers, the libraries as oracles, parameters, limits, errors."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

import noiseproof as npf
from noiseproof import neurons
from noiseproof.neurons import ALIF, DLIF, IF, LIF, Atan, FastSigmoid, Rectangle, Recurrent, Sigmoid, State, Triangle
from noiseproof.neurons.surrogates import SURROGATES
from noiseproof.parameters import parameters_of

X = torch.randn(50, 4, 30, generator=torch.Generator().manual_seed(0)) + 0.3


def by_hand(x: torch.Tensor, step) -> torch.Tensor:
    """Return spikes of a plain loop over floats; `step` maps (current, memory) to spike and keeps its memory."""
    return torch.stack([step(current) for current in x])


@pytest.mark.parametrize("reset", ["hard", "soft", "soft-next"])
def test_lif_is_its_equation(reset: str) -> None:
    leak, theta = 0.8, 0.7
    v, s = torch.zeros(4, 30), torch.zeros(4, 30)

    def step(current: torch.Tensor) -> torch.Tensor:
        nonlocal v, s
        if reset == "soft-next":  # B eq. (1): the reset is not leaked
            v = leak * v + current - theta * s
            s = (v > theta).float()
        else:
            h = leak * v + current
            s = (h > theta).float()
            v = h * (1 - s) if reset == "hard" else h - theta * s
        return s

    assert torch.equal(LIF(leak=leak, threshold=theta, reset=reset)(X).spikes, by_hand(X, step))


def test_soft_reset_at_once_and_at_the_next_step_agree_without_leak() -> None:
    x = (X * 64).round() / 64
    assert torch.equal(IF(reset="soft")(x).spikes, IF(reset="soft-next")(x).spikes)
    assert not torch.equal(LIF(leak=0.9, reset="soft")(x).spikes, LIF(leak=0.9, reset="soft-next")(x).spikes)


def test_alif_is_equation_3_of_paper_a() -> None:
    """A5 as printed computes the spike first, from the potential of the step before: the same spikes one step later."""
    layer = ALIF(beta=2.0, refractory=1)
    rho, rho_b, b0, beta = math.exp(-1 / 20), math.exp(-1 / 98), 0.01, 2.0
    x = X.double()
    v = b = dead = torch.zeros(4, 30, dtype=torch.float64)
    spikes = []
    for current in [*x, x[0]]:
        B = b0 + beta * b
        z = ((v > B) & (dead <= 0)).double()
        b = rho_b * b + (1 - rho_b) * z
        v = rho * v + (1 - rho) * current - z * B
        dead = torch.where(z > 0, 1.0, dead - 1)
        spikes.append(z)
    found = layer.double()(x).spikes
    assert found.sum() > 100
    assert torch.equal(found, torch.stack(spikes[1:]))
    assert not bool((found[1:] * found[:-1]).any()), "a spike in the dead step"


def test_the_surrogate_of_alif_has_the_threshold_in_it() -> None:
    """dz/dV = (d/B)·max(1 − |x|, 0) and dz/dB = −(d·V/B²)·max(…), x = (V − B)/B: paper A's eq. (4) leaves out 1/B."""
    layer = ALIF(beta=0.0, refractory=0, trainable=("threshold",)).double()
    x = torch.full((1, 1, 1), 0.25, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        v = float((1 - math.exp(-1 / 20)) * x)
    B, d = 0.01, 0.3
    to_x, to_B = torch.autograd.grad(layer(x).spikes.sum(), [x, layer.threshold])
    slope = d * max(1 - abs((v - B) / B), 0)
    assert slope > 0
    assert float(to_x) == pytest.approx(slope / B * (1 - math.exp(-1 / 20)), rel=1e-6)
    assert float(to_B) == pytest.approx(-slope * v / B**2, rel=1e-6)


def test_dlif_on_leak_and_on_input() -> None:
    a = torch.rand(50, generator=torch.Generator().manual_seed(1)) + 0.5
    for on in ("leak", "input"):
        layer = DLIF(steps=50, on=on)
        with torch.no_grad():
            layer.a.copy_(a)
        v, spikes = torch.zeros(4, 30), []
        for t, current in enumerate(X):
            h = (a[t] * layer.leak) * v + current if on == "leak" else layer.leak * v + a[t] * current
            spikes.append((h > 1).float())
            v = h * (1 - spikes[-1])
        out = layer(X)
        assert torch.equal(out.spikes, torch.stack(spikes))
        (gradient,) = torch.autograd.grad(out.spikes.sum(), layer.a)
        assert gradient.shape == (50,)
        assert gradient.any()
    with_gain = DLIF(steps=50, on="input", decay_input=True, leak=0.75)
    assert torch.equal(with_gain(X).spikes, DLIF(steps=50, leak=0.75)(0.25 * X).spikes)
    with pytest.raises(npf.NoiseproofError, match=r"steps is 7: these neurons have a\[t\] for 50 steps"):
        DLIF(steps=50)(X[:7])


@pytest.mark.parametrize(
    "layer",
    [LIF(leak=0.9), LIF(tau=3.0, v_reset=-0.2, reset="hard"), LIF(leak=0.8, reset="soft-next", refractory=2), ALIF(), IF(),
     Recurrent(ALIF(), 30)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_a_run_in_two_parts_is_one_run(layer) -> None:
    whole = layer(X, membrane=True)
    first = layer(X[:20])
    second = layer(X[20:], state=first.state)
    assert torch.allclose(torch.cat([first.spikes, second.spikes]), whole.spikes)
    assert torch.allclose(second.state.v, whole.state.v, atol=1e-6)
    assert whole.membrane is not None
    assert whole.membrane.shape == X.shape


def test_a_still_input_equals_its_copies() -> None:
    for layer in (LIF(leak=0.9), ALIF(), Recurrent(LIF(leak=0.9), 30)):
        x = X[:1].clone().requires_grad_()
        once, copies = layer(x, steps=9), layer(x.expand(9, -1, -1))
        assert torch.equal(once.spikes, copies.spikes)
        one, other = (torch.autograd.grad((out.spikes * torch.arange(9).view(-1, 1, 1)).sum(), x)[0] for out in (once, copies))
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_recurrent_weights_to_itself_have_no_effect_and_no_gradient() -> None:
    layer = Recurrent(LIF(leak=0.9), 30)
    spikes = layer(X).spikes
    (gradient,) = torch.autograd.grad(spikes.sum(), layer.weight)
    assert not gradient.diagonal().any()
    assert gradient.any()
    with torch.no_grad():
        layer.weight.diagonal().fill_(100.0)
    assert torch.equal(layer(X).spikes, spikes)


@pytest.mark.parametrize("per", ["layer", "channel", "neuron"])
def test_parameters_per_layer_channel_neuron(per: str) -> None:
    layer = LIF(leak=0.9, per=per, shape=(3, 4, 5), trainable=("threshold", "leak"))
    sizes = {"layer": (), "channel": (3,), "neuron": (60,)}
    assert layer.threshold.shape == layer.leak.shape == sizes[per]
    x = torch.randn(6, 2, 3, 4, 5) + 0.5
    gradients = torch.autograd.grad(layer(x).spikes.square().sum(), [layer.threshold, layer.leak])
    assert all(g.shape == sizes[per] and g.any() for g in gradients)
    with torch.no_grad():
        layer.threshold.mul_(torch.arange(1, layer.threshold.numel() + 1).view_as(layer.threshold))
    with neurons.using("reference"):
        expected = layer(x).spikes
    assert torch.equal(layer(x).spikes, expected)
    if per != "layer":
        with pytest.raises(npf.NoiseproofError, match=f"parameters per {per}"):
            layer(torch.randn(6, 2, 7, 4, 5))


def test_noise_reaches_thresholds_leaks_and_time_constants() -> None:
    for layer, names in ((LIF(leak=0.9), {"threshold", "leak"}), (ALIF(), {"tau", "tau_adaptation", "beta", "threshold"})):
        params = parameters_of(layer)
        assert set(params) == names
        chip = npf.noise.Mismatch(0.3, parameters="all")(params, torch.Generator().manual_seed(0))
        assert all(not torch.equal(chip[name], params[name]) for name in names)
        with pytest.raises(npf.NoiseproofError, match="parameters is 'weights'"):
            npf.noise.Mismatch(0.3)(params, torch.Generator())


def test_values_that_no_device_has_are_limited_and_still_have_a_gradient() -> None:
    layer = LIF(leak=0.9, trainable=("leak", "threshold"))
    for name, value, same_as in (("leak", 1.3, 1.0), ("leak", -0.2, 0.0)):
        out = torch.func.functional_call(layer, {name: torch.tensor(value)}, (X,)).spikes
        assert torch.equal(out, torch.func.functional_call(layer, {name: torch.tensor(same_as)}, (X,)).spikes)
    for name, value in (("threshold", -40.0), ("threshold", 1e-9)):
        number = torch.tensor(value, requires_grad=True)
        out = torch.func.functional_call(layer, {name: number}, (X,)).spikes
        assert torch.equal(out.detach(), torch.func.functional_call(layer, {name: torch.tensor(1e-6)}, (X,)).spikes.detach())
        assert torch.isfinite(torch.autograd.grad(out.sum(), number)[0])
    for make in (lambda: LIF(tau=5.0), lambda: LIF(tau=5.0, decay="exponential"), ALIF):
        for value in (-40.0, -0.5, 1e-9, 0.3, 1e9):
            number = torch.tensor(value, requires_grad=True)
            out = torch.func.functional_call(make(), {"tau": number}, (X,))
            (slope,) = torch.autograd.grad(out.spikes.sum() + out.state.v.sum(), number)
            assert torch.isfinite(slope)
            assert slope.abs() < 1e7
    silent = {"threshold": torch.tensor(-3.0, requires_grad=True)}
    out = torch.func.functional_call(layer, silent, (X,)).spikes
    assert torch.isfinite(torch.autograd.grad(out.sum(), silent["threshold"])[0])
    over = {"leak": torch.tensor(1.3, requires_grad=True)}
    assert torch.autograd.grad(torch.func.functional_call(layer, over, (X,)).spikes.sum(), over["leak"])[0].abs() > 0
    lowered = torch.func.functional_call(ALIF(), {"beta": torch.tensor(-1.0)}, (X,)).spikes
    assert torch.equal(lowered, ALIF(beta=0.0)(X).spikes)
    slow = torch.func.functional_call(ALIF(), {"tau": torch.tensor(-5.0), "beta": torch.tensor(-1.0)}, (X,)).spikes
    assert torch.isfinite(slow).all()


@pytest.mark.parametrize("surrogate", [Triangle(0.3, 2.0), Atan(3.0), Sigmoid(2.0), FastSigmoid(10.0), Rectangle(0.7)], ids=str)
def test_a_surrogate_is_the_derivative_of_its_primitive(surrogate) -> None:
    z = torch.linspace(-3, 3, 1001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(surrogate.primitive(z).sum(), z)
    assert torch.allclose(slope, surrogate.derivative(z), atol=1e-12)
    assert (slope >= 0).all()
    numeric = (surrogate.primitive(z + 1e-5) - surrogate.primitive(z - 1e-5)) / 2e-5
    corner = (surrogate.derivative(z + 1e-4) - surrogate.derivative(z - 1e-4)).abs() > 1e-2
    assert torch.allclose(numeric[~corner], slope[~corner], atol=1e-4)


def test_another_surrogate_changes_the_gradient_and_not_the_spikes() -> None:
    layer = LIF(leak=0.9)
    x = X.clone().requires_grad_()
    results = [layer(x, surrogate=surrogate).spikes for surrogate in (None, Atan(), Rectangle())]
    gradients = [torch.autograd.grad(spikes.sum(), x)[0] for spikes in results]
    assert all(torch.equal(spikes, results[0]) for spikes in results)
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(gradients, 2))
    assert layer.form.surrogate == Triangle()
    assert {kind.code for kind in SURROGATES.values()} == set(range(5))


def test_a_surrogate_of_ones_own() -> None:
    @dataclass(frozen=True)
    class Gaussian(neurons.Surrogate):
        width: float = 0.5

        def derivative(self, z: torch.Tensor) -> torch.Tensor:
            return torch.exp(-0.5 * (z / self.width).square()) / (self.width * math.sqrt(2 * math.pi))

        def primitive(self, z: torch.Tensor) -> torch.Tensor:
            return 0.5 * torch.erf(z / (self.width * math.sqrt(2)))

    x = X[:1].clone().requires_grad_()
    layer = LIF(leak=0.9, surrogate=Gaussian())
    (gradient,) = torch.autograd.grad(layer(x).spikes.sum(), x)
    assert torch.allclose(gradient, Gaussian().derivative(X[:1] - 1), atol=1e-6)
    assert torch.equal(layer(X).spikes, LIF(leak=0.9)(X).spikes)


@pytest.mark.parametrize("layer", ["lif-soft", "lif-hard", "lif-decay", "if"])
def test_spikingjelly_gives_the_same(layer: str) -> None:
    """Spikes and gradients; theirs fire at the threshold too, which random numbers do not meet."""
    from spikingjelly.activation_based import neuron, surrogate

    atan = surrogate.ATan(alpha=2.0)
    theirs, ours = {
        "lif-soft": (neuron.LIFNode(2.0, False, v_reset=None, surrogate_function=atan, step_mode="m"), LIF(tau=2.0, surrogate=Atan())),
        "lif-hard": (
            neuron.LIFNode(3.0, False, v_reset=0.0, surrogate_function=atan, step_mode="m"), LIF(tau=3.0, reset="hard", surrogate=Atan())
        ),
        "lif-decay": (
            neuron.LIFNode(4.0, True, v_reset=-0.1, surrogate_function=atan, step_mode="m"),
            LIF(tau=4.0, decay_input=True, reset="hard", v_reset=-0.1, surrogate=Atan(2.2)),  # z is scaled by 1.1
        ),
        "if": (neuron.IFNode(v_reset=None, surrogate_function=atan, step_mode="m"), IF(surrogate=Atan())),
    }[layer]  # fmt: skip
    compare(theirs, ours)


def test_snntorch_gives_the_same() -> None:
    import snntorch

    node = snntorch.Leaky(beta=0.9, reset_mechanism="subtract", spike_grad=snntorch.surrogate.fast_sigmoid(25))

    def theirs(x: torch.Tensor) -> torch.Tensor:
        memory, spikes = torch.zeros_like(x[0]), []
        for current in x:
            spike, memory = node(current, memory)
            spikes.append(spike)
        return torch.stack(spikes)

    # theirs resets at the next step, and never differentiates the reset
    compare(theirs, LIF(leak=0.9, reset="soft-next", surrogate=FastSigmoid(25.0), detach_reset=True))


def compare(theirs, ours) -> None:
    weights = torch.randn(X.shape, generator=torch.Generator().manual_seed(5))
    one, other = X.clone().requires_grad_(), X.clone().requires_grad_()
    expected, found = theirs(one), ours(other).spikes
    assert torch.equal(found, expected)
    wanted, got = (torch.autograd.grad((s * weights).sum(), x)[0] for s, x in ((expected, one), (found, other)))
    assert float((got - wanted).norm()) <= 2e-5 * float(wanted.norm())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(leak=0.0), "leak is 0.0: give a number above 0 and at most 1"),
        (lambda: LIF(leak=1.2), "leak is 1.2"),
        (lambda: LIF(leak=0.5, tau=2.0), "leak is 0.5 and tau is 2.0: give one"),
        (lambda: LIF(), "leak is None and tau is None"),
        (lambda: LIF(tau=0.5), "tau is 0.5: give a number of at least 1"),
        (lambda: LIF(leak=0.5, threshold=0.0), "threshold is 0.0: give a number above 0"),
        (lambda: LIF(leak=0.5, threshold=-1.0), "threshold is -1.0"),
        (lambda: ALIF(threshold=float("nan")), "threshold is nan"),
        (lambda: LIF(leak=0.5, refractory=-1), "refractory is -1"),
        (lambda: LIF(leak=0.5, reset="medium"), "reset is 'medium': give hard, soft, soft-next"),
        (lambda: LIF(leak=0.5, trainable=("tau",)), "trainable is 'tau': these neurons have threshold, leak"),
        (lambda: IF(trainable=("leak",)), "IF neurons have no leak"),
        (lambda: LIF(leak=0.5, per="neuron"), "per neuron needs the shape"),
        (lambda: DLIF(steps=0), "steps is 0"),
        (lambda: DLIF(steps=2, on="output"), "on is 'output'"),
        (lambda: ALIF(tau=-1.0), "tau is -1.0"),
        (lambda: ALIF(beta=-1.0), "beta is -1.0"),
        (lambda: Triangle(gamma=0.0), "gamma is 0.0"),
        (lambda: neurons.surrogate("trianlge"), "did you mean 'triangle'"),
        (lambda: neurons.surrogate("atan", 1.0, 2.0), "surrogate atan has alpha"),
        (lambda: Recurrent(torch.nn.ReLU(), 3), "neuron is 'ReLU'"),
        (lambda: neurons.using("fast").__enter__(), "backend is 'fast'"),
        (lambda: LIF(leak=0.5)(X, state=State(torch.zeros(2, 2), torch.zeros(2, 2))), r"state is of shape \(2, 2\)"),
    ],
)  # fmt: skip
def test_bad_settings_are_named(make, message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        make()


def test_the_allocator_can_be_tuned_where_it_is_glibc() -> None:
    import subprocess
    import sys

    words = [sys.executable, "-c", "from noiseproof.neurons import tune_allocator; print(tune_allocator())"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == str(sys.platform == "linux")
