"""What `torch.fx` sees the forward of a module do, one module at a time, with nothing of the module changed."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from noiseproof.errors import NoiseproofError
from noiseproof.networks._outside_libraries import fresh_state

# calls that look at their inputs alone
_CHECKS = {"_assert", "_assert_is_none", "eq", "ne", "lt", "le", "gt", "ge", "getattr", "getitem", "size", "dim"}


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True  # each module is traced, or known, by itself


def needed_for(name: str, graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that the output comes from.

    Raises `NoiseproofError` for calls besides them that may change what others take, as those in place do.
    """
    needed = set[fx.Node]()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in needed:
            needed.add(node)
            needed.update(node.all_input_nodes)
        elif node.op not in ("placeholder", "get_attr") and getattr(node.target, "__name__", node.target) not in _CHECKS:
            raise NoiseproofError(f"{name}.{node.name} calls {node.target}, and what it gives is not used: leave it out")
    return needed


class Forward(NamedTuple):
    """What is seen of one module: its calls, the constant tensors in them, the values left at their defaults, and all of it to run."""

    graph: fx.Graph
    constants: dict[str, Tensor]
    defaults: tuple[Any, ...]
    runs: nn.Module


def forward_of(name: str, module: nn.Module, inputs: int) -> Forward:
    """Return what torch.fx sees; the module is afterwards as it was.

    Raises `NoiseproofError` where it decides by values, and where it leaves anything behind for its next call.
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    defaults = {p.name: p.default for p in parameters[inputs:] if p.default is not p.empty}
    kind, own = f"layer {name} is {type(module).__name__}", set(vars(module))
    with unchanged(kind, module), chance_unused(kind):
        try:
            graph = _Tracer().trace(module, concrete_args=defaults or None)
            runs = fx.GraphModule(module, graph)
            found = [key for key in vars(module) if key.startswith("_tensor_constant") and key not in own]
            constants = {key: vars(module).pop(key) for key in found}
        except Exception as error:
            raise NoiseproofError(f"{kind}, and torch.fx cannot see what its forward does: {_first_line(error)}") from error
    return Forward(graph, constants, tuple(defaults.values()), runs)


@torch.no_grad()
def check_same(name: str, module: nn.Module, seen: Forward, examples: Sequence[Any]) -> list[int]:
    """Return which of its inputs a module writes over, after checking that it does with the examples what was seen.

    To the last digit; where it is not, in float64, in which sums in another order differ by less than anything else. And again with
    all its parameters moved by 5 to 10 %, as one that is read past torch.fx (by `state_dict` or `parameters()`) is a constant there.

    Raises `NoiseproofError` where it does something else: one that asks whether its input is a tensor (what torch.fx gives it is
    none), that adds in place to what it uses again (torch.fx takes `y += x` for a sum), or that draws by chance.
    """
    kind, difference, written = f"layer {name} is {type(module).__name__}", "", list[int]()
    with unchanged(kind, module), chance_unused(kind):
        for dtype, part in ((None, 0.0), (torch.float64, 1e-10)):
            try:
                found, written = _results(module, seen, examples, dtype)
            except Exception as error:
                if dtype is not None:  # it keeps numbers of its own dtype
                    break
                raise NoiseproofError(f"{kind}, and cannot take two samples of this shape: {_first_line(error)}") from error
            difference = _difference(found, part)
            if not difference:
                break
    if difference:
        raise NoiseproofError(f"{kind} and {difference}")
    return written


def _results(module: nn.Module, seen: Forward, examples: Sequence[Any], dtype: torch.dtype | None) -> tuple[list[list[Any]], list[int]]:
    """Return what the module gives twice, what the traced one gives, and both with moved parameters; and which inputs are written over."""
    given = [a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in examples]
    results, written = list[list[Any]](), list[int]()
    for call, move in ((module, False), (module, False), (seen.runs, False), (module, True), (seen.runs, True)):
        copies = [a.clone() if isinstance(a, Tensor) else a for a in given]
        with fresh_state(module):  # neurons go on from what the last call left
            values = _values(module, call, dtype, move)
            results.append(
                tree_leaves(functional_call(call, values, (*copies, *(() if call is module else seen.defaults)), tie_weights=False))
            )
        if call is module:
            written = [i for i, (a, b) in enumerate(zip(given, copies, strict=True)) if isinstance(a, Tensor) and not torch.equal(a, b)]
    return results, written


def _values(module: nn.Module, call: nn.Module, dtype: torch.dtype | None, move: bool) -> dict[str, Tensor]:
    """Return parameters and buffers of `call`, copied, as numbers of the dtype; the module's parameters moved.

    One that stands in two modules is there twice, and a module of two names once: functional_call does not put it back otherwise.
    """
    draw, made = torch.Generator().manual_seed(1), dict[int, Tensor]()
    for parameter in module.parameters() if move else ():
        if parameter.is_floating_point():
            up = 0.05 + 0.05 * torch.rand(parameter.shape, generator=draw, dtype=torch.float64).to(parameter)
            made[id(parameter)] = torch.where(parameter == 0, up, parameter * (1 + up))
    found = dict[str, Tensor]()
    places = (
        (f"{at}.{part}".lstrip("."), value) for at, m in call.named_modules() for part, value in {**m._parameters, **m._buffers}.items()
    )
    for name, value in places:
        if value is None:
            continue
        if id(value) not in made:
            made[id(value)] = value.clone()
        changed = made[id(value)]
        if value.is_floating_point() and dtype is not None and changed.dtype != dtype:
            changed = made[id(value)] = changed.to(dtype)
        found[name] = changed
    return found


def _difference(found: list[list[Any]], part: float) -> str:
    """Return how the module and what was traced differ, by more than so large a part of the largest number; or nothing."""
    first, again, traced, moved, traced_moved = found
    if not _agree(first, again, part):
        return "gives two results for the same input: a certificate holds for every draw or for none"
    if not _agree(first, traced, part):
        return "does something else than torch.fx sees: it asks what its input is, or works in place"
    if not _agree(moved, traced_moved, part):
        return "reads a parameter past torch.fx or past its name, so that it would not move in the box: write self.layer.weight"
    return ""


def _agree(first: list[Any], second: list[Any], part: float) -> bool:
    return len(first) == len(second) and all(_close(a, b, part) for a, b in zip(first, second, strict=True))


def _close(a: Any, b: Any, part: float) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return type(a) is type(b) and a == b
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    largest = float(a.nan_to_num(0.0, 0.0, 0.0).abs().max()) if part and a.numel() else 0.0
    return torch.allclose(a, b, 0.0, part * largest, equal_nan=True)


@contextlib.contextmanager
def chance_unused(kind: str) -> Iterator[None]:
    """Raise `NoiseproofError` where random numbers of torch or of Python are drawn inside; their streams go on as if nothing was."""
    before, plain = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        same = torch.equal(before, torch.get_rng_state()) and random.getstate() == plain
        torch.set_rng_state(before)
        random.setstate(plain)
    if not same:
        raise NoiseproofError(f"{kind} and draws by chance in inference: a certificate holds for every draw or for none")


@contextlib.contextmanager
def unchanged(kind: str, module: nn.Module) -> Iterator[None]:
    """Put everything back that changes in a module inside.

    Raises `NoiseproofError` for what changed: attributes, parameters, buffers, and what stands in lists and dictionaries.
    """
    before = [(name, vars(m), {key: _Kept(value) for key, value in vars(m).items()}) for name, m in module.named_modules()]
    try:
        yield
    finally:
        changed = _put_back(before)
    if changed:
        raise NoiseproofError(f"{kind} and keeps {changed} from call to call: no bound is known for its state")


class _Kept:
    """One attribute, with a copy of what may change in it: the numbers of a tensor, the items of a list, dictionary or set."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.items = value.copy() if isinstance(value, list | dict | set) else None
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,)
        self.tensors = [(part, part.detach().clone()) for part in parts if isinstance(part, Tensor)]

    def put_back(self) -> str | None:
        """Undo what changed inside; return the name of the first item, "" where it has none, or None where nothing changed."""
        changed = None
        if self.items is not None and not _same_items(self.value, self.items):
            changed = ""
            self.value.clear()
            self.value.extend(self.items) if isinstance(self.value, list) else self.value.update(self.items)
        for tensor, copy in self.tensors:
            if not _same_numbers(tensor, copy):
                names = [n for n, part in self.items.items() if part is tensor] if isinstance(self.items, dict) else []
                changed = changed or (f"{names[0]}" if names else "")
                tensor.data = copy.to(tensor.dtype) if tensor.shape != copy.shape else tensor.data.copy_(copy)
        return changed


def _put_back(before: list[tuple[str, dict[str, Any], dict[str, _Kept]]]) -> str:
    """Undo what changed; return the name of the first attribute that did, or nothing."""
    changed = ""
    for name, now, attributes in before:
        for key in list(now.keys() | attributes.keys()):
            if key not in attributes:
                changed = changed or f"{name}.{key}".lstrip(".")
                del now[key]
                continue
            kept = attributes[key]
            inside = kept.put_back()
            if inside is not None or key not in now or now[key] is not kept.value:
                # a buffer or a parameter is known by its own name
                changed = changed or f"{name}.{inside or key}".lstrip(".")
                now[key] = kept.value
    return changed


def _same_numbers(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all()))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _same_items(value: Any, copied: Any) -> bool:
    """Return whether a container holds the same objects as before."""
    if isinstance(value, list):
        return len(value) == len(copied) and all(a is b for a, b in zip(value, copied, strict=True))
    if isinstance(value, dict):
        return value.keys() == copied.keys() and all(value[key] is copied[key] for key in copied)
    return value == copied
