"""Checkpoints inside an epoch: every so many steps, and when the process is asked to end."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from cifar_lightning import runs
from cifar_lightning.callbacks.checkpoint import flush
from cifar_lightning.callbacks.figures import FigureLogger
from cifar_lightning.callbacks.records import TensorBoardRecords
from cifar_lightning.callbacks.result import RunResult
from cifar_lightning.processes import Interrupted

__all__ = ["Interruption"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption(Callback):
    """Ends a training after the step in which SIGTERM (a cluster that wants its machine back) or Ctrl-C comes.

    The state goes into `last.ckpt` first, so that `fit --run` continues at the next step. A second signal ends the
    process at once, and costs what came after the last checkpoint.

    Args:
        run: the run folder.
        every_n_steps: optimizer steps between two checkpoints inside an epoch; 0 for none. (At the end of each epoch
            there is one anyway.)
    """

    def __init__(self, run: Path, every_n_steps: int = 0) -> None:
        self.path = run / runs.CHECKPOINTS / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._received: int | None = None
        self._trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes over the signals, from Lightning too, which would stop where gradients are half summed up.

        Lightning gives all of them back in the end, whatever happens.
        """
        self._trained = True
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # a job in the background is deaf to Ctrl-C
                    signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        signal.signal(number, signal.SIG_DFL)  # the next one ends the process at once

    def _asked(self, trainer: Trainer) -> bool:
        """Whether any process was asked to end; all of them have to stop at the same step."""
        asked = self._received is not None
        return bool(trainer.strategy.reduce_boolean_decision(asked, all=False)) if trainer.world_size > 1 else asked

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves after an optimizer step: in between, no checkpoint holds the gradients that are summed up so far."""
        every = trainer.accumulate_grad_batches
        if (batch_idx + 1) % every or trainer.is_last_batch:  # the end of an epoch has a checkpoint of its own
            return
        asked = self._asked(trainer)
        if asked or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            flush(trainer)
            trainer.save_checkpoint(self.path)
        if asked:
            self._stop(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends between two epochs."""
        if self._asked(trainer):
            self._stop(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Has the end told of a training that a process finished, but did not live to tell of.

        Lightning skips a training with no epoch left, and with it the hooks of its end.
        """
        told = runs.read_result(self.path.parents[1]).get("fit", {}).get("epochs") == trainer.current_epoch
        if not self._trained and not told:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, FigureLogger | TensorBoardRecords | RunResult):
                    callback.on_train_end(trainer, pl_module)

    def _stop(self, trainer: Trainer) -> None:
        place = f"after step {trainer.global_step}, in epoch {trainer.current_epoch + 1}"
        rank_zero_info(f"Stopped {place}. Go on with: fit --run {self.path.parents[1]}")
        raise Interrupted(self._received or signal.SIGTERM, place)
