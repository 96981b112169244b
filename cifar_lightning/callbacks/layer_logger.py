"""Norms of weights and gradients, and statistics of activations, layer by layer in TensorBoard."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch.optim import Optimizer

from cifar_lightning.analysis.activations import layer_outputs, layer_statistics
from cifar_lightning.data.datamodule import data_of
from cifar_lightning.data.split import evenly_spaced
from cifar_lightning.models import introspection
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.private import foreach_norm

__all__ = ["LayerLogger"]


class LayerLogger(Callback):
    """Log norms of weights and gradients, and statistics of activations, of each layer.

    The names of its curves come after those of the final metrics, hp/..., in the alphabet: HPARAMS shows the first few.

    Args:
        every_n_steps: Optimizer steps between two norms of the weights and gradients of each layer; 0 for no curves of
            layers at all. Activations (mean, standard deviation, share of dead units) are logged at each validation.
        images: Validation images that the activations are taken from, spread evenly.

    Raises:
        ValueError: for a number below its minimum; all problems in one message.
    """

    def __init__(self, every_n_steps: int = 50, images: int = 125) -> None:
        self.every_n_steps = every_n_steps
        self.images = images
        problems = []
        if every_n_steps < 0:
            problems.append(f"Expected `layers.every_n_steps` to be at least 0, got {every_n_steps}.")
        if images < 2:
            problems.append(f"Expected `layers.images` to be at least 2 images, got {images}.")
        if problems:
            raise ValueError(" ".join(problems))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: ImageClassifier, optimizer: Optimizer) -> None:
        """Log the norms, of the gradients before they are clipped."""
        every, step = self.every_n_steps, trainer.global_step + 1  # the step that follows, as other curves count
        if every == 0 or step % every or not trainer.is_global_zero or not trainer.loggers:
            return
        net = pl_module.net
        trained = {
            name.removesuffix(".weight"): (parameter.detach(), parameter.grad)
            for name, parameter in net.named_parameters()
            if parameter.ndim > 1 and parameter.grad is not None
        }
        if not trained:
            return
        # All norms go to the host in one copy: a GPU waits once, not once a layer.
        weights, gradients = (torch.stack(foreach_norm(list(p))) for p in zip(*trained.values(), strict=True))
        values = torch.stack([weights, gradients]).cpu()
        rows = {f"layer_weight_norm/{name}": value for name, value in zip(trained, values[0].tolist(), strict=True)}
        rows |= {f"layer_gradient_norm/{name}": value for name, value in zip(trained, values[1].tolist(), strict=True)}
        rows["step/gradient_norm"] = float(values[1].norm())
        self._write(trainer, rows, step)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: ImageClassifier,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the statistics, here because averages of the weights (EMA) are only in the network during validation."""
        model, val = pl_module, data_of(trainer).val
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not fitting or batch_idx or self.every_n_steps == 0 or val is None or not trainer.is_global_zero:
            return
        chosen = evenly_spaced(len(val), self.images)
        images = model.normalize(val.images[chosen].to(model.device))
        rows: dict[str, float] = {}
        for name, output in layer_outputs(model.net, introspection.layers(model.net), images)[1].items():
            found = layer_statistics(output.float())
            rows |= {
                f"layer_activation_mean/{name}": found.mean,
                f"layer_activation_std/{name}": found.std,
                f"layer_dead_units/{name}": found.dead,
            }
        self._write(trainer, rows, trainer.global_step)

    def _write(self, trainer: Trainer, rows: dict[str, float], step: int) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(rows, step)
