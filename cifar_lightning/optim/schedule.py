"""Learning-rate schedules that move at every step and end with the training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

__all__ = ["ScheduleName", "lengths", "lr_factor", "make_scheduler", "optimizer_steps"]

ScheduleName = Literal["constant", "linear", "cosine"]
LENGTHS = ("total_steps", "total_iters", "T_max")
"""Arguments of PyTorch's schedulers that are the number of steps of the training."""


def lengths(schedule: ScheduleName | type[LRScheduler], arguments: dict[str, Any]) -> list[str]:
    """Return the arguments of a scheduler class that the length of the training fills in.

    Args:
        schedule: a name, which has none, or a class.
        arguments: those that are given.
    """
    if isinstance(schedule, str):
        return []
    open_ones = [name for name in LENGTHS if name in signature(schedule).parameters and name not in arguments]
    return [] if "epochs" in arguments else open_ones  # of OneCycleLR, in place of total_steps


def make_scheduler(
    optimizer: Optimizer,
    schedule: ScheduleName | type[LRScheduler],
    total_steps: int,
    warmup_steps: int,
    cooldown_steps: int,
    final_lr_ratio: float,
    arguments: dict[str, Any],
) -> LRScheduler:
    """Return a scheduler that is stepped after each update.

    Args:
        optimizer: new; its learning rates are the peak. In a group with a key "freeze_step", the rate of a schedule by
            name falls to 0 until then, along the same curve.
        schedule: a name, or a class.
        total_steps: updates of the whole training.
        warmup_steps: updates over which the rate rises; for names only.
        cooldown_steps: last updates, which keep the rate that the fall ends at; for names only.
        final_lr_ratio: factor at the end of the training; for names only.
        arguments: of the class. Its length defaults to `total_steps`, and its `max_lr` to the peak.

    Raises:
        ValueError: for a class that cannot be stepped after each update, and for arguments that it does not take.
    """
    if isinstance(schedule, str):
        fall = max(0, total_steps - cooldown_steps)

        def whole(step: int) -> float:
            return lr_factor(step, fall, warmup_steps, schedule, final_lr_ratio)

        def until(end: int, step: int) -> float:
            return lr_factor(step, end, warmup_steps, schedule, 0.0) if step < end else 0.0

        factors: list[Callable[[int], float]]
        factors = [partial(until, g["freeze_step"]) if "freeze_step" in g else whole for g in optimizer.param_groups]
        return LambdaLR(optimizer, factors)
    if issubclass(schedule, ReduceLROnPlateau):
        raise ValueError(
            "Expected `model.schedule` to depend on the step alone, got ReduceLROnPlateau, which depends on a metric. "
            "Take another schedule, such as cosine."
        )
    filled: dict[str, Any] = dict.fromkeys(lengths(schedule, arguments), total_steps)
    if "max_lr" in signature(schedule).parameters:
        filled["max_lr"] = [group["lr"] for group in optimizer.param_groups]
    try:
        return schedule(optimizer, **filled | arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected valid arguments of {schedule.__name__} in `model.schedule_args`, got: {error}."
        ) from error


def lr_factor(step: int, total_steps: int, warmup_steps: int, shape: ScheduleName, final_lr_ratio: float) -> float:
    """Factor on the peak learning rate for one update.

    Args:
        step: updates done before this one; from `total_steps` on the factor stays at its end.
        total_steps: updates until the end of the fall.
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
