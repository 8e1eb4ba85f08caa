"""The kernels in Triton against the reference: on the GPU where there is one, else in Triton's interpreter.

Run as a script, without the interpreter, this file compiles the kernels for GPUs that need not be there and says what became of them.
"""

import importlib.util
import itertools
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from noiseproof.errors import NoiseproofError
from noiseproof.neurons.equation import RESETS, Constants, Form, State
from noiseproof.neurons.kernels import integrate, using
from noiseproof.neurons.kernels._inputs import Gradients, Inputs
from noiseproof.neurons.surrogates import Atan, FastSigmoid, Rectangle, Sigmoid, Triangle

INSTALL = "triton is not installed (690 MB): .venv/bin/pip install --no-deps triton==3.7.1"
SURROGATES = (Triangle(0.3), Atan(), Sigmoid(), FastSigmoid(), Rectangle(2.0))
FORMS = [
    Form(reset, adaptive, refractory, detach, SURROGATES[i % 5])
    for i, (reset, adaptive, refractory, detach) in enumerate(itertools.product(RESETS, (False, True), (0, 2), (False, True)))
]
PRESENT = importlib.util.find_spec("triton") is not None
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if PRESENT and __name__ != "__main__":
    # Triton decides when it is imported, and when a kernel is, whether it interprets
    TAKEN = "triton" in sys.modules and "TRITON_INTERPRET" not in os.environ
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu" and not TAKEN:
            patch.setenv("TRITON_INTERPRET", "1")
        from noiseproof.neurons.kernels import triton as kernels
    HERE = DEVICE == "cuda" or not TAKEN
else:
    HERE = False

needs_triton = pytest.mark.skipif(not PRESENT, reason=INSTALL)
runs_here = pytest.mark.skipif(
    not HERE, reason=INSTALL if not PRESENT else "something had imported triton: these run in a process of their own"
)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpret while a test of this file runs, and for nobody else."""
    if HERE and DEVICE == "cpu":
        monkeypatch.setenv("TRITON_INTERPRET", "1")


def dyadic(*shape: int, seed: int, spread: float = 1.0, low: float | None = None) -> Tensor:
    """Return multiples of 1/64, normal or, with `low`, from there to low + spread: their sums are exact in any order."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=draw) * spread if low is None else torch.rand(shape, generator=draw) * spread + low
    return (values * 64).round() / 64


def layer(
    form: Form, steps: int, shape: tuple[int, ...], *, state: bool = False, in_time: bool = False, fixed: bool = False,
    recurrent: bool = False, per: dict[str, tuple[int, ...]] | None = None, seed: int = 0,
) -> Inputs:  # fmt: skip
    """Return inputs; `per` gives shapes of parameters, which are otherwise one number each."""
    one = (1,) * len(shape)

    def parameter(name: str, number: int, changes: bool = False) -> Tensor:
        return dyadic(steps if changes else 1, *(per or {}).get(name, one), seed=seed + number, spread=0.5, low=0.4)

    x = dyadic(1 if fixed else steps, *shape, seed=seed) + 0.5
    v, s = (dyadic(*shape, seed=seed + 1), (dyadic(*shape, seed=seed + 2) > 0.5).float()) if state else (None, None)
    b = dyadic(*shape, seed=seed + 3, low=0.0) if state and form.adaptive else None
    r = (dyadic(*shape, seed=seed + 4) > 0.3).float() if state and form.refractory else None
    beta, rho = (parameter("beta", 5), parameter("rho", 6)) if form.adaptive else (None, None)
    matrix = dyadic(shape[-1], shape[-1], seed=seed + 7, spread=0.2) if recurrent else None
    return Inputs(x, v, s, b, r, parameter("leak", 8, in_time), parameter("theta", 9), parameter("gain", 10, in_time), beta, rho, matrix)


def run(backend: str, inputs: Inputs, form: Form, steps: int, dtype: torch.dtype = torch.float32, apart: bool = False):
    """Return spikes and final state, and all gradients of a sum with fixed weights; `apart`: a number a neuron for every parameter."""
    device = "cpu" if backend == "reference" else DEVICE
    given = [None if i is None else i.to(device, dtype, copy=True, memory_format=torch.preserve_format) for i in inputs]
    if apart:
        given = [c.expand(len(c), *inputs.x.shape[1:]).clone() if c is not None and 5 <= i < 10 else c for i, c in enumerate(given)]
    wanted = [i.requires_grad_() for k, i in enumerate(given) if i is not None and k != 4]
    x, v, s, b, r, *constants, matrix = given
    with using(backend):
        begin = None if v is None or s is None else State(v, s, b, r)
        out = integrate(x, Constants(*(constants[i] for i in (0, 1, 2, 3, 4))), form, steps=steps, state=begin, recurrent=matrix)  # pyright: ignore
    loss = torch.zeros((), dtype=dtype, device=device)
    for number, value in enumerate((out.spikes, out.state.v, out.state.b)):
        if value is not None:
            draw = torch.Generator().manual_seed(number)
            loss = loss + (value * torch.randn(value.shape, generator=draw).to(value)).sum()
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    return out, [None if g is None else g.detach() for g in found]


