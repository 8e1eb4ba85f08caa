"""The methods on inputs against plain readings of their papers."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

import noiseproof as npf
from noiseproof import config
from noiseproof.attacks import PGD
from noiseproof.cli import main
from noiseproof.data import Splits, Task
from noiseproof.errors import NoiseproofError
from noiseproof.measure import measure
from noiseproof.methods import (
    HIRE,
    TRADES,
    AdversarialTraining,
    Combined,
    Context,
    Free,
    GaussianAugmentation,
    Method,
    Stable,
    Standard,
    WeightAdversary,
)
from noiseproof.methods._perturbing import passes_of
from noiseproof.networks import MLP
from noiseproof.neurons import DLIF, LIF
from noiseproof.neurons.dynamics import layer_dynamics, ms_mppd, perturbation_dynamics, std_distance, tasad
from noiseproof.parameters import call_compared, parameters_of
from noiseproof.randomness import generator, stochastic

TASK = Task("tiny", (6,), 3, (0.5,), (0.3,), (0.0, 1.0))
Batch = tuple[Tensor, Tensor]


def network(neuron: str = "lif", steps: int = 4, **settings: object) -> nn.Module:
    trainable = {"trainable": ("threshold", "leak")} if neuron == "lif" else {}
    chosen = {"hidden": (8, 5), "neuron": neuron, "steps": steps, "threshold": 0.3, "readout": "sum", **trainable, **settings}
    return MLP(**chosen).build(TASK, torch.Generator().manual_seed(0)).double().train()  # pyright: ignore[reportArgumentType]


def some_batch(size: int = 7, seed: int = 1) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(size, 6, generator=draw, dtype=torch.float64), torch.randint(0, 3, (size,), generator=draw)


def context(state: dict[str, Tensor] | None = None, seed: int = 0) -> Context:
    return Context(torch.Generator().manual_seed(seed), state={} if state is None else state)


def descend(network: nn.Module, rate: float = 0.1) -> Callable[..., None]:
    """An update that goes down by plain gradient descent."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)

    def update(loss: Tensor, gradient: object = None, free: object = None) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def same_parameters(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.allclose(p, q, rtol=0, atol=1e-12) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def plain_periods(network: nn.Module, batch: Batch, kappa: Tensor, step: float, eps: float, steps: int, periods: int, clip: bool) -> Tensor:
    """Algorithm 1 of HIRE-SNN for one batch, with membranes that restart; returns κ."""
    x, y = batch
    update = descend(network)
    for _ in range(periods):
        shown = x + kappa
        point = (shown.clamp(0, 1) if clip else shown).requires_grad_()
        loss = cross_entropy(network.run(point, steps=steps).logits, y)
        (gradient,) = torch.autograd.grad(loss, point, retain_graph=True)
        kappa = (kappa + step * gradient.sign()).clamp(-eps, eps)
        update(loss)
    return kappa


@pytest.mark.parametrize("clip", [True, False])
def test_hire_is_algorithm_1(clip: bool) -> None:
    """Two batches, the second smaller: κ of the last period goes on, and the rows without a sample stay."""
    ours, plain, method = network(), network(), HIRE(eps_step=0.02, eps=0.03, periods=2, clip_inputs=clip)
    state, kappa = method.start(ours), torch.zeros(7, 6, dtype=torch.float64)
    for batch in (some_batch(7, 1), some_batch(4, 2)):
        method.step(ours, batch, context(state), descend(ours))
        size = len(batch[0])
        kappa = torch.cat([plain_periods(plain, batch, kappa[:size], 0.02, 0.03, 2, 2, clip), kappa[size:]])
        assert same_parameters(ours, plain)
        assert torch.allclose(state["kappa"], kappa, rtol=0, atol=1e-12)
    assert state["kappa"].abs().amax() == pytest.approx(0.03)
    assert not torch.equal(ours.lif1.threshold, network().lif1.threshold)  # pyright: ignore[reportAttributeAccessIssue]
    assert not torch.equal(ours.lif1.leak, network().lif1.leak)  # pyright: ignore[reportAttributeAccessIssue]


def test_kappa_grows_with_a_larger_batch_and_may_begin_anew() -> None:
    net, state = network(), {}
    for size in (3, 7):
        HIRE().step(net, some_batch(size), context(state), descend(net))
    assert state["kappa"].shape == (7, 6)
    HIRE(carry=False).step(net, some_batch(), context(anew := {}), descend(net))
    assert not anew


def test_membranes_may_go_on() -> None:
    """The second period begins where the first one's membranes stopped; with plain gradient descent of rate 0 both make one run."""
    net, batch = network(), some_batch()
    whole = net.run(batch[0]).logits
    seen = []
    method = HIRE(membranes="carry", eps_step=1e-9)
    for made in method.rounds(net, lambda: dict(net.named_parameters()), batch, context()):
        seen.append(made.loss.item())
    first = net.run(batch[0], steps=2)
    second = net.run(batch[0], steps=2, state=first.state)
    assert torch.allclose(first.logits + second.logits, whole)
    assert seen == pytest.approx([cross_entropy(run.logits, batch[1]).item() for run in (first, second)], abs=1e-6)


def test_hire_with_gaussian_noise_has_its_standard_deviation() -> None:
    net, x = network(), torch.full((500, 6), 0.5, dtype=torch.float64)
    made = next(
        HIRE(noise="gaussian", eps_step=0.05).rounds(net, lambda: dict(net.named_parameters()), (x, torch.zeros(500).long()), context())
    )
    assert (made.inputs - x).std().item() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("net", "method", "message"),
    [
        (lambda: network("relu"), HIRE(), "no spiking neurons"),
        (lambda: network(steps=5), HIRE(), "periods is 2: the network has 5 steps"),
        (lambda: network("dlif"), HIRE(), "dlif neurons have a\\[t\\] for 4 steps"),
        (lambda: network("relu"), Stable(), "no spiking neurons; take adversarial-training, or rho = 0"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(net: Callable[[], nn.Module], method: Method, message: str) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        method.start(net())


@pytest.mark.parametrize(
    ("method", "passes"),
    [(HIRE(periods=2), 1), (Free(replays=3), 1), (Combined(weights=WeightAdversary(steps=1), inputs=Free(replays=2)), 4)],
)
def test_every_round_of_a_batch_sees_spikes_of_its_own(method: Method, passes: int) -> None:
    """In Poisson coding; within a round all passes see the same, and a repeated step sees them again."""

    def shown() -> list[Tensor]:
        net, seen = network(coding="poisson", steps=12), []
        net.normalise.register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))  # pyright: ignore
        batch = torch.full((7, 6), 0.5, dtype=torch.float64), torch.zeros(7).long()
        with stochastic(0, 3):
            method.step(net, batch, context(method.start(net)), descend(net, 0.0))
        return seen

    first, again = shown(), shown()
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    rounds = [first[i : i + passes] for i in range(0, len(first), passes)]
    assert len(rounds) == method.updates > 1
    # nothing is added to the inputs of the first one yet
    assert all(torch.equal(one, rounds[0][0]) for one in rounds[0])
    # of two draws at rates near a half about every second spike differs; of one only those between the two rates
    for one, other in itertools.pairwise(rounds):
        assert (one[0] != other[0]).double().mean() > 0.3


def test_no_gradient_to_the_input_is_said() -> None:
    class Blocked(nn.Module):
        bounds = (0.0, 1.0)

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.detach())

    net = Blocked()
    with pytest.raises(npf.NoiseproofError, match="passes no gradient to its input"):
        Free(replays=2).step(net, some_batch(), context(), descend(net))


