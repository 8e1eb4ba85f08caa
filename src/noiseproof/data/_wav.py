"""Sound files: read, brought to 16 kHz, cut or padded to one second."""

from __future__ import annotations

import importlib.util
import io
import math
import wave
from typing import TYPE_CHECKING

from noiseproof.data._features import RATE
from noiseproof.errors import NoiseproofError

if TYPE_CHECKING:
    import numpy as np


def read_wav(content: bytes, source: object) -> tuple[np.ndarray, int]:
    """Return the samples (float64 [n] within ± 1, the mean of all channels) and the rate of a sound file.

    With `soundfile` every format that it knows, else 16-bit PCM.

    Raises `NoiseproofError`, naming `source`, for a file that cannot be read, is empty or has values that are not finite.
    """
    import numpy as np

    said = int.from_bytes(content[4:8], "little") + 8
    if content[:4] == b"RIFF" and len(content) + 1 < said < 2**32:  # a byte that fills up may be missing; all ones: length unknown
        raise NoiseproofError(f"{source} is cut off: {len(content)} bytes where its header says {said}; replace it")
    samples, rate = _with_soundfile(content, source) if importlib.util.find_spec("soundfile") else _with_wave(content, source)
    if not len(samples) or not np.isfinite(samples).all() or rate < 1:
        fault = "has no samples" if not len(samples) else "has no rate" if rate < 1 else "has values that are not finite"
        raise NoiseproofError(f"{source} {fault}: replace it, or remove it from the data set")
    return samples.mean(axis=1), rate


def _with_soundfile(content: bytes, source: object) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        return soundfile.read(io.BytesIO(content), always_2d=True)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise _unreadable(source, error) from None


def _with_wave(content: bytes, source: object) -> tuple[np.ndarray, int]:
    import numpy as np

    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate, total = file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()
            frames = file.readframes(total)
    except (wave.Error, EOFError, ValueError) as error:
        raise _unreadable(source, error) from None
    if width != 2:
        raise NoiseproofError(f"{source} has {8 * width} bits per sample: without soundfile only 16 are read; run pip install soundfile")
    whole = len(frames) // (2 * channels) * channels
    return np.frombuffer(frames, "<i2", count=whole).reshape(-1, channels) / 32768.0, rate


def _unreadable(source: object, error: Exception) -> NoiseproofError:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return NoiseproofError(f"{source} cannot be read as sound: {reason}; replace it, or remove it from the data set")


def at_16_khz(samples: np.ndarray, rate: int) -> np.ndarray:
    """Return the samples at 16 kHz, within ± 1."""
    import numpy as np

    if rate == RATE:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(RATE, rate)
    return np.clip(resample_poly(samples, RATE // common, rate // common), -1.0, 1.0)  # the filter overshoots at full scale


def one_second(samples: np.ndarray) -> np.ndarray:
    """Return [16000]: the middle of longer sound, shorter sound in the middle of zeros.

    >>> import numpy as np
    >>> one_second(np.ones(2)).nonzero()[0].tolist()
    [7999, 8000]
    """
    import numpy as np

    spare = RATE - len(samples)
    if spare <= 0:
        return samples[-spare // 2 : -spare // 2 + RATE]
    return np.pad(samples, (spare // 2, spare - spare // 2))
