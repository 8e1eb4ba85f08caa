"""Random bit errors against a plain loop over weights and bits."""

import itertools

import pytest
import torch

from noiseproof.errors import NoiseproofError
from noiseproof.noise import BitErrors, Quantisation
from noiseproof.noise.bit_errors import flipped_bits
from noiseproof.randomness import chip_generator


def weights() -> torch.Tensor:
    return torch.randn(25, 16, generator=torch.Generator().manual_seed(2))


def plain(w: torch.Tensor, mask: torch.Tensor, noise: BitErrors) -> torch.Tensor:
    """One weight at a time, its word as a string of bits."""
    low, high = float(w.min()), float(w.max())
    if noise.range == "symmetric":
        low, high = -float(w.abs().max()), float(w.abs().max())
    middle, half, largest = (low + high) / 2, (high - low) / 2, 2 ** (noise.bits - 1) - 1
    found = []
    for value, flips in zip(w.flatten().tolist(), mask.flatten().tolist(), strict=True):
        scaled = (value - middle) / half * largest
        code = round(scaled) if noise.rounding == "nearest" else int(scaled)
        word = code + largest if noise.encoding == "unsigned" else code % 2**noise.bits
        text = f"{word:0{noise.bits}b}"[::-1]
        text = "".join("01"[(bit == "1") != bool(flips >> i & 1)] for i, bit in enumerate(text))[::-1]
        word = int(text, 2)
        code = word - largest if noise.encoding == "unsigned" else word - (2**noise.bits if text[0] == "1" else 0)
        found.append(middle + code / largest * half)
    return torch.tensor(found).view_as(w)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 12])
@pytest.mark.parametrize("range_", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("encoding", ["signed", "unsigned"])
@pytest.mark.parametrize("rounding", ["nearest", "toward-zero"])
def test_it_equals_a_loop_over_weights_and_bits(bits, range_, encoding, rounding) -> None:
    noise = BitErrors(p=0.2, bits=bits, range=range_, encoding=encoding, rounding=rounding)
    w = weights() + 0.3
    stream = torch.Generator().manual_seed(5)
    mask = flipped_bits(w.shape, bits, 0.2, torch.Generator().manual_seed(5))
    assert torch.allclose(noise.draw(w, stream), plain(w, mask, noise), atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 1e-4, 0.01, 0.3, 1.0])
def test_every_bit_is_flipped_with_probability_p(p: float) -> None:
    mask = flipped_bits(torch.Size([200000]), 8, p, torch.Generator().manual_seed(0))
    for i in range(8):
        rate = float((mask >> i & 1).double().mean())
        assert abs(rate - p) <= 5 * (p * (1 - p) / 200000) ** 0.5
    assert 0 <= int(mask.min()) <= int(mask.max()) < 2**8


def test_bits_are_flipped_independently() -> None:
    mask = flipped_bits(torch.Size([400000]), 2, 0.1, torch.Generator().manual_seed(0))
    both = float((mask == 3).double().mean())
    assert both == pytest.approx(0.01, abs=5 * (0.01 / 400000) ** 0.5)


def test_more_errors_contain_fewer() -> None:
    masks = [flipped_bits(torch.Size([5000]), 8, p, chip_generator(0, 3)) for p in (0.0, 1e-3, 0.01, 0.1, 0.5, 1.0)]
    for fewer, more in itertools.pairwise(masks):
        assert torch.equal(fewer & more, fewer)
    assert int(masks[0].max()) == 0
    assert torch.equal(masks[-1], torch.full((5000,), 255, dtype=torch.int32))
    counts = [int((m != 0).sum()) for m in masks]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("encoding", ["signed", "unsigned"])
def test_a_flip_of_bit_i_moves_a_weight_by_two_to_the_i_steps(encoding) -> None:
    grid = Quantisation(bits=8).grid
    w = torch.linspace(-1, 1, 255).view(5, 51)
    codes, stored = grid.encode(w, torch.Generator())
    assert torch.equal(codes.flatten(), torch.arange(-127, 128, dtype=torch.int32))
    for i in range(8):
        flipped = stored.flip(codes, torch.full_like(codes, 1 << i), encoding)
        assert ((flipped - codes).abs() == 2**i).all()
        assert torch.equal(stored.flip(flipped, torch.full_like(codes, 1 << i), encoding), codes)


def test_one_bit_is_a_sign_that_flips() -> None:
    w = {"w": weights()}
    plain_sign = Quantisation(bits=1)(w, torch.Generator())["w"]
    assert torch.equal(BitErrors(p=1.0, bits=1)(w, torch.Generator())["w"], -plain_sign)
    rate = float((BitErrors(p=0.25, bits=1)(w, chip_generator(0, 0))["w"] != plain_sign).float().mean())
    assert rate == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 400) ** 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BitErrors(p=-0.01), "p is -0.01: give a number of at least 0 and at most 1"),
        (lambda: BitErrors(p=1.5), "p is 1.5"),
        (lambda: BitErrors(bits=0), "bits is 0: give a whole number of at least 1 and at most 16"),
        (lambda: BitErrors(bits=32), "bits is 32"),
        (lambda: BitErrors(encoding="gray"), "encoding is 'gray': give signed or unsigned"),  # pyright: ignore
        (lambda: BitErrors(range="wide"), "range is 'wide': give symmetric or asymmetric"),  # pyright: ignore
        (lambda: BitErrors(rounding="stochastic"), "rounding is 'stochastic': give nearest or toward-zero"),  # pyright: ignore
    ],
)
def test_wrong_settings_are_named(make, message) -> None:
    with pytest.raises(NoiseproofError, match=message):
        make()
