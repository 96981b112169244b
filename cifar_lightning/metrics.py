"""The metrics of every split, through torchmetrics: exact under any batch size and any number of processes."""

from __future__ import annotations

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

__all__ = ["ClassificationMetrics"]

N_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017 (arXiv 1706.04599)."""


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
