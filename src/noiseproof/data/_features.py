"""Speech features in NumPy: 98 frames of 40 log-mel energies or 40 MFCC of one second of sound at 16 kHz.

The frequency range and the number of bands are those of TensorFlow's Speech Commands example (`Mfcc`: 20 to 4000 Hz, 40
channels), which paper A's speech task goes back to; all 40 coefficients are kept, as its text says.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

RATE = 16_000  # samples per second
WINDOW = 480  # samples: 30 ms
STRIDE = 160  # samples: 10 ms
FFT = 512  # the next power of two; bins are 31.25 Hz apart
BANDS = 40
LOW, HIGH = 20.0, 4000.0  # Hz, lowest edge of the first band and highest of the last
FLOOR = 1e-10  # added to energies before the logarithm: 100 dB below a full-scale constant
FRAMES = 1 + (RATE - WINDOW) // STRIDE  # 98
SETTINGS = {"rate": RATE, "window": WINDOW, "stride": STRIDE, "fft": FFT, "bands": BANDS, "low": LOW, "high": HIGH, "floor": FLOOR}
# ln FLOOR is −23.03; by Parseval a frame within ± 1 has at most energy 1.6 in all its bins together, of which a band takes a part
LOG_MEL_BOUNDS = (-23.1, 1.0)
# the DCT keeps the length of a vector, so that no coefficient is above √40 · 23.03
MFCC_BOUNDS = (-146.0, 146.0)


def log_mel(waves: np.ndarray) -> np.ndarray:
    """Return ln(energy + FLOOR) of 40 mel bands, float32 [N, 98, 40], of `waves` [N, 16000] within ± 1.

    Frames of 30 ms every 10 ms, periodic Hann window, |FFT|² divided by the square of the window's sum (so that a
    full-scale sine has energy 1/4 whatever the window), triangular bands.

    >>> import numpy as np
    >>> log_mel(np.zeros((2, 16000))).shape
    (2, 98, 40)
    """
    import numpy as np

    frames = np.lib.stride_tricks.sliding_window_view(waves, WINDOW, axis=-1)[:, ::STRIDE]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * hann, FFT)) ** 2 / hann.sum() ** 2
    # as one product of two matrices: a stack of small ones starts and stops the threads of BLAS each time
    energies = power.reshape(-1, power.shape[-1]) @ mel_bands().T
    return np.log(energies + FLOOR).astype(np.float32).reshape(*power.shape[:-1], BANDS)


def mfcc(log_energies: np.ndarray) -> np.ndarray:
    """Return the MFCC of log-mel energies [..., 40]: the orthonormal DCT-II over the bands, all 40 coefficients."""
    import numpy as np
    from scipy.fft import dct

    return np.asarray(dct(log_energies, type=2, norm="ortho", axis=-1))


def mel(hertz: float) -> float:
    """Return the pitch of a frequency by HTK's formula.

    >>> round(mel(1000.0))
    1000
    """
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


@cache
def mel_bands() -> np.ndarray:
    """Return the weights [40, 257] of the FFT's bins in each band: triangles on the mel scale, 1 at their centres, half overlapping."""
    import numpy as np

    edges = np.linspace(mel(LOW), mel(HIGH), BANDS + 2)
    bins = np.array([mel(k * RATE / FFT) for k in range(FFT // 2 + 1)])
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0.0, None)
