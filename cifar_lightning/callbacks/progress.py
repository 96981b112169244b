"""What the terminal shows: a progress bar for a person, one line an epoch for a log file."""

from __future__ import annotations

import contextlib
import functools
import sys
import time

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from cifar_lightning.callbacks.context import epoch_metrics

__all__ = ["EpochBar", "EpochLines"]

SHOWN = {"train/loss": "train loss", "train/acc": "acc", "val/loss": "val loss", "val/acc": "acc"}


class EpochBar(TQDMProgressBar):
    """A progress bar in a terminal, and none elsewhere.

    Args:
        refresh_rate: Steps between two drawings of the bar.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._interactive = sys.stderr.isatty()

    @property
    def is_enabled(self) -> bool:
        """Whether the bar is drawn: only in a terminal."""
        return super().is_enabled and self._interactive

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that messages start on a line of their own."""
        with contextlib.suppress(TypeError):  # there is none yet
            self.train_progress_bar.close()

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Returns what the bar shows, without the last four letters of the version, which Lightning adds."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown


class EpochLines(Callback):
    """Prints a line for each epoch, above the progress bar where there is one."""

    def __init__(self) -> None:
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock; an epoch that is resumed in its middle calls no other hook."""
        self._started = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock of the epoch."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the line of the epoch, after its training and validation."""
        if not trainer.is_global_zero:
            return
        metrics = epoch_metrics(trainer)
        shown = [f"{label} {float(metrics[key]):.4f}" for key, label in SHOWN.items() if key in metrics]
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        seconds = time.monotonic() - self._started
        bar = trainer.progress_bar_callback
        # tqdm's own print writes nothing where its bar is not drawn.
        say = functools.partial(print, flush=True) if bar is None or not getattr(bar, "is_enabled", True) else bar.print
        say(f"epoch {trainer.current_epoch + 1}{of}: {', '.join(shown)}, {seconds:.1f} s")
