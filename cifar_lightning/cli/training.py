"""`fit`, `validate`, `test` and `predict`: LightningCLI with run folders and configurations of runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cifar_lightning import imports, models, runs  # noqa: F401  (the models can then be named without their module)
from cifar_lightning.callbacks.checkpoint import AtomicCheckpointIO, RunCheckpoint
from cifar_lightning.callbacks.clean import CleanAccuracy
from cifar_lightning.callbacks.corruptions import CorruptionTest
from cifar_lightning.callbacks.history import MetricsCSV
from cifar_lightning.callbacks.last_checkpoint import LastCheckpoint
from cifar_lightning.callbacks.loggers import LoggerRecords, run_loggers
from cifar_lightning.callbacks.memory import KeepMemory
from cifar_lightning.callbacks.predictions import PredictionWriter
from cifar_lightning.callbacks.records import TensorBoardRecords
from cifar_lightning.callbacks.result import RunResult
from cifar_lightning.callbacks.steps import StepCurves, StepSeed
from cifar_lightning.callbacks.timing import Timing
from cifar_lightning.cli.options import CALLBACKS, FIXED, add_callback_options, add_run_options
from cifar_lightning.commands import COMMANDS
from cifar_lightning.config import (
    TRAINER_DEFAULTS,
    check_monitors,
    check_nulls,
    check_numbers,
    forget_identifiers,
    recorded,
    with_run_config,
)
from cifar_lightning.continuing import check_changes, nothing_left
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.files import check_folder_name, expand_options, not_written
from cifar_lightning.library_errors import naming_the_option
from cifar_lightning.metrics import METRICS
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.precision import check_precision, device_type, native_precision
from cifar_lightning.processes import end_with_parent
from cifar_lightning.rendezvous import rendezvous_on_loopback, report_lost_process
from cifar_lightning.trainer_options import check_trainer, progress_callbacks, run_profiler, script_strategy
from cifar_lightning.usage.items import given_options
from cifar_lightning.usage.parser import Parser, parse_line
from cifar_lightning.usage.typehints import classes_of, import_path

__all__ = ["CifarCLI", "process_rank"]


class CifarCLI(LightningCLI):
    """The model, the data and the trainer of a command line. `run` runs its command.

    Args:
        args: the command line without the program's name.

    Attributes:
        command: "fit", "validate", "test" or "predict".
        ckpt_path: the checkpoint to load; None for none.
        run_folder: the run to write into; None for a trial run (`trainer.fast_dev_run`), which writes nothing.
        tests: whether `test` follows.
    """

    def __init__(self, args: list[str]) -> None:
        given = list(given_options(args))
        self.command = next(str(item.value) for item in given if not item.option)
        self.joins = any(item.option.endswith((".id", ".run_id")) for item in given)  # a run of a logger, by its name
        self.ckpt_path: Path | None = None
        self.run_folder: Path | None = None
        self.continues = False
        self.progress = runs.Progress(0, -1, {})  # of the checkpoint to start from
        self.nothing_left = ""
        if process_rank():
            end_with_parent()  # otherwise it would wait for the others after the first process has ended
        with self._releasing():
            super().__init__(
                ImageClassifier,
                CIFAR10DataModule,
                subclass_mode_model=True,
                save_config_callback=None,
                parser_class=Parser,
                parser_kwargs={
                    "prog": f"cifar-lightning {self.command}",
                    "description": COMMANDS[self.command].help,
                },
                trainer_defaults=TRAINER_DEFAULTS,
                auto_configure_optimizers=False,
                # Checkpoints name no classes: configurations come from files, weights from checkpoints.
                load_from_checkpoint_support=False,
                run=False,
                args=args,
            )

    @contextlib.contextmanager
    def _releasing(self) -> Iterator[None]:
        """Remove the folder of a new run that is still empty when an error ends the block."""
        try:
            yield
        except BaseException:
            if self.run_folder is not None and process_rank() == 0:
                runs.release_if_empty(self.run_folder)
            raise

    # ---- options -----------------------------------------------------------------------------------------------------

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of the run as a whole."""
        add_run_options(parser, self.command)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of callbacks and of the trainer's method."""
        add_callback_options(parser, self.command)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, the configuration of `--run` before all other options."""
        imports.allow([])
        args = with_run_config(args)
        self.config = parse_line(parser, args)
        model = self.config.model
        if model.init_args.net is None:  # the configuration says which network it is
            (preset,) = classes_of(get_type_hints(resolve_name(model.class_path).__init__)["net"])
            self.config = parse_line(parser, [*args, f"--model.net={import_path(preset)}"])

    def before_instantiate_classes(self) -> None:
        """Resolve options that depend on others (precision, inference mode), and check them."""
        config = expand_options(self.config)
        if config.trainer.precision is None and not config.trainer.plugins:  # a plugin may bring its own
            # Resolved here, the precision is in the run's config.yaml, and another machine repeats the same numbers.
            config.trainer.precision = native_precision(device_type(str(config.trainer.accelerator)))
            rank_zero_info(f"Precision: {config.trainer.precision}, the fastest of this device.")
        if config.model.init_args.get("compile"):
            # Compiled code saves tensors for backward that inference mode would have to track.
            config.trainer.inference_mode = False
        if self.command == "fit" and not config.run and not self.joins:
            forget_identifiers(config.trainer.logger)
        check_nulls(config)
        check_monitors(config)
        check_numbers(config)
        self.tests = bool(config.get("test"))
        if self.tests and config.trainer.enable_checkpointing is False:
            raise ValueError(
                "Expected `trainer.enable_checkpointing` true with `test`, got false: there would be no checkpoint to "
                "test. Leave one of the two out."
            )

    # ---- model, data and trainer -------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """Make the data, the model and the trainer."""
        with naming_the_option(self.config):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the run folder and what writes into it."""
        self._find_place()
        options = self.config_init.trainer
        kwargs |= {
            "callbacks": self._callbacks(),
            "profiler": run_profiler(options.profiler, self.run_folder),
            "strategy": script_strategy(options.strategy),
        }
        if self.run_folder is None:
            return super().instantiate_trainer(**kwargs)
        kwargs |= {
            "logger": run_loggers(options.logger, self.run_folder, self._purge_step),
            "default_root_dir": str(self.run_folder),
        }
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError) as error:
            if isinstance(error, TypeError) and "`devices`" not in str(error):
                raise
            raise ValueError(
                f"Expected `trainer` options that fit each other and this machine, got: {error} Look at "
                "`--trainer.accelerator`, `--trainer.devices` and the option that this names."
            ) from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a plugin may bring its own
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        check_precision(str(options.precision), trainer.strategy.root_device.type)
        if self.command == "fit":
            self.model.check_length(trainer)
        return trainer

    def _find_place(self) -> None:
        """Find the checkpoint to load and the folder to write into; check that a continued run keeps its options."""
        config = self.config
        self.model.check_net(self.datamodule.image_sizes)
        named_after = self.model.net if type(self.model) is ImageClassifier else self.model
        self.name = config.name or type(named_after).__name__.removesuffix("Classifier").lower()
        check_folder_name("name", self.name, nested=True)
        self.ckpt_path, resumed = self._checkpoint()
        if config.trainer.fast_dev_run:
            return
        self.config_text = recorded(self.parser, config)
        self.continues = self.command == "fit" and resumed is not None and self.ckpt_path is not None
        if resumed is not None and (self.continues or self.command == "validate"):
            check_changes(resumed, self.config_text, is_training=self.continues)
        if resumed is not None and self.continues:
            limits = config.trainer.max_epochs, config.trainer.max_steps
            self.nothing_left = nothing_left(resumed, self.progress, *limits)
        # A killed run has drawn its curves beyond the checkpoint that it continues from.
        self._purge_step = self.progress.steps + 1 if resumed and self.command == "fit" else None
        self.run_folder = resumed or self._claim()

    def _checkpoint(self) -> tuple[Path | None, Path | None]:
        """Return the checkpoint to load and the run to write into, each None where there is none."""
        given = self.config.ckpt_path
        run = Path(self.config.run) if self.config.run else None
        if run is None and given in ("best", "last"):
            run = runs.newest_run(Path(self.config.save_dir) / self.name)
        starts = self.command == "fit" and given is None
        if starts and run and not (runs.Run(run).is_finished or runs.Run(run).checkpoint_path("last").is_file()):
            return None, run  # it ended before its first checkpoint, and starts again
        if run is not None and given in (None, "best", "last"):
            given = runs.Run(run).checkpoint(given or ("last" if self.command == "fit" else "best"))
        if given is None:
            if self.command != "fit":
                raise ValueError(
                    f"Expected weights to {self.command}: name a run with `--run FOLDER`, or a checkpoint with "
                    "`--ckpt_path FILE`, `best` or `last` (of the newest run of this name)."
                )
            return None, None
        self.progress = runs.check_checkpoint(Path(given), self.model)
        return Path(given), run

    def _claim(self) -> Path:
        """Make the folder of a new run in the first of several processes; the others receive its name later."""
        config = self.config
        if process_rank():
            return Path(config.save_dir) / self.name / (config.version or "version")
        return runs.claim_folder(Path(config.save_dir), self.name, config.version)

    def _callbacks(self) -> list[Callback]:
        """Return all callbacks: those that were given, those with options of their own, and what writes the run."""
        options, run = self.config_init.trainer, self.run_folder
        given = options.callbacks or []
        callbacks: list[Callback] = list(given) if isinstance(given, list) else [given]
        timing = Timing()
        monitored = self.config_init.data.val_size != 0 and options.limit_val_batches != 0
        for key in CALLBACKS:
            callback = self.config_init[key]
            if isinstance(callback, RunCheckpoint) and run is not None:
                callback.dirpath = str((run / runs.CHECKPOINTS).absolute())
                callback.continues = self.continues
            # With nothing to monitor nothing is best, nothing stops early, and the last epoch is the result.
            if isinstance(callback, EarlyStopping | RunCheckpoint) and not monitored:
                continue
            if isinstance(callback, RunCheckpoint) and options.enable_checkpointing is False:
                continue
            callbacks.append(callback)
        if options.enable_progress_bar is not False:
            callbacks += progress_callbacks(options.callbacks, timing)
        seed = self.config.seed_everything
        callbacks += [StepSeed(seed), KeepMemory(), StepCurves()]
        if run is not None:
            callbacks += [
                MetricsCSV(run / runs.HISTORY),
                TensorBoardRecords(self.config_text, timing),
                LoggerRecords(runs.Run(run), self.config_text, self.continues),
                PredictionWriter(run / runs.PREDICTIONS),
                CleanAccuracy(),
                RunResult(run, self.name, seed, self.config_text, timing, self.continues),
            ]
            if options.enable_checkpointing is not False:
                callbacks.append(LastCheckpoint(run, self.config.checkpoint_every_n_steps, self.continues))
        if self.config.get("corruptions"):
            callbacks.append(CorruptionTest(self.config.corruptions))
        return [*callbacks, timing]

    # ---- the command -------------------------------------------------------------------------------------------------

    def run(self) -> Path | None:
        """Run the command.

        Returns:
            The run folder, the same one in all processes; None for a trial run.
        """
        with self._releasing():
            if self.nothing_left:
                rank_zero_info(self.nothing_left)
            else:
                self._run(self.command)
        if self.run_folder is None:
            return None
        return Path(self.trainer.strategy.broadcast(str(self.run_folder)))

    def _run(self, command: str) -> None:
        """Run a method of the trainer. Errors in the data come from one process, before any file is written."""
        self.datamodule.setup(command)
        if command in ("fit", "validate"):
            self.datamodule.check_split(self.progress.split)
        for stage in (command, *(["test"] if self.tests else [])):
            check_trainer(self.trainer, stage)
        rendezvous_on_loopback(self.trainer)
        alone = runs.run_lock(self.run_folder) if self.run_folder and not process_rank() else contextlib.nullcontext()
        with naming_the_option(self.config), alone, report_lost_process(self.trainer, self.run_folder):
            try:
                ckpt_path = self.ckpt_path and str(self.ckpt_path)
                run = getattr(self.trainer, command)
                run(self.model, datamodule=self.datamodule, ckpt_path=ckpt_path, **FIXED[command])
                if self.tests and self.run_folder is None:
                    self.trainer.test(self.model, datamodule=self.datamodule, **FIXED["test"])
            except OSError as error:
                if error.errno is None or error.filename is not None or self.run_folder is None:
                    raise
                raise not_written(self.run_folder, error) from error  # TensorBoard's thread names no file
            self._report("test" if command == "test" else "val")
        if self.run_folder is not None and command == "predict":
            rank_zero_info(f"Predictions: {self.run_folder}/predictions/")
        elif self.run_folder is not None and not self.tests:
            rank_zero_info(f"Run folder: {self.run_folder}")

    def _report(self, split: str) -> None:
        """Log the metrics of a split."""
        metrics = self.trainer.callback_metrics
        parts = [
            f"{measure.words} {metrics[f'{split}/{name}']:.4f}"
            for name, measure in METRICS.items()
            if f"{split}/{name}" in metrics
        ]
        images = "SYNTHETIC images" if self.datamodule.is_synthetic else "images"
        if parts:
            n = int(self.model.confusion[split].sum())
            rank_zero_info(f"{split} on {n:,} {images}: {', '.join(parts)}")


def process_rank() -> int:
    """Return the rank of this process from the environment of its launcher, before there is a trainer."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)
