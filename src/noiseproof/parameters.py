"""Parameters are values: a network at other weights is a function call, and the user's module stays as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, func, nn

from noiseproof.errors import NoiseproofError, unknown
from noiseproof.observing import unobserved

Params = dict[str, Tensor]
Call = Callable[[nn.Module, Params, Tensor], Tensor]  # how a network is called at given parameters

# Layers of torch.nn whose output depends on train/eval mode
_MODE_DEPENDENT = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def parameters_of(network: nn.Module) -> Params:
    """Return the network's floating-point parameters by name; the tensors are the network's own.

    Raises `NoiseproofError` when a parameter holds NaN or infinity.
    """
    params: Params = {name: p for name, p in network.named_parameters() if p.is_floating_point()}
    for name, p in params.items():
        if not bool(torch.isfinite(p).all()):
            raise NoiseproofError(f"parameter {name} holds NaN or infinity: train the network again or load other weights")
    return params


def select(params: Mapping[str, Tensor], which: str) -> Params:
    """Return the parameters that noise or an attack acts on.

    `which` is `"weights"` (tensors of two or more dimensions: matrices and kernels), `"all"` (biases, thresholds, leaks and
    time constants too), or comma-separated patterns of names: `"conv*.weight,fc1.*"`.

    Raises `NoiseproofError` when nothing is selected.

    Example:
        >>> params = parameters_of(nn.Linear(3, 2))
        >>> list(select(params, "weights")), list(select(params, "all")), list(select(params, "bi*"))
        (['weight'], ['weight', 'bias'], ['bias'])
    """
    if which == "weights":
        chosen = {name: p for name, p in params.items() if p.ndim >= 2}
    elif which == "all":
        chosen = dict(params)
    else:
        patterns = [pattern.strip() for pattern in which.split(",")]
        # the parameters of an adapted module answer to their own names too
        chosen = {n: p for n, p in params.items() if any(fnmatchcase(m, q) for m in (n, n.removeprefix("module.")) for q in patterns)}
    if not chosen:
        raise (
            unknown("parameters", which, ["weights", "all", *params])
            if params
            else NoiseproofError(f"parameters is {which!r}: the network has no floating-point parameters to select")
        )
    return chosen


def trained(params: Mapping[str, Tensor]) -> Params:
    """Return the parameters that training changes; thresholds and leaks of neurons, for one, need not be among them."""
    return {name: p for name, p in params.items() if p.requires_grad}


def functional_call(network: nn.Module, values: Mapping[str, Tensor] | tuple[Mapping[str, Tensor], ...], args: tuple[Any, ...]) -> Any:
    """Return what a network gives at other parameters and buffers, by name, as `torch.func.functional_call`; all is put back afterwards.

    That one leaves a module which stands under two names (`self.same = self.fc`) with the other parameters. So there every place of a
    parameter is named once, with the value of the name that it has in `named_parameters`.
    """
    if sum(1 for _ in network.named_modules(remove_duplicate=False)) == sum(1 for _ in network.modules()):
        return func.functional_call(network, values, args)  # pyright: ignore[reportArgumentType]
    given = {name: value for part in ((values,) if isinstance(values, Mapping) else values) for name, value in part.items()}
    known = {id(value): name for name, value in [*network.named_parameters(), *network.named_buffers()]}
    places = {
        f"{prefix}.{part}".lstrip("."): known[id(value)]
        for prefix, module in network.named_modules()
        for part, value in (*module._parameters.items(), *module._buffers.items())
        if value is not None
    }
    chosen = {place: given[name] for place, name in places.items() if name in given}
    return func.functional_call(network, chosen, args, tie_weights=False)


def call(network: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Return the network's logits at `params`, in its present mode; batch norm in train mode updates its statistics as usual."""
    return _full_precision(functional_call(network, params, (x,)))


def call_inference(network: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Return the logits at `params` as in inference: mode and buffers of the network are afterwards what they were."""
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    with inference_mode(network):
        return _full_precision(functional_call(network, (params, buffers), (x,)))


def call_compared(network: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Return the logits at `params` as two points are compared in training: without dropout, buffers kept, batch norm as it stands.

    In training batch norm takes the statistics of the batch. With the running ones, which lag behind the weights, a penalty on the
    difference of two points is made small by weights for which these statistics are wrong: good in training, at chance afterwards.
    """
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    with inference_mode(network, but=nn.modules.batchnorm._NormBase):
        return _full_precision(functional_call(network, (params, buffers), (x,)))


def call_aside(network: nn.Module, params: Params, x: Tensor) -> Tensor:
    """Return the logits at `params` in the network's present mode, for a search: its buffers stay, and no penalty counts the pass."""
    buffers = {name: b.clone() for name, b in network.named_buffers()}
    with unobserved():
        return _full_precision(functional_call(network, (params, buffers), (x,)))


def _full_precision(logits: Tensor) -> Tensor:
    """Return logits in float32 where autocast made them shorter: a KL of nearly equal distributions needs the digits."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


@contextlib.contextmanager
def inference_mode(network: nn.Module, but: type | tuple[()] = ()) -> Iterator[None]:
    """Put all modules, but those of a kind, into eval mode and every module back into its own mode at the end."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    for module, training in modes:
        if isinstance(module, but):
            module.training = training
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def is_mode_free(network: nn.Module) -> bool:
    """Return whether train and eval mode surely give the same output.

    Only layers of `torch.nn` and of noiseproof are known; a module of anybody else may ask for its mode anywhere in its
    `forward`, so it counts as dependent.
    """

    def known(module: nn.Module) -> bool:
        home = type(module).__module__
        return home.startswith(("torch.nn.modules.", "noiseproof."))

    return all(known(module) and not isinstance(module, _MODE_DEPENDENT) for module in network.modules())