def agree(inputs: Inputs, form: Form, steps: int) -> None:
    """Check spikes and state in float32, and gradients against the reference in float64.

    Where the sum over neurons nearly cancels, the error is measured by the size of what is added up.
    """
    out, found = run("triton", inputs, form, steps)
    same, _ = run("reference", inputs, form, steps)
    assert torch.equal(out.spikes.cpu(), same.spikes)
    assert out.spikes.stride() == torch.empty_like(inputs.x).stride() or len(inputs.x) != steps
    for mine, theirs in zip(out.state, same.state, strict=True):
        assert (mine is None and theirs is None) or torch.equal(mine.cpu(), theirs)
    _, true = run("reference", inputs, form, steps, torch.float64)
    _, parts = run("reference", inputs, form, steps, torch.float64, apart=True)
    for mine, theirs, part in zip(found, true, parts, strict=True):
        if mine is None or theirs is None or part is None:
            assert not any(g is not None and g.any() for g in (mine, theirs))
            continue
        size = part.abs().sum_to_size(theirs.shape).norm()
        assert (mine.cpu() - theirs).norm() <= 1e-5 * theirs.norm() + 1e-6 * size, (form, mine.norm(), theirs.norm())


@runs_here
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("number", range(len(FORMS)))
def test_every_form_agrees(number: int, recurrent: bool) -> None:
    form = FORMS[number]
    state, in_time, fixed = bool(number & 4) ^ recurrent, bool(number & 2), number % 3 == 0
    per = ({}, {"theta": (1, 37), "leak": (5, 37)}, {"gain": (5, 1), "rho": (1, 37), "theta": (5, 1)})[number % 3]
    agree(layer(form, 6, (5, 37), state=state, in_time=in_time, fixed=fixed, recurrent=recurrent, per=per, seed=number), form, 6)


@runs_here
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("reset", RESETS)
def test_surrogates_with_all_resets(reset, surrogate) -> None:
    form = Form(reset, surrogate=surrogate)
    agree(layer(form, 4, (3, 50), state=True, seed=5), form, 4)


@runs_here
@pytest.mark.parametrize("form", [Form("soft-next", True, 2, surrogate=Atan()), Form(), Form("hard", detach_reset=True)])
@pytest.mark.parametrize(("steps", "shape"), [(1, (2, 3)), (1, (1, 1)), (19, (2, 150)), (35, (1, 7)), (16, (1, 300))])
def test_segments_and_odd_sizes(form: Form, steps: int, shape: tuple[int, ...]) -> None:
    agree(layer(form, steps, shape, state=steps == 19, seed=steps), form, steps)


@runs_here
@pytest.mark.parametrize("rows", [1, 18, 520])
def test_recurrent_blocks_of_rows_and_tiles(rows: int) -> None:
    form = Form("soft-next", True, 1)
    agree(layer(form, 2, (rows, 140), recurrent=True, per={"leak": (rows, 1)}, seed=rows), form, 2)


@runs_here
@pytest.mark.parametrize(
    "per",
    [
        {"theta": (1, 4, 1, 1), "leak": (3, 1, 1, 1)},
        {"theta": (1, 4, 5, 6), "leak": (3, 4, 5, 6)},
        {"theta": (3, 1, 1, 6), "beta": (1, 4, 5, 1)},
    ],
)
@pytest.mark.parametrize("memory", ["contiguous", "channels last", "batch innermost", "a part"])
def test_memory_layouts(per: dict[str, tuple[int, ...]], memory: str) -> None:
    form = Form("soft", True)
    inputs = layer(form, 3, (3, 4, 5, 6), per=per, state=True)
    order = {"channels last": (0, 1, 3, 4, 2), "batch innermost": (0, 2, 3, 4, 1)}.get(memory, range(5))
    x = inputs.x.permute(*order).contiguous().permute([list(order).index(d) for d in range(5)])
    if memory == "a part":
        x = torch.zeros(3, 3, 4, 5, 8)[..., 1:7].copy_(inputs.x)
    agree(inputs._replace(x=x), form, 3)


