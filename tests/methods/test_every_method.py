"""One battery for every method: a new method is one more row."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

import noiseproof as npf
from noiseproof import _names, config, training
from noiseproof.data import Splits, from_tensors
from noiseproof.methods import (
    ABCD,
    AMP,
    ASAM,
    AWP,
    HIRE,
    SAM,
    TRADES,
    AdversarialTraining,
    BitErrorTraining,
    Certified,
    Combined,
    Context,
    DropConnect,
    Dropout,
    EntropySGD,
    ForwardNoise,
    Free,
    GaussianAugmentation,
    Method,
    NoiseInjection,
    Stable,
    Standard,
    WeightAdversary,
)
from noiseproof.networks import LSNN, MLP
from noiseproof.parameters import Params, trained
from noiseproof.randomness import generator

METHODS = {
    "standard": Standard(),
    "dropout": Dropout(p=0.3),
    "drop-connect": DropConnect(p=0.1),
    "drop-connect, unscaled": DropConnect(p=0.03, scale=False, parameters="all"),
    "forward-noise": ForwardNoise(eta=0.3, parameters="all"),
    "forward-noise, of the maximum": ForwardNoise(eta=0.1, relative_to="max", ramp_up=2),
    "noise-injection": NoiseInjection(noise="max-relative-gaussian(eta=0.05) > mismatch(zeta=0.1)"),
    "weight-adversary": WeightAdversary(steps=2),
    "weight-adversary, all options": WeightAdversary(
        steps=2, eta=0.2, relative_to="max", ramp_up=1, zeta_const=0.01, warmup=1, constant_perturbation=True, parameters="all"
    ),
    "weight-adversary, l2": WeightAdversary(steps=2, norm="l2", l2_radius=5.0),
    "weight-adversary, l2-euclidean": WeightAdversary(steps=1, norm="l2-euclidean", l2_radius=5.0),
    "awp": AWP(),
    "awp, relative": AWP(gamma=0.02, form="relative", steps=2),
    "awp, inputs": AWP(eps=0.01, eps_step=0.01, eps_steps=2),
    "bit-error-training": BitErrorTraining(w_max=0.2),
    "amp": AMP(steps=2),
    "certified": Certified(z=0.005, warmup=1),
    "certified, all options": Certified(z=0.002, kappa=0.8, warmup=1, parameters="all"),
    "sam": SAM(),
    "asam": ASAM(),
    "abcd": ABCD(zeta_attack=0.03),
    # the published rates are for networks with batch norm
    "entropy-sgd": EntropySGD(steps=5, inner_rate=0.01, momentum=0.5),
    "adversarial-training": AdversarialTraining(attack="pgd(eps=0.01, steps=2)"),
    "adversarial-training, mixed": AdversarialTraining(attack="fgsm(eps=0.01)", mix=0.5),
    "trades": TRADES(eps=0.01, steps=2, step_size=0.005),
    "gaussian-augmentation": GaussianAugmentation(sigma=0.1),
    "free": Free(replays=2, eps=0.01),
    "hire": HIRE(),
    "hire, all options": HIRE(eps_step=0.02, eps=0.01, membranes="carry", clip_inputs=False, carry=False),
    "stable": Stable(rho=0.02, perturbation="r-fgsm(eps=0.01)"),
    "stable, all options": Stable("pgd(eps=0.01, steps=2)", mix=0.8, rho=0.01, layer="", leak=0.8, detach_clean=False, reduce="sum"),
    "combined": Combined(weights=WeightAdversary(steps=1), inputs=AdversarialTraining(attack="fgsm(eps=0.01)")),
    "combined, hire": Combined(weights=WeightAdversary(steps=1, eta=0.1), inputs=HIRE(), at="perturbed"),
}
DETERMINISTIC = (
    "standard",
    "awp",
    "awp, relative",
    "amp",
    "certified",
    "certified, all options",
    "sam",
    "asam",
    "adversarial-training, mixed",
    "free",
    "hire",
    "hire, all options",
)
SPIKING = ("hire", "stable", "combined, hire")  # these need spikes
BOUND = 2  # passes' worth of a bound, which goes through the operations and not through the network
TASK_PASSES = {"adversarial-training, mixed": 2, "trades": 2, "free": 2}  # passes of the task loss, if not one
every_method = pytest.mark.parametrize("name", METHODS)
every_network = pytest.mark.parametrize("kind", ["mlp", "cnn", "lsnn", "vgg5", "outside", "snntorch"])


@dataclass
class Recorder:
    """An `update` that moves nothing: it keeps what a step gives it."""

    network: nn.Module
    losses: list[Tensor] = field(default_factory=list)
    gradients: list[Params] = field(default_factory=list)

    def __call__(self, loss: Tensor, gradient: Params | None = None, free: Params | None = None) -> None:
        params = trained(dict(self.network.named_parameters()))
        if gradient is None:
            gradient = dict(zip(params, torch.autograd.grad(loss, list(params.values())), strict=True))
        for name, mask in (free or {}).items():
            assert not gradient[name][~mask].any(), "what is not free has no gradient"
        self.losses.append(loss.detach())
        self.gradients.append(gradient)


def small_network(name: str, data: Splits, units: int = 32) -> nn.Module:
    spiking = {"neuron": "lif", "steps": 4, "trainable": ("threshold", "leak")} if name.startswith(SPIKING) else {}
    return MLP(hidden=(units,), **spiking).build(data.task, generator("weights", 0))


def refusal(name: str, kind: str) -> str | None:
    """What a method says to a kind of network for which it cannot be meant; None where it can."""
    if name == "dropout" and kind == "snntorch":
        return "adapted spiking network"
    if name.startswith("certified") and kind == "snntorch":
        return "membrane of module.4: bounds are known for spikes"
    if name.startswith(SPIKING) and kind in ("mlp", "cnn", "outside"):
        return "no spiking neurons"
    if "hire" in name and kind == "lsnn":
        return "have a time of their own"
    if name == "hire, all options" and kind == "snntorch":
        return "membranes is 'carry': an adapted network has its own state"
    if name == "stable" and kind == "snntorch":
        return "leak is 0: layer 4 comes from outside"
    return None


def step(method: Method, network: nn.Module, batch: tuple[Tensor, Tensor], seed: int = 0) -> Recorder:
    seen = Recorder(network)
    method.step(network, batch, Context(torch.Generator().manual_seed(seed), state=method.start(network)), seen)
    return seen


def test_the_table_is_complete() -> None:
    assert {key.partition(",")[0] for key in METHODS} == set(_names.available("methods", "method"))


@every_method
def test_training_learns(name: str, digits: Splits) -> None:
    done = npf.train(small_network(name, digits), digits, METHODS[name], epochs=12, batch_size=20, progress=False)
    assert done.history[-1]["train_loss"] < 0.6 * done.history[0]["train_loss"]
    assert max(scores["validation_accuracy"] for scores in done.history) > 0.6  # ten classes, 200 images
    assert done.gradient_evaluations == METHODS[name].gradient_evaluations


@every_method
@every_network
def test_a_step_leaves_parameters_mode_and_buffers(name: str, kind: str, case_of: Callable) -> None:
    if name == "weight-adversary, l2-euclidean" and kind == "vgg5":
        pytest.skip("its root search takes ten seconds for 17 M parameters, and is the same on every network")
    if name == "combined, hire" and kind == "vgg5":
        pytest.skip("ten passes with 17 M parameters")
    network, batch = case_of(kind)
    if (refused := refusal(name, kind)) is not None:
        with pytest.raises(npf.NoiseproofError, match=refused):
            step(METHODS[name], network, batch)
        return
    list(network.modules())[-1].training = False  # a mode of its own, as users freeze layers
    before = copy.deepcopy(network.state_dict())
    modes = [m.training for m in network.modules()]
    seen = step(METHODS[name], network, batch)
    assert seen.losses
    assert all(torch.isfinite(loss) for loss in seen.losses)
    for gradient in seen.gradients:
        assert gradient.keys() == trained(dict(network.named_parameters())).keys()
        assert all(torch.isfinite(g).all() and g.any() for g in gradient.values()), [n for n, g in gradient.items() if not g.any()]
    assert [m.training for m in network.modules()] == modes
    for key, value in network.state_dict().items():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):  # these follow the task loss, as in plain training
            assert torch.equal(value, before[key]), key
    tracked = [v for key, v in network.state_dict().items() if key.endswith("num_batches_tracked")]
    assert all(int(v) == TASK_PASSES.get(name, 1) for v in tracked), "batch norm saw more than the passes of the task loss"


@every_method
def test_equal_generators_give_equal_steps(name: str, digits: Splits) -> None:
    network, batch = small_network(name, digits), (digits.train.x[:8], digits.train.y[:8])
    first, again, other = (step(METHODS[name], network, batch, seed).gradients[0] for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(torch.equal(first[key], other[key]) for key in first) == (name in DETERMINISTIC)


@every_method
def test_a_step_makes_the_passes_that_it_says(name: str, digits: Splits) -> None:
    passes, network, method = [], small_network(name, digits), METHODS[name]
    network.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    seen = step(method, network, (digits.train.x[:8], digits.train.y[:8]))
    # of hire all passes of a batch together have the steps of one
    bound = BOUND if name.startswith("certified") else 0
    assert sum(passes) + bound == method.gradient_evaluations + (method.updates - 1 if "hire" in name else 0)
    assert len(seen.losses) == method.updates


@every_method
def test_the_penalty_on_rates_goes_with_it(name: str, digits: Splits) -> None:
    """Handwritten digits, read row by row."""
    rows = digits.train.x[:60].flatten(1).view(60, 28, 28)
    data = from_tensors(rows, digits.train.y[:60], classes=10)

    def after_training(weight: float) -> Params:
        network, its_data = LSNN(units=12).build(data.task, generator("weights", 0)), data
        if name.startswith(SPIKING):  # the pixels that are always black make currents without bounds for stable, and hire takes no rows
            network, its_data = small_network(name, digits, units=12), digits
        epochs = METHODS[name].risen_after + 1
        npf.train(network, its_data, METHODS[name], epochs=epochs, batch_size=20, progress=False, rate_penalty=weight)
        return {key: p.detach() for key, p in network.named_parameters()}

    without, with_it = after_training(0.0), after_training(1e-3)
    assert all(torch.isfinite(p).all() for p in with_it.values())
    first = next(iter(without))
    assert not torch.equal(without[first], with_it[first])


@every_method
def test_it_trains_in_bfloat16(name: str, digits: Splits) -> None:
    network, epochs = small_network(name, digits), max(2, METHODS[name].risen_after + 1)
    done = npf.train(network, digits, METHODS[name], epochs=epochs, batch_size=50, precision="bfloat16", progress=False)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in network.parameters())
    assert done.epoch == epochs


@every_method
def test_config_round_trip(name: str) -> None:
    experiment = npf.Experiment(method=METHODS[name])
    assert config.from_dict(config.to_dict(experiment)) == experiment
    assert config.from_dict(config.to_dict(experiment)).identity == experiment.identity


@every_method
def test_interrupted_equals_uninterrupted(name: str, digits: Splits, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def network() -> nn.Module:
        return small_network(name, digits, units=16)

    method = METHODS[name]
    settings = {"epochs": 3, "batch_size": 30, "progress": False, "track_attack": 0.1}
    whole = network()
    npf.train(whole, digits, method, **settings)

    first = network()
    with monkeypatch.context() as patch:
        patch.setattr(training, "_validate", _interrupt_in_epoch(2, training._validate))
        with pytest.raises(KeyboardInterrupt):
            npf.train(first, digits, method, folder=tmp_path, **settings)
    second = network()
    npf.train(second, digits, method, folder=tmp_path, **settings)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


def _interrupt_in_epoch(number: int, validate):
    def interrupted(network, split, recipe, epoch):
        if epoch + 1 == number:
            raise KeyboardInterrupt
        return validate(network, split, recipe, epoch)

    return interrupted


def test_dropout_is_inverted_and_per_sample() -> None:
    """On a linear read-out of constant hidden units the mean is kept and samples differ."""
    network = nn.Sequential(nn.ReLU())
    from noiseproof.methods.dropout import _HiddenDropout

    with _HiddenDropout(0.3, torch.Generator().manual_seed(0)) as mode:
        seen = network(torch.ones(200, 500))
    assert mode.layers == 1
    assert seen.mean().item() == pytest.approx(1.0, abs=0.01)
    assert seen.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert not torch.equal(seen[0], seen[1])


def test_dropout_needs_hidden_units(digits: Splits) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(npf.NoiseproofError, match="no hidden units"):
        npf.train(network, digits, Dropout(), epochs=1, progress=False)


def test_forward_noise_has_jacobian_one() -> None:
    """The gradient is that of the loss at the noisy point, applied to the nominal parameters."""
    network = nn.Linear(5, 3).double()
    x, y = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
    params = dict(network.named_parameters())
    method = ForwardNoise(eta=0.5)
    loss = method.loss(network, params, (x, y), Context(torch.Generator().manual_seed(0)))
    noisy = npf.noise.Mismatch(zeta=0.5)(params, torch.Generator().manual_seed(0))
    leaves = {name: p.detach().requires_grad_() for name, p in noisy.items()}
    expected = nn.functional.cross_entropy(torch.func.functional_call(network, leaves, (x,)), y)
    for found, wanted in zip(
        torch.autograd.grad(loss, list(params.values())), torch.autograd.grad(expected, list(leaves.values())), strict=True
    ):
        assert torch.allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitErrorTraining(bits=17), "bits is 17"),
        (lambda: BitErrorTraining(w_max=-1), "w_max is -1"),
        (lambda: SAM(rho=-1), "rho is -1"),
        (lambda: ASAM(eta=float("nan")), "eta is nan"),
        (lambda: AMP(steps=0), "steps is 0"),
        (lambda: AWP(form="both"), "form is 'both': give layer or relative"),
        (lambda: AWP(eps_steps=0), "eps_steps is 0"),
        (lambda: ABCD(share=2), "share is 2"),
        (lambda: EntropySGD(momentum=1), "momentum is 1"),
        (lambda: DropConnect(p=1), "p is 1"),
        (lambda: ForwardNoise(relative_to="mean"), "relative_to is 'mean': give weight or max"),
        (lambda: WeightAdversary(norm="l1"), "norm is 'l1': give linf, l2 or l2-euclidean"),
        (lambda: WeightAdversary(ramp_up=-1), "ramp_up is -1"),
        (lambda: AdversarialTraining(mix=2), "mix is 2"),
        (lambda: AdversarialTraining(attack="pgt(eps=0.1)"), "attack is 'pgt': did you mean 'pgd'"),
        (lambda: AdversarialTraining(attack="pgd(eps=0.1|0.2)"), "give one value a setting: a training cannot sweep"),
        (lambda: TRADES(step_size=0), "step_size is 0: give a number above 0"),
        (lambda: GaussianAugmentation(sigma=-1), "sigma is -1"),
        (lambda: Free(replays=0), "replays is 0"),
        (lambda: HIRE(membranes="keep"), "membranes is 'keep': give restart or carry"),
        (lambda: HIRE(eps_step=0), "eps_step is 0"),
        (lambda: Stable(distance="l2"), "distance is 'l2': give ms-mppd, tasad or std"),
        (lambda: Stable(leak=0.9, dynamics="effective"), "leak is 0.9: dynamics effective takes all from the layer"),
        (lambda: Combined(weights=SAM()), "weights is 'sam': give weight-adversary"),
        (lambda: Combined(inputs=EntropySGD()), "inputs is 'entropy-sgd': it takes its steps in a way of its own"),
    ],
)
def test_wrong_settings_are_named(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        make()
