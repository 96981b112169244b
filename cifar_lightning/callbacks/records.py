"""TensorBoard: the logger of a run, its configuration, its graph, and its row in HPARAMS."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from cifar_lightning.callbacks.timing import Timing
from cifar_lightning.config import with_findings
from cifar_lightning.metrics import METRICS, epoch_metrics
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.private import add_summary
from cifar_lightning.runs import flatten
from cifar_lightning.settings import is_setting

__all__ = ["RunLogger", "TensorBoardRecords", "table_row"]

# HPARAMS opens with the first five columns of the alphabet: fit_seconds, these three and val/acc.
FIRST_COLUMNS = ("test/acc", "test/ece", "train/loss")


class RunLogger(TensorBoardLogger):
    """Lightning's logger without the curve of the epoch number, which runs backwards after a test."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars; Lightning's own reports any error, a full disk too, as a value that cannot be logged."""
        for name, value in metrics.items():
            if name != "epoch":
                self.experiment.add_scalar(name, value, step)

    @rank_zero_only
    def save(self) -> None:
        """Flush; Lightning's own also writes `hparams.yaml`, which `config.yaml` replaces."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush and close; after a failure, do not raise a second error, which would hide the first."""
        with contextlib.suppress(OSError) if status == "failed" else contextlib.nullcontext():
            super().finalize(status)


def table_row(options: dict[str, Any]) -> dict[str, float | str]:
    """Return options as numbers and texts, for a row of a table.

    Options that change no result or have no value are left out, as in comparisons. Classes are named without their
    module, and booleans are texts.

    Args:
        options: Nested options.
    """
    row: dict[str, float | str] = {}
    for name, value in flatten(options, short_classes=True).items():
        if value is not None and is_setting(name):
            row[name] = value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
    return row


class TensorBoardRecords(Callback):
    """Log the configuration as text, the graph of the network, and hyperparameters with final metrics.

    Args:
        config: Configuration of the run, as YAML.
        timing: Clocks of the trainer.
    """

    repeats_train_end = True

    def __init__(self, config: str, timing: Timing) -> None:
        self.config = config
        self.timing = timing

    def _writer(self, trainer: Trainer) -> SummaryWriter | None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                return logger.experiment
        return None

    def on_train_start(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Log text, graph, and hyperparameters."""
        if (writer := self._writer(trainer)) is None:
            return
        config = with_findings(self.config, trainer)
        # Four spaces make a code block in Markdown, also where the text holds a fence.
        writer.add_text("config", "\n".join(f"    {line}" for line in config.splitlines()))
        # The hooks of that profiler cannot be copied.
        if not isinstance(trainer.profiler, PyTorchProfiler):  # type: ignore[attr-defined]  # set by a connector
            # A copy has no compiled call; in eval mode, tracing changes no statistics.
            with torch.no_grad():
                image = pl_module.normalize(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=pl_module.device))
                writer.add_graph(copy.deepcopy(pl_module.net).eval(), image)
        # The logger's own log_hyperparams describes an experiment of one run, and TensorBoard then shows the
        # hyperparameters of one run for all. Without it, TensorBoard merges the runs and shows what differs first.
        params = {**table_row(yaml.safe_load(config)), "params": sum(p.numel() for p in pl_module.net.parameters())}
        _, session_start, session_end = hparams(params, {})
        for summary in (session_start, session_end):
            add_summary(writer, summary)

    def on_train_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Log the final metrics of the training; the monitored metric is that of the best checkpoint."""
        best = {}
        callback = trainer.checkpoint_callback
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            best = {callback.monitor: float(callback.best_model_score)}
        seconds = self.timing.stage_seconds
        self._final(trainer, trainer.global_step, best, **({} if seconds is None else {"fit_seconds": seconds}))

    def on_test_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Log the metrics of the test."""
        self._final(trainer, pl_module.trained_steps, {})

    def _final(self, trainer: Trainer, step: int, best: dict[str, float], **more: float) -> None:
        if (writer := self._writer(trainer)) is None:
            return
        known = epoch_metrics(trainer) | best
        names = (*FIRST_COLUMNS, *(f"val/{name}" for name in METRICS))
        for name, value in {**{name: known[name] for name in names if name in known}, **more}.items():
            writer.add_scalar(f"hp/{name}", value, step)
