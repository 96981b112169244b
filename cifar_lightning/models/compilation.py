"""Compile a network before its training starts."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from cifar_lightning.data.augment import resize
from cifar_lightning.data.loader import stretch_over_epochs
from cifar_lightning.models import introspection

if TYPE_CHECKING:
    from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["compile_ahead"]


def compile_ahead(model: ImageClassifier) -> None:
    """Pass batches like those of the training forward and backward, which compiles the networks for them.

    Weights, gradients, buffers and the random state stay as they were. Without a data module it is compiled in the
    first step.

    Args:
        model: on its device, with networks to compile.
    """
    trainer, started = model.trainer, time.monotonic()
    data = getattr(trainer, "datamodule", None)
    if data is None:
        return
    stretched = stretch_over_epochs(data.image_sizes, trainer.max_epochs or 0) or [32]
    for name, share in model.trained_networks().items():
        net = model.get_submodule(name)
        batch = slice(max(1, round(share * data.images_per_batch(trainer.world_size))))
        images, labels = data.train.images[batch], data.train.labels[batch].to(model.device)
        freezes = name == "net" and trainer.world_size == 1  # otherwise gradients go on: `on_train_batch_start`
        for frozen, sizes in programs(stretched, model.freeze_epochs if freezes else {}):
            with introspection.undisturbed(net), torch.enable_grad(), without_gradients(net, frozen):
                net.train()
                weights = [parameter for parameter in net.parameters() if parameter.requires_grad]
                for size in sizes:
                    with trainer.precision_plugin.train_step_context():
                        loss = model.loss(net(model.normalize(resize(images, size).to(model.device))), labels)
                    torch.autograd.grad(loss, weights, allow_unused=True)
    rank_zero_info(
        f"Compiled for images of {' and '.join(map(str, sorted(set(stretched))))} pixels in "
        f"{time.monotonic() - started:.0f} s."
    )


def programs(sizes: list[int], freeze_epochs: dict[str, float]) -> list[tuple[list[str], list[int]]]:
    """Return the parts that are frozen, and the image sizes of a training meanwhile, from one freezing to the next.

    Args:
        sizes: of the images in each epoch; where their number is unknown, all sizes.
        freeze_epochs: as in `ImageClassifier`.
    """
    found = []
    starts = sorted({0.0, *freeze_epochs.values()})
    for start, end in zip(starts, [*starts[1:], len(sizes)], strict=True):
        frozen = [part for part, epoch in freeze_epochs.items() if epoch <= start]
        found.append((frozen, sorted(set(sizes[int(start) : math.ceil(end)]))))
    return found


@contextlib.contextmanager
def without_gradients(net: nn.Module, parts: list[str]) -> Iterator[None]:
    """Compute no gradients for parts of a network."""
    frozen = [p for part in parts for p in net.get_submodule(part).parameters() if p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
