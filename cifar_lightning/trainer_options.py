"""What the command line makes of the trainer's arguments, where Lightning's own reading would not do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_info

from cifar_lightning.callbacks.progress import EpochBar, EpochLines
from cifar_lightning.callbacks.timing import Timing
from cifar_lightning.private import start_processes_as_commands

__all__ = ["PROFILERS", "check_trainer", "progress_callbacks", "run_profiler", "script_strategy"]

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
"""Profilers by the names that `trainer.profiler` takes."""
SPLITS = {"fit": "train", "validate": "val"}
"""Names of the split in the options of a stage, where they differ."""


def progress_callbacks(given: Callback | Sequence[Callback] | None, timing: Timing) -> list[Callback]:
    """Return the callbacks that show progress: a line per epoch, and a bar where `trainer.callbacks` has none."""
    everyone = [given] if isinstance(given, Callback) else given or []
    bars: list[Callback] = [] if any(isinstance(callback, ProgressBar) for callback in everyone) else [EpochBar()]
    return [*bars, EpochLines(timing)]


def run_profiler(given: Profiler | str | None, run: Path | None) -> Profiler | str | None:
    """Return the profiler of `trainer.profiler`, which writes into `profile/` of the run folder.

    Args:
        given: a name, a profiler (its own `dirpath` stays), or None for none.
        run: the run folder; None for a trial run, which prints its profile.
    """
    if run is None:
        return given
    folder = run / "profile"
    if isinstance(given, str) and given in PROFILERS:
        given = PROFILERS[given](dirpath=folder, filename=given)
    elif isinstance(given, Profiler) and given.dirpath is None:
        given.dirpath, given.filename = folder, given.filename or type(given).__name__
    if isinstance(given, Profiler):
        rank_zero_info(f"Profile: {given.dirpath}/")
    return given


def script_strategy(given: Strategy | str) -> Strategy | str:
    """Return a strategy that starts each process as a command line of its own, as `ddp` does.

    `ddp_spawn`, `ddp_fork` and `ddp_notebook` start functions instead: the results of a training, its logging and its
    signals would stay in those processes. The numbers are the same.
    """
    if isinstance(given, str) and given.startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
        rank_zero_info(f"Strategy: ddp, which starts the processes of {given} as commands of their own.")
        return "_".join(part for part in given.split("_") if part not in ("spawn", "fork", "notebook"))
    if isinstance(given, DDPStrategy):
        start_processes_as_commands(given)
    return given


def check_trainer(trainer: Trainer, stage: str) -> None:
    """Make sure of numbers that Lightning divides by: the batches of a stage, and the intervals between steps.

    Args:
        trainer: the trainer.
        stage: "fit", "validate", "test" or "predict".

    Raises:
        ValueError: naming the option.
    """
    option = f"limit_{SPLITS.get(stage, stage)}_batches"
    if getattr(trainer, option) == 0:
        raise ValueError(
            f"Expected `trainer.{option}` to leave at least one batch to {stage}, got {getattr(trainer, option)}. Set "
            "a number of batches (1), a share of them (1.0), or null for all."
        )
    if not hasattr(trainer, "val_check_interval"):
        trainer.val_check_interval = 0  # of time; Lightning's EarlyStopping asks for it nevertheless
    elif trainer.val_check_interval == 0:
        raise ValueError(
            f"Expected `trainer.val_check_interval` above 0, got {trainer.val_check_interval}. Set a number of "
            "batches, a share of an epoch (0.5) or a time (DD:HH:MM:SS), or turn validation off with "
            "`data.val_size: 0`."
        )
    for name in ("check_val_every_n_epoch", "accumulate_grad_batches"):
        every = getattr(trainer, name)
        if every is not None and every < 1:
            raise ValueError(f"Expected `trainer.{name}` to be at least 1, got {every}.")
