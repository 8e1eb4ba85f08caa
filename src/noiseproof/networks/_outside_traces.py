"""What happens inside an outside network: traces of its neurons, read through forward hooks that are removed again."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, unknown
from noiseproof.networks._outside_libraries import LIBRARIES, is_neuron, layout_of, library_of
from noiseproof.networks._run import KINDS

Seen = dict[str, dict[str, list[Tensor]]]  # kind → layer → one tensor a call


def neurons(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of spiking neurons by name."""
    return {name or "network": module for name, module in network.named_modules() if is_neuron(module)}


@contextlib.contextmanager
def recorded(network: nn.Module, record: Collection[str]) -> Iterator[Seen]:
    """Collect what every layer of neurons is given ("current") and gives ("spikes"), and snnTorch's "membrane".

    Raises `NoiseproofError` for a kind that does not exist or that these neurons do not show.
    """
    layers = neurons(network)
    for kind in record:
        if kind not in KINDS:
            raise unknown("record", kind, KINDS)
        if kind == "membrane":
            _require_membranes(layers)
        if not layers:
            raise NoiseproofError(f"record is {kind!r}: the network has no spiking neurons of {', '.join(LIBRARIES.values())}")
    seen: Seen = {kind: defaultdict(list) for kind in record}
    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(_hooked(layer, name, seen))
        yield seen


@contextlib.contextmanager
def _hooked(layer: nn.Module, name: str, seen: Seen) -> Iterator[None]:
    def note(module: Any, args: tuple[Any, ...], out: Any) -> None:
        values = {"current": args[0] if args else None, "spikes": out[0] if isinstance(out, tuple | list) else out}
        values["membrane"] = getattr(module, "mem", None)
        for kind, calls in seen.items():
            calls[name].append(values[kind])

    handle = layer.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


def _require_membranes(layers: dict[str, nn.Module]) -> None:
    """Raise `NoiseproofError` unless all layers show their membrane as it was before the reset."""
    for name, layer in layers.items():
        library = library_of(layer)
        shown = library == "snntorch" and "mem" in layer._non_persistent_buffers_set and getattr(layer, "reset_delay", True)
        if not shown:
            raise NoiseproofError(
                f"record is 'membrane': layer {name} ({LIBRARIES.get(library or '', 'unknown')}, {type(layer).__name__}) does not show the "
                "potential before the reset; snnTorch's neurons with reset_delay=True do; record 'spikes' or 'current' instead"
            )


def stacked(network: nn.Module, seen: Seen, batch: int) -> dict[str, dict[str, Tensor]]:
    """Return the traces time-first, [T, B, …], however each layer takes time itself."""
    layers = neurons(network)

    def time_first(call: Tensor, layer: nn.Module) -> Tensor:
        match layout_of(layer):
            case "time-first":
                return call
            case "batch-first":
                return call.transpose(0, 1)
            case "flattened":
                return call.unflatten(0, (batch, -1)).transpose(0, 1)
        return call[None]

    return {
        kind: {name: torch.cat([time_first(call, layers[name]) for call in calls]) for name, calls in by_layer.items()}
        for kind, by_layer in seen.items()
    }
