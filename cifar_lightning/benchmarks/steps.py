"""Seconds of single training steps, outside of any trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["StepTime", "time_steps"]


class StepTime(NamedTuple):
    """Seconds of a training step.

    Attributes:
        passes: forward and backward, with all that the device has to do for them.
        update: of the optimizer.
    """

    passes: float
    update: float


def time_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[object]],
    steps: int,
    uncounted: int = 1,
) -> list[StepTime]:
    """Trains a classifier of images of 32x32 pixels on a batch of random ones, over and over.

    Args:
        model: gives logits for uint8 images of shape (n, 3, 32, 32); on the device.
        optimizer: of its parameters.
        batch_size: images.
        device: to train on.
        precision: makes what a forward pass runs in, such as autocast.
        steps: that count.
        uncounted: steps before those, in which memory is got and kernels are chosen.
    """
    images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 10, (batch_size,), device=device)
    times = []
    for _ in range(uncounted + steps):
        started = _now(device)
        with precision():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        between = _now(device)
        optimizer.step()
        optimizer.zero_grad()
        times.append(StepTime(between - started, _now(device) - between))
    return times[uncounted:]


def _now(device: torch.device) -> float:
    """The time in seconds at which the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
