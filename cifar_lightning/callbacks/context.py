"""Lightning's objects under the types that they have in this project."""

from __future__ import annotations

from typing import cast

from lightning.pytorch import LightningModule, Trainer

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["as_classifier", "data_of"]


def data_of(trainer: Trainer) -> CIFAR10DataModule:
    """The data that the trainer works on."""
    return cast(CIFAR10DataModule, trainer.datamodule)  # type: ignore[attr-defined]  # set when a stage starts


def as_classifier(module: LightningModule) -> ImageClassifier:
    """The module, as what it is."""
    return cast(ImageClassifier, module)
