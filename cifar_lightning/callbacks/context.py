"""Lightning's objects under the types that they have in this project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["as_classifier", "data_of", "gathered", "run_folder"]


def data_of(trainer: Trainer) -> CIFAR10DataModule:
    """The data that the trainer works on."""
    return cast(CIFAR10DataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set when a stage starts


def as_classifier(module: LightningModule) -> ImageClassifier:
    """The module, as what it is."""
    return cast(ImageClassifier, module)


def gathered(trainer: Trainer, batches: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Outputs of all batches of all processes, on the CPU, in the order of the split; every process has to call it.

    Args:
        trainer: the trainer.
        batches: for each batch of this process the indices (B,) of its images in their split, and other rows (B, ...).

    Returns:
        The indices, and the rest alike; an empty list when there was no batch.
    """
    mine = [torch.cat(parts).cpu() for parts in zip(*batches, strict=True)]
    if trainer.world_size > 1:
        everyone: list[list[Tensor]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(everyone, mine)
        mine = [torch.cat(parts) for parts in zip(*(parts for parts in everyone if parts), strict=True)]
    order = mine[0].argsort() if mine else None
    return [part[order] for part in mine]


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run, which the command line makes the trainer's root.

    (`trainer.log_dir` would wait for the other processes, and hang where the first one alone asks.)
    """
    return Path(trainer.default_root_dir)
