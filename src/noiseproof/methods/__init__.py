"""Ways to train against changes: one paper, one file. A `Method` is frozen data with one equation, `loss`."""

from noiseproof.methods._base import Context, Method
from noiseproof.methods.abcd import ABCD
from noiseproof.methods.amp import AMP
from noiseproof.methods.asam import ASAM
from noiseproof.methods.awp import AWP
from noiseproof.methods.bit_error_training import BitErrorTraining
from noiseproof.methods.drop_connect import DropConnect
from noiseproof.methods.dropout import Dropout
from noiseproof.methods.entropy_sgd import EntropySGD
from noiseproof.methods.forward_noise import ForwardNoise
from noiseproof.methods.noise_injection import NoiseInjection
from noiseproof.methods.sam import SAM
from noiseproof.methods.standard import Standard
from noiseproof.methods.weight_adversary import WeightAdversary

__all__ = [
    "ABCD",
    "AMP",
    "ASAM",
    "AWP",
    "SAM",
    "BitErrorTraining",
    "Context",
    "DropConnect",
    "Dropout",
    "EntropySGD",
    "ForwardNoise",
    "Method",
    "NoiseInjection",
    "Standard",
    "WeightAdversary",
]
