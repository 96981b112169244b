"""Write `best.ckpt`, and write checkpoints whole or not at all."""

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
    """Write a checkpoint whole or not at all.

    Lightning writes it into memory first, then into the folder for temporary files, and moves it from there. That takes
    twice the time, and it is not atomic if the two folders are on different disks.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write to a temporary file beside `path`, flush and rename."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)


class RunCheckpoint(ModelCheckpoint):
    """Write `best.ckpt`: the weights with the best value of a validation metric so far.

    A continued run keeps its best value, also if its folder was moved. (Lightning compares the paths of folders, and
    forgets the value if they differ, so that a worse epoch would replace the best one.)
    """

    continues = False
    """Whether the training continues in the folder of the checkpoint that it starts from."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove temporary files of a training that was killed while it wrote a checkpoint."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero and self.dirpath:
            for unfinished in Path(self.dirpath).glob(f".*{self.FILE_EXTENSION}.*"):
                unfinished.unlink(missing_ok=True)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value if the run is the same and its file exists."""
        here = Path(str(self.dirpath))
        best = here / Path(state_dict["best_model_path"]).name
        if self.continues and best.is_file():
            own = {name: str(best) for name in ("best_model_path", "kth_best_model_path")}
            scores = {str(best): score for score in state_dict["best_k_models"].values()}
            super().load_state_dict({**state_dict, **own, "best_k_models": scores, "dirpath": self.dirpath})
