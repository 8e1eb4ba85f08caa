from __future__ import annotations

import ctypes
import sys


def tune_allocator() -> bool:
    """Let the C library keep large blocks of memory instead of giving them back at every free; return whether it could.

    Sequences are large tensors that come and go at every step. glibc returns each to the system, and getting the next one costs
    a page fault for every 4 KiB: more than the neurons themselves. This holds for the whole process, and the process keeps its
    peak memory; so a library does not call it for you. The command line, whose process is its own, does.
    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.

    Example:
        >>> tune_allocator() in (True, False)
        True
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    trim_threshold, mmap_threshold, largest = -1, -3, 2**31 - 1
    return mallopt is not None and mallopt(mmap_threshold, largest) == 1 and mallopt(trim_threshold, largest) == 1
