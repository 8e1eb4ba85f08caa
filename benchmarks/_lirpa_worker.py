"""auto_LiRPA in a Python of its own, as its release of 2022 needs a torch before 2: bounds of an MLP's logits over a weight box.

Started by `certificates.py`. One line of JSON a message: the MLP, then the name of a bound for every timing. Imports nothing of noiseproof.
"""

import json
import sys
import warnings

warnings.simplefilter("ignore")
sys.stdout, answers = sys.stderr, sys.stdout  # whatever the library prints stays out of the answers

import torch  # noqa: E402
from auto_LiRPA import BoundedModule, BoundedParameter, PerturbationLpNorm  # noqa: E402  # pyright: ignore

METHODS = {"intervals": "IBP", "backward": "CROWN-IBP", "backward, full": "CROWN"}


class Box(PerturbationLpNorm):
    """A box of a weight; in backward bounds the library wants a batch dimension, which it forgets for given ends."""

    def get_input_bounds(self, x, A):
        return self.x_L[None], self.x_U[None]


def mlp(weights: list, biases: list, z: float) -> torch.nn.Module:
    """Return the MLP with ReLU whose weights may move by z relative to themselves."""
    layers = []
    for values, bias in zip(weights, biases, strict=True):
        weight = torch.tensor(values)
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        box = Box(norm=float("inf"), x_L=weight - z * weight.abs(), x_U=weight + z * weight.abs())
        layer.weight = BoundedParameter(weight, box)
        layer.bias.data = torch.tensor(bias)
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def main() -> None:
    given = json.loads(sys.stdin.readline())
    torch.set_num_threads(given["threads"])
    x = torch.tensor(given["x"])
    module = BoundedModule(mlp(given["weights"], given["biases"], given["z"]), torch.empty_like(x), device="cpu")
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        with torch.no_grad():
            low, high = module.compute_bounds(x=(x,), method=METHODS[json.loads(line)])
        print(json.dumps({"low": low.tolist(), "high": high.tolist()}), file=answers, flush=True)


if __name__ == "__main__":
    main()
