"""A convolutional SpikingJelly network in multi-step mode, with learnable time constants. pip install spikingjelly"""

from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

import noiseproof as npf

data = npf.data.load("digits", limit_train=600, limit_test=200)
# init_tau: not 2, where the learnable w = −log(τ − 1) is 0, which no relative mismatch changes
own = nn.Sequential(
    *(layer.Conv2d(1, 8, 5, stride=3), layer.BatchNorm2d(8), neuron.ParametricLIFNode(init_tau=1.5, detach_reset=True)),
    *(layer.Flatten(), layer.Linear(512, 10), neuron.ParametricLIFNode(init_tau=1.5, detach_reset=True)),
)
functional.set_step_mode(own, "m")  # single-step mode works as well
network = npf.adapt(own, steps=6, readout="mean")  # logits are firing rates
npf.train(network, data, npf.methods.WeightAdversary(steps=1, beta_rob=0.1), epochs=6, learning_rate=1e-2)
noise = [npf.noise.Mismatch(0.2), npf.noise.Mismatch(0.2, parameters="all"), npf.noise.Mismatch(0.2, parameters="*.w")]
result = npf.evaluate(network, data, noise=noise, chips=20, attack=(0.1,), name="SpikingJelly")
result.report("spikingjelly_network.html")
