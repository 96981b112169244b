"""Compile a network before its training starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_info

from cifar_lightning.data.augment import resize
from cifar_lightning.models import introspection

if TYPE_CHECKING:
    from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["compile_ahead"]


def compile_ahead(model: ImageClassifier) -> None:
    """Pass a batch of each image size of the training forward and backward, which compiles the networks for it.

    Weights, gradients, buffers and the random state stay as they were. Without a data module it is compiled in the
    first step.

    Args:
        model: on its device, with networks to compile.
    """
    trainer, started = model.trainer, time.monotonic()
    data = getattr(trainer, "datamodule", None)
    if data is None:
        return
    sizes = sorted(set(data.image_sizes) or {32})
    batch = slice(data.images_per_batch(trainer.world_size))
    images, labels = data.train.images[batch], data.train.labels[batch].to(model.device)
    for net in model.networks:
        weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
        with introspection.undisturbed(net), torch.enable_grad():
            net.train()
            for size in sizes:
                with trainer.precision_plugin.train_step_context():
                    loss = model.loss(net(model.normalize(resize(images, size).to(model.device))), labels)
                torch.autograd.grad(loss, weights, allow_unused=True)
    rank_zero_info(
        f"Compiled for images of {' and '.join(map(str, sizes))} pixels in {time.monotonic() - started:.0f} s."
    )
