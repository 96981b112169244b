"""What TensorBoard keeps of a run beside its curves: the configuration, the graph, and a row in HPARAMS."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Mapping
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from cifar_lightning.callbacks.context import as_classifier, epoch_metrics, with_findings
from cifar_lightning.metrics import METRICS
from cifar_lightning.runs import flatten
from cifar_lightning.settings import is_setting

__all__ = ["RunLogger", "TensorBoardRecords", "table_row"]

# HPARAMS opens with the first five columns of the alphabet: fit_seconds, these three and val/acc.
FIRST_COLUMNS = ("test/acc", "test/ece", "train/loss")


class RunLogger(TensorBoardLogger):
    """Lightning's logger without the curve of the epoch number, which is no result and runs backwards after a test."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes scalars; Lightning's own calls whatever goes wrong, a full disk too, a value that cannot be logged."""
        for name, value in metrics.items():
            if name != "epoch":
                self.experiment.add_scalar(name, value, step)

    @rank_zero_only
    def save(self) -> None:
        """Flushes; Lightning's own writes an `hparams.yaml` as well, where `config.yaml` says it all."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flushes and closes; after a failure without another one, which would hide the first."""
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
    """Writes the configuration as text, the graph of the network, and hyperparameters with their final metrics.

    Args:
        config: the configuration of the run as YAML.
    """

    def __init__(self, config: str) -> None:
        self.config = config
        self._started = 0.0

    def _writer(self, trainer: Trainer) -> SummaryWriter | None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                return logger.experiment
        return None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes text, graph, and hyperparameters."""
        self._started = time.monotonic()
        if (writer := self._writer(trainer)) is None:
            return
        config = with_findings(self.config, trainer)
        # Four spaces make a code block in Markdown, where a fence would need the text to hold none.
        writer.add_text("config", "\n".join(f"    {line}" for line in config.splitlines()))
        model = as_classifier(pl_module)
        # The hooks of that profiler cannot be copied.
        if not isinstance(trainer.profiler, PyTorchProfiler):  # type: ignore[attr-defined]  # set by a connector
            # A copy, which has no compiled call, and evaluating: tracing must not move any statistic.
            with torch.no_grad():
                image = model.normalize(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=model.device))
                writer.add_graph(copy.deepcopy(model.net).eval(), image)
        # Not the logger's own log_hyperparams: it describes an experiment of one run, and TensorBoard then shows the
        # hyperparameters of one run for all. Without that, it merges the runs and shows what differs first.
        params = {**table_row(yaml.safe_load(config)), "params": sum(p.numel() for p in model.parameters())}
        _, session_start, session_end = hparams(params, {})
        for summary in (session_start, session_end):
            writer._get_file_writer().add_summary(summary)  # the writer has no public way to add a summary

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the final metrics of the training: of the checkpoint that is kept where one was chosen by them."""
        best = {}
        callback = trainer.checkpoint_callback
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            best = {callback.monitor: float(callback.best_model_score)}
        seconds = {"fit_seconds": time.monotonic() - self._started} if self._started else {}
        self._final(trainer, trainer.global_step, best, **seconds)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the metrics of the test."""
        self._final(trainer, as_classifier(pl_module).trained_steps, {})

    def _final(self, trainer: Trainer, step: int, best: dict[str, float], **more: float) -> None:
        if (writer := self._writer(trainer)) is None:
            return
        known = epoch_metrics(trainer) | best
        names = (*FIRST_COLUMNS, *(f"val/{name}" for name in METRICS))
        for name, value in {**{name: known[name] for name in names if name in known}, **more}.items():
            writer.add_scalar(f"hp/{name}", value, step)
