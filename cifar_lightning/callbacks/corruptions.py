"""Test a network on corrupted images as well, after a test."""

from __future__ import annotations

import logging
import statistics
import time

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from cifar_lightning.analysis.corruptions import plot_corruptions
from cifar_lightning.callbacks.figures import show_figure
from cifar_lightning.data.corrupted import CorruptedImages
from cifar_lightning.data.corruptions import SEVERITIES
from cifar_lightning.data.datamodule import CIFAR10DataModule, data_of
from cifar_lightning.data.split import stratified_indices
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import Run, write_result

__all__ = ["CorruptionTest"]

logger = logging.getLogger(__name__)


class CorruptionTest(Callback):
    """Write the accuracy under each corruption of CIFAR-10-C into `result.json`, and a figure.

    Each image is taken as it is, without views. Several processes share the corruptions, and the numbers are those of
    one process.

    Args:
        images: Number of test images, of each class as many; all where there are no more.
    """

    def __init__(self, images: int) -> None:
        self.images = images

    def on_test_start(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Open the published files, if there are some: errors come before the test, which takes longer."""
        self._source(data_of(trainer))

    def on_test_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Test, and write what was found."""
        start = time.perf_counter()
        source, rows = self._source(data := data_of(trainer))
        assert data.test is not None
        images, labels = data.test.images[rows], data.test.labels[rows]

        def accuracy(images: Tensor) -> float:
            with torch.inference_mode(), trainer.precision_plugin.test_step_context():
                batches = [part.to(pl_module.device) for part in images.split(data.eval_batch_size)]
                found = torch.cat([pl_module.predict_logits(part, "none").argmax(1).cpu() for part in batches])
            return float((found == labels.cpu()).double().mean())

        jobs = [(name, severity) for name in source.names for severity in SEVERITIES]
        mine = {job: accuracy(source.get(*job)) for job in jobs[trainer.global_rank :: trainer.world_size]}
        everyone: list[dict[tuple[str, int], float]] = [mine] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(everyone, mine)
        found = {job: value for part in everyone for job, value in part.items()}
        by_name = {name: [found[name, severity] for severity in SEVERITIES] for name in source.names}
        if not trainer.is_global_zero:
            return
        clean, mean = accuracy(images), statistics.fmean(found.values())
        where = f"{len(rows):,} test {'SYNTHETIC images' if data.is_synthetic else 'images'}"
        logger.info(
            f"corruptions on {where}: mean accuracy {mean:.4f} over {len(by_name)} kinds in 5 severities, {clean:.4f} "
            "without"
        )
        run = Run(trainer.default_root_dir)
        entry = {
            "images": len(rows),
            "clean": clean,
            "mean": mean,
            "accuracy": by_name,
            "published_files": source.published,
            "seconds": round(time.perf_counter() - start, 3),
        }
        if trainer.loggers:  # a trial run has neither loggers nor a folder
            write_result(run.folder, corruptions=entry)
        figure = plot_corruptions(by_name, clean, f"Accuracy under corruptions, {run.title}, {where}")
        show_figure(trainer, "test/corruptions", figure, pl_module.trained_steps)

    def _source(self, data: CIFAR10DataModule) -> tuple[CorruptedImages, Tensor]:
        """Return the corrupted images and which of the test images they are."""
        test = data.test
        assert test is not None
        few = self.images < len(test)
        rows = stratified_indices(test.labels.cpu(), self.images, 0)[1] if few else torch.arange(len(test))
        return CorruptedImages(test, rows, data.root), rows
