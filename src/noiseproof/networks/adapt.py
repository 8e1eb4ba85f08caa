from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from noiseproof.errors import NoiseproofError, require
from noiseproof.networks._base import Network
from noiseproof.networks._outside_libraries import (
    LIBRARIES,
    Layout,
    copy_layers,
    find_layout,
    fresh_state,
    layout_of,
    library_of,
    saved_state,
    shared_settings,
    surrogates_on,
)
from noiseproof.networks._outside_surrogates import other_surrogate
from noiseproof.networks._outside_time import Readout, Time, passes_state
from noiseproof.networks._outside_traces import neurons, recorded, stacked
from noiseproof.networks._run import Run
from noiseproof.networks._under_noise import UnderNoise
from noiseproof.neurons.rate_rules import RateRule
from noiseproof.neurons.surrogates import Surrogate
from noiseproof.parameters import Params, call_inference, functional_call, inference_mode, parameters_of
from noiseproof.randomness import stochastic


class Adapted(nn.Module):
    """An outside module behind the interface of ours: x [B, …] → logits [B, C], checked at every call.

    `time` is None for a module that knows no time. State is fresh at every call and afterwards what it was before.
    """

    def __init__(self, module: nn.Module, bounds: tuple[float, float], time: Time | None = None) -> None:
        super().__init__()
        self.module, self.bounds, self.time = module, bounds, time
        self._shared = shared_settings(module)
        self.register_state_dict_post_hook(_leave_out_state)
        self.register_load_state_dict_pre_hook(_put_in_state)

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        with fresh_state(self.module, self._shared), surrogates_on(self.module):
            if self.time is not None:
                return self.time.logits(self.module, x, steps)
            require(steps is None, "steps", steps, "the network takes no time; leave steps out")
            logits = self.module(x)
        if not isinstance(logits, Tensor):
            raise NoiseproofError(f"the network returns {type(logits).__name__}: it must return one tensor of logits [batch, classes]")
        if logits.ndim != 2 or len(logits) != len(x):
            raise NoiseproofError(
                f"the network returns shape {tuple(logits.shape)} for {len(x)} inputs: it must return logits [batch, classes]"
            )
        return logits

    def run(
        self,
        x: Tensor,
        *,
        params: Params | None = None,
        steps: int | None = None,
        state: None = None,
        generator: None = None,
        surrogate: Surrogate | RateRule | None = None,
        expected: bool = False,
        record: Sequence[str] = (),
    ) -> Run:
        """Return logits [B, C] and the traces in `record`, by the module's own names of its layers of neurons.

        `params`: other weights than its own; `steps`: another T for still inputs; `surrogate`: another one in all layers of
        snnTorch, SpikingJelly or sinabs, for this run. "spikes" is what a layer of neurons returns, "current" what it is given,
        "membrane" (snnTorch) its potential before the reset.

        Raises `NoiseproofError` for what an outside network does not offer: a state or generator from outside, a surrogate where
        its neurons take none, or a trace that its neurons do not show.
        """
        for name, value in (("state", state), ("generator", generator), ("expected", expected or None)):
            require(value is None, name, value, f"an adapted network has its own {'coding' if name == 'expected' else name}; leave it out")
        buffers = {name: b.clone() for name, b in self.named_buffers()} if params else {}
        with recorded(self.module, record) as seen, other_surrogate(self.module, surrogate):
            logits = functional_call(self, {**(params or {}), **buffers}, (x, steps))
        return Run(logits, traces=stacked(self.module, seen, len(x)))

    @property
    def spiking(self) -> bool:
        """Whether there are spiking neurons inside, of a library that noiseproof knows."""
        return bool(neurons(self.module))

    def describe(self) -> dict[str, Any]:
        """Return how the network takes time, as it stands in experiment.toml; nothing for one that takes none."""
        settings = asdict(self.time) if self.time is not None else {}
        return {name: value for name, value in settings.items() if value is not None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapted:
        """Copy with fresh state: a state that hangs on a graph cannot be copied, and belongs to the last batch anyway."""
        twin = memo[id(self)] = type(self).__new__(type(self))
        with fresh_state(self.module):
            copy_layers(self.module, memo)
            vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin


def _leave_out_state(adapted: nn.Module, state_dict: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in saved_state(adapted):
        state_dict.pop(prefix + name, None)


def _put_in_state(adapted: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, value in saved_state(adapted).items():
        state_dict[prefix + name] = value


def adapt(
    module: nn.Module,
    *,
    bounds: tuple[float, float] = (0.0, 1.0),
    steps: int | None = None,
    sequence: bool = False,
    readout: Readout = "sum",
    layout: Layout | Literal["auto"] = "auto",
    output: int = 0,
) -> nn.Module:
    """Return any `nn.Module` that gives logits as a network of noiseproof; the module itself is neither changed nor copied.

    `bounds`: the valid range of its inputs, in the data's own units. A network of noiseproof comes back as it is.
    Parameters keep their names behind the prefix `module.`

    A spiking network, of snnTorch, SpikingJelly, Norse or sinabs, needs to know what time is:

    - `steps=T`: inputs [B, …] stand still and are shown T times; `sequence=True`: inputs are [B, T, …].
    - `readout`: how the outputs [T, B, C] of all steps become logits: "sum", "mean", "last" or "max" over time.
    - `output`: which value is read where a module returns several, counted from 0: 1 is the membrane of (spikes, membrane).
    - `layout`: how the module itself takes time; "auto" asks the layers inside. "step": called once a step with [B, …];
      "time-first": once with [T, B, …]; "batch-first": once with [B, T, …]; "flattened": once with [B·T, …];
      "own": once with x as it is, because its own forward loops over time.

    Its state is fresh at every call and afterwards what it was before. A module of your own that keeps state between calls
    needs a method `reset_state()`, which brings it to its start.

    Raises `NoiseproofError` when `module` is no `nn.Module` or holds NaN, when a spiking network is not told what time is or
    told what contradicts itself, and at the first call when it returns no logits.

    Example:
        >>> network = adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
        >>> network(torch.rand(2, 1, 28, 28)).shape
        torch.Size([2, 10])

        With snnTorch: `adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10), snn.Leaky(0.9, init_hidden=True)), steps=25)`
    """
    require(isinstance(module, nn.Module), "network", type(module).__name__, "give a torch.nn.Module that returns logits")
    require(len(bounds) == 2 and bounds[0] < bounds[1], "bounds", bounds, "give (lowest, highest) valid input value")
    parameters_of(module)
    told = steps is not None or sequence or layout != "auto"
    if isinstance(module, Network | Adapted | UnderNoise):
        require(not told, "network", type(module).__name__, "it is a network of noiseproof already; leave steps, sequence and layout out")
        return module
    found = find_layout(module) if layout == "auto" else layout
    if found is None:
        names = ", ".join(LIBRARIES.values())
        require(not told, "layout", layout, f"no layer is of {names}; say how the network takes time, or leave steps and sequence out")
        return Adapted(module, bounds)
    time = Time(found, steps, sequence, readout, output)
    if found == "step" and any(library_of(m) == "norse" for m in module.modules()) and not passes_state(module):
        raise NoiseproofError(
            f"network is {type(module).__name__}: Norse's neurons keep no state, so its forward must take `state` and return (output, "
            "state), as norse.torch.SequentialState does; or give layout='own' if it loops over time itself"
        )
    return Adapted(module, bounds, time)


@torch.no_grad()
def check_fits(network: nn.Module, x: Tensor, classes: int) -> None:
    """Run two samples through the network, before any long work: the logits must be [2, classes], finite, and the same again.

    Raises `NoiseproofError` when the network cannot take the data, gives something else, or keeps state between calls.
    """
    try:
        with stochastic(0):
            logits = call_inference(network, parameters_of(network), x[:2])
    except NoiseproofError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        told = f" (time: {network.time})" if isinstance(network, Adapted) and network.time else ""
        reason = str(error).splitlines()[0] + told
        raise NoiseproofError(f"the network cannot take inputs of shape {tuple(x[:2].shape)}: {reason}") from error
    if logits.shape[-1] != classes:
        raise NoiseproofError(f"the network gives {logits.shape[-1]} logits and the data has {classes} classes: these must be equal")
    if not bool(torch.isfinite(logits).all()):
        raise NoiseproofError("the network gives logits that are NaN or infinite: check its weights and the range of the inputs")
    if isinstance(network, Adapted):
        _check_steps(network, x[:2])
        _check_stateless(network, x[:2])


def _check_steps(network: Adapted, x: Tensor) -> None:
    """Raise `NoiseproofError` when neurons that are called once a step are called another number of times."""
    time, layers = network.time, neurons(network.module)
    if time is None or time.layout == "own" or not layers:
        return
    with recorded(network.module, ("spikes",)) as seen, inference_mode(network):
        network(x)
    steps = x.shape[1] if time.sequence else time.steps
    for name, calls in seen["spikes"].items():
        if layout_of(layers[name]) == "step" and len(calls) != steps:
            raise NoiseproofError(
                f"layer {name} is called {len(calls)} times in {steps} steps with layout {time.layout!r}: give layout='own' and leave "
                "steps out if the network's forward loops over time itself, else the layout that it has"
            )


def _check_stateless(network: Adapted, x: Tensor) -> None:
    """Raise `NoiseproofError` when two calls with the same inputs and the same seed give different logits."""
    # one dict for both calls: what the first writes into buffers, the second finds there
    values = {**parameters_of(network), **{name: b.clone() for name, b in network.named_buffers()}}
    results: list[Tensor] = []
    attributes: list[dict[str, Tensor]] = []
    with inference_mode(network), _attributes_kept(network):
        for _ in range(2):
            with torch.random.fork_rng([x.device] if x.is_cuda else []):
                torch.manual_seed(0)
                results.append(functional_call(network, values, (x,)))
            attributes.append(_tensors(network) | {name: values[name] for name, _ in network.named_buffers()})
    # what sums in no fixed order may differ in the last digits
    if torch.allclose(*results, rtol=1e-4, atol=1e-5 * float(results[0].abs().max())):
        return
    first, second = attributes
    changed = [n for n, v in second.items() if n not in first or v.shape != first[n].shape or not torch.equal(v, first[n])]
    where = changed[0].removeprefix("module.") if changed else type(network.module).__name__
    raise NoiseproofError(
        f"the network gives two results for the same inputs: {where} keeps state from call to call that noiseproof cannot reset; let "
        "forward begin with fresh state, or give that module a method reset_state() that brings it to its start"
    )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return all tensors that stand in attributes of modules, as they are now."""
    found = ((f"{prefix}.{name}", value) for prefix, m in network.named_modules() for name, value in vars(m).items())
    return {name: value.clone() for name, value in found if isinstance(value, Tensor)}


@contextlib.contextmanager
def _attributes_kept(network: nn.Module) -> Iterator[None]:
    """Put back at the end what stood in the attributes of all modules."""
    kept = [(vars(module), dict(vars(module))) for module in network.modules()]
    try:
        yield
    finally:
        for now, before in kept:
            now.update(before)
            for name in now.keys() - before.keys():
                del now[name]
