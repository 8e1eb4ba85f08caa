from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from noiseproof.attacks.ascent import displace
from noiseproof.attacks.objectives import kl_divergence
from noiseproof.attacks.weights import WeightAttack
from noiseproof.errors import require_number
from noiseproof.methods._base import Batch, Context, Method
from noiseproof.methods.forward_noise import ForwardNoise, RelativeTo
from noiseproof.parameters import Params, call, call_compared, is_mode_free


@dataclass(frozen=True)
class WeightAdversary(Method):
    """Weight-space adversarial regularisation: L = CE(f(x; θ_noisy), y) + β_rob·KL(p(θ) ‖ p(θ*)).

    θ* is the worst point that `WeightAttack` finds in the relative box of half-width ζ_attack, or in the ellipsoid of these
    half-axes times `l2_radius`. The gradient flows through both arguments of the KL and through θ*(θ) = θ + δ·(ζ_attack|θ| + c) with δ
    held constant. In the box this is the exact Jacobian, as δ is made of signs. In an ellipsoid δ itself turns with θ, which is
    left out: θ* scales with θ, its direction is a constant.
    θ_noisy is that of `ForwardNoise`, plain θ for η = 0. The two arguments of the KL, and the search, are computed without dropout
    and with the batch's own statistics in batch norm: the KL is zero at θ* = θ, and cannot be made small by running
    statistics that lag behind the weights (`noiseproof.parameters.call_compared`).
    Source: Büchel, Faber, Muir, "Network insensitivity to parameter noise via adversarial regularization",
    arXiv:2106.05009, L_gen, eq. (2), Algorithm 1; its printed Jacobian contradicts its own derivation and is not used.
    Published: β_rob 0.25 alone and 0.1 with forward noise η 0.3 (images and ECG), 0.5 for speech.

    Raises `NoiseproofError` when a setting is out of its range or `parameters` selects nothing.
    """

    # weight of the robustness loss
    beta_rob: float = 0.25
    # half-width of the relative box that the adversary may use
    zeta_attack: float = 0.1
    # gradient steps of the adversary
    steps: int = 10
    # independent starts of the adversary; the worst is taken
    restarts: int = 1
    # shape of the set: box, ellipsoid in its own metric, ellipsoid with Euclidean steps and projection
    norm: Literal["linf", "l2", "l2-euclidean"] = "linf"
    # radius of the l2 ball in relative coordinates; for norm l2 and l2-euclidean
    l2_radius: float = 1.0
    # standard deviation of the relative start noise
    initial_std: float = 1e-3
    # standard deviation of the forward noise under the task loss (0: none)
    eta: float = 0.0
    # what eta is a share of: each weight, or the largest one of its output channel
    relative_to: RelativeTo = "weight"
    # epochs over which eta rises linearly from 0
    ramp_up: int = 0
    # constant part of the box, in the unit of the parameters
    zeta_const: float = 0.0
    # treat the perturbation as a constant (Jacobian 1) instead of a function of the parameters
    constant_perturbation: bool = False
    # epochs over which beta_rob rises linearly from 0
    warmup: int = 0
    # weights | all | patterns of names
    parameters: str = "weights"

    def __post_init__(self) -> None:
        require_number("beta_rob", self.beta_rob, 0)
        require_number("zeta_attack", self.zeta_attack, 0, open_low=True)
        require_number("steps", self.steps, 1, whole=True)
        require_number("warmup", self.warmup, 0, whole=True)
        _ = self.attack, self.forward_noise  # they check the other settings

    @property
    def gradient_evaluations(self) -> float:
        # N a start, one at θ*, one at θ, one under forward noise
        return self.restarts * self.steps + 2 + (self.eta > 0)

    def gradient_evaluations_on(self, network: nn.Module) -> float:
        # one more at θ, for the KL, where the task loss cannot share it; under forward noise it never does
        return self.gradient_evaluations + (not self.eta and not is_mode_free(network))

    @property
    def risen_after(self) -> int:
        return max(self.forward_noise.risen_after, self.warmup if self.beta_rob else 0)

    @property
    def attack(self) -> WeightAttack:
        """The adversary of one batch."""
        return WeightAttack(
            zeta=self.zeta_attack,
            norm=self.norm,
            l2_radius=self.l2_radius,
            steps=self.steps,
            restarts=self.restarts,
            initial_std=self.initial_std,
            zeta_const=self.zeta_const,
            parameters=self.parameters,
        )

    @property
    def forward_noise(self) -> ForwardNoise:
        """The noise under the task loss."""
        return ForwardNoise(self.eta, self.relative_to, self.ramp_up, self.parameters)

    def loss(self, network: nn.Module, params: Params, batch: Batch, context: Context) -> Tensor:
        x, y = batch
        if self.eta:
            noisy = self.forward_noise.noise_at(context)(params, context.generator)
            return cross_entropy(call(network, noisy, x), y) + self.robustness(network, params, x, context)
        logits = call(network, params, x)
        # without batch norm or dropout, one pass at θ serves the task loss and the KL
        clean = logits if is_mode_free(network) else None
        return cross_entropy(logits, y) + self.robustness(network, params, x, context, clean)  # A, L_gen

    def robustness(self, network: nn.Module, params: Params, x: Tensor, context: Context, clean: Tensor | None = None) -> Tensor:
        """Return β_rob·KL(p(θ) ‖ p(θ*)), the second part of the loss; `clean`: the logits at θ, where they are known."""
        log_p = (call_compared(network, params, x) if clean is None else clean).log_softmax(-1)
        delta = self.attack.search(network, params, [(x, None)], [log_p.detach()], context.generator, call_compared)
        worst = displace(params, delta, self.zeta_attack, self.zeta_const, constant=self.constant_perturbation)
        log_q = call_compared(network, worst, x).log_softmax(-1)
        return self.beta_at(context) * kl_divergence(log_p, log_q)

    def beta_at(self, context: Context) -> float:
        """Return β_rob of this epoch."""
        return self.beta_rob * context.risen(self.warmup)


method = WeightAdversary
