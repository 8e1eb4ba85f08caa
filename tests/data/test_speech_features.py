"""Log-mel energies and MFCC against a computation by the definition, and what is known of a tone, of silence, of loudness."""

from __future__ import annotations

import io
import math
import wave

import numpy as np
import pytest
from scipy.signal import chirp

from noiseproof.data import _wav
from noiseproof.data._features import BANDS, FLOOR, FRAMES, HIGH, LOG_MEL_BOUNDS, LOW, MFCC_BOUNDS, log_mel, mel_bands, mfcc
from noiseproof.data._wav import at_16_khz, one_second, read_wav
from noiseproof.errors import NoiseproofError

TIME = np.arange(16000) / 16000


def by_definition(sound: np.ndarray, frame: int) -> tuple[list[float], list[float]]:
    """Log-mel and MFCC of one frame: sums written out, no FFT, no matrix, no library."""
    piece = [sound[160 * frame + n] * (0.5 - 0.5 * math.cos(2 * math.pi * n / 480)) for n in range(480)]
    area = sum(0.5 - 0.5 * math.cos(2 * math.pi * n / 480) for n in range(480))
    power = []
    for k in range(257):
        angles = [2 * math.pi * k * n / 512 for n in range(480)]
        re, im = (
            sum(v * math.cos(a) for v, a in zip(piece, angles, strict=True)),
            sum(v * math.sin(a) for v, a in zip(piece, angles, strict=True)),
        )
        power.append((re * re + im * im) / area**2)

    def pitch(hertz: float) -> float:
        return 1127.0 * math.log(1 + hertz / 700)  # HTK's formula with the natural logarithm

    low, high = pitch(20), pitch(4000)
    energies = []
    for band in range(40):
        left, centre, right = (low + (high - low) * (band + i) / 41 for i in range(3))
        total = 0.0
        for k, value in enumerate(power):
            at = pitch(31.25 * k)
            if left < at < right:
                total += value * ((at - left) / (centre - left) if at <= centre else (right - at) / (right - centre))
        energies.append(math.log(total + 1e-10))
    coefficients = []
    for k in range(40):
        scale = math.sqrt((1 if k == 0 else 2) / 40)
        coefficients.append(scale * sum(e * math.cos(math.pi * k * (2 * n + 1) / 80) for n, e in enumerate(energies)))
    return energies, coefficients


@pytest.mark.parametrize("frame", [0, 41, 97])
def test_agrees_with_the_definition(frame: int):
    sound = 0.3 * chirp(TIME, 100, 1, 3500) + np.random.default_rng(0).normal(0, 0.01, 16000)
    energies, coefficients = by_definition(sound, frame)
    found = log_mel(sound[None])
    assert found.shape == (1, FRAMES, BANDS) == (1, 98, 40)
    assert found.dtype == np.float32
    assert np.allclose(found[0, frame], energies, atol=2e-3)  # 1127 is the rounded factor of HTK's formula
    assert np.allclose(mfcc(found)[0, frame], coefficients, atol=1e-2)


@pytest.mark.parametrize("band", [3, 12, 25, 38])
def test_the_energy_of_a_tone_lands_in_its_band(band: int):
    def hertz(pitch: float) -> float:
        return 700 * (10 ** (pitch / 2595) - 1)

    edges = np.linspace(2595 * np.log10(1 + LOW / 700), 2595 * np.log10(1 + HIGH / 700), BANDS + 2)
    tone = np.sin(2 * np.pi * hertz(edges[band + 1]) * TIME)
    energies = log_mel(tone[None])[0]
    assert (energies.argmax(axis=1) == band).all()
    far = [b for b in range(BANDS) if abs(b - band) > 6]
    assert energies[:, far].max() < energies[:, band].min() - 7  # more than 30 dB below


def test_bands_cover_the_range_and_nothing_else():
    bands = mel_bands()
    hertz = np.arange(257) * 31.25
    assert (bands.max(axis=1) > 0.2).all()  # the narrowest band has a bin near its centre
    assert (bands[:, (hertz <= LOW) | (hertz >= HIGH)] == 0).all()
    inside = bands.sum(axis=0)[(hertz > 100) & (hertz < 3800)]
    assert np.allclose(inside, 1)  # triangles that overlap by half add up to one


