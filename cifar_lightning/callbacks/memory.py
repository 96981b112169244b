"""Memory of the process between the steps of a training on the CPU."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.memory import keep_freed_memory, release_freed_memory

__all__ = ["KeepMemory"]


class KeepMemory(Callback):
    """Keeps freed memory for the next step, and hands it back between epochs, whose images differ in size."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets up the allocator; a GPU has one of its own."""
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the blocks of the last epoch go, which would fit this one badly."""
        release_freed_memory()
