"""Our networks and everybody else's: parameter counts, shapes, modes, errors."""

import pytest
import torch
from torch import nn

import noiseproof as npf
from noiseproof import config
from noiseproof.data import Splits, Task
from noiseproof.networks import CNN, MLP, VGG5, VGG11, ResNet12
from noiseproof.networks.adapt import check_fits
from noiseproof.parameters import call_inference, inference_mode, is_mode_free
from noiseproof.randomness import generator

TASK = Task("images", (1, 28, 28), 10, (0.3,), (0.4,), (0.0, 1.0))


def test_the_cnn_of_paper_a_has_its_parameters() -> None:
    network = CNN().build(TASK, generator("weights", 0))
    assert sum(p.numel() for p in network.parameters()) == 493_642
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_the_cnn_is_the_plain_one() -> None:
    """Layout, padding and the order of ReLU and pooling change nothing in the function."""
    network = CNN().build(TASK, generator("weights", 0)).double()
    p = dict(network.named_parameters())
    x = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    f = nn.functional
    plain = f.pad((x - 0.3) / 0.4, (1, 2, 1, 2))
    for layer in ("conv1", "conv2"):
        plain = f.max_pool2d(f.relu(f.conv2d(plain, p[f"{layer}.weight"], p[f"{layer}.bias"])), 2)
    plain = plain.flatten(1)
    for layer in ("fc1", "fc2"):
        plain = f.relu(f.linear(plain, p[f"{layer}.weight"], p[f"{layer}.bias"]))
    plain = f.linear(plain, p["out.weight"], p["out.bias"])
    assert torch.allclose(network(x), plain, atol=1e-6)  # mean and std are float32 buffers


COLOUR = Task("images", (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, (0.0, 1.0))


@pytest.mark.parametrize(
    ("architecture", "parameters"),
    [
        # kernels 3·3·in·out of 3→16, 16→32, 32→32 channels, dense 8·8·32→50→50→10, no biases; a threshold and a leak each of 5 layers
        (VGG5(width=0.25, dense=50), 27 * 16 + 9 * 16 * 32 + 9 * 32 * 32 + 2048 * 50 + 50 * 50 + 500 + 10),
        (VGG5(width=0.25, dense=50, neuron="relu"), 27 * 16 + 9 * 16 * 32 + 9 * 32 * 32 + 2048 * 50 + 50 * 50 + 500),
        # 3→1→1→1 channels: at least one of each
        (VGG5(width=0.001, dense=3, neuron="relu"), 27 + 9 + 9 + 64 * 3 + 9 + 30),
        # conv 16; blocks of 16, 32, 32, 64, 128 channels with 1×1 shortcuts where they change; 2·2·128 → 10
        (
            ResNet12(width=0.25, neuron="relu"),
            27 * 16 + 9 * (2 * 16 * 16 + 16 * 32 + 3 * 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128)
            + (16 * 32 + 32 * 64 + 64 * 128) + 512 * 10,
        ),
    ],
    ids=["vgg5", "vgg5 plain", "vgg5 of one channel", "resnet12"],
)  # fmt: skip
def test_smaller_networks_have_their_parameters(architecture, parameters: int) -> None:
    network = architecture.build(COLOUR, generator("weights", 0))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_settings_for_smaller_networks_make_no_old_run_a_stranger() -> None:
    for architecture in (VGG5, VGG11, ResNet12):
        assert "width" not in config._chosen(architecture())
        assert npf.Experiment(network=architecture()).identity != npf.Experiment(network=architecture(width=0.5)).identity
    assert npf.Experiment(network=VGG5()).identity == "4c86f8a6351609ea"  # that of a run before there were any


@pytest.mark.parametrize(
    ("settings", "message"), [({"width": 0.0}, "width is 0.0"), ({"dense": 0}, "dense is 0"), ({"dense": 1.5}, "dense is 1.5")]
)
def test_sizes_out_of_range_are_named(settings, message) -> None:
    with pytest.raises(npf.NoiseproofError, match=message):
        VGG5(**settings)


@pytest.mark.parametrize("architecture", [CNN(), MLP(hidden=(20, 30))])
def test_vmap_over_parameters_equals_a_loop(architecture) -> None:
    network = architecture.build(TASK, generator("weights", 0))
    x = torch.rand(4, 1, 28, 28)
    chips = [npf.noise.Mismatch(zeta=0.3)(dict(network.named_parameters()), generator("chip", 0, i)) for i in range(3)]
    stacked = {name: torch.stack([chip[name].detach() for chip in chips]) for name in chips[0]}
    batched = torch.vmap(lambda p: torch.func.functional_call(network, p, (x,)))(stacked)
    for chip, logits in zip(chips, batched, strict=True):
        assert torch.allclose(torch.func.functional_call(network, chip, (x,)), logits, atol=1e-5)


def test_images_of_another_size_are_named() -> None:
    with pytest.raises(npf.NoiseproofError, match=r"network cnn takes \[1, 28, 28\]"):
        CNN().build(Task("small", (1, 8, 8), 10, (0.0,), (1.0,), (0.0, 1.0)), generator("weights", 0))
    with pytest.raises(npf.NoiseproofError, match=r"x is of shape \(2, 1, 32, 32\): this network takes \[batch, 1, 28, 28\]"):
        CNN().build(TASK, generator("weights", 0))(torch.rand(2, 1, 32, 32))


def test_adapt_changes_nothing(outside: nn.Module) -> None:
    before = {name: v.clone() for name, v in outside.state_dict().items()}
    hooks = len(outside._forward_hooks)
    network = npf.adapt(outside)
    assert network(torch.rand(2, 1, 28, 28)).shape == (2, 10)
    outside.eval()
    assert torch.equal(network(torch.ones(2, 1, 28, 28)), outside(torch.ones(2, 1, 28, 28)))
    outside.train()
    call_inference(network, dict(network.named_parameters()), torch.rand(2, 1, 28, 28))
    assert outside.training
    assert len(outside._forward_hooks) == hooks
    assert all(torch.equal(v, before[n]) for n, v in outside.state_dict().items() if "norm" not in n)
    assert npf.adapt(network) is network


def test_inference_mode_restores_every_module(outside: nn.Module) -> None:
    outside.train()
    outside.norm.eval()
    with pytest.raises(KeyError), inference_mode(outside):
        assert not any(m.training for m in outside.modules())
        raise KeyError
    assert outside.training
    assert outside.drop.training
    assert not outside.norm.training


def test_mode_free_is_claimed_only_where_it_is_known(outside: nn.Module) -> None:
    assert is_mode_free(CNN().build(TASK, generator("weights", 0)))
    assert is_mode_free(npf.adapt(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))))
    assert not is_mode_free(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784)))
    assert not is_mode_free(outside)


