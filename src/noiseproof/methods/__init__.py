"""Ways to train against changes: one paper, one file. A `Method` is frozen data with one equation, `loss`."""

from noiseproof.methods._base import Context, Method
from noiseproof.methods.dropout import Dropout
from noiseproof.methods.forward_noise import ForwardNoise
from noiseproof.methods.standard import Standard
from noiseproof.methods.weight_adversary import WeightAdversary

__all__ = ["Context", "Dropout", "ForwardNoise", "Method", "Standard", "WeightAdversary"]
