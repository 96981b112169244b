"""A finished run read back from its folder."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_lightning import runs
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.data.split import ImageSet
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.trained import load_trained

__all__ = ["LoadedRun", "load_run", "read_history", "read_steps"]


@dataclass(frozen=True)
class LoadedRun:
    """What a run folder holds, and the network with its best weights.

    Attributes:
        folder: where it lies.
        config: `config.yaml` as text.
        result: `result.json`.
        history: curves over epochs by name, NaN where an epoch has no value.
        steps: curves over optimizer steps by name: steps and values.
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
        return "/".join(self.folder.absolute().parts[-2:])

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
    return LoadedRun(
        folder,
        runs.config_path(folder).read_text(encoding="utf-8"),
        runs.read_result(folder),
        read_history(folder / runs.HISTORY),
        read_steps(folder),
        model,
        data,
    )


def read_history(path: Path) -> dict[str, list[float]]:
    """Columns of `metrics.csv`; empty when there is no such file.

    Raises:
        ValueError: when a cell is no number.
    """
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {name: [float(row[name] or math.nan) for row in rows] for name in (rows[0] if rows else ())}
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected numbers in {path}, got: {error}. Restore the file or delete it.") from error


def read_steps(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    """The curves over optimizer steps in the event files of TensorBoard: loss, learning rate, norms of each layer."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1, "graph": 1}).Reload()
    wanted = ("step/", "layer_gradient_norm/", "layer_weight_norm/", "layer_dead_units/")
    curves = {}
    for tag in events.Tags()["scalars"]:
        if tag.startswith(wanted):
            points = events.Scalars(tag)
            curves[tag] = ([point.step for point in points], [point.value for point in points])
    return curves
