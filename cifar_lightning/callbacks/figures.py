"""Figures in TensorBoard while a network trains, and as PNG files after a test."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor

from cifar_lightning import CLASSES
from cifar_lightning.analysis.calibration import plot_reliability, reliability
from cifar_lightning.analysis.confusion import plot_confusion
from cifar_lightning.analysis.filters import plot_filters
from cifar_lightning.analysis.gallery import plot_predictions
from cifar_lightning.analysis.layers import layer_outputs, plot_feature_maps
from cifar_lightning.analysis.mistakes import confident_mistakes
from cifar_lightning.analysis.style import save_figure
from cifar_lightning.callbacks.context import as_classifier, data_of, gathered, run_folder
from cifar_lightning.data.loader import Batch
from cifar_lightning.data.split import evenly
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["FigureLogger"]


class FigureLogger(Callback):
    """Draws what a network sees, where it fails and how sure it is.

    Args:
        confusion_every_n_epochs: Epochs between two confusion matrices of the validation images; 0 for none.
        reliability_every_n_epochs: Epochs between two reliability diagrams, accuracy against confidence; 0 for none.
        filters_every_n_epochs: Epochs between two pictures of the first layer's weights; 0 for none.
        feature_maps_every_n_epochs: Epochs between two pictures of what each layer makes of an image; 0 for none.
        predictions_every_n_epochs: Epochs between two grids of predictions; 0 for none.
        mistakes_every_n_epochs: Epochs between two grids of the most confident mistakes; 0 for none.
        prediction_images: Images in a grid; those of the predictions are the same each time, spread evenly over the
            split.
        feature_map_images: Images to draw feature maps of, the same each time, spread evenly over the split.
        projector_images: Validation images, spread evenly, whose penultimate features the PROJECTOR tab shows after the
            training; 0 for none.

    Raises:
        ValueError: for a number below its least; all problems in one message.
    """

    repeats_train_end = True

    def __init__(
        self,
        confusion_every_n_epochs: int = 1,
        reliability_every_n_epochs: int = 5,
        filters_every_n_epochs: int = 5,
        feature_maps_every_n_epochs: int = 5,
        predictions_every_n_epochs: int = 5,
        mistakes_every_n_epochs: int = 5,
        prediction_images: int = 40,
        feature_map_images: int = 2,
        projector_images: int = 1000,
    ) -> None:
        self.cadence = {
            "confusion": confusion_every_n_epochs,
            "reliability": reliability_every_n_epochs,
            "filters": filters_every_n_epochs,
            "feature_maps": feature_maps_every_n_epochs,
            "predictions": predictions_every_n_epochs,
            "mistakes": mistakes_every_n_epochs,
        }
        self.prediction_images = prediction_images
        self.feature_map_images = feature_map_images
        self.projector_images = projector_images
        problems = [
            f"Expected `figures.{name}_every_n_epochs` to be at least 0 epochs, got {every}."
            for name, every in self.cadence.items()
            if every < 0
        ]
        problems += [
            f"Expected `figures.{name}` to be at least 1 image, got {count}."
            for name, count in (("prediction_images", prediction_images), ("feature_map_images", feature_map_images))
            if count < 1
        ]
        if projector_images < 0:
            problems.append(f"Expected `figures.projector_images` to be at least 0 images, got {projector_images}.")
        if problems:
            raise ValueError(" ".join(problems))
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []
        self._filters: Tensor | None = None
        self._maps: dict[str, Tensor] = {}

    def _due(self, trainer: Trainer, *figures: str) -> bool:
        """Whether to draw any of these now: every n epochs, and in the last one."""
        if trainer.sanity_checking:
            return False
        epoch, fitting = trainer.current_epoch + 1, trainer.state.fn == "fit"
        cadences = [every for figure in figures if (every := self.cadence[figure])]
        return any(not fitting or epoch % every == 0 or epoch == trainer.max_epochs for every in cadences)

    def _collect(self, trainer: Trainer, model: ImageClassifier, outputs: Tensor, batch: Batch, split: str) -> None:
        """Keeps the logits of the batch, and once what the weights that made them look like and do.

        Here, and not after the validation, because an average of the weights stands in for them only until then.
        """
        if self._due(trainer, "predictions", "mistakes", "reliability"):
            self._outputs.append((batch.indices, batch.labels, outputs))
        if self._filters is None and self._due(trainer, "filters"):
            filters = introspection.first_filters(model.net)
            self._filters = None if filters is None else filters.detach().clone()
        if not self._maps and trainer.is_global_zero and self._due(trainer, "feature_maps"):
            chosen = evenly(data_of(trainer).size(split), self.feature_map_images)
            images = model.normalize(images_of(trainer, split)[chosen].to(model.device))
            _, self._maps = layer_outputs(model.net, introspection.layers(model.net), images)

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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Puts features into the PROJECTOR tab, each with its picture and its class."""
        val, model = data_of(trainer).val, as_classifier(pl_module)
        if not trainer.is_global_zero or not self.projector_images or val is None or not len(val):
            return
        rows = evenly(len(val), self.projector_images)
        training = model.training
        model.eval()
        with torch.no_grad():
            # In the small batches of an evaluation, which need no more memory than the training did.
            batches = rows.split(data_of(trainer).eval_batch_size)
            found = (
                introspection.features(model.net, model.normalize(val.images[part].to(model.device)))
                for part in batches
            )
            parts = [part for part in found if part is not None]
        model.train(training)
        if not parts:
            return
        names = [CLASSES[label] for label in val.labels[rows].tolist()]
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                features, pictures = torch.cat(parts).float().cpu(), val.images[rows] / 255
                logger.experiment.add_embedding(features, names, pictures, trainer.global_step, "penultimate_features")

    def _draw(self, trainer: Trainer, model: ImageClassifier, split: str, save: bool) -> None:
        outputs = gathered(trainer, self._outputs)
        figures = self._figures(trainer, model, split, outputs) if trainer.is_global_zero else {}
        self._outputs.clear()
        self._filters = None
        self._maps = {}
        step = trainer.global_step if trainer.state.fn == "fit" else model.trained_steps
        for tag, figure in figures.items():
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(tag, figure, step, close=False)
            if save and trainer.loggers:  # a trial run has neither loggers nor a folder
                folder = run_folder(trainer) / "figures"
                folder.mkdir(parents=True, exist_ok=True)
                save_figure(figure, folder / f"{tag.replace('/', '_')}.png")

    def _figures(
        self, trainer: Trainer, model: ImageClassifier, split: str, outputs: list[Tensor]
    ) -> dict[str, Figure]:
        """What is due, by its tag in TensorBoard."""
        run = _run(trainer)
        title = f"{run}, {_images(trainer, split)}"
        figures: dict[str, Figure] = {}
        if self._due(trainer, "confusion"):
            figures[f"{split}/confusion"] = plot_confusion(
                model.confusion[split], CLASSES, f"Confusion matrix, {title}"
            )
        if outputs:
            indices, labels, logits = outputs
            images, probabilities = images_of(trainer, split)[indices], logits.float().softmax(1)
            if self._due(trainer, "reliability"):
                diagram = {split: reliability(probabilities, labels)}
                figures[f"{split}/reliability"] = plot_reliability(diagram, f"Reliability, {title}")
            n = self.prediction_images
            grids = {
                "predictions": (evenly(len(labels), n), "Predictions"),
                "mistakes": (confident_mistakes(probabilities, labels, n), "Most confident mistakes"),
            }
            for name, (rows, words) in grids.items():
                if len(rows) and self._due(trainer, name):
                    figures[f"{split}/{name}"] = plot_predictions(
                        images[rows],
                        labels[rows],
                        logits[rows],
                        CLASSES,
                        f"{words}, {title}",
                        count_wrong=name != "mistakes",
                    )
        if self._filters is not None:
            figures["filters/first_layer"] = plot_filters(self._filters, f"First-layer filters, {run}")
        for row, index in enumerate(
            evenly(data_of(trainer).size(split), self.feature_map_images) if self._maps else ()
        ):
            maps = {name: output[row] for name, output in self._maps.items()}
            words = f"Feature maps of {split} image {int(index)}, {title}"
            figures[f"{split}/feature_maps_{row + 1}"] = plot_feature_maps(
                images_of(trainer, split)[index], maps, words
            )
        return figures


def images_of(trainer: Trainer, split: str) -> Tensor:
    """All images of a split, uint8 (N, 3, 32, 32)."""
    images: Tensor = getattr(data_of(trainer), split).images
    return images


def _run(trainer: Trainer) -> str:
    """Name and version of the run, and the epoch while it trains."""
    run = "/".join(run_folder(trainer).parts[-2:])
    return f"{run}, epoch {trainer.current_epoch + 1}" if trainer.state.fn == "fit" else run


def _images(trainer: Trainer, split: str) -> str:
    """Number of images and their split, and whether they are synthetic."""
    data = data_of(trainer)
    return f"{data.size(split):,} {split} {'SYNTHETIC images' if data.is_synthetic else 'images'}"