def test_free_replays_every_batch() -> None:
    """m updates a batch; δ climbs by the gradient of the very pass that trains, and goes on with the next batch."""
    ours, plain, state = network("relu"), network("relu"), {}
    delta = torch.zeros(7, 6, dtype=torch.float64)
    update = descend(plain)
    for batch in (some_batch(7, 1), some_batch(4, 2)):
        Free(replays=3, eps=0.05).step(ours, batch, context(state), descend(ours))
        x, y = batch
        for _ in range(3):
            point = (x + delta[: len(x)]).clamp(0, 1).requires_grad_()
            loss = cross_entropy(plain(point), y)
            (gradient,) = torch.autograd.grad(loss, point, retain_graph=True)
            update(loss)
            delta[: len(x)] = (delta[: len(x)] + 0.05 * gradient.sign()).clamp(-0.05, 0.05)
        assert same_parameters(ours, plain)
        assert torch.equal(state["delta"], delta)


@pytest.mark.parametrize("neuron", ["relu", "lif"])
def test_trades_is_its_equation(neuron: str) -> None:
    net, (x, y) = network(neuron), some_batch()
    method, params = TRADES(beta=2.0, eps=0.1, steps=3, step_size=0.05), dict(net.named_parameters())
    loss = method.loss(net, params, (x, y), context())
    worse = PGD(0.1, steps=3, step=0.05, loss="kl").craft(net, params, x, y, context().generator)
    assert 0.09 < float((worse - x).abs().amax()) <= 0.1
    kl = kl_div(net(worse).log_softmax(-1), net(x).log_softmax(-1), log_target=True, reduction="batchmean")
    plain = cross_entropy(net(x), y) + 2.0 * kl
    found, wanted = (torch.autograd.grad(value, list(params.values())) for value in (loss, plain))
    assert loss.item() == pytest.approx(plain.item(), abs=1e-12)
    assert all(torch.allclose(f, w, rtol=0, atol=1e-12) for f, w in zip(found, wanted, strict=True))


