"""Check that a file is a checkpoint that fits a network, without running code from it."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

__all__ = ["Progress", "check_checkpoint"]

CHECKPOINT_KEYS = ("state_dict", "epoch", "global_step", "optimizer_states", "pytorch-lightning_version")


class Progress(NamedTuple):
    """Progress of the training that wrote a checkpoint.

    Attributes:
        epochs: Epochs that were over.
        steps: Optimizer steps.
        split: What decides which images were held out, as `CIFAR10DataModule.split`; empty if it is not known.
    """

    epochs: int
    steps: int
    split: dict[str, Any]


def check_checkpoint(path: Path, model: torch.nn.Module) -> Progress:
    """Check that a file is a checkpoint that fits a model, without running code from it.

    Returns:
        How far the training was.

    Raises:
        ValueError: If the file is missing or damaged, is not a checkpoint, holds pickled objects, or is of another
            network.
    """
    if not path.is_file():
        raise ValueError(f"Expected `--ckpt_path` to be a checkpoint file, got {path}, which does not exist.")
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        # torch raises whatever the broken bytes lead to: UnpicklingError, RuntimeError, EOFError, KeyError, ...
        # Its advice on what it cannot unpickle is to load the file unsafely, so that text is not passed on.
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = ["no file of torch.save"] if pickled else str(error).strip().splitlines() or [type(error).__name__]
        what = (
            "it holds objects other than tensors and plain values, which could run code and are never loaded"
            if pickled and "unsupported global" in str(error).lower()
            else f"it cannot be read ({reason[0][:200]})"
        )
        raise ValueError(f"Expected a checkpoint of this project in {path}, but {what}.") from error
    missing = [key for key in CHECKPOINT_KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ValueError(f"Expected a checkpoint of this project in {path}, but it holds no {', '.join(missing)}.")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict):
        raise ValueError(f"Expected a checkpoint of this project in {path}, but its state_dict holds no weights.")
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()}
    if expected != found:
        differing = sorted({name for name, _ in expected.items() ^ found.items()})
        raise ValueError(
            f"Expected a checkpoint of this network in {path}, but {len(differing)} of its parameters differ in name "
            f"or shape, such as {differing[0]}. Give the configuration that it was trained with: `--run FOLDER` "
            "takes it from the run."
        )
    loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    split = checkpoint.get("CIFAR10DataModule", {}).get("split", {})
    return Progress(int(loop.get("processed", checkpoint["epoch"])), int(checkpoint["global_step"]), split)


def _check_sums(path: Path) -> None:
    """Compare the CRC-32 of each part of a file of torch.save, which torch.load does not."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # as torch tells its own format from the older ones
            return
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged} in it has changed since it was written")
