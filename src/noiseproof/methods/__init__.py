"""Ways to train against changes: one paper, one file. A `Method` is frozen data with one equation, `loss`."""

from noiseproof.methods._base import Context, Method, Round
from noiseproof.methods.abcd import ABCD
from noiseproof.methods.adversarial_training import AdversarialTraining
from noiseproof.methods.amp import AMP
from noiseproof.methods.asam import ASAM
from noiseproof.methods.awp import AWP
from noiseproof.methods.bit_error_training import BitErrorTraining
from noiseproof.methods.certified import Certified
from noiseproof.methods.combined import Combined
from noiseproof.methods.drop_connect import DropConnect
from noiseproof.methods.dropout import Dropout
from noiseproof.methods.entropy_sgd import EntropySGD
from noiseproof.methods.forward_noise import ForwardNoise
from noiseproof.methods.free import Free
from noiseproof.methods.gaussian_augmentation import GaussianAugmentation
from noiseproof.methods.hire import HIRE
from noiseproof.methods.noise_injection import NoiseInjection
from noiseproof.methods.sam import SAM
from noiseproof.methods.stable import Stable
from noiseproof.methods.standard import Standard
from noiseproof.methods.trades import TRADES
from noiseproof.methods.weight_adversary import WeightAdversary

__all__ = [
    "ABCD",
    "AMP",
    "ASAM",
    "AWP",
    "HIRE",
    "SAM",
    "TRADES",
    "AdversarialTraining",
    "BitErrorTraining",
    "Certified",
    "Combined",
    "Context",
    "DropConnect",
    "Dropout",
    "EntropySGD",
    "ForwardNoise",
    "Free",
    "GaussianAugmentation",
    "Method",
    "NoiseInjection",
    "Round",
    "Stable",
    "Standard",
    "WeightAdversary",
]