def test_adversarial_training_mixes_clean_and_perturbed() -> None:
    net, (x, y) = network("relu"), some_batch()
    params = dict(net.named_parameters())
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(net(point), y), point)
    worse = (x + 0.1 * gradient.sign()).clamp(0, 1)
    for mix in (0.0, 0.3):
        loss = AdversarialTraining("fgsm(eps=0.1)", mix).loss(net, params, (x, y), context())
        plain = mix * cross_entropy(net(x), y) + (1 - mix) * cross_entropy(net(worse), y)
        assert loss.item() == pytest.approx(plain.item(), abs=1e-7)


def test_adversarial_training_withstands_more(digits: Splits) -> None:
    scores = {}
    for name, method in (("standard", Standard()), ("trained", AdversarialTraining("pgd(eps=0.1, steps=3)", 0.5))):
        net = MLP(hidden=(32,)).build(digits.task, torch.Generator().manual_seed(0))
        npf.train(net, digits, method, epochs=15, batch_size=20, progress=False)
        scores[name] = PGD(0.1, steps=10)(net, digits.test.x, digits.test.y, torch.Generator().manual_seed(0)).accuracy
    assert scores["trained"] > scores["standard"] + 0.1


def test_augmentation_has_its_standard_deviation_inside_the_range() -> None:
    net, x = network("relu"), torch.full((500, 6), 0.5, dtype=torch.float64)
    x[:, 0] = 0.0
    noisy = GaussianAugmentation(0.1).perturb(net, {}, (x, x), context())
    assert (noisy - x)[:, 1:].std().item() == pytest.approx(0.1, rel=0.05)
    assert noisy.amin() == 0


def test_the_cost_of_an_attack_is_counted() -> None:
    texts = ("fgsm", "r-fgsm", "pgd(steps=7)", "pgd(steps=3, restarts=2)", "pgd(steps=3, loss=kl)", "pgd(steps=3, surrogate=atan)")
    assert [passes_of(text) for text in texts] == [1, 1, 7, 6, 3, 3]
    assert passes_of("random-noise(kind=gaussian, eps=8/255)") == 0


def test_distances_against_loops() -> None:
    draw = torch.Generator().manual_seed(0)
    delta = torch.randn(5, 3, 4, 2, generator=draw, dtype=torch.float64)
    leak = torch.rand(5, generator=draw, dtype=torch.float64)
    s, t = (torch.randint(0, 2, (5, 3, 4, 2), generator=draw).double() for _ in range(2))
    epsilon, total = torch.zeros(3, 4, 2).double(), torch.zeros(3).double()
    for step in range(5):
        epsilon = leak[step] * epsilon + delta[step]
        total += epsilon.square().flatten(1).sum(1)
    assert torch.allclose(ms_mppd(perturbation_dynamics(delta, leak), "sum"), total)
    assert torch.allclose(ms_mppd(perturbation_dynamics(delta, leak)), total / 40)
    assert torch.allclose(perturbation_dynamics(delta, 0.5), perturbation_dynamics(delta, torch.full((1, 1, 4, 1), 0.5).double()))
    for b in range(3):
        rates = (s[:, b].sum(0) - t[:, b].sum(0)) / 5
        assert tasad(s, t)[b].item() == pytest.approx(rates.norm().item())
        assert std_distance(s, t)[b].item() == pytest.approx(sum(float((s[i, b] - t[i, b]).norm() ** 2) for i in range(5)) ** 0.5)


