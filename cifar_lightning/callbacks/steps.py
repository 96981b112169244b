"""Training steps: their seeds, and curves of the loss and the learning rate."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.seeding import derive_seed

__all__ = ["StepCurves", "StepSeed"]


class StepSeed(Callback):
    """Seed PyTorch's global generators from (seed, step, rank) before each training step.

    Dropout draws from the global generator, whose state Lightning's checkpoints do not hold. With this, a step draws
    the same numbers whatever came before it: a restart, a figure, an evaluation.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the generators of the CPU and of the device."""
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        seed = derive_seed("step", self.seed, step, trainer.global_rank)
        # torch.manual_seed records a stack trace where there is no GPU, which takes 0.7 ms.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)


class StepCurves(Callback):
    """Log `step/loss`, the mean over the batches of a step, and `step/lr` every `log_every_n_steps` steps.

    (Lightning's `self.log` writes after the hooks of a step: a training that ends in one of them would lack a point.)
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss of the batch; log after the last batch of the step."""
        accumulated = trainer.accumulate_grad_batches
        self._sum = self._sum + outputs["loss"] * accumulated  # Lightning has divided it
        self._batches += 1
        if (batch_idx + 1) % accumulated and not trainer.is_last_batch:
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector
        if every and trainer.global_step % every == 0 and trainer.loggers:
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            for logger in trainer.loggers:
                logger.log_metrics({"step/loss": float(self._sum) / self._batches, "step/lr": lr}, trainer.global_step)
        self._sum, self._batches = 0.0, 0
