"""How a training ends: at its length, by early stopping or pruning, or before that."""

from __future__ import annotations

from typing import NamedTuple

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from cifar_lightning.runs import COMPLETED, EARLY_STOPPED, INTERRUPTED, PRUNED

__all__ = ["Ending", "ending", "epochs_processed", "reached"]


class Ending(NamedTuple):
    """How a training ended.

    Attributes:
        status: one of `STATUS`.
        stopped_by: what ended it, None where it was the length that was asked for.
    """

    status: str
    stopped_by: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether a continued training ends here again, whatever its length."""
        return self.status in (EARLY_STOPPED, PRUNED)


def reached(epochs: int, steps: int, max_epochs: int | None, max_steps: int | None) -> bool:
    """Return whether a training is as long as was asked for.

    Args:
        epochs: epochs that are over.
        steps: optimizer steps so far.
        max_epochs: None and -1 stand for no limit.
        max_steps: the same.
    """
    limits = ((epochs, max_epochs), (steps, max_steps))
    return any(limit not in (None, -1) and done >= limit for done, limit in limits)


def epochs_processed(trainer: Trainer) -> int:
    """Return the epochs that were trained, the last one included in the hooks at its end.

    (`trainer.current_epoch` counts it after these, and not at all where a training is over when it is continued.)
    """
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]  # of a subclass


def ending(trainer: Trainer) -> Ending | None:
    """Return how a training ends, None while it goes on.

    Args:
        trainer: in a hook after an optimizer step, an epoch, or the training.
    """
    epochs = epochs_processed(trainer)
    if reached(epochs, trainer.global_step, trainer.max_epochs, trainer.max_steps):
        return Ending(COMPLETED)
    if not trainer.should_stop or epochs < (trainer.min_epochs or 0) or trainer.global_step < (trainer.min_steps or 0):
        return None
    everyone: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in everyone:
        if (ended := getattr(callback, "ended", None)) is not None:  # of `Pruning`, and of a run that was over
            return Ending(*ended)
        if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            return Ending(EARLY_STOPPED, f"EarlyStopping by {callback.monitor}")
    for callback in everyone:
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return Ending(INTERRUPTED, "max_time")
    return Ending(INTERRUPTED, "trainer.should_stop")
