"""Training images per second."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.data.loader import Batch

__all__ = ["Throughput"]


class Throughput(Callback):
    """Logs `train/images_per_second` each epoch, over all processes, validation and figures left out.

    (Lightning's ThroughputMonitor makes the device wait as it goes; here it waits once an epoch.)
    """

    def __init__(self) -> None:
        self._images = 0
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; of an epoch that is continued in its middle no other hook tells."""
        self._images = 0
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch."""
        self.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Counts the images of the batch, and logs after the last one."""
        self._images += len(batch.labels)
        if trainer.is_last_batch:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            rate = self._images * trainer.world_size / (time.monotonic() - self._started)
            pl_module.log("train/images_per_second", rate, on_step=False, on_epoch=True, sync_dist=True)
