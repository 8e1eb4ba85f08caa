"""What may stand between a network and what is read of it: hooks, other forwards, modes, short numbers, parameters of other names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from noiseproof.certificates._rounding import Arithmetic
from noiseproof.errors import NoiseproofError, require, unknown
from noiseproof.networks import Network, SpikingNetwork
from noiseproof.networks.adapt import Adapted
from noiseproof.parameters import Params, inference_mode, parameters_of

# those whose own forward is read in the sources of noiseproof: a class of the user above them may do anything
_READ = (Network, SpikingNetwork, Adapted)


def check_modules(network: nn.Module) -> None:
    """Raise `NoiseproofError` where a module inside does not do what its class says, in inference.

    Refused: forward hooks, on all modules too; methods put on an object; a class above `Network`, `SpikingNetwork` or what
    `noiseproof.adapt` gives; a module that stays in train mode when the network is put into eval mode.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise NoiseproofError("a forward hook is registered for all modules of PyTorch, which may change what they give: remove it")
    for name, module in network.named_modules():
        layer = f"layer {name}" if name else "the network"
        kind = type(module)
        if isinstance(module, torch.jit.ScriptModule):
            raise NoiseproofError(f"{layer} is a {kind.__name__}: what TorchScript does is not read; give the module it was made from")
        if isinstance(module, _READ) and kind not in _READ:
            raise NoiseproofError(f"{layer} is {kind.__name__}, a class of your own above one of noiseproof: what it changes is not read")
        if module._forward_hooks or module._forward_pre_hooks:
            raise NoiseproofError(
                f"{layer} has a forward hook, which may change what it gives: remove it (torch.nn.utils.prune.remove, remove_weight_norm)"
            )
        for part in vars(module):
            if callable(getattr(kind, part, None)):
                raise NoiseproofError(f"{layer} is {kind.__name__} with another {part} than that of its class: make it a class")
    with inference_mode(network):
        training = [name or "network" for name, module in network.named_modules() if module.training]
    if training:
        raise NoiseproofError(
            f"layer {training[0]} stays in train mode in inference: a certificate is about eval mode, without chance and batch statistics"
        )


def check_arithmetic(network: nn.Module, params: Params, arithmetic: Arithmetic) -> None:
    """Raise `NoiseproofError` for numbers of half the digits, and for a network of fewer digits than the arithmetic has."""
    buffers = {name: b for name, b in network.named_buffers() if b.is_floating_point()}
    for name, value in {**buffers, **params}.items():
        kind = str(value.dtype).removeprefix("torch.")
        if value.dtype not in (torch.float32, torch.float64):
            raise NoiseproofError(f"{name} is {kind}: bounds are known for float32 and float64; give network.float()")
        if arithmetic == "float64" and value.dtype == torch.float32:
            raise NoiseproofError(
                f"arithmetic is 'float64' and {name} is float32, so that the network rounds more than that: give 'float32', or 'exact' for "
                "real numbers, or network.double()"
            )


def given_parameters(network: nn.Module, given: Params | None) -> Params:
    """Return the floating-point parameters of a network by name, with those that are given in their places.

    An adapted network's parameters answer to their own names too, and one of two names to both.

    Raises `NoiseproofError` for a name that there is not, for another shape, and for two values of one parameter.
    """
    params = parameters_of(network)
    if not given:
        return params
    first = {id(p): name for name, p in params.items()}
    known = {name: first[id(p)] for name, p in network.named_parameters(remove_duplicate=False) if id(p) in first}
    found: Params = {}
    for spelled, value in given.items():
        name = known.get(spelled) or (known.get(f"module.{spelled}") if isinstance(network, Adapted) else None)
        if name is None:
            raise unknown("params", spelled, known)
        require(value.shape == params[name].shape, f"params[{spelled!r}]", tuple(value.shape), f"give shape {tuple(params[name].shape)}")
        if found.get(name, value) is not value:
            raise NoiseproofError(f"params gives {name} twice, as {spelled} too: give one value")
        found[name] = value
    return params | found


def check_samples(x: Tensor) -> None:
    """Raise `NoiseproofError` unless x may be samples [B, …]."""
    require(isinstance(x, Tensor), "x", type(x).__name__, "give a tensor of samples [batch, …]")
    require(x.ndim >= 2, "x", tuple(x.shape), "give samples [batch, …], one too: x[None]")


def check_shape(network: Network, shape: Sequence[int]) -> None:
    """Raise `NoiseproofError` for samples of another shape than a network of noiseproof takes."""
    if tuple(shape) != tuple(network.shape):
        given, takes = (", ".join(map(str, dims)) for dims in (shape, network.shape))
        raise NoiseproofError(f"x is of shape [B, {given}]: give [B, {takes}], one sample as x[None]")


def check_classes(y: Tensor, samples: int, classes: int) -> None:
    """Raise `NoiseproofError` unless y [B] are whole numbers from 0 to C − 1, one a sample."""
    remedy = f"for {samples} samples: give one class of 0 to {classes - 1} a sample, as whole numbers"
    require(isinstance(y, Tensor), "y", type(y).__name__, f"a tensor is needed {remedy}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise NoiseproofError(f"y is {str(y.dtype).removeprefix('torch.')} {remedy}")
    if y.shape != (samples,):
        raise NoiseproofError(f"y is of shape {tuple(y.shape)} {remedy}")
    if samples and not (int(y.min()) >= 0 and int(y.max()) < classes):
        raise NoiseproofError(f"y has classes {int(y.min())} to {int(y.max())} {remedy}")
