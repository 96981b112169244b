"""Learning-rate schedules that move at every step and end with the training."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["ScheduleName", "lr_factor"]

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