def test_without_resets_the_dynamics_are_those_of_the_membrane() -> None:
    """A layer that never fires: the difference of two potentials is ε, for λ, for a[t] on it, and for a gain."""
    draw = torch.Generator().manual_seed(0)
    one, two = (torch.randn(4, 2, 3, generator=draw).double() for _ in range(2))
    for layer in (LIF(tau=3.0, threshold=99.0, decay_input=True), DLIF(steps=4, threshold=99.0), DLIF(steps=4, on="input", threshold=99.0)):
        layer = layer.double()
        if isinstance(layer, DLIF):
            layer.a.data.uniform_(0.3, 0.9, generator=draw)
        apart = layer(one, membrane=True).membrane - layer(two, membrane=True).membrane
        assert torch.allclose(layer_dynamics(layer, one - two, effective=True), apart)
    plain = LIF(leak=0.7, threshold=99.0).double()
    assert torch.allclose(layer_dynamics(plain, one - two), plain(one, membrane=True).membrane - plain(two, membrane=True).membrane)


@pytest.mark.parametrize("neuron", ["lif", "dlif"])
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_stable_is_its_equation(neuron: str, reduce: str) -> None:
    net, (x, y) = network(neuron), some_batch()
    if neuron == "dlif":
        for layer in (net.dlif1, net.dlif2):  # pyright: ignore[reportAttributeAccessIssue]
            layer.a.data.copy_(torch.tensor([0.9, 0.5, 0.8, 0.7]))
    method = Stable("pgd(eps=0.2, steps=2)", mix=0.3, rho=1.5, reduce=reduce, detach_clean=False)
    params = dict(net.named_parameters())
    worse = PGD(0.2, steps=2).craft(net, params, x, y, context().generator)
    clean, moved = (net.run(z, record=("current",)) for z in (x, worse))
    last = f"{neuron}2"
    leak = net.get_submodule(last).leak.item()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue] (0.9 in float32)
    epsilon, squares = torch.zeros(7, 5).double(), torch.zeros(()).double()
    for t in range(4):
        epsilon = leak * epsilon + clean.traces["current"][last][t] - moved.traces["current"][last][t]
        squares = squares + epsilon.square().sum() / 7
    assert squares > 0
    task = 0.3 * cross_entropy(clean.logits, y) + 0.7 * cross_entropy(moved.logits, y)
    plain = task + 1.5 * (squares if reduce == "sum" else squares / 20)
    loss = method.loss(net, params, (x, y), context())
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    named = Stable("pgd(eps=0.2, steps=2)", mix=0.3, rho=1.5, reduce=reduce, layer=last, leak=leak)
    assert named.loss(net, params, (x, y), context()).item() == pytest.approx(plain.item(), abs=1e-6)
    with pytest.raises(npf.NoiseproofError, match=f"layer is '{neuron}3': did you mean"):
        Stable(layer=f"{neuron}3").loss(net, params, (x, y), context())


@pytest.mark.parametrize(("distance", "equation"), [("tasad", tasad), ("std", std_distance)])
def test_stable_with_other_distances(distance: str, equation: Callable[[Tensor, Tensor], Tensor]) -> None:
    net, (x, y) = network(), some_batch()
    params = dict(net.named_parameters())
    worse = PGD(0.3, steps=2).craft(net, params, x, y, context().generator)
    clean, moved = (net.run(z, record=("spikes",)).traces["spikes"]["lif2"] for z in (x, worse))
    apart = equation(clean, moved).mean()
    assert apart > 0
    with_it, without = (
        Stable("pgd(eps=0.3, steps=2)", rho=rho, distance=distance).loss(net, params, (x, y), context()) for rho in (1.0, 0.0)
    )  # pyright: ignore[reportArgumentType]
    assert (with_it - without).item() == pytest.approx(apart.item(), abs=1e-6)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(with_it, list(params.values())))


