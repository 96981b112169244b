"""The configuration of a run: what it may name, its defaults, and how it is written down and read again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import get_loader, set_parsing_settings
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from cifar_lightning import CLASSES, runs
from cifar_lightning.callbacks.context import run_folder
from cifar_lightning.files import write_text_atomic

__all__ = [
    "CALLBACK_DEFAULTS",
    "TRAINER_DEFAULTS",
    "Parser",
    "SaveRunConfig",
    "allow_imports",
    "check_groups",
    "check_monitors",
    "check_numbers",
    "hyperparameters",
    "portable",
    "with_run_config",
]

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 10,
    "num_sanity_val_steps": 0,
    "precision": "32-true",
    "log_every_n_steps": 10,
}
CALLBACK_DEFAULTS = {
    "checkpoint.monitor": "val/acc",
    "checkpoint.mode": "max",
    "checkpoint.filename": "best",
    "checkpoint.enable_version_counter": False,
    "checkpoint.auto_insert_metric_name": False,
    "early_stopping.monitor": "val/acc",
    "early_stopping.mode": "max",
    "early_stopping.patience": 10,
    # A training that ends before its first validation has nothing to watch, which is no error.
    "early_stopping.strict": False,
}

GROUPS = ("trainer", "data", "checkpoint", "early_stopping", "figures", "layers", "finite")
"""Options that come in groups; `model` is one as well, and knows its classes."""

IMPORTS = ("cifar_lightning", "lightning", "torch.optim", "torchmetrics")
"""Packages whose classes a configuration may name: to import a module is to run it, and somebody else may have written
the configuration."""
MORE_IMPORTS = "CIFAR_LIGHTNING_IMPORTS"
"""Environment variable with more of them, separated by commas."""


class Parser(LightningArgumentParser):
    """Lightning's parser, which says what a person can do about a class that is not to be imported."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints usage and message, and exits with status 2."""
        advice = "Add the import path to import_path_allowlist in set_parsing_settings to allow it"
        allow = f"If you trust its package, name that in the environment variable {MORE_IMPORTS}"
        super().error(message.replace(advice, allow), ex)


def allow_imports() -> None:
    """Lets configurations name classes of the packages above, and of no others."""
    asked = [name.strip() for name in os.environ.get(MORE_IMPORTS, "").split(",") if name.strip()]
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=[*IMPORTS, *asked])


def check_groups(args: list[str]) -> None:
    """Makes sure that the groups of options in configuration files hold options.

    jsonargparse takes a number in their place: it leaves it out when other options of the group follow, and breaks off
    when none do.

    Args:
        args: the command line.

    Raises:
        ValueError: naming the file, the group and what it holds.
    """
    for arg, following in zip(args, [*args[1:], ""], strict=True):
        given = following if arg in ("--config", "-c") else arg.removeprefix("--config=")
        if given == arg:
            continue
        try:
            if not Path(given).is_file():
                continue  # a pipe can be read once
            content = get_loader("yaml")(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue  # the parser says what is wrong with it
        for group in GROUPS if isinstance(content, dict) else ():
            if not isinstance(content.get(group, {}), dict | str):  # text names a file with the options
                raise ValueError(f"Expected `{group}` in {given} to hold options, got {content[group]!r}.")


def check_numbers(config: Any) -> None:
    """Makes sure of numbers that Lightning takes without a look.

    Raises:
        ValueError: naming the option.
    """
    for name in ("gradient_clip_val", "log_every_n_steps"):
        value = config.trainer[name]
        if value is not None and not value >= 0:  # NaN neither
            raise ValueError(f"Expected `trainer.{name}` to be at least 0, got {value}.")


def check_monitors(config: Any) -> None:
    """Makes sure that what decides on the best checkpoint and on stopping early is a metric that there will be.

    Raises:
        ValueError: naming the option and the metrics.
    """
    metrics = ("loss", "acc", "f1", "ece", *(f"class_acc/{name}" for name in CLASSES))
    known = [f"{split}/{metric}" for split in ("train", "val") for metric in metrics]
    for group in ("checkpoint", "early_stopping"):
        if config[group].monitor not in known:
            raise ValueError(
                f"Expected `{group}.monitor` to be one of {', '.join(known)}, got {config[group].monitor}."
            )


def hyperparameters(text: str) -> dict[str, Any]:
    """What TensorBoard shows as hyperparameters of a run, out of its configuration as YAML."""
    plain = yaml.safe_load(text)
    of_trainer = ("max_epochs", "precision", "devices", "gradient_clip_val", "accumulate_grad_batches")
    return {
        "model": plain["model"],
        "data": plain["data"],
        "seed": plain["seed_everything"],
        "trainer": {key: plain["trainer"][key] for key in of_trainer},
    }


class SaveRunConfig(SaveConfigCallback):
    """Writes `config.yaml` into the run folder when a training starts: enough to repeat it.

    Which checkpoint and which folder it was continued from is no part of what it is.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file; evaluations of a run leave its configuration alone."""
        if stage == "fit" and trainer.is_global_zero:
            text = self.parser.dump(portable(self.config), skip_none=False, skip_link_targets=False)
            write_text_atomic(run_folder(trainer) / runs.CONFIG, text)


def portable(config: Any) -> Any:
    """The configuration of a run without what belongs to one call: its folder and the checkpoint it came from."""
    config = config.clone()
    for key in ("run", "ckpt_path", "version"):
        config[key] = None
    for key in ("config", "save_dir"):
        config.pop(key, None)
    return config


def with_run_config(args: list[str]) -> list[str]:
    """The command line with the configuration of its `--run`, if it has one, put before all other options.

    Raises:
        ValueError: when the folder is no run.
    """
    for i, arg in enumerate(args):
        run = args[i + 1] if arg == "--run" and i + 1 < len(args) else arg.removeprefix("--run=")
        if arg == "--run" or run != arg:
            return [*args[:1], "--config", str(runs.config_path(Path(run))), *args[1:]]
    return args
