"""The options of `fit`, `validate`, `test` and `predict` beside those of the model, the data and the trainer."""

from __future__ import annotations

from typing import Any

from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser

from cifar_lightning.callbacks.checkpoint import RunCheckpoint
from cifar_lightning.callbacks.figures import FigureLogger
from cifar_lightning.callbacks.finite import FiniteCheck
from cifar_lightning.callbacks.layer_logger import LayerLogger
from cifar_lightning.config import CALLBACK_DEFAULTS

__all__ = ["CALLBACKS", "FIXED", "add_callback_options", "add_run_options"]

CALLBACKS = {
    "checkpoint": RunCheckpoint,
    "early_stopping": EarlyStopping,
    "figures": FigureLogger,
    "layers": LayerLogger,
    "finite": FiniteCheck,
}
"""Callbacks with a group of options of their own."""
NO_OPTIONS = {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
"""Arguments of the trainer's methods that are no options of the command line."""
FIXED: dict[str, dict[str, Any]] = {
    "fit": {},
    "validate": {"verbose": False},
    "test": {"verbose": False},
    "predict": {"return_predictions": False},
}
"""Arguments of the trainer's methods that are always the same. `weights_only` stays at its default: checkpoints are
loaded as tensors and plain values."""


def add_run_options(parser: LightningArgumentParser, command: str) -> None:
    """Add the options of the run as a whole.

    Args:
        parser: of the command.
        command: "fit", "validate", "test" or "predict".
    """
    parser.add_argument(
        "--seed_everything",
        type=int,
        default=0,
        help="Seed of the run: initial weights, order of the images, augmentation and dropout.",
    )
    parser.add_argument("--name", type=str | None, default=None, help="Name that runs of one kind share.")
    parser.add_argument(
        "--version", type=str | None, default=None, help="Name of this run; default: the next version_<n>."
    )
    parser.add_argument("--save_dir", type=str, default="lightning_logs", help="Folder of all runs.")
    parser.add_argument(
        "--run",
        type=str | None,
        default=None,
        help="Folder of an earlier run: takes its configuration and its checkpoint (best to evaluate, last to "
        "continue with fit), and writes into it. Options after it change the configuration; a continued training "
        "keeps the settings of its optimizer and the patience of early stopping.",
    )
    parser.add_argument(
        "--checkpoint_every_n_steps",
        type=NonNegativeInt,
        default=0,
        help="Optimizer steps between two checkpoints inside an epoch, for long ones; 0 for none. Every epoch ends "
        "with one anyway.",
    )
    if command == "test":
        parser.add_argument(
            "--corruptions",
            type=NonNegativeInt,
            nargs="?",
            const=2000,
            default=0,
            help="Test on so many of the test images under the corruptions of CIFAR-10-C as well, without views; 2,000 "
            "without a number.",
        )
    if command == "fit":
        parser.add_argument(
            "--test",
            type=bool,
            nargs="?",
            const=True,
            default=False,
            help="Test the best weights after the training (the last ones where it had no validation).",
        )


def add_callback_options(parser: LightningArgumentParser, command: str) -> None:
    """Add the callbacks with options of their own, the options of the trainer's method, and the links."""
    for key, callback in CALLBACKS.items():
        parser.add_class_arguments(callback, key, fail_untyped=False, sub_configs=True)
    parser.set_defaults(CALLBACK_DEFAULTS)
    parser.link_arguments("seed_everything", "data.seed")
    fixed = NO_OPTIONS | FIXED[command].keys() | {"weights_only"}
    parser.add_method_arguments(Trainer, command, skip={*fixed})