@pytest.mark.parametrize("at", ["clean", "perturbed"])
@pytest.mark.parametrize(
    "inputs", [AdversarialTraining("pgd(eps=0.1, steps=2)"), Stable(), HIRE(), Free(replays=2)], ids=lambda m: type(m).__name__
)
def test_combined_is_the_sum(inputs: Method, at: str) -> None:
    """For every update: the loss of the method on inputs, and β_rob·KL at the worst weights, which autograd differentiates."""
    adversary = WeightAdversary(beta_rob=0.7, steps=2, zeta_attack=0.2)
    net, batch = network(), some_batch()
    params = dict(net.named_parameters())
    method = Combined(adversary, inputs, at)  # pyright: ignore[reportArgumentType]
    both = context()
    made = list(method.rounds(net, lambda: params, batch, both))
    assert len(made) == method.updates == inputs.updates
    alone = context()
    for i, expected in enumerate(inputs.rounds(net, lambda: params, batch, alone)):
        x = batch[0] if at == "clean" else expected.inputs
        log_p = call_compared(net, params, x).log_softmax(-1)
        delta = adversary.attack.search(net, params, [(x, None)], [log_p.detach()], alone.generator, call_compared)
        star = {name: p + delta[name] * 0.2 * p.abs() if name in delta else p for name, p in params.items()}
        kl = kl_div(call_compared(net, star, x).log_softmax(-1), log_p, log_target=True, reduction="batchmean")
        assert kl > 1e-3
        assert made[i].loss.item() == pytest.approx((expected.loss + 0.7 * kl).item(), abs=1e-9)


def test_combined_makes_its_inputs_under_forward_noise() -> None:
    net, batch = network("relu"), some_batch()
    params = dict(net.named_parameters())
    adversary = WeightAdversary(beta_rob=0.0, steps=1, eta=0.3)
    loss = Combined(adversary, AdversarialTraining("fgsm(eps=0.1)")).loss(net, params, batch, context())
    noisy = npf.noise.Mismatch(0.3)(params, context().generator)
    plain = AdversarialTraining("fgsm(eps=0.1)").loss(net, noisy, batch, context())
    assert loss.item() == pytest.approx(plain.item(), abs=1e-9)


def test_combined_withstands_weights_and_inputs(digits: Splits) -> None:
    """Beside adversarial training alone, at equal inputs: the worst weights do less harm."""
    scores = {}
    inputs = AdversarialTraining("pgd(eps=0.05, steps=2)", 0.5)
    for name, method in (("alone", inputs), ("both", Combined(WeightAdversary(beta_rob=0.5, zeta_attack=0.2, steps=3), inputs))):
        net = MLP(hidden=(32,)).build(digits.task, torch.Generator().manual_seed(0))
        npf.train(net, digits, method, epochs=15, batch_size=20, progress=False)
        attack, params = npf.attacks.WeightAttack(zeta=0.3), parameters_of(net)
        worst = attack(net, params, [(digits.test.x, digits.test.y)], torch.Generator().manual_seed(0))
        scores[name] = measure(net, worst.params, digits.test.x, digits.test.y).accuracy
    assert scores["both"] > scores["alone"]


def test_the_methods_of_combined_are_named_first_and_have_their_own_flags(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--data", "digits", "--limit-train", "60", "--epochs", "1", "--network", "mlp", "--network.neuron", "lif"]
    words += ["--method", "combined", "--method.weights=weight-adversary", "--method.inputs", "hire"]
    words += ["--method.weights.steps", "1", "--method.inputs.eps-step", "4/255", "--out", str(tmp_path / "run")]
    main(list(words))
    found = config.from_dict(config.load_toml(tmp_path / "run" / "experiment.toml")).method
    assert found == Combined(WeightAdversary(steps=1), HIRE(eps_step=4 / 255))
    words[words.index("hire")] = "hired"
    with pytest.raises(SystemExit):
        main(list(words))
    assert "method is 'hired': did you mean 'hire'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "field"),
    [
        (AdversarialTraining(attack="pgd(eps=25, steps=2)"), "eps is 25"),
        (TRADES(eps=8.0), "eps is 8"),
        (Free(eps=8.0), "eps is 8"),
        (HIRE(eps_step=8.0), "eps_step is 8"),
        (Stable(perturbation="r-fgsm(eps=4)"), "eps is 4"),
    ],
)
def test_a_size_that_does_not_fit_the_data_is_said_before_training(method: Method, field: str, digits: Splits) -> None:
    network = MLP(hidden=(8,), neuron="lif", steps=4, threshold=0.3).build(digits.task, generator("weights", 0))
    with pytest.raises(NoiseproofError, match=f"{field}: the data runs from 0 to 1"):
        npf.train(network, digits, method, epochs=1, progress=False)
