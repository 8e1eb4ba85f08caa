"""LIF layers of other libraries in their best calling form, over time-first currents; an import that fails leaves a peer out."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]


def lif_peers(leak: float) -> dict[str, Layer]:
    """Return hard-reset LIF layers with decay `leak` and threshold 1: x [T, B, …] → spikes."""
    made: dict[str, Layer] = {}
    for name, make in (("SpikingJelly", _spikingjelly), ("snnTorch", _snntorch), ("Norse", _norse), ("sinabs", _sinabs)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made[name] = make(leak)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return made | {"eager loop": _eager(leak)}


def _spikingjelly(leak: float) -> Layer:
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(1 / (1 - leak), False, v_reset=0.0, surrogate_function=surrogate.ATan(), step_mode="m")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return run


def _snntorch(leak: float) -> Layer:
    import snntorch

    node = snntorch.Leaky(beta=leak, reset_mechanism="zero", spike_grad=snntorch.surrogate.atan(2.0))

    def run(x: Tensor) -> Tensor:
        memory, spikes = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            spike, memory = node(current, memory)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def _norse(leak: float) -> Layer:
    from norse.torch import LIFBoxFeedForwardState, LIFBoxParameters
    from norse.torch.functional.lif_box import lif_box_feed_forward_step

    # v' = v + dt·τ⁻¹·(0 − v + x): τ⁻¹·dt = 1 − leak, the input scaled back by the caller
    parameters = LIFBoxParameters(tau_mem_inv=torch.tensor((1 - leak) / 0.001), v_th=torch.tensor(1.0), alpha=torch.tensor(100.0))

    def run(x: Tensor) -> Tensor:
        state, spikes = LIFBoxFeedForwardState(v=torch.zeros_like(x[0])), []
        for current in (x / (1 - leak)).unbind(0):
            spike, state = lif_box_feed_forward_step(current, state, parameters)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def _sinabs(leak: float) -> Layer:
    import math

    import sinabs.activation as activation
    from sinabs.layers import LIF

    node = LIF(
        tau_mem=-1 / math.log(leak), spike_threshold=torch.tensor(1.0), norm_input=False, reset_fn=activation.MembraneReset(),
        spike_fn=activation.SingleSpike, surrogate_grad_fn=activation.PeriodicExponential(),
    )  # fmt: skip

    def run(x: Tensor) -> Tensor:
        node.reset_states()
        return node(x.transpose(0, 1)).transpose(0, 1)

    return run


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(h)
        return (h > 1).to(h.dtype)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore
        (h,) = ctx.saved_tensors
        return gradient / (1 + (torch.pi * (h - 1)).square())


def _eager(leak: float) -> Layer:
    def run(x: Tensor) -> Tensor:
        v, spikes = torch.zeros_like(x[0]), []
        for current in x.unbind(0):
            h = leak * v + current
            spike = _Spike.apply(h)
            v = h * (1 - spike)  # pyright: ignore
            spikes.append(spike)
        return torch.stack(spikes)  # pyright: ignore

    return run


class Sequenced(nn.Module):
    """A stateless layer over [T, B, …], for networks of peers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
