"""Seeds the global generators at every training step, so that a resumed run draws what it would have drawn."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.seeding import derive_seed

__all__ = ["StepSeed"]


class StepSeed(Callback):
    """Sets torch's generators from (seed, step, rank) before each training step.

    Dropout draws from the global generator, whose state no checkpoint of Lightning holds. Seeding it from the step
    makes a step draw the same whatever came before: a restart, a figure, an evaluation.

    Args:
        seed: seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seeds for the step that follows."""
        step = trainer.fit_loop.epoch_loop.total_batch_idx
        seed = derive_seed("step", self.seed, step, trainer.global_rank)
        # Not torch.manual_seed: without a GPU it takes down a stack trace each time, 0.7 ms, for a GPU to come.
        torch.default_generator.manual_seed(seed)
        if pl_module.device.type != "cpu":
            torch.get_device_module(pl_module.device).manual_seed(seed)
