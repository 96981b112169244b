"""The configuration of a run: what it may name, its defaults, and how it is written down and read again."""

from __future__ import annotations

import copy
import difflib
import json
import warnings
from collections.abc import Iterator
from enum import Enum
from inspect import isfunction
from pkgutil import resolve_name
from typing import Any, cast

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser

from cifar_lightning import imports, runs
from cifar_lightning.files import expand_arguments
from cifar_lightning.metrics import direction, metric_names
from cifar_lightning.private import UNWRITTEN

__all__ = [
    "CALLBACK_DEFAULTS",
    "FINDERS",
    "TRAINER_DEFAULTS",
    "check_monitors",
    "check_nulls",
    "check_numbers",
    "forget_identifiers",
    "portable",
    "recorded",
    "with_findings",
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
    "checkpoint.mode": "auto",
    "checkpoint.filename": "best",
    "checkpoint.enable_version_counter": False,
    "checkpoint.auto_insert_metric_name": False,
    "early_stopping.monitor": "val/acc",
    "early_stopping.mode": "auto",
    "early_stopping.patience": 10,
    # A training that ends before its first validation has nothing to watch, which is no error.
    "early_stopping.strict": False,
}


def check_numbers(config: Any) -> None:
    """Make sure of numbers that Lightning takes without a look, and of what a run cannot do without.

    Raises:
        ValueError: naming the option.
    """
    if config.trainer.barebones:
        raise ValueError(
            "Expected `trainer.barebones` false, got true: it turns off the metrics and the checkpoints of a run. To "
            "measure speed, see scripts/bench.py."
        )
    for name in ("gradient_clip_val", "log_every_n_steps"):
        value = config.trainer[name]
        if value is not None and not value >= 0:  # NaN neither
            raise ValueError(f"Expected `trainer.{name}` to be at least 0, got {value}.")


FINDERS = ("BatchSizeFinder", "LearningRateFinder")
"""Callbacks that look for a setting before a training. The run records what they found, and not them."""
IDENTIFIERS = {"WandbLogger": "id", "MLFlowLogger": "run_id"}
"""The argument of a logger that names a run that is there."""
FIXED = {
    "dirpath": None,
    "filename": "best",
    "save_last": None,
    "save_top_k": 1,
    "save_weights_only": False,
    "enable_version_counter": False,
}
"""Options of `checkpoint` that the other commands rely on: they look for one whole best.ckpt in the run."""
OFF = {"schedule": "constant", "tta": "none"}
"""What `null` stands for where a name turns an option of a model off."""


def check_nulls(config: Any) -> None:
    """Replace `null` by "off" where an option of the model has such a value, and refuse it where it has none.

    (jsonargparse leaves out what is null, so that the default would apply while the configuration says null.)

    Raises:
        ValueError: naming the options.
    """
    model = config.model
    for name, off in OFF.items():
        if model.init_args.get(name, off) is None:
            model.init_args[name] = off
    optimizer = model.init_args.get("optimizer")
    wrong = [f"`model.{name}`" for name in nulls(model)]
    wrong += [f"`model.optimizer.{name}`" for name in nulls(optimizer)] if optimizer else []
    if wrong:
        raise ValueError(f"Expected a value for {', '.join(wrong)}, got null. Leave the option out for its default.")


