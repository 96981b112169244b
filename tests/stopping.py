"""Callbacks that end a training early."""

import os
import signal
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


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


class StopInside(Callback):
    """Asks the trainer to stop after a number of training batches, or in the first validation from then on.

    Args:
        after: Batches of the whole training.
        in_validation: In the end of a validation.
    """

    def __init__(self, after: int, in_validation: bool = False) -> None:
        self.after = after
        self.in_validation = in_validation

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Asks once, after a batch."""
        if trainer.fit_loop.total_batch_idx + 1 == self.after and not self.in_validation:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks in a validation."""
        if trainer.fit_loop.total_batch_idx + 1 >= self.after and self.in_validation:
            trainer.should_stop = True


class KillAtEnd(Callback):
    """Ends its process as a power cut would, between the last checkpoint and the end of the training."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises, with no callback left whose hooks could run."""
        trainer.callbacks.clear()
        raise PowerCut


class PowerCut(BaseException):
    """Stands for the end of the process."""


class Kill(Callback):
    """Kills its process when the training starts."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sends the signal that nobody can catch."""
        os.kill(os.getpid(), signal.SIGKILL)


class Signal(Callback):
    """Sends its process a signal after a number of training batches.

    Args:
        number: The signal.
        after: Batches of the whole training.
    """

    def __init__(self, number: int, after: int) -> None:
        self.number = number
        self.after = after

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sends it once."""
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.after:
            os.kill(os.getpid(), self.number)


class Fail(Callback):
    """Fails after a number of training batches.

    Args:
        after: Batches of the whole training.
    """

    def __init__(self, after: int = 1) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Raises."""
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.after:
            raise ValueError("Expected nothing; this callback fails.")


class Devour(Callback):
    """Asks for more memory than there is."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks PyTorch's allocator for a petabyte."""
        torch.empty(2**50, dtype=torch.uint8)


class Poison(Callback):
    """Puts a number that is not finite into the loss, or into the gradient of the first weights.

    Args:
        what: "loss" or "gradient".
        value: "nan" or "inf".
        steps: Optimizer steps, counted from 0.
        rank: The process that does it; all of them when below 0.
    """

    def __init__(self, what: str, value: str, steps: list[int], rank: int = -1) -> None:
        self.what = what
        self.value = float(value)
        self.steps = steps
        self.rank = rank

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Spoils the loss."""
        if self.what == "loss" and trainer.global_step in self.steps and self.rank in (-1, trainer.global_rank):
            loss.data.fill_(self.value)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Spoils the gradient."""
        if self.what == "gradient" and trainer.global_step in self.steps:
            next(p for p in pl_module.net.parameters() if p.grad is not None).grad.view(-1)[0] = self.value
