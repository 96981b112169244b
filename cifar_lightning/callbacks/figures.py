"""Figures in TensorBoard while a network trains, and as PNG files after a test."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torch import Tensor, nn

from cifar_lightning import CLASSES
from cifar_lightning.analysis.activations import evaluating
from cifar_lightning.analysis.figures import FIGURES, Evaluated
from cifar_lightning.analysis.style import render
from cifar_lightning.callbacks.loggers import log_picture
from cifar_lightning.data.datamodule import data_of
from cifar_lightning.data.loader import Batch, gathered
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.files import replacing
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.runs import Run

__all__ = ["FigureLogger", "show_figure"]

logger = logging.getLogger(__name__)

PROJECTOR = "projector"
PROJECTOR_IMAGES = 1000
ALL = [*FIGURES, PROJECTOR]


@dataclass(frozen=True)
class Pending:
    """A validation whose figures are drawn if it was the last one.

    Attributes:
        outputs: indices, labels and logits of the images that this process evaluated.
        epoch: number of the epoch, from 1.
        step: optimizer steps up to it.
    """

    outputs: list[tuple[Tensor, ...]]
    epoch: int
    step: int


class FigureLogger(Callback):
    """Log figures of what the network sees, where it fails and how well its confidence is calibrated.

    Args:
        every_n_epochs: Epochs between two drawings of the validation images; 0 for no figures at all. The figures of
            the last epoch, of `validate` and of `test` are always drawn.
        show: Figures to draw: confusion, reliability, filters, feature_maps, predictions, mistakes, projector (features
            of validation images in TensorBoard's PROJECTOR tab after the training). An empty list for none.
        images: Largest number of images in the galleries of predictions and mistakes.

    Raises:
        ValueError: for invalid arguments; all problems in one message.
    """

    repeats_train_end = True

    def __init__(self, every_n_epochs: int = 5, show: list[str] = ALL, images: int = 40) -> None:
        self.every_n_epochs = every_n_epochs
        self.show = [name for name in show if name != PROJECTOR] if every_n_epochs else []
        self.projects = PROJECTOR in show and every_n_epochs > 0
        self.images = images
        problems = []
        if every_n_epochs < 0:
            problems.append(f"Expected `figures.every_n_epochs` to be at least 0 epochs, got {every_n_epochs}.")
        if unknown := [name for name in show if name not in (*FIGURES, PROJECTOR)]:
            known = ", ".join((*FIGURES, PROJECTOR))
            problems.append(f"Expected `figures.show` to be a list of some of {known}; got {', '.join(unknown)}.")
        if images < 1:
            problems.append(f"Expected `figures.images` to be at least 1 image, got {images}.")
        if problems:
            raise ValueError(" ".join(problems))
        self._outputs: list[tuple[Tensor, ...]] = []
        self._weights: dict[str, Any] | None = None
        self._pending: Pending | None = None
        self._left_out: set[str] = set()

    def _due(self, trainer: Trainer) -> bool:
        """Return whether to draw after this evaluation."""
        epoch = trainer.current_epoch + 1
        return trainer.state.fn != "fit" or epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: ImageClassifier,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the logits of the batch, and once the weights that gave them.

        Averages of the weights (EMA) are in the network during a validation only, and no longer when it ends.
        """
        if trainer.sanity_checking or not self.show:
            return
        self._outputs.append((batch.indices, batch.labels, outputs))
        if self._weights is None and trainer.is_global_zero and self._due(trainer):
            self._weights = copy.deepcopy(pl_module.net.state_dict())

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_validation_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Draw the figures of the validation images, or keep what they need in case the training ends here."""
        if trainer.sanity_checking or not self.show:
            return
        outputs, self._outputs = self._outputs, []
        # One tensor instead of many small ones, which would fragment the memory of the next epoch.
        parts = [tuple(map(torch.cat, zip(*outputs, strict=True)))] if outputs else []
        evaluated = Pending(parts, trainer.current_epoch + 1, trainer.global_step)
        self._pending = None if self._due(trainer) else evaluated
        if self._pending is None:
            self._draw(trainer, pl_module, "val", evaluated)

    def on_test_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Draw the figures of the test images."""
        if self.show:
            outputs, self._outputs = self._outputs, []
            self._draw(trainer, pl_module, "test", Pending(outputs, 0, 0))

    def on_train_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Draw the last epoch, if it was not due, and fill the PROJECTOR tab."""
        if self._pending is not None:
            self._draw(trainer, pl_module, "val", self._pending)
            self._pending = None
        if self.projects and trainer.is_global_zero:
            self._project(trainer, pl_module)

    def _draw(self, trainer: Trainer, model: ImageClassifier, split: str, pending: Pending) -> None:
        outputs = gathered(trainer, pending.outputs)
        weights, self._weights = self._weights, None
        if not outputs or not trainer.is_global_zero:
            return
        indices, labels, logits = outputs
        data, run, fitting = data_of(trainer), Run(trainer.default_root_dir).title, trainer.state.fn == "fit"
        step = pending.step if fitting else model.trained_steps
        with weights_in(model.net, weights):
            evaluated = Evaluated(
                net=model.net,
                normalize=model.normalize,
                images=getattr(data, split).images[indices],
                labels=labels,
                logits=logits,
                run=f"{run}, epoch {pending.epoch}" if fitting else run,
                where=f"{data.size(split):,} {split} {'SYNTHETIC images' if data.is_synthetic else 'images'}",
                gallery_images=self.images,
            )
            for name in self.show:
                self._log(trainer, name, split, FIGURES[name](evaluated), step)

    def _log(self, trainer: Trainer, name: str, split: str, figure: Figure | str, step: int) -> None:
        """Show a figure, or say once why there is none."""
        if isinstance(figure, str):
            if name not in self._left_out:
                logger.info("Figure `%s` left out: %s.", name, figure)
            self._left_out.add(name)
            return
        show_figure(trainer, f"{split}/{name}", figure, step)

    def _project(self, trainer: Trainer, model: ImageClassifier) -> None:
        """Write features of validation images, with their pictures and classes, to TensorBoard's PROJECTOR tab."""
        val = data_of(trainer).val
        if val is None or not len(val):
            return
        rows = evenly_spaced(len(val), PROJECTOR_IMAGES)
        with weights_in(model.net, None):
            # In the small batches of an evaluation, which need no more memory than the training did.
            batches = [val.images[part].to(model.device) for part in rows.split(data_of(trainer).eval_batch_size)]
            parts = [introspection.features(model.net, model.normalize(images)) for images in batches]
        features = [part.float().cpu() for part in parts if part is not None]
        names = [CLASSES[label] for label in val.labels[rows].tolist()]
        for log in trainer.loggers:
            if isinstance(log, TensorBoardLogger) and features:
                pictures = val.images[rows] / 255
                log.experiment.add_embedding(
                    torch.cat(features), names, pictures, trainer.global_step, "penultimate_features"
                )


def show_figure(trainer: Trainer, tag: str, figure: Figure, step: int) -> None:
    """Log a figure, and outside of a training write it to a file as well."""
    picture = render(figure)
    for log in trainer.loggers:
        log_picture(log, tag, picture, step)
    if trainer.state.fn != "fit" and trainer.loggers:  # a trial run has neither loggers nor a folder
        folder = Path(trainer.default_root_dir) / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / f"{tag.replace('/', '_')}.png") as file:
            picture.save(file, "png")


@contextmanager
def weights_in(net: nn.Module, weights: dict[str, Any] | None) -> Iterator[None]:
    """Evaluate a network with other weights for a while, without gradients; None for its own weights.

    Outside inference mode, so that a figure can turn gradients on.
    """
    with torch.inference_mode(False), torch.no_grad(), evaluating(net):
        own = None if weights is None else copy.deepcopy(net.state_dict())
        try:
            if weights is not None:
                net.load_state_dict(weights)
            yield
        finally:
            if own is not None:
                net.load_state_dict(own)