@runs_here
def test_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NARROW", 0)
    agree(layer(Form(), 3, (2, 300), per={"theta": (1, 300)}), Form(), 3)


@runs_here
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_with_a_state_in_float32(recurrent: bool, dtype: torch.dtype) -> None:
    form = Form("soft-next", True, 1)
    p = layer(form, 9, (2, 40), recurrent=recurrent, per={"theta": (1, 40)})
    wanted = Gradients(True, False, False, False, True, True, True, True, True, recurrent)
    results = []
    for inputs in (p, p._replace(x=p.x.to(dtype))):
        inputs = Inputs(*(None if i is None else i.to(DEVICE) for i in inputs))
        gs = dyadic(9, 2, 40, seed=3).to(inputs.x)
        results.append((kernels.forward(inputs, form, 9), kernels.backward(gs, None, None, inputs, form, 9, wanted)))
    (full, exact), (half, found) = results
    assert half.spikes.dtype == half.v.dtype == found.x.dtype == dtype
    assert torch.equal(full.spikes, half.spikes.float())
    torch.testing.assert_close(found.x.float(), exact.x, rtol=2**-7, atol=1e-6)
    for mine, theirs in zip(found[4:], exact[4:], strict=True):
        assert mine is theirs is None or (mine.dtype == torch.float32 and torch.allclose(mine, theirs, rtol=1e-6))


@runs_here
def test_float64() -> None:
    form = Form("soft-next", True, 1, surrogate=Sigmoid())
    inputs = layer(form, 6, (3, 20), state=True)
    for recurrent in (None, dyadic(20, 20, seed=1)):
        p = inputs._replace(recurrent=recurrent)
        (out, found), (same, true) = (run(backend, p, form, 6, torch.float64) for backend in ("triton", "reference"))
        assert torch.equal(out.spikes.cpu(), same.spikes)
        for mine, theirs in zip(found, true, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-9, atol=1e-9)


@runs_here
@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_nothing(shape: tuple[int, int], recurrent: bool) -> None:
    form = Form("soft", True, 1)
    out, found = run("triton", layer(form, 3, shape, recurrent=recurrent, per={"theta": (1, shape[1])}), form, 3)
    assert out.spikes.shape == (3, *shape)
    assert not any(g is not None and g.any() for g in found)


@runs_here
def test_same_bits_every_time() -> None:
    form = Form("soft", True)
    inputs = layer(form, 5, (7, 200), per={"theta": (1, 200)})
    (_, first), (_, second) = (run("triton", inputs, form, 5) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@runs_here
@pytest.mark.parametrize("recurrent", [None, "shared", "own"])
def test_vmap_of_grad_over_parameters(recurrent: str | None) -> None:
    form = Form("soft-next", True, 1, surrogate=Sigmoid())
    copies, steps, rows, n = 3, 4, 2, 8

    def loss(x, leak, theta, beta, matrix):
        out = integrate(x, Constants(leak, theta, None, beta, beta), form, recurrent=matrix)
        assert out.state.b is not None
        return (out.spikes * torch.arange(n, device=x.device)).sum() + out.state.v.sin().sum() + out.state.b.sum()

    chance = dyadic(copies, steps, rows, n, seed=1) + 0.5, dyadic(copies, 1, 1, 1, seed=2, low=0.4, spread=0.5)
    rest = dyadic(1, 1, n, seed=3, low=0.4, spread=0.5), dyadic(copies, 1, 1, 1, seed=4, low=0.4, spread=0.5)
    shape = {"shared": (n, n), "own": (copies, n, n)}.get(recurrent or "")
    given = [i.to(DEVICE) for i in (*chance, *rest)] + [None if shape is None else dyadic(*shape, seed=5, spread=0.2).to(DEVICE)]
    dims = (0, 0, None, 0, 0 if recurrent == "own" else None)
    results = []
    for backend in ("reference", "triton"):
        with using(backend):
            results.append(vmap(grad(loss, argnums=(0, 1, 2, 3) if shape is None else (0, 1, 2, 3, 4)), in_dims=dims)(*given))
    for theirs, mine in zip(*results, strict=True):
        assert (mine - theirs).norm() <= 2e-5 * theirs.norm()


@needs_triton
@pytest.mark.skipif(HERE, reason="they run in this process")
def test_in_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__)), "-k", "not compile"]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(("block", "says"), [(True, "not installed"), pytest.param(False, "tensors on cpu", marks=needs_triton)])
def test_says_why_it_cannot_run(block: bool, says: str) -> None:
    program = f"""
import sys, torch
if {block}: sys.modules["triton"] = None
from noiseproof.errors import NoiseproofError
from noiseproof.neurons.equation import Constants, Form
from noiseproof.neurons.kernels import integrate, using
try:
    with using("triton"): integrate(torch.ones(2, 1, 3), Constants(torch.ones(1, 1, 1), torch.ones(1, 1, 1)), Form())
except NoiseproofError as error: print(error)
"""
    plain = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", program], env=plain, capture_output=True, text=True)
    assert says in done.stdout, done.stderr
    assert NoiseproofError.__name__ not in done.stderr


