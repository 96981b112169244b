"""Read a run folder, `lightning_logs/<name>/<version>/`."""

from __future__ import annotations

import csv
import functools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.runs.old_keys import upgraded

__all__ = [
    "CHECKPOINTS",
    "COMPLETED",
    "CONFIG",
    "EARLY_STOPPED",
    "FAILED",
    "HISTORY",
    "INTERRUPTED",
    "PREDICTIONS",
    "PRUNED",
    "RESULT",
    "STATUS",
    "Predictions",
    "Run",
    "flatten",
]

CONFIG, RESULT, HISTORY = "config.yaml", "result.json", "metrics.csv"
CHECKPOINTS, PREDICTIONS = "checkpoints", "predictions"
STATUS = COMPLETED, EARLY_STOPPED, PRUNED, INTERRUPTED, FAILED = (
    "completed",
    "early_stopped",
    "pruned",
    "interrupted",
    "failed",
)
"""How a training ended, in `result.json`."""


class Predictions(NamedTuple):
    """Predictions for the N images of a split, in the order of the split.

    Attributes:
        indices: Position of each image in the split, int64 (N,).
        labels: True classes, int64 (N,).
        classes: Predicted classes, int64 (N,).
        probabilities: Softmax of the logits, float32 (N, 10), with six decimal places.
    """

    indices: Tensor
    labels: Tensor
    classes: Tensor
    probabilities: Tensor


