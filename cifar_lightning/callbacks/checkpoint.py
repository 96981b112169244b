"""The best and the last checkpoint of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lightning.files import replacing

__all__ = ["AtomicCheckpointIO", "RunCheckpoint", "flush"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, straight to the disk.

    Lightning makes a copy in memory first, another in the folder for temporary files, and moves that one: twice the
    time, and no single step where the two folders are on different disks.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes to a temporary name beside `path`, flushes and renames."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


def flush(trainer: Trainer) -> None:
    """Has the loggers write what they hold back."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        logger.save()


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which remembers its best value also where the run folder has been moved.

    Lightning compares folders as text and starts anew where they differ, so that a worse epoch of a continued run
    would replace the best one. Here a run is the same when its name and version are.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Removes what a training that was killed while it wrote a checkpoint has left."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero and self.dirpath and self.filename:
            for unfinished in Path(self.dirpath).glob(f".{self.filename}{self.FILE_EXTENSION}.*"):
                unfinished.unlink(missing_ok=True)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Flushes the curves first: a run that goes on from the checkpoint has all that came before it."""
        flush(trainer)
        super()._save_checkpoint(trainer, filepath)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what the checkpoint says of its run, when this run is the same one."""
        here = str(self.dirpath)
        if Path(state_dict["dirpath"]).parts[-3:] == Path(here).parts[-3:]:
            moved = {name: str(Path(here) / Path(path).name) for name, path in _paths(state_dict)}
            best = {str(Path(here) / Path(path).name): value for path, value in state_dict["best_k_models"].items()}
            state_dict = {**state_dict, **moved, "best_k_models": best, "dirpath": here}
        super().load_state_dict(state_dict)


def _paths(state_dict: dict[str, Any]) -> list[tuple[str, str]]:
    """The entries that name a file."""
    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    return [(name, state_dict[name]) for name in names if state_dict[name]]