class Returns(nn.Module):
    def __init__(self, value) -> None:
        super().__init__()
        self.fc, self.value = nn.Linear(784, 10), value

    def forward(self, x):
        return self.value(self.fc(x.flatten(1)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda z: (z, z), "the network returns tuple"),
        (lambda z: z[:, None], r"the network returns shape \(2, 1, 10\) for 2 inputs"),
        (lambda z: z[:1], r"the network returns shape \(1, 10\) for 2 inputs"),
        (lambda z: z[:, :4], "gives 4 logits and the data has 10 classes"),
        (lambda z: z / 0, "NaN or infinite"),
    ],
)
def test_a_network_that_gives_no_logits_is_refused(value, message, digits: Splits) -> None:
    for work in (npf.train, npf.evaluate):
        with pytest.raises(npf.NoiseproofError, match=message):
            work(Returns(value), digits, progress=False)


def test_inputs_that_do_not_fit_and_nan_weights_are_named(digits: Splits) -> None:
    with pytest.raises(npf.NoiseproofError, match=r"cannot take inputs of shape \(2, 1, 28, 28\)"):
        check_fits(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits.train.x, 10)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    nn.init.constant_(broken[1].bias, float("nan"))
    with pytest.raises(npf.NoiseproofError, match=r"parameter 1.bias holds NaN"):
        npf.adapt(broken)
    with pytest.raises(npf.NoiseproofError, match="give a torch.nn.Module"):
        npf.adapt(lambda x: x)  # pyright: ignore


def test_a_network_without_matrices_is_refused_before_any_work(digits: Splits) -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(10))

        def forward(self, x):
            return x.flatten(1)[:, :10] * self.scale

    with pytest.raises(npf.NoiseproofError, match="parameters is 'weights'.*known: all, module.scale, weights"):
        npf.evaluate(Scale(), digits, progress=False)
