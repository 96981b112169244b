"""What Weights & Biases, MLflow and other loggers get besides metrics: the configuration, figures and the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from cifar_lightning.callbacks.records import RunLogger, table_row
from cifar_lightning.config import with_findings
from cifar_lightning.runs import Run

__all__ = ["LoggerRecords", "log_picture", "run_loggers"]


def run_loggers(given: Logger | list[Logger] | bool | None, run: Path, purge_step: int | None) -> list[Logger]:
    """Return the TensorBoard logger of a run, and those that were given.

    Args:
        given: `trainer.logger`; false for none at all.
        run: Run folder.
        purge_step: The first step whose curves are drawn anew; None for a new run.
    """
    if given is False:
        return []
    own: list[Logger] = [
        RunLogger(run.parent, name="", version=run.name, default_hp_metric=False, purge_step=purge_step)
    ]
    return own + (given if isinstance(given, list) else [given] if isinstance(given, Logger) else [])


class LoggerRecords(Callback):
    """Log the name, the configuration and the weights of a run to the loggers in `trainer.logger`.

    The weights are those that `test` would load: the best checkpoint, or the last where nothing was monitored.

    Args:
        run: Run folder.
        config: Configuration of the run, as YAML.
        continues: Whether the training continues a run, whose configuration was logged.
    """

    repeats_train_end = True

    def __init__(self, run: Run, config: str, continues: bool) -> None:
        self.run = run
        self.config = config
        self.continues = continues

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the name and the configuration."""
        if not trainer.is_global_zero or self.continues:
            return
        options = table_row(yaml.safe_load(with_findings(self.config, trainer)))
        for logger in trainer.loggers[1:]:
            if isinstance(logger, WandbLogger):
                logger.experiment.name = self.run.title
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.update_run(logger.run_id, name=self.run.title)
            logger.log_hyperparams(options)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the weights."""
        found = [path for name in ("best", "last") if (path := self.run.checkpoint_path(name)).is_file()]
        for logger in trainer.loggers[1:] if trainer.is_global_zero and found else ():
            log_weights(logger, found[0])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finish the run of Weights & Biases, which the next command opens again."""
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()


def log_picture(logger: Logger, tag: str, picture: Image.Image, step: int) -> None:
    """Log an RGB picture, where a logger takes pictures.

    Args:
        logger: TensorBoard, Weights & Biases or MLflow; others are left alone.
        tag: Such as val/confusion.
        picture: The picture.
        step: Optimizer steps so far.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(tag, np.asarray(picture), step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [picture], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, key=tag, step=step)


def log_weights(logger: Logger, path: Path) -> None:
    """Log a checkpoint under its name, where a logger takes files."""
    if isinstance(logger, WandbLogger):
        logger.experiment.log_artifact(str(path), name=f"weights-{logger.version}", type="model", aliases=[path.stem])
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "checkpoints")
