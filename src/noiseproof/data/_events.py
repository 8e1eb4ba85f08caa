"""Events of a camera that reports changes: reading them, and counting them into frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noiseproof.errors import NoiseproofError, require

if TYPE_CHECKING:
    import numpy as np

OVERFLOW_ROW = 240  # an event in this row is none: it says that the clock went round
OVERFLOW_STEP = 2**13  # microseconds that are then added to all that follow


def event_frames(
    x: Any, y: Any, p: Any, t: Any, *, steps: int, duration: int, shape: tuple[int, int], source: str = "events"
) -> np.ndarray:
    """Count events into frames, int64 [steps, 2, height, width]; channel 0 is p = 0 (darker), channel 1 is p = 1 (brighter).

    Bin k holds the events with k·duration/steps ≤ t < (k+1)·duration/steps, in microseconds from the start of the recording;
    later ones are dropped. `shape` is (height, width); x counts columns, y rows.

    Raises `NoiseproofError`, naming `source` and the event, for arrays of different length, times that go back, and events
    outside of the picture.

    >>> event_frames([0, 1, 1], [0, 0, 0], [1, 0, 0], [5, 15, 99], steps=2, duration=20, shape=(1, 2)).tolist()
    [[[[0, 0]], [[1, 0]]], [[[0, 1]], [[0, 0]]]]
    """
    import numpy as np

    require(isinstance(steps, int) and steps >= 1, "steps", steps, "give a whole number of at least 1")
    require(isinstance(duration, int) and duration >= 1, "duration", duration, "give a whole number of microseconds, at least 1")
    height, width = shape
    x, y, p, t = (np.asarray(values).astype(np.int64) for values in (x, y, p, t))
    if not x.shape == y.shape == p.shape == t.shape == (len(t),):
        raise NoiseproofError(f"{source} has {x.shape}, {y.shape}, {p.shape}, {t.shape} values of x, y, p, t: give one of each per event")
    back = np.flatnonzero(np.diff(t) < 0)
    if len(back):
        i = int(back[0]) + 1
        raise NoiseproofError(f"{source} goes back in time at event {i}: {t[i]} µs after {t[i - 1]} µs; sort it by time or replace it")
    outside = np.flatnonzero((x < 0) | (x >= width) | (y < 0) | (y >= height) | (p < 0) | (p > 1) | (t < 0))
    if len(outside):
        i = int(outside[0])
        raise NoiseproofError(f"{source} has x {x[i]}, y {y[i]}, p {p[i]}, t {t[i]} at event {i}: the camera has {width} × {height} pixels")
    inside = t < duration
    place = np.ravel_multi_index((t[inside] * steps // duration, p[inside], y[inside], x[inside]), (steps, 2, height, width))
    return np.bincount(place, minlength=steps * 2 * height * width).reshape(steps, 2, height, width)


def parse_events(content: bytes, source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, p, t of an N-MNIST file: 5 bytes an event; x, y, then one bit polarity and 23 bits microseconds.

    Raises `NoiseproofError` for a file whose length is no whole number of events, or that has none.

    >>> [int(value[0]) for value in parse_events(bytes([3, 4, 0x80, 1, 2]), "one event")]
    [3, 4, 1, 258]
    """
    import numpy as np

    if not content or len(content) % 5:
        raise NoiseproofError(f"{source} is cut off or no event file: {len(content)} bytes are no events of 5 bytes; unpack it again")
    raw = np.frombuffer(content, np.uint8).reshape(-1, 5).astype(np.int64)
    x, y, p = raw[:, 0], raw[:, 1], raw[:, 2] >> 7
    t = ((raw[:, 2] & 0x7F) << 16) | (raw[:, 3] << 8) | raw[:, 4]
    overflow = y == OVERFLOW_ROW
    t = t + np.cumsum(overflow) * OVERFLOW_STEP
    return x[~overflow], y[~overflow], p[~overflow], t[~overflow]
