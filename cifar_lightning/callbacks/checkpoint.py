"""The best and the last checkpoint of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from cifar_lightning.files import replacing

__all__ = ["AtomicCheckpointIO", "RunCheckpoint"]


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


class RunCheckpoint(ModelCheckpoint):
    """Write `best.ckpt`: the weights with the best value of a validation metric so far.

    A run that continues remembers its best value wherever its folder lies now. (Lightning compares folders as text,
    and starts anew where they differ, so that a worse epoch would replace the best one.)
    """

    continues = False
    """Whether the training goes on in the folder of the checkpoint that it starts from."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove what a training that was killed while it wrote a checkpoint has left."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero and self.dirpath:
            for unfinished in Path(self.dirpath).glob(f".*{self.FILE_EXTENSION}.*"):
                unfinished.unlink(missing_ok=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value of the run, if this is the same run and its file is still there."""
        here = Path(str(self.dirpath))
        best = here / Path(state_dict["best_model_path"]).name
        if self.continues and best.is_file():
            own = {name: str(best) for name in ("best_model_path", "kth_best_model_path")}
            scores = {str(best): score for score in state_dict["best_k_models"].values()}
            super().load_state_dict({**state_dict, **own, "best_k_models": scores, "dirpath": self.dirpath})