def nulls(chosen: Any) -> list[str]:
    """Return the arguments of a class that are null where their default is not.

    Args:
        chosen: with `class_path` and `init_args`.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(resolve_name(chosen.class_path), "chosen", skip={"params"}, fail_untyped=False)
    defaults = parser.get_defaults().chosen
    given = chosen.get("init_args") or {}
    return [name for name in vars(given) if given[name] is None and defaults.get(name) is not None]


def check_monitors(config: Any) -> None:
    """Make sure that checkpoints and early stopping watch metrics that exist, in the direction in which they are good.

    A `mode` of "auto" becomes the direction of the metric.

    Raises:
        ValueError: naming the option and the metrics.
    """
    known = [f"{split}/{metric}" for split in ("train", "val") for metric in metric_names()]
    for group in ("checkpoint", "early_stopping"):
        monitor = config[group].monitor
        if monitor not in known:
            near = difflib.get_close_matches(monitor, known, n=1)
            names = dict.fromkeys(
                name if "/" not in name else f"{name.split('/')[0]}/<class>" for name in metric_names()
            )
            raise ValueError(
                f"Expected `{group}.monitor` to be val/ or train/ with one of {', '.join(names)}, got {monitor}."
                + (f" Did you mean `{near[0]}`?" if near else "")
            )
        if config[group].mode == "auto":
            config[group].mode = direction(monitor)
        check_direction(group, monitor, config[group].mode)
    if wrong := [name for name, value in FIXED.items() if config.checkpoint[name] != value]:
        raise ValueError(
            f"Expected `checkpoint.{wrong[0]}` to be {json.dumps(FIXED[wrong[0]])}, which other commands rely on, got "
            f"{json.dumps(config.checkpoint[wrong[0]])}. For checkpoints of another kind, add "
            "`--trainer.callbacks+=ModelCheckpoint` with options of its own."
        )
    callbacks = config.trainer.callbacks or []
    for entry in callbacks if isinstance(callbacks, list) else [callbacks]:
        options = entry.get("init_args") or {}
        if (monitor := options.get("monitor")) in known and "mode" in options:
            check_direction(f"trainer.callbacks.{entry.class_path.rsplit('.', 1)[-1]}", monitor, options["mode"])


def check_direction(option: str, monitor: str, mode: str) -> None:
    """Make sure that what is best is not what is worst.

    Raises:
        ValueError: when low values of the metric are good and high ones are asked for, or the other way round.
    """
    if mode != (good := direction(monitor)):
        raise ValueError(
            f"Expected `{option}.mode` {good} for {monitor}, of which {'low' if good == 'min' else 'high'} values are "
            f"good, got {mode}. Set `{option}.mode` to {good}."
        )


def recorded(parser: LightningArgumentParser, config: Any) -> str:
    """Return the configuration of a run as YAML: enough to repeat it, and checked to be read back.

    Args:
        parser: of the subcommand.
        config: what it parsed.

    Raises:
        ValueError: naming an option that cannot be written down.
    """
    config = as_plain(portable(config))
    with warnings.catch_warnings(action="ignore"):  # of values that it cannot write
        plain = get_loader("yaml")(parser.dump(config, skip_none=False, skip_link_targets=False))
    restore_unwritten(plain, config, "")
    try:
        parser.parse_object(copy.deepcopy(plain))  # which fills it in
    except (ValueError, TypeError, ArgumentError) as error:
        raise ValueError(
            f"The configuration of this run cannot be read back from its file: {str(error).strip().splitlines()[0]} "
            "Give the option as text, numbers and lists, or leave it out."
        ) from error
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def as_plain(value: Any) -> Any:
    """Return nested options with plain text for enumerations and functions, such as the defaults of a callback."""
    if isinstance(value, Namespace):
        return Namespace({key: as_plain(inner) for key, inner in value.items(branches=True) if "." not in key})
    if isinstance(value, list):
        return [as_plain(inner) for inner in value]
    if isfunction(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value.value) if isinstance(value, str) and isinstance(value, Enum) else value


def restore_unwritten(plain: Any, config: Any, name: str) -> None:
    """Put values in the place of those that jsonargparse left out of nested plain data.

    Args:
        plain: what was written; changed in place.
        config: the values, in the same places.
        name: of the option that both belong to.

    Raises:
        ValueError: for a value that has no text, such as a function.
    """
    items = list(plain.items()) if isinstance(plain, dict) else list(enumerate(plain))
    for key, written in items:
        inner = name if key == "init_args" else f"{name}.{key}".lstrip(".")
        if isinstance(written, dict | list):
            restore_unwritten(written, config[key], inner)
        elif isinstance(written, str) and written.startswith(UNWRITTEN):
            if not isinstance(value := config[key], str | torch.device | torch.dtype):
                raise ValueError(f"Expected `{inner}` as text, numbers or lists, which fit in a file, got {value!r}.")
            plain[key] = str(value)


def with_findings(config: str, trainer: Trainer) -> str:
    """Return the configuration of a run as it trains.

    It holds what `FINDERS` have found, the batches of a step, and the identifiers under which Weights & Biases and
    MLflow know the run, so that a continued training and a test are logged there as well.

    Args:
        config: YAML.
        trainer: The trainer, at the start of the training.
    """
    everyone: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    plain = yaml.safe_load(config)
    plain["trainer"]["accumulate_grad_batches"] = trainer.accumulate_grad_batches
    for (arguments, identifier), logger in zip(logged(plain["trainer"]["logger"]), trainer.loggers[1:], strict=False):
        if identifier:
            arguments[identifier] = logger.version
    if not any(type(callback).__name__ in FINDERS for callback in everyone):
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    data, model = cast(Any, trainer).datamodule, cast(Any, trainer.lightning_module)
    given = plain["trainer"]["callbacks"]
    given = given if isinstance(given, list) else [given]
    plain["trainer"]["callbacks"] = [c for c in given if not c["class_path"].endswith(FINDERS)] or None
    plain["data"]["batch_size"] = min(data.images_per_batch(1), data.size("train"))
    if model.found_lr is not None:
        plain["model"]["init_args"]["optimizer"]["init_args"]["lr"] = model.found_lr
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def logged(loggers: Any) -> Iterator[tuple[Any, str | None]]:
    """Yield the arguments of each logger, and which of them identifies a run, if any.

    Args:
        loggers: The option `trainer.logger`, parsed or as plain data.
    """
    for entry in loggers if isinstance(loggers, list) else [loggers]:
        if entry and not isinstance(entry, bool):
            yield entry.get("init_args") or {}, IDENTIFIERS.get(entry["class_path"].rsplit(".", 1)[-1])


def forget_identifiers(loggers: Any) -> None:
    """Remove the identifiers of runs from loggers: a new run may have the configuration of another."""
    for arguments, identifier in logged(loggers):
        if identifier:
            arguments[identifier] = None


def portable(config: Any) -> Any:
    """The configuration of a run without what belongs to one call: its folder and the checkpoint it came from."""
    config = config.clone()
    for key in ("run", "ckpt_path", "version"):
        config[key] = None
    for key in ("config", "save_dir", "test", "corruptions"):
        config.pop(key, None)
    for group in ("checkpoint", "early_stopping"):
        config[group].mode = "auto"  # as resolved: another metric may have another direction
    return config


def with_run_config(args: list[str]) -> list[str]:
    """The command line with the configuration of its `--run`, if it has one, put before all other options.

    Raises:
        ValueError: when the folder is no run.
    """
    args = expand_arguments(args)
    for i, arg in enumerate(args):
        run = args[i + 1] if arg == "--run" and i + 1 < len(args) else arg.removeprefix("--run=")
        if arg == "--run" or run != arg:
            given = runs.Run(runs.run_folder(run))
            args = [*args[:i], f"--run={given.folder}", *args[i + (2 if arg == "--run" else 1) :]]
            imports.use_source_of(given.folder)
            config = given.config
            if config.get("data", {}).get("images_per_step"):
                config["trainer"].pop("accumulate_grad_batches", None)  # follows from the devices that are here now
            text = str(given.config_path) if config == given.recorded_config else yaml.safe_dump(config)
            return [*args[:1], "--config", text, *args[1:]]
    return args
