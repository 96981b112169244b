"""Lightning's objects under the types that they have in this project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["FINDERS", "as_classifier", "data_of", "epoch_metrics", "gathered", "run_folder", "with_findings"]

SPLITS = ("train", "val", "test")
FINDERS = ("BatchSizeFinder", "LearningRateFinder")
"""Callbacks that look for a setting before a training. The run records what they found, and not them."""


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


def epoch_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the metrics of this epoch, with the digits that a float32 has.

    Lightning keeps a metric until it is logged anew. This leaves out those of a split that the epoch has not evaluated:
    `val/` in an epoch without a validation, `train/` in an epoch that is not over.
    """
    own = as_classifier(trainer.lightning_module).epoch_metrics
    cut_short = trainer.state.fn == "fit" and not trainer.is_last_batch
    fresh = set() if cut_short else {name.split("/")[0] for name in own}
    known = {name: float(f"{float(value):.7g}") for name, value in trainer.callback_metrics.items()}
    return {k: v for k, v in known.items() if (split := k.split("/")[0]) in fresh or split not in SPLITS} | own


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run, which the command line makes the trainer's root.

    (`trainer.log_dir` would wait for the other processes, and hang where the first one alone asks.)
    """
    return Path(trainer.default_root_dir)


def with_findings(config: str, trainer: Trainer) -> str:
    """Return the configuration of a run with the settings that were looked for before it.

    Args:
        config: as it was given, as YAML.
        trainer: when the training starts.
    """
    everyone: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    plain, data, model = yaml.safe_load(config), data_of(trainer), as_classifier(trainer.lightning_module)
    plain["trainer"]["accumulate_grad_batches"] = trainer.accumulate_grad_batches
    if not any(type(callback).__name__ in FINDERS for callback in everyone):
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    given = plain["trainer"]["callbacks"]
    given = given if isinstance(given, list) else [given]
    plain["trainer"]["callbacks"] = [c for c in given if not c["class_path"].endswith(FINDERS)] or None
    plain["data"]["batch_size"] = min(data.images_per_batch(1), data.size("train"))
    if model.found_lr is not None:
        plain["model"]["init_args"]["optimizer"]["init_args"]["lr"] = model.found_lr
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
