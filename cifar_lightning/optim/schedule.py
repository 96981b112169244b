"""Learning-rate schedules that move at every step and end with the training."""

from __future__ import annotations

import math
from typing import Literal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler

__all__ = ["ScheduleName", "lr_factor", "optimizer_steps"]

ScheduleName = Literal["constant", "linear", "cosine"]


def lr_factor(step: int, total_steps: int, warmup_steps: int, shape: ScheduleName, final_lr_ratio: float) -> float:
    """Factor on the peak learning rate for one update.

    Args:
        step: updates done before this one; `total_steps` gives the value at the end.
        total_steps: updates of the whole training.
        warmup_steps: updates over which the rate rises in a line to its peak.
        shape: how it goes on from the peak: stays, falls in a line, or falls along half a cosine.
        final_lr_ratio: factor at the end of the training; ignored by "constant".

    Returns:
        The factor, in [0, 1] when `final_lr_ratio` is.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if shape == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    remaining = 1 - progress if shape == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return final_lr_ratio + (1 - final_lr_ratio) * remaining


def optimizer_steps(trainer: Trainer, epoch: int) -> float:
    """Return the optimizer steps of one epoch, counted from 0; infinite where its batches are not known.

    Args:
        trainer: knows the number of batches already.
        epoch: decides on the accumulated batches where a `GradientAccumulationScheduler` changes them.
    """
    batches, accumulated = trainer.num_training_batches, trainer.accumulate_grad_batches
    everyone: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in everyone:
        if isinstance(callback, GradientAccumulationScheduler):
            accumulated = callback.get_accumulate_grad_batches(epoch)
    return math.ceil(batches / accumulated) if math.isfinite(batches) else batches