def test_loudness_and_silence():
    sound = np.random.default_rng(1).normal(0, 0.1, (1, 16000))
    assert np.allclose(log_mel(sound) - log_mel(sound / 10), math.log(100), atol=0.01)  # ten times the amplitude: 20 dB
    assert np.allclose(log_mel(np.zeros((1, 16000))), math.log(FLOOR))
    quieter = mfcc(log_mel(sound)) - mfcc(log_mel(sound / 10))
    assert np.allclose(quieter[..., 0], math.log(100) * math.sqrt(BANDS), atol=0.05)  # loudness is in the first one alone
    assert np.abs(quieter[..., 1:]).max() < 0.05


def test_within_bounds_whatever_the_sound():
    random = np.random.default_rng(2)
    loudest = [np.sign(random.normal(size=16000)), np.ones(16000), np.sign(np.sin(2 * np.pi * 500 * TIME)), np.zeros(16000)]
    energies = log_mel(np.stack(loudest))
    assert LOG_MEL_BOUNDS[0] < energies.min() < energies.max() < LOG_MEL_BOUNDS[1]
    assert MFCC_BOUNDS[0] < mfcc(energies).min() < mfcc(energies).max() < MFCC_BOUNDS[1]


def wav(samples: np.ndarray, rate: int = 16000, width: int = 2) -> bytes:
    """The bytes of a PCM file of samples [n] or [n, channels] within ± 1."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes((samples * 32767).astype("<i2").tobytes() if width == 2 else (samples * 127 + 128).astype(np.uint8).tobytes())
    return file.getvalue()


@pytest.fixture(params=["soundfile", "without"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two ways to read a file."""
    if request.param == "without":
        monkeypatch.setattr(_wav.importlib.util, "find_spec", lambda name: None)
    return request.param


def test_reading(reader: str):
    samples = np.sin(2 * np.pi * 440 * TIME[:500])
    for sound in (samples, np.stack([samples, samples], axis=1)):
        found, rate = read_wav(wav(sound, 8000), "FILE")
        assert (rate, found.shape) == (8000, (500,))
        assert np.allclose(found, samples, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "FILE cannot be read as sound"),
        (b"hello, this is no sound at all" * 9, "FILE cannot be read as sound"),
        (wav(np.zeros(100))[:-50], "FILE is cut off: 194 bytes where its header says 244"),
        (wav(np.zeros(100))[:20], "FILE is cut off"),
        (wav(np.zeros(0)), "FILE has no samples"),
    ],
)
def test_unreadable(content: bytes, says: str, reader: str):
    with pytest.raises(NoiseproofError) as caught:
        read_wav(content, "FILE")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_widths_need_soundfile(reader: str):
    content = wav(np.full(10, 0.5), width=1)
    if reader == "soundfile":
        assert np.allclose(read_wav(content, "FILE")[0], 0.5, atol=0.01)
    else:
        with pytest.raises(
            NoiseproofError, match="FILE has 8 bits per sample: without soundfile only 16 are read; run pip install soundfile"
        ):
            read_wav(content, "FILE")


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_a_tone(rate: int):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    found = at_16_khz(tone, rate)
    assert len(found) == 16000
    assert np.abs(found - np.sin(2 * np.pi * 440 * TIME))[200:-200].max() < 0.01
    assert np.abs(at_16_khz(np.sign(tone), rate)).max() <= 1.0


@pytest.mark.parametrize("length", [0, 1, 7, 15999, 16000, 16001, 40001])
def test_one_second(length: int):
    found = one_second(np.arange(1, length + 1, dtype=float))
    assert found.shape == (16000,)
    if length <= 16000:
        assert found[found > 0].tolist() == list(range(1, length + 1))
        before, after = (np.argmax(found > 0), np.argmax(found[::-1] > 0)) if length else (0, 0)
        assert 0 <= after - before <= 1
    else:
        assert np.array_equal(np.diff(found), np.ones(15999))
        assert abs(found.mean() - (length + 1) / 2) <= 0.5  # the middle
