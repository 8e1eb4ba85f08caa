"""A recurrent sinabs network that takes images row by row, as sequences of 28 steps. pip install sinabs"""

import sinabs.layers as sinabs
from torch import nn

import noiseproof as npf

images = npf.data.load("digits", limit_train=1000, limit_test=200)
x, y = images.train.x.squeeze(1), images.train.y  # [N, 28, 28]: [N, time, features]
data = npf.data.from_tensors(x, y, test=(images.test.x.squeeze(1), images.test.y), name="digits, row by row")
hidden = sinabs.LIFRecurrent(tau_mem=30.0, rec_connect=nn.Linear(60, 60), norm_input=False)
own = nn.Sequential(nn.Linear(28, 60), hidden, nn.Linear(60, 10), sinabs.ExpLeak(tau_mem=20.0))
network = npf.adapt(own, sequence=True, readout="mean")
npf.train(network, data, npf.methods.WeightAdversary(steps=1, beta_rob=0.1), epochs=12, learning_rate=5e-3)
neurons = "*.tau_mem,*.spike_threshold"
noise = [npf.noise.Mismatch(0.2), npf.noise.Mismatch(0.2, parameters="all"), npf.noise.Mismatch(0.2, parameters=neurons)]
result = npf.evaluate(network, data, noise=noise, chips=20, attack=(0.1,), name="sinabs")
result.report("sinabs_network.html")
