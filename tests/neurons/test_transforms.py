"""What PyTorch does with functions works with neurons: vmap, grad in vmap, second derivatives, compile, autocast, gradcheck."""

import pytest
import torch
from torch.func import functional_call, grad, vmap

from noiseproof.neurons import ALIF, LIF, Constants, Form, Recurrent, Sigmoid, State, integrate, using

BACKENDS = ("handwritten", "cpu")
FORM = Form("soft-next", True, 1, False, Sigmoid())
T, B, N, K = 5, 3, 8, 4


def constant(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64) * 0.4 + 0.4


def loss(x, leak, theta, gain, beta, rho, recurrent=None, v=None):
    state = None if v is None else State(v, torch.zeros_like(v), torch.zeros_like(v), torch.zeros_like(v))
    out = integrate(x, Constants(leak, theta, gain, beta, rho), FORM, recurrent=recurrent, state=state)
    assert out.state.b is not None
    return (out.spikes * torch.arange(N)).sum() + out.state.v.sin().sum() + out.state.b.sum()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrent", ["none", "shared", "own"])
@pytest.mark.parametrize("mapped_input", [True, False])
def test_vmap_of_grad(backend: str, recurrent: str, mapped_input: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(K, T, B, N, generator=draw, dtype=torch.float64) + 0.5
    v = torch.randn(K, B, N, generator=draw, dtype=torch.float64)
    W = {"none": None, "shared": torch.randn(N, N, generator=draw) * 0.2, "own": torch.randn(K, N, N, generator=draw) * 0.2}[recurrent]
    inputs = (
        x if mapped_input else x[0],
        constant(K, 1, 1, 1),
        constant(1, 1, N),
        constant(K, 1, 1, 1),
        constant(1, 1, 1),
        constant(1, 1, 1),
    )
    inputs = (*inputs, None if W is None else W.double(), v)
    dims = (0 if mapped_input else None, 0, None, 0, None, None, 0 if recurrent == "own" else None, 0)
    places = (0, 1, 2, 3, 4, 5, 7) if W is None else tuple(range(8))
    results = []
    for chosen in ("reference", backend):
        with using(chosen):
            results.append((vmap(loss, in_dims=dims)(*inputs), *vmap(grad(loss, argnums=places), in_dims=dims)(*inputs)))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_second_derivative(backend: str, recurrent: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(T, B, N, generator=draw, dtype=torch.float64) + 0.5
    W = torch.randn(N, N, generator=draw, dtype=torch.float64) * 0.2 if recurrent else None
    results = []
    for chosen in ("reference", backend):
        leaves = [x, constant(1, 1, 1), constant(1, 1, N), constant(1, 1, 1), constant(1, 1, 1), constant(1, 1, 1)]
        leaves = [leaf.clone().requires_grad_() for leaf in (leaves if W is None else [*leaves, W])]
        with using(chosen):
            first = torch.autograd.grad(loss(*leaves), leaves, create_graph=True)
            results.append(torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), leaves))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_gradcheck_where_no_spike_changes(backend: str, recurrent: bool) -> None:
    """Between spikes the equation is smooth: numerical and analytical derivatives of the final potential agree. The surrogate is
    switched off by a width that no potential comes into."""
    from noiseproof.neurons import Rectangle

    form = Form("soft-next", True, 1, surrogate=Rectangle(1e-6))
    draw = torch.Generator().manual_seed(3)
    x = (torch.randn(T, B, N, generator=draw, dtype=torch.float64) + 0.5).requires_grad_()
    W = (torch.randn(N, N, generator=draw, dtype=torch.float64) * 0.2).requires_grad_() if recurrent else None
    leaves = [constant(1, 1, 1), constant(1, 1, N), constant(1, 1, 1), constant(1, 1, 1), constant(1, 1, 1)]
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]

    def final(x, leak, theta, gain, beta, rho, *matrix):
        out = integrate(x, Constants(leak, theta, gain, beta, rho), form, recurrent=matrix[0] if matrix else None)
        return out.state.v, out.state.b

    with using(backend):
        assert torch.autograd.gradcheck(final, (x, *leaves, *([] if W is None else [W])), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compile_without_graph_breaks(backend: str) -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(6, 8))
    neurons = Recurrent(ALIF(), 8)

    def network(x):
        return neurons(layer(x)).spikes.mean(0).sum()

    x = torch.randn(T, B, 6, requires_grad=True)
    with using(backend):
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        found, expected = compiled(x), network(x)
        assert torch.equal(found, expected)
        for one, other in zip(*(torch.autograd.grad(y, [x, neurons.weight]) for y in (found, expected)), strict=True):
            assert torch.allclose(one, other)


def test_functional_call_and_autocast() -> None:
    layer = torch.nn.Linear(6, 8)
    neurons = LIF(leak=0.9, trainable=("leak",))
    x = torch.randn(T, B, 6)
    with torch.autocast("cpu", torch.bfloat16):
        spikes = neurons(layer(x)).spikes
    assert spikes.dtype == torch.float32
    out = functional_call(neurons, {"threshold": torch.tensor(1e3)}, (layer(x),))
    assert out.spikes.sum() == 0
    assert float(neurons.threshold) == 1.0
