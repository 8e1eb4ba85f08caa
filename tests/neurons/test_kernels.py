"""Every backend against the reference: spikes equal, gradients of input, parameters and state the same."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling import SURROGATES, Layer, sampled

import noiseproof as npf
from noiseproof.neurons import LIF, Constants, Form, State, Triangle, integrate, using
from noiseproof.neurons.equation import RESETS
from noiseproof.neurons.kernels import cpu

BACKENDS = ("handwritten", "cpu")
# all resets, with and without adaptation, dead steps, detached reset; the other settings go round
FORMS = [
    Form(reset, adaptive, refractory, detach, SURROGATES[i % len(SURROGATES)])
    for i, (reset, adaptive, refractory, detach) in enumerate(itertools.product(RESETS, (False, True), (0, 2), (False, True)))
]
every_form = pytest.mark.parametrize("form", FORMS, ids=str)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def check(layer: Layer, backend: str, tolerance: float = 1e-10) -> None:
    outputs, gradients = layer.solve("reference")
    found, found_gradients = layer.solve(backend)
    for name, value in outputs.items():
        assert torch.equal(found[name], value), name
    for name, value in gradients.items():
        # a sum over many neurons may nearly cancel: then its size says nothing about the rounding
        scale = max(float(value.norm()), 1.0 if value.numel() < 100 else 1e-3)
        assert float((found_gradients[name] - value).norm()) <= tolerance * scale, name


def test_the_kernels_were_built_here() -> None:
    """Otherwise nothing below would test them."""
    assert cpu.library() is not None


@every_form
@every_backend
@pytest.mark.parametrize("recurrent", [False, True], ids=["plain", "recurrent"])
def test_float64(form: Form, backend: str, recurrent: bool) -> None:
    for seed, (state, fixed, in_time) in enumerate(itertools.product((False, True), repeat=3)):
        check(sampled(form, seed=seed, state=state, fixed=fixed, in_time=in_time, recurrent=recurrent), backend)


@every_form
@every_backend
@pytest.mark.parametrize("recurrent", [False, True], ids=["plain", "recurrent"])
def test_float32(form: Form, backend: str, recurrent: bool) -> None:
    check(sampled(form, dtype=torch.float32, state=True, units=(64,), batch=17, recurrent=recurrent), backend, 1e-5)


@every_backend
@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_surrogates(backend: str, surrogate, dtype: torch.dtype) -> None:
    layer = sampled(Form("soft", surrogate=surrogate), dtype=dtype, units=(301,), batch=7)
    check(layer, backend, 1e-5 if dtype == torch.float32 else 1e-10)


@every_backend
@pytest.mark.parametrize("per", ["layer", "mixed", "sample"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_images_in_both_layouts(backend: str, per: str, layout: torch.memory_format) -> None:
    for form in (Form("hard"), Form("soft-next", adaptive=True, refractory=1)):
        layer = sampled(form, units=(3, 5, 4), per=per, layout=layout, in_time=True, state=True)
        check(layer, backend)
        spikes = layer.solve(backend)[0]["spikes"]
        assert spikes[0].is_contiguous(memory_format=layout), "the layout of the input is lost"


@every_backend
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize(("steps", "batch", "units"), [(1, 3, 5), (3, 1, 1), (2, 4, 600), (40, 2, 17), (70, 7, 33)])
def test_odd_sizes(backend: str, steps: int, batch: int, units: int, recurrent: bool) -> None:
    for form in (Form("hard"), Form("soft-next", adaptive=True)):
        check(sampled(form, steps=steps, batch=batch, units=(units,), recurrent=recurrent, state=True), backend, 1e-9)


@every_backend
@pytest.mark.parametrize("recurrent", [False, True])
def test_empty_batch(backend: str, recurrent: bool) -> None:
    layer = sampled(Form("soft"), batch=0, per="layer", recurrent=recurrent)
    outputs, gradients = layer.solve(backend)
    assert outputs["spikes"].shape == (6, 0, 37)
    assert all(bool((g == 0).all()) for g in gradients.values())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    form=st.sampled_from(FORMS), surrogate=st.sampled_from(SURROGATES), steps=st.integers(1, 9), batch=st.integers(1, 8),
    units=st.lists(st.integers(1, 9), min_size=1, max_size=3), seed=st.integers(0, 1000), state=st.booleans(), fixed=st.booleans(),
    in_time=st.booleans(), per=st.sampled_from(["layer", "mixed", "sample"]), single=st.booleans(),
)  # fmt: skip
def test_any_shape(form, surrogate, steps, batch, units, seed, state, fixed, in_time, per, single) -> None:
    form = Form(form.reset, form.adaptive, form.refractory, form.detach_reset, surrogate)
    dtype = torch.float32 if single else torch.float64
    for backend in BACKENDS:
        layer = sampled(
            form, seed=seed, steps=steps, batch=batch, units=tuple(units), dtype=dtype, state=state, fixed=fixed, in_time=in_time, per=per
        )
        check(layer, backend, 3e-5 if single else 1e-10)


@every_backend
def test_strides_that_are_not_in_order(backend: str) -> None:
    """A slice, a transposed view and an expanded one give what their copies give."""
    leak, theta = torch.full((1, 1, 1), 0.75), torch.ones(1, 1, 1)
    base = torch.randn(7, 6, 20)
    for view in (base[:, :, ::2], base.transpose(1, 2), base[:, :1].expand(7, 6, 20), base[::2]):
        results = []
        for x in (view, view.contiguous()):
            x = x.detach().requires_grad_()
            with using(backend):
                spikes = integrate(x, Constants(leak, theta), Form("soft")).spikes
            results.append((spikes, *torch.autograd.grad((spikes * torch.arange(spikes.numel()).view_as(spikes)).sum(), x)))
        for one, other in zip(*results, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(100, 64, 1111), (101, 3, 21003)])
def test_large_results_are_written_past_the_caches(shape: tuple[int, ...]) -> None:
    """More than 24 MiB; rows that begin at any address."""
    results = []
    for backend in BACKENDS:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with using(backend):
            spikes = LIF(leak=0.75, reset="soft-next")(x).spikes
        results.append((spikes, torch.autograd.grad((spikes * torch.linspace(0, 1, shape[2])).sum(), x)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], atol=1e-5)


@every_backend
def test_only_the_input_is_saved(backend: str) -> None:
    x = torch.randn(8, 4, 1000, requires_grad=True)
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with using(backend), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        integrate(x, Constants(torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 1)), Form("hard"))
    assert sum(saved.values()) <= x.numel() * 4 + 16


@every_backend
def test_the_result_does_not_depend_on_the_number_of_threads(backend: str) -> None:
    """Reductions have a fixed order."""
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            layer = sampled(Form("soft-next", True), dtype=torch.float32, units=(200,), batch=40, per="layer", recurrent=True)
            results.append(layer.solve(backend)[1])
        finally:
            torch.set_num_threads(1)
    if backend == "cpu":
        assert all(torch.equal(results[0][name], value) for name, value in results[1].items())


def test_half_precision_is_computed_in_float32() -> None:
    x = torch.randn(5, 2, 9)
    constants = Constants(torch.full((1, 1, 1), 0.5), torch.ones(1, 1, 1))
    out = integrate(x.bfloat16(), constants, Form())
    assert out.spikes.dtype == torch.float32
    assert torch.equal(out.spikes, integrate(x.bfloat16().float(), constants, Form()).spikes)


def test_many_spikes_take_the_dense_way_and_agree() -> None:
    """Above a share of active units the recurrence is a matrix product; the sums are exact here, so the spikes are equal."""
    layer = sampled(Form("hard", surrogate=Triangle()), units=(48,), batch=13, recurrent=True, dtype=torch.float32)
    busy = Layer(layer.form, layer.steps, (layer.x.detach() + 1).requires_grad_(), layer.constants, None, layer.recurrent)
    outputs, _ = busy.solve("cpu")
    assert float(outputs["spikes"].detach().mean()) > 0.5
    check(busy, "cpu", 1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": torch.zeros(3)}, r"x is of shape \(3,\)"),
        ({"x": torch.zeros(0, 2, 3)}, r"x is of shape \(0, 2, 3\) for 0 steps"),
        ({"x": torch.zeros(4, 2, 3), "steps": 7}, "for 7 steps"),
        ({"x": torch.zeros(4, 2, 3), "recurrent": torch.zeros(2, 2)}, "3 units need"),
        ({"x": torch.zeros(4, 2, 3), "state": State(torch.zeros(2, 3), torch.zeros(1, 3))}, r"\(1, 3\) \(s\)"),
        ({"x": torch.zeros(4, 2, 6), "theta": torch.ones(1, 1, 3)}, r"threshold is of shape \(1, 1, 3\): it must broadcast"),
        ({"x": torch.zeros(4, 2, 3), "leak": torch.ones(2, 1, 1)}, r"leak is of shape \(2, 1, 1\)"),
        ({"x": torch.zeros(4, 2, 3), "theta": torch.ones(4, 1, 1)}, r"threshold is of shape \(4, 1, 1\)"),
        ({"x": torch.zeros(4, 2, 3), "leak": torch.ones(1)}, r"leak is of shape \(1,\)"),
        ({"x": torch.zeros(4, 2, 3), "state": State(torch.zeros(3, 3), torch.zeros(3, 3))}, r"state is of shape \(3, 3\)"),
    ],
)
def test_bad_shapes_are_named(arguments, message: str) -> None:
    constants = Constants(arguments.pop("leak", torch.full((1, 1, 1), 0.5)), arguments.pop("theta", torch.ones(1, 1, 1)))
    with pytest.raises(npf.NoiseproofError, match=message):
        integrate(arguments.pop("x"), constants, Form(), **arguments)


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_a_state_of_another_type_or_with_parts_missing_is_completed(backend: str) -> None:
    """The same for every backend: memory is never read as something else."""
    x = torch.randn(6, 3, 9, generator=torch.Generator().manual_seed(0))
    v = torch.rand(3, 9, generator=torch.Generator().manual_seed(1))
    constants = Constants(*(torch.full((1, 1, 1), value) for value in (0.75, 0.5, 1.0, 1.5, 0.75)))
    form = Form("soft-next", adaptive=True, refractory=1)
    zero = torch.zeros(3, 9)
    with using(backend):
        whole = integrate(x, constants, form, state=State(v, zero, zero, zero))
        for state in (State(v, zero), State(v.double(), zero.double()), State(v, zero, None, zero.to(torch.int64))):
            assert torch.equal(integrate(x, constants, form, state=state).spikes, whole.spikes)
        extra = integrate(x, constants._replace(beta=None, rho=None), Form("hard"), state=State(v, zero, zero + 9, zero + 9))
        assert torch.equal(extra.spikes, integrate(x, constants._replace(beta=None, rho=None), Form("hard"), state=State(v, zero)).spikes)


def test_whole_numbers_are_currents_too() -> None:
    layer = LIF(leak=0.9)
    for kind in (torch.int64, torch.uint8, torch.bool):
        assert torch.equal(layer(torch.ones(4, 1, 2).to(kind)).spikes, layer(torch.ones(4, 1, 2)).spikes)


def test_without_the_library_the_next_backend_runs_and_says_so(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    from noiseproof.neurons import kernels

    layer = LIF(leak=0.5)
    x = torch.randn(4, 2, 3)
    expected = layer(x).spikes
    monkeypatch.setattr(cpu, "library", lambda: None)
    kernels._fastest.cache_clear()
    try:
        assert torch.equal(layer(x).spikes, expected)
        layer(x)
        assert len([r for r in caplog.records if "not built" in r.message]) == 1
        with using("cpu"), pytest.raises(npf.NoiseproofError, match="the C kernels were not built"):
            layer(x)
    finally:
        kernels._fastest.cache_clear()
