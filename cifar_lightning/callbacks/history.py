"""`metrics.csv`: one row an epoch, whole at any time."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.files import write_text_atomic

__all__ = ["MetricsCSV"]


class MetricsCSV(Callback):
    """Keeps a row of all epoch metrics and writes the table anew each epoch.

    The rows travel in the checkpoint: a resumed run goes on with the rows up to its checkpoint, so that no epoch is
    missing and none is there twice. (Lightning's CSVLogger deletes the file that it finds.)

    Args:
        path: the file to write; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the row of the epoch; training and validation are over by now. Half an epoch gets none."""
        if not trainer.is_last_batch:
            return
        metrics = {
            k: float(f"{float(v):.7g}")
            for k, v in sorted(trainer.callback_metrics.items())
            if not k.startswith("step/")
        }
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": lr, **metrics})
        if trainer.is_global_zero:
            write_text_atomic(self.path, self._table())

    def _table(self) -> str:
        columns = dict.fromkeys(name for row in self.rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from the rows of the checkpoint."""
        self.rows = list(state_dict["rows"])
