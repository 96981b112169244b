"""Callbacks that end a training early."""

import os
import signal

from lightning.pytorch import Callback, LightningModule, Trainer


class StopAfter(Callback):
    """Stops after a number of epochs of a longer schedule, as a kill between two epochs would, but in this process.

    Args:
        epochs: Epochs to train.
    """

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks the trainer to stop."""
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


class Kill(Callback):
    """Kills its process when the training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sends the signal that nobody can catch."""
        os.kill(os.getpid(), signal.SIGKILL)
