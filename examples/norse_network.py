"""A recurrent Norse network whose threshold is a parameter that noise and training reach. pip install norse"""

import norse.torch as norse
import torch
from norse.torch.functional.lif import LIFParameters
from torch import nn

import noiseproof as npf

data = npf.data.load("digits", limit_train=1000, limit_test=200)
hidden = norse.LIFRecurrentCell(60, 60, p=LIFParameters(v_th=nn.Parameter(torch.tensor(0.3)), alpha=torch.tensor(30.0)))
hidden.v_th = hidden.p.v_th  # Norse keeps it where PyTorch does not look; so it becomes a parameter
own = norse.SequentialState(nn.Flatten(), nn.Linear(784, 60), hidden, nn.Linear(60, 10), norse.LICell())
# noiseproof passes the state from step to step; the last layer gives its membrane, read at its highest
network = npf.adapt(own, steps=8, readout="max")
npf.train(network, data, npf.methods.WeightAdversary(steps=1, beta_rob=0.1), epochs=10, learning_rate=1e-2)
noise = [npf.noise.Mismatch(0.2), npf.noise.Mismatch(0.2, parameters="all"), npf.noise.Mismatch(0.2, parameters="*.v_th")]
result = npf.evaluate(network, data, noise=noise, chips=20, attack=(0.1,), name="Norse")
result.report("norse_network.html")
