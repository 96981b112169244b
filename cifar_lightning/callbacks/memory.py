"""Memory of the process between the steps of a training on the CPU."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.memory import keep_freed_memory, release_freed_memory

__all__ = ["KeepMemory"]


class KeepMemory(Callback):
    """Keeps freed memory for the next step, and hands it back before an epoch whose images are of another size."""

    def __init__(self) -> None:
        self._image_size: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sets up the allocator; a GPU has one of its own."""
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
            release_freed_memory()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lets the blocks of the last epoch go where they would fit this one badly: new ones cost time as well."""
        size = getattr(trainer.train_dataloader, "image_size", None)
        if size != self._image_size:
            release_freed_memory()
        self._image_size = size
