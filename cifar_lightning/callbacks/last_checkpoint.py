"""`last.ckpt`: the state that a training goes on from, wherever it stops."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    Checkpoint,
    GradientAccumulationScheduler,
    StochasticWeightAveraging,
    Timer,
)
from lightning.pytorch.utilities import rank_zero_info

from cifar_lightning import runs
from cifar_lightning.callbacks.ending import Ending, ending
from cifar_lightning.processes import Interrupted

__all__ = ["LastCheckpoint"]

has_batch_norm = StochasticWeightAveraging.pl_module_contains_batch_norm

SIGNALS = (signal.SIGTERM, signal.SIGINT)
EPOCH_STARTERS = (GradientAccumulationScheduler, StochasticWeightAveraging)
"""Callbacks that set up an epoch when it starts and do not keep that in the checkpoint."""


class LastCheckpoint(Checkpoint):
    """Write `last.ckpt` after each epoch, every few steps, and where a training stops inside an epoch.

    A training stops inside an epoch by SIGTERM or Ctrl-C, by `max_time`, by `max_steps`, or when a callback sets
    `trainer.should_stop`. It then ends after an optimizer step (in between, no checkpoint holds the gradients that are
    summed up so far), and after the validation that is due there, but without the extra one that Lightning adds: a
    continued training equals one that never stopped. A second signal ends the process at once, and costs what came
    after the last checkpoint. (Lightning calls callbacks of this type after all others.)

    Args:
        run: The run folder.
        every_n_steps: Optimizer steps between two checkpoints inside an epoch; 0 for none.
        continues: Whether the training goes on in the folder of the checkpoint that it starts from. One that was
            stopped early or pruned then ends where it did.
    """

    def __init__(self, run: Path, every_n_steps: int = 0, continues: bool = False) -> None:
        self.run = run
        self.path = runs.Run(run).checkpoint_path("last")
        self.every_n_steps = every_n_steps
        self.continues = continues
        self.ended: Ending | None = None
        """The final end of the training that the checkpoint belongs to."""
        self._received: int | None = None
        self._stops = False
        self._after_step = False
        self._saved_step = -1
        self._trained = False
        self._max_steps = -1

    def state_dict(self) -> dict[str, Any]:
        """Return how the training ended, if it is over for good."""
        return {"ended": self.ended and list(self.ended)}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flush the loggers, so that all curves lie before the checkpoint, and leave out the time that was used up.

        A limit on the time holds for each call of `fit`: a run that it interrupted goes on with all of it.
        """
        checkpoint["callbacks"].pop(Timer.__qualname__, None)
        for logger in trainer.loggers if trainer.is_global_zero else ():
            logger.save()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the end of a run that was over."""
        ended = checkpoint["callbacks"].get(self.state_key, {}).get("ended")
        if ended and self.continues and trainer.state.fn == "fit":
            self.ended = Ending(*ended)
            trainer.should_stop = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hide `max_steps` while the state is restored: with it, Lightning ends the epoch before a second time."""
        self._max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals from Lightning, which would stop where gradients are half summed up.

        Lightning restores all of them in the end, whatever happens.
        """
        self._trained = True
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        if trainer.fit_loop.restarted_mid_epoch:
            for callback in everyone(trainer):
                if isinstance(callback, EPOCH_STARTERS):
                    callback.on_train_epoch_start(trainer, pl_module)
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # jobs in the background ignore Ctrl-C
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, signal.SIG_DFL)  # the next one ends the process at once

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop after an optimizer step; at the end of an epoch Lightning does."""
        self._stops = self._stops or trainer.should_stop
        trainer.should_stop = False  # Lightning would add a validation
        self._after_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._after_step and not trainer.is_last_batch and not validation_is_due(trainer, batch_idx):
            self._save_or_stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save and stop after a validation inside an epoch."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.is_last_batch:
            self._stops = self._stops or trainer.should_stop
            self._save_or_stop(trainer)

    def _save_or_stop(self, trainer: Trainer) -> None:
        trainer.should_stop = self._stops
        found = self._ending(trainer)
        trainer.should_stop = found is not None and found.is_final
        if not self._after_step and not trainer.should_stop:
            return
        if found or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self._save(trainer, found)
        if found and found.status == runs.INTERRUPTED:
            self._interrupt(trainer, found)

    def _ending(self, trainer: Trainer) -> Ending | None:
        """Return how the training ends after this step; all processes have to stop at the same one."""
        found = ending(trainer)
        if found is None and self._received is not None:
            found = Ending(runs.INTERRUPTED, signal.Signals(self._received).name)
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(found is not None, all=False):
            found = found or Ending(runs.INTERRUPTED, signal.SIGTERM.name)  # another process received it
        return found

    def _save(self, trainer: Trainer, found: Ending | None) -> None:
        if found and found.is_final:
            self.ended = found
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_step = trainer.global_step

    def _interrupt(self, trainer: Trainer, found: Ending) -> None:
        place = f"after step {trainer.global_step}, in epoch {trainer.current_epoch + 1}"
        raise Interrupted(str(found.stopped_by), place)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Report a stop, below the progress bar, which is closed by now."""
        if isinstance(exception, Interrupted):
            rank_zero_info(f"Stopped by {exception}. Go on with: fit --run {self.run}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop between two epochs after a signal."""
        if (found := self._ending(trainer)) is not None:
            self._interrupt(trainer, found)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after the epoch; where the training ended inside it, that has been done."""
        trainer.should_stop = trainer.should_stop or self._stops
        if trainer.is_last_batch or self._saved_step != trainer.global_step:
            self._save(trainer, ending(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights that `StochasticWeightAveraging` puts in place at the very end."""
        if any(isinstance(callback, StochasticWeightAveraging) for callback in everyone(trainer)):
            self._save(trainer, None)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the end-of-training hooks where an earlier process trained the last step and was killed before them.

        Lightning skips a training with nothing left to do, and with it these hooks. Callbacks that need them have an
        attribute `repeats_train_end`.
        """
        if self._trained:
            return
        for callback in everyone(trainer):
            averages = isinstance(callback, StochasticWeightAveraging) and not has_batch_norm(pl_module)
            if averages or getattr(callback, "repeats_train_end", False):
                callback.on_train_end(trainer, pl_module)
        self.on_train_end(trainer, pl_module)


def everyone(trainer: Trainer) -> list[Callback]:
    """Return all callbacks of the trainer."""
    return trainer.callbacks  # type: ignore[attr-defined]


def validation_is_due(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether Lightning validates after this training batch, without being asked to stop."""
    every_n_epochs = trainer.check_val_every_n_epoch
    if not trainer.enable_validation or (every_n_epochs and (trainer.current_epoch + 1) % every_n_epochs):
        return False
    done = (trainer.fit_loop.total_batch_idx if every_n_epochs is None else batch_idx) + 1
    every_n_batches = trainer.val_check_batch  # None where the clock decides
    return every_n_batches not in (None, float("inf")) and done % cast(int, every_n_batches) == 0
