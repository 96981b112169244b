"""What the terminal shows: a progress bar for a person, one line an epoch for a log file."""

from __future__ import annotations

import functools
import sys
import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

__all__ = ["EpochProgress"]

SHOWN = {"train/loss": "train loss", "train/acc": "acc", "val/loss": "val loss", "val/acc": "acc"}


class EpochProgress(TQDMProgressBar):
    """A bar that is redrawn every few steps in a terminal, and a line for each epoch everywhere.

    Args:
        refresh_rate: Steps between two drawings of the bar.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._interactive = sys.stderr.isatty()
        self._started = 0.0

    @property
    def is_enabled(self) -> bool:
        """Whether the bar is drawn: only where someone watches."""
        return super().is_enabled and self._interactive

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What the bar shows: not the last four letters of the version, which Lightning adds."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown

    def on_train_start(self, trainer: Trainer, *args: object) -> None:
        """Starts the clock; of an epoch that is continued in its middle no other hook tells."""
        self._started = time.monotonic()
        super().on_train_start(trainer, *args)

    def on_train_epoch_start(self, trainer: Trainer, *args: object) -> None:
        """Starts the clock of the epoch."""
        self._started = time.monotonic()
        super().on_train_epoch_start(trainer, *args)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line of the epoch; training and validation are over by now."""
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        metrics = trainer.callback_metrics
        shown = [f"{label} {float(metrics[key]):.4f}" for key, label in SHOWN.items() if key in metrics]
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        seconds = time.monotonic() - self._started
        # Above the bar where there is one; tqdm's own print says nothing where there is none.
        say = self.print if self.is_enabled else functools.partial(print, flush=True)
        say(f"epoch {trainer.current_epoch + 1}{of}: {', '.join(shown)}, {seconds:.1f} s")
