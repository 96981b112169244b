"""Trained networks for PyTorch Hub: `torch.hub.list(REPOSITORY)`, `torch.hub.load(REPOSITORY, "cnn")`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cifar_lightning
from cifar_lightning import runs

# torch.hub lists every function and class in here, so that nothing else may be one.
if TYPE_CHECKING:
    from collections.abc import Callable

    from cifar_lightning.models.classifier import ImageClassifier

dependencies = ["jsonargparse", "lightning", "safetensors", "torch", "torchmetrics", "torchvision"]


def _entry(name: str) -> Callable[..., ImageClassifier]:
    def entry(pretrained: bool = True, device: str | None = None) -> ImageClassifier:
        return cifar_lightning.load(name, device, pretrained=pretrained)

    entry.__name__ = name
    entry.__doc__ = f"""{runs.published_card(name).splitlines()[0].removeprefix("# ")}.

    The network takes uint8 images (B, 3, 32, 32) on its device and returns logits (B, 10), in the order of
    `cifar_lightning.CLASSES`. It normalises by itself and is in eval mode.

    Args:
        pretrained: Whether to load the trained weights; False for initial ones.
        device: Such as "cpu" or "cuda:0"; None for the GPU where there is one.
    """
    return entry


globals().update({name: _entry(name) for name in runs.published_names()})
