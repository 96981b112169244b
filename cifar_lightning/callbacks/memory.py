"""Keep memory that a training step frees for the next step, on a CPU."""

from __future__ import annotations

import ctypes
import sys

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["KeepMemory", "keep_freed_memory", "release_freed_memory"]

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
"""Parameters of glibc's mallopt(3)."""
NEVER, TOP_PAD_BYTES = 2**31 - 1, 64 * 2**20


def keep_freed_memory() -> bool:
    """Make glibc keep large blocks that are freed.

    By default it returns every block above some megabytes to the system at once, and the next step takes it again
    page by page, each of them zeroed by the kernel: a seventh of a training step of the CNN on two cores. Call this
    after temporary data of the start are freed: afterwards, only `release_freed_memory` returns memory.

    Afterwards all threads also share one arena, so that the backward pass, which PyTorch runs in its own thread,
    reuses what the forward pass has freed.

    Returns:
        Whether the allocator accepted the settings; False where there is no glibc.
    """
    libc = _glibc()
    settings = ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, TOP_PAD_BYTES))
    return libc is not None and all([libc.mallopt(key, value) == 1 for key, value in settings])


def release_freed_memory() -> None:
    """Return free memory to the system; do nothing where there is no glibc."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None  # musl has neither


class KeepMemory(Callback):
    """Keep freed memory for the next step; return it to the system before an epoch with another image size."""

    def __init__(self) -> None:
        self._image_size: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set up the allocator; a GPU has its own."""
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
            release_freed_memory()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release the blocks of the last epoch where their sizes no longer fit; new blocks cost time as well."""
        size = getattr(trainer.train_dataloader, "image_size", None)
        if size != self._image_size:
            release_freed_memory()
        self._image_size = size
