"""What an adversary does: to inputs (`Attack`), and to parameters (`WeightAttack`, `BitFlips`)."""

from noiseproof.attacks._base import Attack, GradientAttack, Perturbed
from noiseproof.attacks._view import Budget
from noiseproof.attacks.bit_flips import BitFlips, Flipped
from noiseproof.attacks.fgsm import FGSM
from noiseproof.attacks.pgd import PGD
from noiseproof.attacks.r_fgsm import RFGSM
from noiseproof.attacks.weights import Perturbation, WeightAttack

__all__ = [
    "FGSM", "PGD", "RFGSM", "Attack", "BitFlips", "Budget", "Flipped", "GradientAttack", "Perturbation", "Perturbed", "WeightAttack",
]  # fmt: skip
