"""Write the predictions for the test images."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.data.loader import Batch, gathered
from cifar_lightning.files import write_text_atomic

__all__ = ["PredictionWriter", "predictions_csv"]


def predictions_csv(indices: Tensor, labels: Tensor, probabilities: Tensor) -> str:
    """Return a row per image: index in the split, true class, predicted class, its probability, and all ten.

    `Run.predictions` reads it.

    Args:
        indices: int64 (N,).
        labels: int64 (N,).
        probabilities: float (N, 10).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "label", "prediction", "probability", *CLASSES])
    confidences, predictions = probabilities.max(1)
    rows = zip(
        indices.tolist(),
        labels.tolist(),
        predictions.tolist(),
        confidences.tolist(),
        probabilities.tolist(),
        strict=True,
    )
    for index, label, prediction, confidence, shares in rows:
        row = [index, CLASSES[label], CLASSES[prediction], f"{confidence:.6f}", *(f"{share:.6f}" for share in shares)]
        writer.writerow(row)
    return text.getvalue()


class PredictionWriter(Callback):
    """Gather the predictions of all processes and write `test.csv`, in the order of the split.

    Args:
        folder: Where to write; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier predictions."""
        self._outputs.clear()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the indices, labels and probabilities of the batch."""
        self._outputs.append(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather and write; `limit_predict_batches: 0` leaves nothing to write."""
        outputs = gathered(trainer, self._outputs)
        if outputs and trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text_atomic(self.folder / "test.csv", predictions_csv(*outputs))
