"""What `torch.fx` sees the forward of a module do, one module at a time, with nothing of the module changed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
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
    before, kind = _attributes(module), f"layer {name} is {type(module).__name__}"
    try:
        graph = _Tracer().trace(module, concrete_args=defaults or None)
        runs = fx.GraphModule(module, graph)
        constants = {
            key: vars(module).pop(key) for key in list(vars(module)) if key.startswith("_tensor_constant") and key not in before[""]
        }
    except Exception as error:
        raise NoiseproofError(f"{kind}, and torch.fx cannot see what its forward does: {_first_line(error)}") from error
    finally:
        changed = _put_back(module, before)
    if changed:
        raise NoiseproofError(f"{kind} and keeps {changed} from call to call: no bound is known for its state")
    return Forward(graph, constants, tuple(defaults.values()), runs)


@torch.no_grad()
def check_same(name: str, module: nn.Module, seen: Forward, examples: Sequence[Any]) -> list[int]:
    """Return which of its inputs a module writes over, after checking that it does with the examples what was seen.

    Raises `NoiseproofError` where it does something else: one that asks whether its input is a tensor (what torch.fx gives it is
    none), or that adds in place to what it uses again (torch.fx takes `y += x` for a sum).
    """
    results, kind, written = list[list[Any]](), f"layer {name} is {type(module).__name__}", list[int]()
    for call, given in ((module, examples), (seen.runs, (*examples, *seen.defaults))):
        copies = [a.clone() if isinstance(a, Tensor) else a for a in given]
        with fresh_state(module):  # neurons go on from what the last call left
            try:
                results.append(tree_leaves(call(*copies)))
            except Exception as error:
                raise NoiseproofError(f"{kind}, and cannot take two samples of this shape: {_first_line(error)}") from error
        if call is module:
            written = [i for i, (a, b) in enumerate(zip(examples, copies, strict=True)) if isinstance(a, Tensor) and not torch.equal(a, b)]
    pairs = zip(*results, strict=False)
    same = all(torch.allclose(a, b, 1e-3, 1e-5, equal_nan=True) if isinstance(a, Tensor) else a == b for a, b in pairs)
    if not same or len(results[0]) != len(results[1]):
        raise NoiseproofError(f"{kind} and does something else than torch.fx sees: it asks what its input is, or works in place")
    return written


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _attributes(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what stands in the attributes of all modules inside, lists and dictionaries copied."""
    return {name: {key: _content(value) for key, value in vars(m).items()} for name, m in module.named_modules()}


def _content(value: Any) -> Any:
    return (value, value.copy()) if isinstance(value, list | dict | set) else (value, None)


def _put_back(module: nn.Module, before: dict[str, dict[str, Any]]) -> str:
    """Undo what changed; return the name of the first attribute that did, or nothing."""
    changed = ""
    for name, attributes in before.items():
        now = vars(module.get_submodule(name))
        for key in list(now.keys() | attributes.keys()):
            value, copied = attributes.get(key, (None, None))
            same = key in attributes and key in now and now[key] is value
            if same and (copied is None or _same_items(value, copied)):
                continue
            changed = changed or f"{name}.{key}".lstrip(".")
            if key not in attributes:
                del now[key]
                continue
            now[key] = value
            if copied is not None:
                value.clear()
                value.extend(copied) if isinstance(value, list) else value.update(copied)
    return changed


def _same_items(value: Any, copied: Any) -> bool:
    """Return whether a container holds the same objects as before."""
    if isinstance(value, list):
        return len(value) == len(copied) and all(a is b for a, b in zip(value, copied, strict=True))
    if isinstance(value, dict):
        return value.keys() == copied.keys() and all(value[key] is copied[key] for key in copied)
    return value == copied
