"""The command line: LightningCLI with a run folder, configurations from runs, and errors without tracebacks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_type_hints

from jsonargparse.typing import NonNegativeInt
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cifar_lightning import imports, models, runs  # noqa: F401  (the models can then be named without their module)
from cifar_lightning.callbacks.checkpoint import AtomicCheckpointIO, RunCheckpoint
from cifar_lightning.callbacks.figures import FigureLogger
from cifar_lightning.callbacks.finite import FiniteCheck
from cifar_lightning.callbacks.history import MetricsCSV
from cifar_lightning.callbacks.last_checkpoint import LastCheckpoint
from cifar_lightning.callbacks.layer_logger import LayerLogger
from cifar_lightning.callbacks.memory import KeepMemory
from cifar_lightning.callbacks.predictions import PredictionWriter
from cifar_lightning.callbacks.records import RunLogger, TensorBoardRecords
from cifar_lightning.callbacks.result import RunResult
from cifar_lightning.callbacks.seeding import StepSeed
from cifar_lightning.callbacks.steps import StepCurves
from cifar_lightning.callbacks.throughput import Throughput
from cifar_lightning.config import (
    CALLBACK_DEFAULTS,
    TRAINER_DEFAULTS,
    check_monitors,
    check_nulls,
    check_numbers,
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
from cifar_lightning.rendezvous import explaining_a_lost_process, meet_on_loopback
from cifar_lightning.trainer_options import check_trainer, progress_callbacks, run_profiler, script_strategy
from cifar_lightning.usage.parser import Parser, check_command, parse_line
from cifar_lightning.usage.typehints import classes_of, import_path

__all__ = ["CifarCLI", "Parts"]

DESCRIPTION = (
    "Train and evaluate networks on CIFAR-10. More commands, each with a --help of its own: `report --run FOLDER` "
    "shows what a run learned, `predict --run FOLDER --images PATH...` says what is in your own pictures, and `export "
    "--run FOLDER` writes the network for other programs."
)


class CifarCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict` for any `ImageClassifier` on CIFAR-10.

    Args:
        args: the command line without the program's name.
    """

    def __init__(self, args: list[str]) -> None:
        self.run_folder: Path | None = None
        self.progress = runs.Progress(0, -1, {})  # of the checkpoint to start from
        self.nothing_left = ""
        if process_rank():
            end_with_parent()  # else it would wait for the others long after the first process is gone
        imports.allow([])
        try:
            super().__init__(
                ImageClassifier,
                CIFAR10DataModule,
                subclass_mode_model=True,
                save_config_callback=None,
                parser_class=Parser,
                trainer_defaults=TRAINER_DEFAULTS,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                # Checkpoints name no classes: configurations come from files, weights from checkpoints.
                load_from_checkpoint_support=False,
                parser_kwargs={"prog": "cifar-lightning", "description": DESCRIPTION},
                args=args,
            )
        except BaseException:
            if self.run_folder is not None and process_rank() == 0:
                runs.release_if_empty(self.run_folder)
            raise

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands, each with the trainer's arguments that are no options of the command line."""
        own = {"model", "dataloaders", "train_dataloaders", "val_dataloaders", "datamodule"}
        # Checkpoints are loaded as tensors and plain values, whatever anybody asks.
        fixed = {"weights_only", "verbose", "return_predictions"}
        return dict.fromkeys(("fit", "validate", "test", "predict"), own | fixed)

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that belong to the run as a whole."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=self.seed_everything_default,
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

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the callbacks that have a group of options of their own, and the links."""
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.add_lightning_class_args(FigureLogger, "figures")
        parser.add_lightning_class_args(LayerLogger, "layers")
        parser.add_lightning_class_args(FiniteCheck, "finite")
        parser.set_defaults(CALLBACK_DEFAULTS)
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the command line, the configuration of `--run` before everything else."""
        check_command(parser, args)
        args = with_run_config(args)
        self.config = parse_line(parser, args)
        model = self.config[self.config.subcommand].model if self.config.subcommand else None
        if model is not None and model.init_args.net is None:  # the configuration says which network it is
            (preset,) = classes_of(get_type_hints(resolve_name(model.class_path).__init__)["net"])
            self.config = parse_line(parser, [*args, f"--model.net={import_path(preset)}"])

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would let the hyperparameters in a checkpoint override the command line."""

    def before_instantiate_classes(self) -> None:
        """Settles what follows from other options."""
        config = expand_options(self.config[self.subcommand])
        if config.trainer.precision is None and not config.trainer.plugins:  # a plugin may bring its own
            # Settled here, the precision is in the run's config.yaml, and another machine repeats the same numbers.
            config.trainer.precision = native_precision(device_type(str(config.trainer.accelerator)))
            rank_zero_info(f"Precision: {config.trainer.precision}, what this device is fastest in.")
        if config.model.init_args.get("compile"):
            # Compiled code saves tensors for backward that inference mode would have to track.
            config.trainer.inference_mode = False
        check_nulls(config)
        check_monitors(config)
        check_numbers(config)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Makes the trainer, with the run folder and what writes into it."""
        config = self.config[self.subcommand]
        self.model.check_net(self.datamodule.image_sizes)
        named_after = self.model.net if type(self.model) is ImageClassifier else self.model
        self.name = config.name or type(named_after).__name__.removesuffix("Classifier").lower()
        check_folder_name("name", self.name, nested=True)
        self.ckpt_path, resumed = self._checkpoint(config)
        if config.trainer.fast_dev_run:
            return super().instantiate_trainer(**kwargs)  # touches nothing, so it needs no folder
        self.config_text = recorded(self._parser(self.subcommand), config)
        self.continues = self.subcommand == "fit" and resumed is not None and self.ckpt_path is not None
        if resumed is not None and (self.continues or self.subcommand == "validate"):
            check_changes(resumed, self.config_text, is_training=self.continues)
        if resumed is not None and self.continues:
            limits = config.trainer.max_epochs, config.trainer.max_steps
            self.nothing_left = nothing_left(resumed, self.progress, *limits)
        self.run_folder = resumed or self._claim(config)
        # A killed run has drawn its curves beyond the checkpoint that it goes on from.
        purge_step = self.progress.steps + 1 if resumed and self.subcommand == "fit" else None
        parent, version = self.run_folder.parent, self.run_folder.name
        own = [RunLogger(parent, name="", version=version, default_hp_metric=False, purge_step=purge_step)]
        given = self._get(self.config_init, "trainer").logger
        if given is False:
            own = []
        elif given not in (None, True):
            own += given if isinstance(given, list) else [given]
        try:
            trainer = super().instantiate_trainer(logger=own, default_root_dir=str(self.run_folder), **kwargs)
        except (MisconfigurationException, TypeError) as error:
            if isinstance(error, TypeError) and "`devices`" not in str(error):
                raise
            raise ValueError(
                f"Expected `trainer` options that fit each other and this machine, got: {error} Look at "
                "`--trainer.accelerator`, `--trainer.devices` and the option that this names."
            ) from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # a plugin may bring its own
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        check_precision(str(config.trainer.precision), trainer.strategy.root_device.type)
        if self.subcommand == "fit":
            self.model.check_length(trainer)
        return trainer

    def _claim(self, config: Any) -> Path:
        """The folder of a new run; only the first of several processes makes one, and the others learn of it later."""
        if process_rank():
            return Path(config.save_dir) / self.name / (config.version or "version")
        return runs.claim_folder(Path(config.save_dir), self.name, config.version)

    def _checkpoint(self, config: Any) -> tuple[Path | None, Path | None]:
        """The checkpoint to load and the run to write into, each None where there is none."""
        given = config.ckpt_path
        run = Path(config.run) if config.run else None
        if run is None and given in ("best", "last"):
            run = runs.newest_run(Path(config.save_dir) / self.name)
        starts = self.subcommand == "fit" and given is None
        if starts and run is not None and not runs.Run(run).checkpoint_path("last").is_file():
            return None, run  # it ended before its first checkpoint, and starts again
        if run is not None and given in (None, "best", "last"):
            given = runs.Run(run).checkpoint(given or ("last" if self.subcommand == "fit" else "best"))
        if given is None:
            if self.subcommand != "fit":
                raise ValueError(
                    f"Expected weights to {self.subcommand}: name a run with `--run FOLDER`, or a checkpoint with "
                    "`--ckpt_path FILE`, `best` or `last` (of the newest run of this name)."
                )
            return None, None
        self.progress = runs.check_checkpoint(Path(given), self.model)
        return Path(given), run

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        parsed = self.config[self.subcommand]
        if parsed.data.val_size == 0 or config["limit_val_batches"] == 0:
            # Nothing to watch: nothing is best, nothing stops early, and the last epoch is the result.
            callbacks = [c for c in callbacks if not isinstance(c, EarlyStopping | ModelCheckpoint)]
        if config["enable_checkpointing"] is False:
            callbacks = [c for c in callbacks if not isinstance(c, ModelCheckpoint)]
        for callback in callbacks:
            if isinstance(callback, RunCheckpoint) and self.run_folder is not None:
                callback.dirpath = str((self.run_folder / runs.CHECKPOINTS).absolute())
                callback.continues = self.continues
        if config["enable_progress_bar"] is not False:
            callbacks += progress_callbacks(config["callbacks"])
        config["profiler"] = run_profiler(config["profiler"], self.run_folder)
        config["strategy"] = script_strategy(config["strategy"])
        callbacks += [StepSeed(parsed.seed_everything), KeepMemory(), Throughput(), StepCurves()]
        if self.run_folder is not None:
            callbacks += [
                MetricsCSV(self.run_folder / runs.HISTORY),
                TensorBoardRecords(self.config_text),
                PredictionWriter(self.run_folder / "predictions"),
                RunResult(self.run_folder, self.name, parsed.seed_everything, self.config_text, self.continues),
            ]
            if config["enable_checkpointing"] is not False:
                callbacks.append(LastCheckpoint(self.run_folder, parsed.checkpoint_every_n_steps, self.continues))
        return super()._instantiate_trainer(config, callbacks)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        kwargs["ckpt_path"] = str(self.ckpt_path) if self.ckpt_path else None
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        elif subcommand != "fit":
            kwargs["verbose"] = False
        return kwargs

    def instantiate_classes(self) -> None:
        """Make the data, the model and the trainer."""
        with naming_the_option(self.config[self.subcommand]):
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the subcommand after reading the data: errors in these come from one process, before any file."""
        if self.nothing_left:
            rank_zero_info(self.nothing_left)
            return
        self.datamodule.setup(subcommand)
        if subcommand in ("fit", "validate"):
            self.datamodule.check_split(self.progress.split)
        check_trainer(self.trainer, subcommand)
        meet_on_loopback(self.trainer)
        alone = runs.run_lock(self.run_folder) if self.run_folder and not process_rank() else contextlib.nullcontext()
        naming = naming_the_option(self.config[subcommand])
        with naming, alone, explaining_a_lost_process(self.trainer, self.run_folder):
            try:
                super()._run_subcommand(subcommand)
            except OSError as error:
                if error.errno is None or error.filename is not None or self.run_folder is None:
                    raise
                raise not_written(self.run_folder, error) from error  # TensorBoard's thread names no file

    def after_fit(self) -> None:
        """Says where the run lies."""
        self._report("val")

    def after_validate(self) -> None:
        """Says what came out, and where it was written."""
        self._report("val")

    def after_test(self) -> None:
        """Says what came out, and where it was written."""
        self._report("test")

    def after_predict(self) -> None:
        """Says where the predictions are."""
        if self.run_folder is not None:
            rank_zero_info(f"Predictions: {self.run_folder}/predictions/")

    def _report(self, split: str) -> None:
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
        if self.run_folder is not None:
            rank_zero_info(f"Run folder: {self.run_folder}")


class Parts(CifarCLI):
    """Makes model, data and trainer from a command line, and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def process_rank() -> int:
    """Rank of this process, from the environment that launchers set, before there is a trainer to ask."""
    return int(getattr(rank_zero_only, "rank", 0) or 0)
