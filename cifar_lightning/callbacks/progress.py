"""Progress in the terminal: a bar, and one line per epoch."""

from __future__ import annotations

import contextlib
import functools
import sys

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from cifar_lightning.callbacks.timing import Timing
from cifar_lightning.metrics import epoch_metrics

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
        """Return what the bar shows, without the version, of which Lightning shows the last four characters."""
        shown = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)
        return shown


class EpochLines(Callback):
    """Print a line for each epoch, above the progress bar if there is one.

    Args:
        timing: Clocks of the trainer.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch, after its training and validation."""
        if not trainer.is_global_zero:
            return
        metrics = epoch_metrics(trainer)
        shown = [f"{label} {float(metrics[key]):.4f}" for key, label in SHOWN.items() if key in metrics]
        of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        bar = trainer.progress_bar_callback
        # tqdm's own print writes nothing where its bar is not drawn.
        say = functools.partial(print, flush=True) if bar is None or not getattr(bar, "is_enabled", True) else bar.print
        say(f"epoch {trainer.current_epoch + 1}{of}: {', '.join(shown)}, {self.timing.epoch_seconds:.1f} s")
