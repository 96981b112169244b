"""Time the stages and epochs of a run, and count its images."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.data.loader import Batch

__all__ = ["Timing", "frozen_at"]


def frozen_at(module: LightningModule) -> int:
    """Return the step at which the last part of a network that is no longer trained was frozen, or 0."""
    steps = getattr(module, "freeze_steps", {}).values()
    return max((step for step in steps if step <= module.trainer.global_step), default=0)


class Timing(Callback):
    """Log `train/images_per_second` each epoch, and keep the time and image count of a stage for other callbacks.

    The rate is over all processes, without validation and figures. A stage is a training, or a call of `validate` or
    `test`; validations inside a training are part of its time, but their images are not counted.

    (Lightning's ThroughputMonitor synchronises with the device in each step; this callback does once per epoch.)

    Attributes:
        images: Images of the stage so far, in this process.
        trained: Images of the training so far, in this process and before it was interrupted, by their side in pixels
            and the optimizer step at which the last part of the network that is no longer trained was frozen, or 0.
    """

    def __init__(self) -> None:
        self.images = 0
        self.trained: Counter[tuple[int, int]] = Counter()
        self._stage_start = 0.0
        self._epoch_start = 0.0
        self._images_before_epoch = self._frozen_at = 0

    @property
    def stage_seconds(self) -> float | None:
        """Seconds since the stage started; None if it processed no image: an earlier process did the work."""
        return time.monotonic() - self._stage_start if self.images else None

    @property
    def epoch_seconds(self) -> float:
        """Seconds since the epoch started, or since the training was resumed inside it."""
        return time.monotonic() - self._epoch_start

    def _start_stage(self) -> None:
        self.images = 0
        self._stage_start = time.monotonic()

    def _start_epoch(self) -> None:
        self._images_before_epoch = self.images
        self._epoch_start = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start both clocks: Lightning calls no hook for the start of an epoch that is resumed inside."""
        self._start_stage()
        self._start_epoch()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._start_epoch()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note which parts of the network the step does not train."""
        self._frozen_at = frozen_at(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the images of the batch, and log the rate after the last batch of the epoch."""
        self.images += len(batch.labels)
        self.trained[batch.images.shape[-1], self._frozen_at] += len(batch.labels)
        if trainer.is_last_batch:
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            rate = (self.images - self._images_before_epoch) * trainer.world_size / self.epoch_seconds
            pl_module.log("train/images_per_second", rate, on_epoch=True, on_step=False, sync_dist=True, batch_size=1)

    def on_evaluation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of `validate` or `test`."""
        if trainer.state.fn != "fit":
            self._start_stage()

    def on_evaluation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the images of `validate` or `test`."""
        if trainer.state.fn != "fit":
            self.images += len(batch.labels)

    on_validation_start = on_test_start = on_evaluation_start
    on_validation_batch_end = on_test_batch_end = on_evaluation_batch_end

    def state_dict(self) -> dict[str, Any]:
        """Return the images that the training has seen."""
        return {"trained": [[*key, count] for key, count in self.trained.items()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting the images of a training that was interrupted."""
        self.trained = Counter({(size, step): count for size, step, count in state_dict["trained"]})
