"""What TensorBoard keeps of a run beside its curves: the configuration, the graph, and a row in HPARAMS."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

from cifar_lightning.callbacks.context import as_classifier

__all__ = ["TensorBoardRecords", "flatten"]

METRICS = ("val/acc", "val/loss", "train/acc", "train/loss", "test/acc", "test/loss", "test/ece")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, keys joined by dots; lists become text, as TensorBoard takes plain values only.

    `init_args` levels are left out: `model.widths` is what a person types.
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict):
            flat.update(flatten(value, name))
        else:
            flat[name] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


class TensorBoardRecords(Callback):
    """Writes the configuration as text, the graph of the network, and hyperparameters with their final metrics.

    Args:
        config: the configuration of the run as nested dictionaries of plain values.
        config_text: the same as YAML.
    """

    def __init__(self, config: dict[str, Any], config_text: str) -> None:
        self.config = config
        self.config_text = config_text
        self._started = 0.0

    def _writer(self, trainer: Trainer) -> SummaryWriter | None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                return logger.experiment
        return None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes text, graph, and the HPARAMS row, its metrics still open."""
        self._started = time.monotonic()
        if (writer := self._writer(trainer)) is None:
            return
        # Four spaces make a code block in Markdown, where a fence would need the text to hold none.
        writer.add_text("config", "\n".join(f"    {line}" for line in self.config_text.splitlines()))
        # The network without its compiled call, and evaluating: tracing must not move any statistic.
        model = as_classifier(pl_module)
        training = model.net.training
        model.net.eval()
        with torch.no_grad():
            image = model.normalize(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=model.device))
            writer.add_graph(model.net, image)
        model.net.train(training)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                open_metrics = {f"hp/{name}": math.nan for name in (*METRICS, "fit_seconds")}
                params = sum(p.numel() for p in pl_module.parameters())
                logger.log_hyperparams({**flatten(self.config), "params": params}, open_metrics, step=0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fills in the metrics of the training."""
        self._fill_in(trainer, fit_seconds=time.monotonic() - self._started)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fills in the metrics of the test."""
        self._fill_in(trainer)

    def _fill_in(self, trainer: Trainer, **more: float) -> None:
        if (writer := self._writer(trainer)) is None:
            return
        known = {name: float(trainer.callback_metrics[name]) for name in METRICS if name in trainer.callback_metrics}
        for name, value in {**known, **more}.items():
            writer.add_scalar(f"hp/{name}", value, trainer.global_step)
