"""A layer of LIF neurons, forward and backward, against other libraries and against the memory that it must move.

    python benchmarks/neurons.py [--steps 8 100] [--rounds 15] [--threads N] [--no-tuning] [--gpu]

64 × 4096 neurons, hard reset, float32; all in one process, in turn. "stream": the five passes that no layer can do without: read x,
write s; read gs, read x, write gx. Goals: at least 6 times faster than every library; at most 2.5 × the stream at T = 8, 1.7 × at
T = 100 with the tuned allocator; nothing saved for backward but the input.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings

import torch
from _peers import lif_peers
from _timing import in_turn, ratio
from torch import Tensor

from noiseproof.neurons import LIF, Atan, tune_allocator, using

LEAK = 0.5


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, nargs="+", default=[8, 100])
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--no-tuning", action="store_true", help="leave the allocator as it is")
    options.add_argument("--gpu", action="store_true", help="the CUDA kernels instead")
    chosen = options.parse_args()
    if chosen.gpu:
        import neurons_gpu

        return neurons_gpu.main([])
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")
    tuned = not chosen.no_tuning and tune_allocator()
    print(f"LIF 64 × 4096, {chosen.threads} thread(s), allocator {'tuned' if tuned else 'as it is'}, {chosen.rounds} rounds in turn")
    for steps in chosen.steps:
        compare(steps, max(3, chosen.rounds if steps <= 32 else chosen.rounds // 3))
    return 0


def compare(steps: int, rounds: int) -> None:
    """Print times, ratios and bytes saved for one T."""
    draw = torch.Generator().manual_seed(0)
    x = (torch.randn(steps, 64, 4096, generator=draw) + 0.3).requires_grad_()
    gradient = torch.randn(steps, 64, 4096, generator=draw)
    ours = LIF(leak=LEAK, reset="hard", surrogate=Atan())
    layers = {"noiseproof": lambda x: ours(x).spikes, "noiseproof, handwritten": handwritten(ours), **lif_peers(LEAK)}
    outs = torch.empty_like(gradient), torch.empty_like(gradient)

    def stream() -> None:
        torch.clamp(x.detach(), min=0, out=outs[0])
        torch.add(gradient, x.detach(), out=outs[1])

    def both(layer):
        def run() -> None:
            torch.autograd.grad(layer(x), x, gradient)

        return run

    seconds = in_turn({"stream": stream, **{name: both(layer) for name, layer in layers.items()}}, rounds)
    reference = ours(x).spikes
    print(f"\nT = {steps:<28} {'ms':>8} {'least':>8} {'× stream':>9} {'ours is faster':>22} {'MiB saved':>10} {'same spikes':>12}")
    for name in seconds:
        times = [1e3 * s for s in seconds[name]]
        relative, low, high = ratio(seconds, name, "noiseproof")
        faster = "" if name in ("stream", "noiseproof") else f"{relative:.1f} × ({low:.1f} – {high:.1f})"
        kept = "" if name == "stream" else f"{saved(layers[name], x) / 2**20:.1f}"
        same = "" if name == "stream" else f"{(layers[name](x) == reference).float().mean():.4%}"
        over = ratio(seconds, name, "stream")[0]
        print(f"{name:32} {statistics.median(times):8.2f} {min(times):8.2f} {over:9.2f} {faster:>22} {kept:>10} {same:>12}")


def handwritten(layer: LIF):
    def run(x: Tensor) -> Tensor:
        with using("handwritten"):
            return layer(x).spikes

    return run


def saved(layer, x: Tensor) -> int:
    """Return the bytes that are kept for backward, each storage once, the output left out."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x)
    storages.pop(out.untyped_storage().data_ptr(), None)
    return sum(storages.values())


if __name__ == "__main__":
    sys.exit(main())
