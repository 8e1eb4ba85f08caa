"""A network of one's own, hardened, measured and reported. Run it anywhere: python examples/own_network.py"""

from torch import nn

import noiseproof as npf

data = npf.data.load("digits")
own = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.Tanh(), nn.Dropout(0.1), nn.Linear(100, 10))
network = npf.adapt(own)  # any module that returns logits; it is not changed
npf.train(network, data, npf.methods.WeightAdversary(zeta_attack=0.1, beta_rob=0.25, eta=0.3), epochs=10)
result = npf.evaluate(network, data, noise=[npf.noise.Mismatch(z) for z in (0.1, 0.3, 0.5)], chips=100, attack=(0.1,), name="my network")
result.report("own_network.html")