@needs_triton
@pytest.mark.parametrize("capability", [80, 90])
def test_compiles_for_a_gpu_without_contraction_or_spills(capability: int, tmp_path: Path) -> None:
    """What the interpreter does not see: types, registers, and that no multiply-add is contracted but those of the products."""
    plain = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    plain["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, __file__, str(capability)], env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 3 * len(COMPILED) - sum(not kw.get("recurrent") for _, kw, _ in COMPILED)
    for name, _, registers, spilled, fused, products in rows:
        assert int(fused) == int(products), (name, fused)
        assert int(registers) <= 255
        assert int(spilled) <= (64 if int(products) else 0), name


# what the test above compiles: form, settings of `layer`, type of x
COMPILED = [
    (Form(), {}, torch.float32),
    (Form("hard", surrogate=Rectangle()), {"state": True}, torch.bfloat16),
    (Form("soft-next", surrogate=Atan()), {"in_time": True, "state": True}, torch.float32),
    (Form("soft-next", True, 2, surrogate=FastSigmoid()), {"state": True, "per": {"theta": (1, 2**14), "rho": (64, 2**14)}}, torch.float32),
    (Form("soft", True, 0, True, Sigmoid()), {"fixed": True}, torch.float16),
    (Form("soft-next", True, 2), {"recurrent": True, "state": True}, torch.float32),
    (Form("hard", detach_reset=True), {"recurrent": True, "odd": True, "in_time": True}, torch.bfloat16),
]


def compile_all(capability: int) -> None:
    """Print kernel, type, registers, bytes spilled, fused multiply-adds, and how many of these belong to matrix products."""
    import triton
    from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from noiseproof.neurons.kernels import triton as kernels

    class Pretended:
        """Just enough of a driver for the compiler."""

        get_current_target = staticmethod(lambda: GPUTarget("cuda", capability, 32))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device: 0)

    compile_only = JITFunction.run
    made = []

    def launch(self, *arguments, grid, warmup, **settings) -> None:
        tile = [settings.get(name, 0) for name in ("ROWS", "COLUMNS", "UNITS")]
        products = tile[0] * tile[1] * tile[2] // (32 * settings["num_warps"])
        made.append((self.__name__, compile_only(self, *arguments, grid=grid, warmup=True, **settings), products))

    driver.set_active(Pretended())  # pyright: ignore[reportArgumentType]
    JITFunction.run = launch
    kernels.check = lambda x: None  # pyright: ignore[reportAttributeAccessIssue]
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    for form, settings, dtype in COMPILED:
        shape = (64, 37) if settings.get("odd") else (64, 256) if settings.get("recurrent") else (64, 2**14)
        p = layer(form, 20, shape, **{k: v for k, v in settings.items() if k != "odd"})
        p = p._replace(x=p.x.to(dtype))
        kernels.forward(p, form, 20)
        kernels.backward(
            torch.zeros(20, *shape, dtype=dtype), None, None, p, form, 20, Gradients(*(i is not None for i in (*p[:4], *p[5:])))
        )
        for name, result, products in made:
            assembly = result.asm["ptx"]
            with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
                file.write(assembly)
                file.flush()
                architecture = re.search(r"\.target (\w+)", assembly)
                assert architecture
                command = [assembler, "-v", f"-arch={architecture[1]}", file.name, "-o", os.devnull]
                told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            registers, spilled = re.search(r"Used (\d+) registers", told), re.search(r"(\d+) bytes spill stores", told)
            assert registers
            assert spilled
            print(name, str(dtype), registers[1], spilled[1], len(re.findall(r"\bfma\.rn", assembly)), products)  # noqa: T201
        made.clear()


if __name__ == "__main__":
    compile_all(int(sys.argv[1]))
