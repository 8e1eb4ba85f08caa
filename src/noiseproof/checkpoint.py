"""Save and resume: whole files or none, checked by a digest, loaded without executing anything."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError
from noiseproof.files import write_atomically
from noiseproof.parameters import parameters_of


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write parameters and buffers as safetensors, with their digest in the header."""
    import safetensors.torch

    plain = {name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}
    content = safetensors.torch.save(plain, metadata={"sha256": digest(plain)})
    write_atomically(path, lambda file: file.write(content))


def load_weights(path: Path, network: nn.Module) -> None:
    """Load `path` into the network.

    Raises `NoiseproofError` when the file is missing, damaged, or of another network.
    """
    import safetensors
    import safetensors.torch

    if not path.is_file():
        raise NoiseproofError(f"{path.parent} is not trained to the end: run noiseproof train {path.parent} first")
    damaged = NoiseproofError(f"{path} is damaged: restore it, or delete it and run noiseproof train {path.parent}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            sha256 = (file.metadata() or {}).get("sha256")
        weights = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError):
        raise damaged from None
    if digest(weights) != sha256:
        raise damaged
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise NoiseproofError(f"{path} belongs to another network: {' '.join(str(error).split())[:200]}") from None
    parameters_of(network)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of a training (tensors, numbers, texts in dicts and lists), with its digest."""
    buffer = io.BytesIO()
    torch.save({"digest": digest(state), "state": dict(state)}, buffer)
    write_atomically(path, lambda file: file.write(buffer.getbuffer()))


def load_state(path: Path) -> dict[str, Any] | None:
    """Return the saved state, None where there is none.

    Raises `NoiseproofError` when the file is damaged, or would need more than plain data to load.
    """
    if not path.is_file():
        return None
    damaged = NoiseproofError(f"{path} is damaged: delete it to train from the beginning")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError, TypeError):
        raise damaged from None
    if not isinstance(saved, dict) or saved.keys() != {"digest", "state"} or saved["digest"] != digest(saved["state"]):
        raise damaged
    return saved["state"]


def digest(value: Any) -> str:
    """Return the sha256 over all tensors, numbers and texts in `value`, in order of their names."""
    total = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            total.update(f"{item.dtype}{tuple(item.shape)}".encode())
            total.update(item.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        elif isinstance(item, Mapping):
            for key in sorted(item, key=str):
                total.update(f"{key}:".encode())
                add(item[key])
        elif isinstance(item, list | tuple):
            for part in item:
                add(part)
        else:
            total.update(repr(item).encode())

    add(value)
    return total.hexdigest()
