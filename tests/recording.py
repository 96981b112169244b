"""A callback that writes down which samples a process trained on."""

import atexit
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RecordIndices(Callback):
    """Saves the indices of each epoch and rank into the working directory."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collects the indices of the batch."""
        self.seen.append(batch.indices)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch."""
        torch.save(torch.cat(self.seen), f"indices-{trainer.current_epoch}-{trainer.global_rank}.pt")
        self.seen.clear()


class RecordSteps(Callback):
    """Saves the indices of each optimizer step in a file for each rank in the working directory."""

    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []
        self.steps: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Collects the indices of the batch."""
        self.batches.append(batch.indices)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends the step when the optimizer has taken it."""
        if trainer.global_step > len(self.steps):
            self.steps.append(torch.cat(self.batches))
            self.batches.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the steps."""
        torch.save(self.steps, f"steps-{trainer.global_rank}.pt")


class RecordWeights(Callback):
    """Saves the weights at the start of each epoch into the working directory."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes those of all epochs so far."""
        self.seen.append({name: value.clone() for name, value in pl_module.state_dict().items()})
        torch.save(self.seen, "weights.pt")


class Unwritable(Callback):
    """Has a default that no YAML file can hold."""

    def __init__(self, marker: Any = object()) -> None:  # noqa: B008
        self.marker = marker


class RecordImages(Callback):
    """Saves the images of the first epoch, in the order of training, into the working directory."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Collects the images of the batch."""
        if trainer.current_epoch == 0:
            self.seen.append(batch.images)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes them."""
        torch.save(torch.cat(self.seen), "images.pt")


class RecordGroup(Callback):
    """Writes whether the processes are still connected when Python ends, for each rank in the working directory."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Registers what is done at the end."""
        file = Path(f"group-{trainer.global_rank}.txt").absolute()
        atexit.register(lambda: file.write_text(str(torch.distributed.is_initialized())))
