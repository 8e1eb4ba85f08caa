"""Measurements on trained networks: chips, layer by layer, adversary, landscape, spikes, energy, the level that is tolerated."""

from noiseproof.evaluation.activity import activity
from noiseproof.evaluation.attack_curves import attack_curves
from noiseproof.evaluation.energy import energy
from noiseproof.evaluation.evaluate import Evaluation, certify, check_attack, check_measures, evaluate, measure_all
from noiseproof.evaluation.gain import claimed_gain, dynamics_bound, dynamics_gain, l2_gain, spectral_norm
from noiseproof.evaluation.ladder import Rungs, ladder
from noiseproof.evaluation.landscape import landscape
from noiseproof.evaluation.latency import latency
from noiseproof.evaluation.layers import layer_sensitivity
from noiseproof.evaluation.ledger import Ledger
from noiseproof.evaluation.measures import Measures
from noiseproof.evaluation.membranes import membranes
from noiseproof.evaluation.monte_carlo import monte_carlo
from noiseproof.evaluation.operations import OperationCosts, operation_costs
from noiseproof.evaluation.perturbation import distance_after_lif, perturbation
from noiseproof.evaluation.robustness import robustness
from noiseproof.evaluation.tolerated import tolerated, tolerated_mismatch

__all__ = [
    "Evaluation", "Ledger", "Measures", "OperationCosts", "Rungs", "activity", "attack_curves", "certify", "check_attack", "check_measures",
    "claimed_gain", "distance_after_lif", "dynamics_bound", "dynamics_gain", "energy", "evaluate", "l2_gain", "ladder", "landscape",
    "latency", "layer_sensitivity", "measure_all", "membranes", "monte_carlo", "operation_costs", "perturbation", "robustness",
    "spectral_norm", "tolerated", "tolerated_mismatch",
]  # fmt: skip
