"""Networks of the papers, spiking and plain, and `adapt` for everybody else's."""

from noiseproof.networks._base import Architecture, Network
from noiseproof.networks._run import Run
from noiseproof.networks._spiking import SpikingNetwork
from noiseproof.networks._under_noise import UnderNoise
from noiseproof.networks.adapt import adapt
from noiseproof.networks.cnn import CNN
from noiseproof.networks.conversion import Converted, convert
from noiseproof.networks.lsnn import LSNN
from noiseproof.networks.mlp import MLP
from noiseproof.networks.resnet12 import ResNet12
from noiseproof.networks.resnet32 import ResNet32
from noiseproof.networks.vgg5 import VGG5
from noiseproof.networks.vgg11 import VGG11
from noiseproof.networks.wide_resnet import WideResNet

__all__ = [
    "CNN",
    "LSNN",
    "MLP",
    "VGG5",
    "VGG11",
    "Architecture",
    "Converted",
    "Network",
    "ResNet12",
    "ResNet32",
    "Run",
    "SpikingNetwork",
    "UnderNoise",
    "WideResNet",
    "adapt",
    "convert",
]
