"""The test accuracy without images that an audit doubts, after a test."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from cifar_lightning.analysis.statistics import wilson
from cifar_lightning.data.datamodule import data_of
from cifar_lightning.data.loader import Batch, gathered
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import Run, doubtful_images, write_result

__all__ = ["CleanAccuracy"]

logger = logging.getLogger(__name__)


class CleanAccuracy(Callback):
    """Write the accuracy without near duplicates and without suspects beside that of all test images.

    They are those of `audit`; without an audit of these images, nothing is written. Exact in several processes.
    """

    def __init__(self) -> None:
        self._right: list[tuple[Tensor, Tensor]] = []
        self._doubtful: dict[str, list[int]] = {}

    def on_test_start(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Read the audit: errors come before the test."""
        self._right.clear()
        trained_on = Run(trainer.default_root_dir).result.get("data", {}).get("fingerprint")
        tested_on = data_of(trainer).describe().get("test_fingerprint")
        self._doubtful = doubtful_images(trained_on, tested_on) if trained_on and tested_on else {}

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: ImageClassifier,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep which images were right; a test step of one's own may return no logits."""
        if isinstance(outputs, Tensor) and outputs.ndim == 2:
            self._right.append((batch.indices, outputs.argmax(1) == batch.labels))

    def on_test_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Count, and write what was found."""
        found = gathered(trainer, self._right)
        if not found or not trainer.is_global_zero or not trainer.loggers:
            return
        indices, right = found
        doubtful = self._doubtful
        everything = sorted({index for images in doubtful.values() for index in images})
        left_out = {**doubtful, "both": everything} if len(doubtful) > 1 else doubtful
        counts = {f"without_{name}": counted(indices, right, images) for name, images in left_out.items()}
        entry = {name: count for name, count in counts.items() if count}
        write_result(Path(trainer.default_root_dir), clean=entry or None)
        if entry:
            parts = (f"{part['acc']:.4f} {name.replace('_', ' ')} ({part['images']:,})" for name, part in entry.items())
            logger.info(f"accuracy of the images that the audit does not doubt: {', '.join(parts)}")


def counted(indices: Tensor, right: Tensor, left_out: list[int]) -> dict[str, Any] | None:
    """Return the number of images, their accuracy and its interval (Wilson, 95 %), without some; None for none."""
    kept = right[~torch.isin(indices, torch.tensor(left_out, dtype=torch.long))]
    if not len(kept):
        return None
    accuracy = float(kept.double().mean())
    return {"images": len(kept), "acc": accuracy, "interval": list(wilson(accuracy, len(kept)))}
