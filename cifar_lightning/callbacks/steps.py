"""Curves over optimizer steps: the loss and the learning rate."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["StepCurves"]


class StepCurves(Callback):
    """Gives `step/loss`, the mean over the batches of a step, and `step/lr` to every logger, as often as it is to log.

    (Lightning's `self.log` writes after the hooks of a step: a training that ends in one of them would lack a point.)
    """

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0
        self._batches = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds a batch, and writes after the step."""
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
