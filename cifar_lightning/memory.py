"""Keeps memory that a training step frees for the step after it."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory", "release_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
"""Parameters of glibc's mallopt(3)."""
NEVER, TOP_PAD_BYTES = 2**31 - 1, 64 * 2**20


def keep_freed_memory() -> bool:
    """Tells glibc to keep large blocks when they are freed.

    By default it hands every block above some megabytes back to the system at once, and the next step gets it again
    page by page, each of them zeroed by the kernel: a seventh of a training step of the CNN on two cores. Call it
    after what was read at the start is gone: from then on, memory goes back only by `release_freed_memory`.

    From then on all threads take memory from one arena: what the forward pass has freed serves the backward pass too,
    which PyTorch runs in a thread of its own.

    Returns:
        Whether the allocator took the settings; False where there is no glibc.
    """
    libc = _glibc()
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD_BYTES))
    return libc is not None and all([libc.mallopt(key, value) == 1 for key, value in settings])


def release_freed_memory() -> None:
    """Hands back what is free now; nothing happens where there is no glibc."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None  # musl has neither
