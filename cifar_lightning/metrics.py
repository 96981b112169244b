"""The metrics of every split, through torchmetrics: exact under any batch size and any number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from cifar_lightning import CLASSES

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = ["ClassificationMetrics", "EpochOutputs", "direction", "epoch_metrics"]

N_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017 (arXiv 1706.04599)."""
SPLITS = ("train", "val", "test")
LOWER_IS_BETTER = ("loss", "ece")


def direction(metric: str) -> Literal["min", "max"]:
    """Return whether low ("min") or high ("max") values of a metric are good.

    Args:
        metric: name with its split, such as val/loss or test/class_acc/cat.
    """
    return "min" if metric.rsplit("/", 1)[-1].endswith(LOWER_IS_BETTER) else "max"


def epoch_metrics(trainer: Trainer) -> dict[str, float]:
    """Return the metrics of this epoch, with the digits that a float32 has.

    Lightning keeps a metric until it is logged again. This leaves out those of a split that the epoch has not
    evaluated: `val/` in an epoch without a validation, `train/` in an epoch that is not over.

    Args:
        trainer: The trainer of an `ImageClassifier`.
    """
    model: Any = trainer.lightning_module
    own: dict[str, float] = model.epoch_metrics
    cut_short = trainer.state.fn == "fit" and not trainer.is_last_batch
    fresh = set() if cut_short else {name.split("/")[0] for name in own}
    known = {name: float(f"{float(value):.7g}") for name, value in trainer.callback_metrics.items()}
    return {k: v for k, v in known.items() if (split := k.split("/")[0]) in fresh or split not in SPLITS} | own


class EpochOutputs:
    """Logits and labels of an epoch, in two blocks that grow by doubling.

    Kept as they come, hundreds of small tensors would lie among the activations of the training steps, and break up the
    memory that later steps need in large pieces.
    """

    def __init__(self) -> None:
        self._logits = torch.empty(0)
        self._labels = torch.empty(0, dtype=torch.int64)
        self._count = 0

    def append(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch: logits (B, C) of any precision, labels int64 (B,)."""
        start, self._count = self._count, self._count + len(labels)
        if self._count > len(self._labels):
            before = self.tensors(start)
            rows = 2 * self._count
            self._logits, self._labels = logits.new_empty(rows, logits.shape[1]), labels.new_empty(rows)
            if start:
                self._logits[:start], self._labels[:start] = before
        self._logits[start : self._count] = logits
        self._labels[start : self._count] = labels

    def tensors(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, C) and labels (N,) of all batches, or of the first `count` images."""
        count = self._count if count is None else count
        return self._logits[:count], self._labels[:count]


class ClassificationMetrics(nn.Module):
    """Loss, accuracy, macro F1, accuracy of each class, calibration error and the confusion matrix of one split.

    States are sums and counts (lists of confidences for the calibration error) that torchmetrics adds up over batches
    and processes, so nothing averages averages.
    """

    def __init__(self) -> None:
        super().__init__()
        n = len(CLASSES)
        # Arguments are checked once, where the data are read; checking each update would stall a GPU.
        self.scores = MetricCollection(
            {
                "acc": MulticlassAccuracy(n, average="micro", validate_args=False),
                "f1": MulticlassF1Score(n, average="macro", validate_args=False),
                "class_acc": MulticlassAccuracy(n, average="none", validate_args=False),
                "ece": MulticlassCalibrationError(n, n_bins=N_BINS, norm="l1", validate_args=False),
                "confusion": MulticlassConfusionMatrix(n, validate_args=False),
            }
        )
        self.loss = MeanMetric(nan_strategy="disable")  # a loss of NaN has to show as NaN

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            logits: float (B, 10), of any precision.
            labels: int64 (B,).
        """
        logits = logits.float()
        # torchmetrics puts a confidence of exactly 1 into a bin of its own, past the last.
        probabilities = logits.softmax(1).clamp(max=1 - torch.finfo(torch.float32).eps)
        self.scores.update(probabilities, labels)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))

    def compute(self) -> tuple[dict[str, Tensor], Tensor]:
        """The metrics of all batches since the last reset; every process has to call it.

        Returns:
            Scalars by name ("loss", "acc", "f1", "ece", "class_acc/airplane", ...), and the confusion matrix, int64
            (10, 10), true classes in rows and predicted classes in columns.
        """
        scores = self.scores.compute()
        confusion = scores.pop("confusion")
        by_class = zip(CLASSES, scores.pop("class_acc"), strict=True)
        scalars = {"loss": self.loss.compute(), **scores, **{f"class_acc/{name}": acc for name, acc in by_class}}
        return scalars, confusion

    def reset(self) -> None:
        """Forgets all batches."""
        self.scores.reset()
        self.loss.reset()
