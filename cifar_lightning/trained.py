"""A trained network, read back from the folder of its run."""

from __future__ import annotations

from pathlib import Path

import torch

from cifar_lightning.cli import CifarCLI
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.models.classifier import ImageClassifier

__all__ = ["load_trained"]


def load_trained(run: Path) -> tuple[ImageClassifier, CIFAR10DataModule]:
    """The network with the weights that it would be tested with, and its data, which are not read yet.

    Args:
        run: such as lightning_logs/cnn/version_0.

    Returns:
        The network in eval mode, on the GPU where there is one, and the data module.

    Raises:
        ValueError: when the folder is no run, or has no checkpoint that fits.
    """
    parts = CifarCLI(["test", "--run", str(run), "--trainer.fast_dev_run=1"])  # a trial run writes nothing
    assert parts.ckpt_path is not None  # `test` has made sure
    checkpoint = torch.load(parts.ckpt_path, map_location="cpu", weights_only=True)
    model: ImageClassifier = parts.model
    model.load_state_dict(checkpoint["state_dict"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval(), parts.datamodule
