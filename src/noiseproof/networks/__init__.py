"""Networks of the papers, and `adapt` for everybody else's."""

from noiseproof.networks._base import Architecture, Network
from noiseproof.networks.adapt import adapt
from noiseproof.networks.cnn import CNN
from noiseproof.networks.mlp import MLP

__all__ = ["CNN", "MLP", "Architecture", "Network", "adapt"]
