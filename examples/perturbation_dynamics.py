"""What a perturbed current does to one LIF neuron, as in Fig. 1(a) of Ding et al., ICML 2024, and how much it can be enlarged.

The difference of two membrane potentials jitters with every reset. The perturbation dynamics ε[t] = λ·ε[t−1] + Δ[t] leave the
resets out: they are smooth, and their largest gain over all perturbations is known exactly.
"""

import io
from pathlib import Path

import torch
from matplotlib.figure import Figure

import noiseproof as npf
from noiseproof.neurons import LIF
from noiseproof.neurons.dynamics import perturbation_dynamics

STEPS, LEAK = 30, 0.9
clean, perturbed = (torch.full((STEPS, 1, 1), current) for current in (0.3, 0.4))  # times the threshold, 1
layer = LIF(leak=LEAK, reset="hard")

with torch.no_grad():
    before, after = (layer(current, membrane=True).membrane.flatten() for current in (clean, perturbed))
    epsilon = perturbation_dynamics(perturbed - clean, LEAK).flatten()

figure = Figure(figsize=(7, 4), layout="constrained")
axes = figure.subplots()
for values, label, look in (
    (before, "potential, current 0.3", {"color": "tab:red", "linewidth": 0.8}),
    (after, "potential, current 0.4", {"color": "tab:blue", "linewidth": 0.8}),
    (after - before, "their difference", {"color": "black", "linestyle": ":"}),
    (epsilon, "perturbation dynamics ε[t]", {"color": "black"}),
):
    axes.plot(range(1, STEPS + 1), values, label=label, **look)
axes.set_xlabel("time step t")
axes.set_ylabel("in thresholds")
figure.legend(loc="outside upper center", ncols=2)
picture = io.StringIO()
figure.savefig(picture, format="svg", metadata={"Date": None})

rows = "".join(
    f"<tr><td>{steps}</td><td>{npf.evaluation.dynamics_gain(LEAK, steps):.3f}</td>"
    f"<td>{npf.evaluation.dynamics_bound(LEAK, steps):.3f}</td><td>{npf.evaluation.claimed_gain(LEAK):.3f}</td></tr>"
    for steps in (2, 4, 8, 16, 32, 64)
)
svg = picture.getvalue()
Path("perturbation_dynamics.html").write_text(
    f"<!doctype html><meta charset='utf-8'><title>Perturbation dynamics</title>{svg[svg.index('<svg') :]}"
    f"<table><caption>Gain of the dynamics over T steps, λ = {LEAK}</caption>"
    f"<tr><th>T</th><th>exact</th><th>bound (1 − λ^T)/(1 − λ)</th><th>claimed √(1/(1 − λ))</th></tr>{rows}</table>\n",
    encoding="utf-8",
)