class Run:
    """A run folder: its configuration, results, curves, predictions and checkpoints.

    Files are read when they are first needed. A run in progress is read as it is at that time; make a new `Run` to
    see what was written since.

    Args:
        folder: Such as lightning_logs/cnn/version_0. It need not exist yet.

    Example::

        run = Run("lightning_logs/cnn/version_0")
        run.status                     # "completed"
        run.result["fit"]["metrics"]   # {"train/acc": ..., "val/acc": ...}
        run.history()["val/acc"]       # one value per epoch
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def version(self) -> str:
        """Name of the folder, such as version_0."""
        return self.folder.absolute().name

    @property
    def name(self) -> str:
        """Name that runs of one kind share, such as cnn: the folder that this run lies in."""
        return self.folder.absolute().parent.name

    @property
    def title(self) -> str:
        """Name and version, such as cnn/version_0."""
        return f"{self.name}/{self.version}"

    @property
    def config_path(self) -> Path:
        """The file `config.yaml`.

        Raises:
            ValueError: If the folder is not a run.
        """
        path = self.folder / CONFIG
        if not path.is_file():
            what = "which does not exist" if not self.folder.is_dir() else f"which holds no {CONFIG}"
            raise ValueError(
                f"Expected the folder of a run, such as lightning_logs/cnn/version_0, got {self.folder}, {what}."
            )
        return path

    @functools.cached_property
    def config_text(self) -> str:
        """`config.yaml` as text.

        Raises:
            ValueError: If the folder is not a run.
        """
        return self.config_path.read_text(encoding="utf-8")

    @functools.cached_property
    def recorded_config(self) -> dict[str, Any]:
        """`config.yaml` as nested dictionaries, with the keys of the version that wrote it.

        Raises:
            ValueError: If the folder is not a run, or the file is not YAML.
        """
        return load_config(self.config_text, self.config_path)

    @property
    def config(self) -> dict[str, Any]:
        """`config.yaml` as nested dictionaries, with the keys of this version.

        Raises:
            ValueError: If the folder is not a run, or the file is not YAML.
        """
        return upgraded(self.recorded_config)

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """`result.json`; empty if there is none yet.

        Raises:
            ValueError: If the file is not a JSON object.
        """
        path = self.folder / RESULT
        if not path.is_file():
            return {}
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"Expected JSON in {path}, got: {error}. Restore the file or delete it.") from error
        if not isinstance(result, dict):
            raise ValueError(
                f"Expected a JSON object in {path}, got {type(result).__name__}. Restore or delete the file."
            )
        return result

    @property
    def status(self) -> str | None:
        """How the training ended, one of `STATUS`; None if it has not ended, or was killed."""
        return self.result.get("status")

    @property
    def stopped_by(self) -> str | None:
        """What ended the training before its length, such as "SIGTERM" or "EarlyStopping by val/acc"."""
        return self.result.get("stopped_by")

    @property
    def is_finished(self) -> bool:
        """Whether the training ran to its end: its status is "completed" or "early_stopped"."""
        return self.status in (COMPLETED, EARLY_STOPPED)

    def history(self) -> dict[str, list[float]]:
        """Return the columns of `metrics.csv`, one value per epoch, NaN where an epoch has none.

        Returns:
            Values by name, such as "epoch", "lr", "train/loss" and "val/acc"; empty if there is no such file.

        Raises:
            ValueError: If a cell is not a number.
        """
        path = self.folder / HISTORY
        if not path.is_file():
            return {}
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        try:
            return {name: [float(row[name] or math.nan) for row in rows] for name in (rows[0] if rows else ())}
        except (TypeError, ValueError) as error:
            raise ValueError(f"Expected numbers in {path}, got: {error}. Restore the file or delete it.") from error

    def steps(self) -> dict[str, tuple[list[int], list[float]]]:
        """Return the scalars that TensorBoard shows, from the event files of the run.

        Returns:
            Optimizer steps and values by tag, such as "step/loss"; empty if there are no event files.
        """
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        sizes = {"scalars": 0, "images": 1, "tensors": 1, "graph": 1}  # 0 keeps all
        events = EventAccumulator(str(self.folder), size_guidance=sizes).Reload()
        points = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
        return {tag: ([p.step for p in found], [p.value for p in found]) for tag, found in points.items()}

    def predictions_path(self, split: str = "test") -> Path:
        """Return where `predict` writes the predictions for a split."""
        return self.folder / PREDICTIONS / f"{split}.csv"

    def predictions(self, split: str = "test") -> Predictions:
        """Return the predictions for a split, as `predict` wrote them.

        Raises:
            ValueError: If there are none, or the file is not of this form.
        """
        path = self.predictions_path(split)
        if not path.is_file():
            raise ValueError(f"Expected predictions in {path}, found none. Run `predict --run {self.folder}` first.")
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = sorted(csv.DictReader(file), key=lambda row: int(row["index"]))
            number = {name: label for label, name in enumerate(CLASSES)}
            return Predictions(
                torch.tensor([int(row["index"]) for row in rows]),
                torch.tensor([number[row["label"]] for row in rows]),
                torch.tensor([number[row["prediction"]] for row in rows]),
                torch.tensor([[float(row[name]) for name in CLASSES] for row in rows]),
            )
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"Expected predictions in {path}, got: {error!r}. Run `predict` again.") from error

    def checkpoint_path(self, name: str) -> Path:
        """Return the file of the checkpoint "best" or "last", whether it exists or not."""
        return self.folder / CHECKPOINTS / f"{name}.ckpt"

    def checkpoint(self, name: str = "best") -> Path:
        """Return the file of a checkpoint.

        Args:
            name: "best" or "last". "best" falls back to "last" where training had no validation.

        Raises:
            ValueError: If the run has no such checkpoint.
        """
        for candidate in ("best", "last") if name == "best" else (name,):
            if (path := self.checkpoint_path(candidate)).is_file():
                return path
        why = (
            f"it was deleted, or did not come with the run. Train anew with `fit --config {self.folder / CONFIG}`."
            if self.is_finished
            else "the run ended before its first epoch did. Train it again with `fit`."
        )
        raise ValueError(f"Expected the checkpoint {name}.ckpt in {self.folder / CHECKPOINTS}, found none: {why}")


def load_config(text: str, path: Path) -> dict[str, Any]:
    """Return the recorded configuration of a run, as the command line reads it.

    Args:
        text: YAML.
        path: The file it comes from, for the message.

    Raises:
        ValueError: If it is not a YAML mapping.
    """
    import yaml
    from jsonargparse import get_loader

    try:
        config = get_loader("yaml")(text)
    except yaml.YAMLError as error:
        raise ValueError(f"Expected YAML in {path}, got: {error}. Restore the file.") from error
    if not isinstance(config, dict):
        raise ValueError(f"Expected the options of a run in {path}, got {type(config).__name__}. Restore the file.")
    return config


def flatten(tree: Any, prefix: str = "", short_classes: bool = False) -> dict[str, Any]:
    """Return nested options by the names that are typed: `model.net.widths`, without levels of `init_args`.

    The value of an option that takes a class is its `class_path`.

    Args:
        tree: Nested options.
        prefix: Name of the option that holds them.
        short_classes: Whether to name classes without their module.
    """
    if not isinstance(tree, dict):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if key == "class_path":
            found[prefix] = value.rsplit(".", 1)[-1] if short_classes else value
        else:
            found |= flatten(value, prefix if key == "init_args" else f"{prefix}.{key}".lstrip("."), short_classes)
    return found
