"""Figures in TensorBoard while a network trains, and as PNG files after a test."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.analysis.confusion import plot_confusion
from cifar_lightning.analysis.filters import plot_filters
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.analysis.style import save_figure
from cifar_lightning.callbacks.context import as_classifier, data_of, run_folder
from cifar_lightning.data.loader import Batch
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["FigureLogger"]


class FigureLogger(Callback):
    """Draws the confusion matrix, the first-layer filters and a grid of predictions.

    Args:
        confusion_every_n_epochs: Epochs between two confusion matrices of the validation images; 0 for none.
        filters_every_n_epochs: Epochs between two pictures of the first layer's weights; 0 for none.
        predictions_every_n_epochs: Epochs between two grids of predictions; 0 for none.
        prediction_images: Images in the grid, the same ones each time, spread evenly over the split; with several
            devices those of them that the first one evaluates.

    Raises:
        ValueError: for a number below its least; all problems in one message.
    """

    def __init__(
        self,
        confusion_every_n_epochs: int = 1,
        filters_every_n_epochs: int = 5,
        predictions_every_n_epochs: int = 5,
        prediction_images: int = 40,
    ) -> None:
        self.cadence = {
            "confusion": confusion_every_n_epochs,
            "filters": filters_every_n_epochs,
            "predictions": predictions_every_n_epochs,
        }
        self.prediction_images = prediction_images
        problems = [
            f"Expected `figures.{name}_every_n_epochs` to be at least 0 epochs, got {every}."
            for name, every in self.cadence.items()
            if every < 0
        ]
        if prediction_images < 1:
            problems.append(f"Expected `figures.prediction_images` to be at least 1 image, got {prediction_images}.")
        if problems:
            raise ValueError(" ".join(problems))
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self._filters: Tensor | None = None

    def _due(self, trainer: Trainer, what: str) -> bool:
        """Whether to draw now: every n epochs, and in the last one."""
        every, epoch = self.cadence[what], trainer.current_epoch + 1
        if every == 0 or not trainer.is_global_zero or trainer.sanity_checking:
            return False
        return trainer.state.fn != "fit" or epoch % every == 0 or epoch == trainer.max_epochs

    def _collect(self, trainer: Trainer, model: ImageClassifier, outputs: Tensor, batch: Batch, split: str) -> None:
        """Keeps the chosen images of the batch with their logits, and the weights that made them.

        Here, and not after the validation, because an average of the weights stands in for them only until then.
        """
        if self._due(trainer, "predictions"):
            n = data_of(trainer).size(split)
            chosen = torch.linspace(0, n - 1, min(n, self.prediction_images)).long().to(batch.indices.device)
            rows = torch.isin(batch.indices, chosen)
            self._seen.append((batch.images[rows], batch.labels[rows], outputs[rows]))
        if self._filters is None and self._due(trainer, "filters"):
            self._filters = model.net.first_filters().detach().clone()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what the figures will show."""
        self._collect(trainer, as_classifier(pl_module), outputs, batch, "val")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps what the figures will show."""
        self._collect(trainer, as_classifier(pl_module), outputs, batch, "test")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the validation images."""
        self._draw(trainer, as_classifier(pl_module), "val", save=trainer.state.fn != "fit")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draws the figures of the test images."""
        self._draw(trainer, as_classifier(pl_module), "test", save=True)

    def _draw(self, trainer: Trainer, model: ImageClassifier, split: str, save: bool) -> None:
        run = _run(trainer)
        title = f"{run}, {_images(trainer, split)}"
        step = trainer.global_step if trainer.state.fn == "fit" else model.trained_steps
        figures: dict[str, Figure] = {}
        if self._due(trainer, "confusion"):
            figures[f"{split}/confusion"] = plot_confusion(
                model.confusion[split], CLASSES, f"Confusion matrix, {title}"
            )
        if self._seen:
            images, labels, logits = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
            figures[f"{split}/predictions"] = plot_predictions(images, labels, logits, CLASSES, f"Predictions, {title}")
        if self._filters is not None:
            figures["filters/first_layer"] = plot_filters(self._filters, f"First-layer filters, {run}")
        self._seen.clear()
        self._filters = None
        for tag, figure in figures.items():
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(tag, figure, step, close=False)
            if save and trainer.loggers:  # a trial run has neither loggers nor a folder
                folder = run_folder(trainer) / "figures"
                folder.mkdir(parents=True, exist_ok=True)
                save_figure(figure, str(folder / f"{tag.replace('/', '_')}.png"))


def _run(trainer: Trainer) -> str:
    """Name and version of the run, and the epoch while it trains."""
    run = "/".join(run_folder(trainer).parts[-2:])
    return f"{run}, epoch {trainer.current_epoch + 1}" if trainer.state.fn == "fit" else run


def _images(trainer: Trainer, split: str) -> str:
    """Number of images and their split, and whether they are synthetic."""
    data = data_of(trainer)
    return f"{data.size(split):,} {split} {'SYNTHETIC images' if data.is_synthetic else 'images'}"
