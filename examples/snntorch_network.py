"""A convolutional snnTorch network, hardened on its weights and its learnable leaks. pip install snntorch"""

import snntorch as snn
from torch import nn

import noiseproof as npf

data = npf.data.load("digits", limit_train=1000, limit_test=200)
own = nn.Sequential(
    *(nn.Conv2d(1, 8, 5, stride=3), snn.Leaky(beta=0.8, threshold=0.5, learn_beta=True, init_hidden=True)),
    *(nn.Flatten(), nn.Linear(512, 10), snn.Leaky(beta=0.8, learn_beta=True, init_hidden=True, output=True)),
)
# every image is shown for 6 steps; the last layer returns (spikes, membrane), and the mean membrane is read
network = npf.adapt(own, steps=6, output=1, readout="mean")
npf.train(network, data, npf.methods.WeightAdversary(steps=1, beta_rob=0.1, parameters="all"), epochs=10, learning_rate=1e-2)
noise = [npf.noise.Mismatch(0.2), npf.noise.Mismatch(0.2, parameters="all"), npf.noise.Mismatch(0.2, parameters="*.beta")]
result = npf.evaluate(network, data, noise=noise, chips=20, attack=(0.1,), name="snnTorch")
result.report("snntorch_network.html")
