"""A finished run read back from its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.split import ImageSet
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import Run
from cifar_lightning.trained import load_trained

__all__ = ["LoadedRun", "load_run"]


@dataclass(frozen=True)
class LoadedRun:
    """What a run folder holds, and the network with its best weights.

    Attributes:
        folder: where it lies.
        config: `config.yaml` as text.
        result: `result.json`.
        history: curves over epochs by name, NaN where an epoch has no value.
        steps: all curves of TensorBoard by tag: steps and values.
        model: on its device, in eval mode.
        data: not set up for any stage yet.
    """

    folder: Path
    config: str
    result: dict[str, Any]
    history: dict[str, list[float]]
    steps: dict[str, tuple[list[int], list[float]]]
    model: ImageClassifier
    data: CIFAR10DataModule

    @property
    def name(self) -> str:
        """Name and version, such as cnn/version_0."""
        return Run(self.folder).title

    def split(self, name: str) -> ImageSet:
        """The images of "train", "val" or "test"."""
        self.data.setup("test" if name == "test" else "fit")
        return cast(ImageSet, getattr(self.data, name))


def load_run(folder: Path) -> LoadedRun:
    """Reads a run folder and the checkpoint that it would be tested with.

    Args:
        folder: such as lightning_logs/cnn/version_0.

    Raises:
        ValueError: when it is no run, has no checkpoint, or holds files that cannot be read.
    """
    model, data = load_trained(folder)
    run = Run(folder)
    return LoadedRun(folder, run.config_text, run.result, run.history(), run.steps(), model, data)
