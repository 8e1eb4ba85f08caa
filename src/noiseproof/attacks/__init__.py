"""What an adversary does: to inputs (`Attack`), and to parameters (`WeightAttack`, `PerSampleWeightAttack`, `BitFlips`)."""

from noiseproof.attacks._base import Attack, GradientAttack, Member, Perturbed
from noiseproof.attacks._members import Members
from noiseproof.attacks._view import Budget
from noiseproof.attacks.apgd import APGD
from noiseproof.attacks.autoattack import AutoAttack
from noiseproof.attacks.bit_flips import BitFlips, Flipped
from noiseproof.attacks.ensemble import Ensemble
from noiseproof.attacks.fab import FAB
from noiseproof.attacks.fgsm import FGSM
from noiseproof.attacks.per_sample import Broken, PerSampleWeightAttack
from noiseproof.attacks.pgd import PGD
from noiseproof.attacks.r_fgsm import RFGSM
from noiseproof.attacks.random_noise import RandomNoise
from noiseproof.attacks.rate_gradient import RateGradient
from noiseproof.attacks.square import Square
from noiseproof.attacks.transfer import Transfer
from noiseproof.attacks.tuned_surrogate import TunedSurrogate
from noiseproof.attacks.weights import Perturbation, WeightAttack

__all__ = [
    "APGD", "FAB", "FGSM", "PGD", "RFGSM", "Attack", "AutoAttack", "BitFlips", "Broken", "Budget", "Ensemble", "Flipped", "GradientAttack",
    "Member", "Members", "PerSampleWeightAttack", "Perturbation", "Perturbed", "RandomNoise", "RateGradient", "Square", "Transfer",
    "TunedSurrogate", "WeightAttack",
]  # fmt: skip
