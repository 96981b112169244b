"""Lightning's objects under the types that they have in this project."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from lightning.pytorch import LightningModule, Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["as_classifier", "data_of", "run_folder"]


def data_of(trainer: Trainer) -> CIFAR10DataModule:
    """The data that the trainer works on."""
    return cast(CIFAR10DataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set when a stage starts


def as_classifier(module: LightningModule) -> ImageClassifier:
    """The module, as what it is."""
    return cast(ImageClassifier, module)


def run_folder(trainer: Trainer) -> Path:
    """The folder of the run, which the command line makes the trainer's root.

    (`trainer.log_dir` would wait for the other processes, and hang where the first one alone asks.)
    """
    return Path(trainer.default_root_dir)
