"""Neural networks for CIFAR-10 from raw pixels: data, models, training and analysis on PyTorch Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from cifar_lightning.models.classifier import ImageClassifier
    from cifar_lightning.runs import Run

__all__ = ["CLASSES", "load"]

__version__ = "0.1.0"

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""The ten class names in label order, as in Krizhevsky, "Learning Multiple Layers of Features from Tiny Images"."""


def load(
    path: str | Path | Run,
    device: str | torch.device | None = None,
    allow: Sequence[str] = (),
    pretrained: bool = True,
) -> ImageClassifier:
    """Return the trained network of a run: its best checkpoint, or its last where training had no validation.

    The network is in eval mode and normalises by itself: it takes uint8 images (B, 3, 32, 32) on its device and
    returns logits (B, 10), in the order of `CLASSES`.

    Args:
        path: A run folder, a `cifar_lightning.runs.Run`, or the name of a published network, such as "cnn".
        device: The device for the network; None for the GPU where there is one, else the CPU.
        allow: Modules of your own that the run names, such as ["mynet"]. Only needed for a run of another user or
            machine; their code runs.
        pretrained: Whether to load the trained weights; False for initial ones, from PyTorch's random numbers.

    Raises:
        ValueError: If the folder is not a run, if its checkpoint is missing, damaged or of another network, or if
            there is no such device.

    Example::

        >>> import torch
        >>> from cifar_lightning import CLASSES, load
        >>> model = load("lightning_logs/cnn/version_0", device="cpu")
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> with torch.inference_mode():
        ...     probabilities = model(images).softmax(1)
        >>> probabilities.shape
        torch.Size([2, 10])
        >>> CLASSES[probabilities[0].argmax()] in CLASSES
        True
    """
    from cifar_lightning.trained import load_trained

    return load_trained(path, device, allow, pretrained)[0]
