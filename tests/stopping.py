"""A callback that ends a training early, as a kill between two epochs would, but in this process."""

from lightning.pytorch import Callback, LightningModule, Trainer


class StopAfter(Callback):
    """Stops after a number of epochs, with the schedule of the whole training.

    Args:
        epochs: Epochs to train.
    """

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks the trainer to stop."""
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs
