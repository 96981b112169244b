"""The metrics of every split, through torchmetrics: exact under any batch size and any number of processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from cifar_lightning import CLASSES

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

__all__ = [
    "METRICS",
    "N_BINS",
    "ClassificationMetrics",
    "EpochOutputs",
    "Measure",
    "Reliability",
    "bin_sums",
    "direction",
    "epoch_metrics",
    "metric_names",
]

SPLITS = ("train", "val", "test")
N_BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017 (arXiv 1706.04599)."""
SCALE = 2**30
"""Confidences are added up as integers of this unit: the sums do not depend on the order, batches or devices."""


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width by the probability of the predicted class.

    Attributes:
        counts: int64 (bins,), predictions in each.
        confidence: float64 (bins,), mean probability of those; 0 in an empty bin.
        accuracy: float64 (bins,), share of those that are right; 0 in an empty bin.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor

    @classmethod
    def of(cls, sums: Tensor) -> Reliability:
        """Return the means of the bins from their sums; see `bin_sums`."""
        counts, confidences, right = sums.cpu()
        least = counts.clamp(min=1).double()
        return cls(counts, confidences / (SCALE * least), right / least)

    @property
    def error(self) -> float:
        """Expected calibration error: the gap between confidence and accuracy, averaged over predictions."""
        gaps = (self.confidence - self.accuracy).abs()
        return float((gaps * self.counts).sum() / self.counts.sum().clamp(min=1))


def bin_sums(probabilities: Tensor, labels: Tensor, bins: int = N_BINS) -> Tensor:
    """Return for each bin of confidence: predictions, sum of the confidences in units of 1 / SCALE, right predictions.

    Args:
        probabilities: float (N, C), rows that sum to 1.
        labels: int64 (N,).
        bins: of equal width in [0, 1]; a probability on a border belongs to the bin above it, and 1 to the last.

    Returns:
        int64 (3, bins).
    """
    confidences, predictions = probabilities.max(1)
    values = torch.stack(
        [torch.ones_like(labels), (confidences * SCALE).round().long(), (predictions == labels).long()]
    )
    inside = (confidences * bins).long().clamp(max=bins - 1) == torch.arange(bins, device=labels.device)[:, None]
    return (values[:, None] * inside).sum(2)


class CalibrationError(Metric):
    """Expected calibration error, from the sums of the bins alone: it keeps no confidences."""

    higher_is_better = False
    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, N_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: probabilities float (B, C), labels int64 (B,)."""
        self.sums += bin_sums(probabilities, labels)

    def compute(self) -> Tensor:
        """Return the error of all batches."""
        return torch.tensor(Reliability.of(self.sums).error, device=self.sums.device)


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

    Hundreds of small tensors between the activations of the training steps would fragment the memory instead.
    """

    def __init__(self) -> None:
        self._logits = torch.empty(0)
        self._labels = torch.empty(0, dtype=torch.int64)
        self._count = 0

    def append(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, C) of any precision, labels int64 (B,)."""
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
        """Return logits (N, C) and labels (N,) of all batches, or of the first `count` images."""
        count = self._count if count is None else count
        return self._logits[:count], self._labels[:count]


class Loss(MeanMetric):
    """Mean of the loss of each image. A loss of NaN gives NaN."""

    higher_is_better = False  # type: ignore[assignment]  # torchmetrics declares None

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")


class Measure(NamedTuple):
    """A metric of every split.

    Attributes:
        words: its name where results are printed.
        make: makes a metric of torchmetrics that takes probabilities (B, 10) and labels (B,) and returns a number, or a
            number for each class. Its `higher_is_better` decides which checkpoint is the best.
        is_share: whether reports show it in percent.
    """

    words: str
    make: Callable[[], Metric]
    is_share: bool = False


N = len(CLASSES)
# Arguments are checked once, where the data are read; checking each update would stall a GPU.
METRICS = {
    "acc": Measure("accuracy", lambda: MulticlassAccuracy(N, average="micro", validate_args=False), is_share=True),
    "loss": Measure("loss", Loss),
    "f1": Measure("macro F1", lambda: MulticlassF1Score(N, average="macro", validate_args=False), is_share=True),
    "ece": Measure("calibration error", CalibrationError),
    "class_acc": Measure("accuracy of", lambda: MulticlassAccuracy(N, average="none", validate_args=False), True),
}
"""All metrics. A new line here is computed on every split, logged, printed, shown in HPARAMS and reports, and can be
monitored."""


def metric_names() -> list[str]:
    """Return the names of all metrics, such as loss, acc and class_acc/cat."""
    metrics = ClassificationMetrics()
    metrics.update(torch.eye(N), torch.arange(N))
    return list(metrics.compute()[0])


def direction(metric: str) -> Literal["min", "max"]:
    """Return whether low ("min") or high ("max") values of a metric are good.

    Args:
        metric: name with its split, such as val/loss or test/class_acc/cat. Of a metric that is not in `METRICS`, low
            values are good if its name ends in "loss".
    """
    name = metric.partition("/")[2] or metric
    known = METRICS.get(name.split("/")[0])
    lower = known.make().higher_is_better is False if known else name.endswith("loss")
    return "min" if lower else "max"


class ClassificationMetrics(nn.Module):
    """The `METRICS` and the confusion matrix of one split.

    States are sums and counts that torchmetrics adds up over batches and processes, so nothing averages averages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores = MetricCollection({name: measure.make() for name, measure in METRICS.items() if name != "loss"})
        self.confusion = MulticlassConfusionMatrix(N, validate_args=False)
        self.loss = METRICS["loss"].make()

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            logits: float (B, 10), of any precision.
            labels: int64 (B,).
        """
        logits = logits.float()
        probabilities = logits.softmax(1)
        self.scores.update(probabilities, labels)
        self.confusion.update(probabilities, labels)
        self.loss.update(F.cross_entropy(logits, labels, reduction="none"))

    def compute(self) -> tuple[dict[str, Tensor], Tensor]:
        """Return the metrics of all batches since the last reset; every process has to call it.

        Returns:
            Scalars by name ("loss", "acc", "f1", "ece", "class_acc/airplane", ...), and the confusion matrix, int64
            (10, 10), true classes in rows and predicted classes in columns.
        """
        scalars: dict[str, Tensor] = {}
        computed = {"loss": self.loss.compute(), **self.scores.compute()}
        for name in sorted(computed, key=list(METRICS).index):
            value = computed[name]
            scalars |= {f"{name}/{c}": v for c, v in zip(CLASSES, value, strict=True)} if value.ndim else {name: value}
        return scalars, self.confusion.compute()

    def reset(self) -> None:
        """Forget all batches."""
        for metric in (self.scores, self.confusion, self.loss):
            metric.reset()
