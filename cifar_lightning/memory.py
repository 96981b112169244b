"""Keeps memory that a training step frees for the step after it."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of glibc's mallopt(3)."""
NEVER, TOP_PAD_BYTES = 2**31 - 1, 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells glibc to keep large blocks when they are freed.

    By default it hands every block above some megabytes back to the system at once, and the next step gets it again
    page by page, each of them zeroed by the kernel: a fifth of a training step of the CNN on two cores. Call it before
    the first large tensor. Peak memory stays about the same, since a training frees and takes the same blocks over
    and over; what is no longer used is not given back before the process ends.

    Returns:
        Whether the allocator took the settings; False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has none
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD_BYTES))
    return all([mallopt(key, value) == 1 for key, value in settings])
