"""`metrics.csv`: one row per epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.files import write_text_atomic
from cifar_lightning.metrics import epoch_metrics

__all__ = ["MetricsCSV"]


class MetricsCSV(Callback):
    """Write the metrics of all epochs after each epoch.

    The rows are part of the checkpoint. A resumed run continues after the rows of its checkpoint, so that each epoch
    has one row. (Lightning's CSVLogger deletes a file that exists.)

    Args:
        path: The file to write; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the row of the epoch; training and validation are over by now.

        An epoch that the training ends in has one too, but not in the checkpoint: a longer training finishes the epoch.
        """
        metrics = {name: value for name, value in epoch_metrics(trainer).items() if not name.startswith("step/")}
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": lr, **dict(sorted(metrics.items()))}
        if trainer.is_last_batch:
            self.rows.append(row)
        if trainer.is_global_zero:
            write_text_atomic(self.path, table(self.rows if trainer.is_last_batch else [*self.rows, row]))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the rows of the checkpoint."""
        self.rows = list(state_dict["rows"])


def table(rows: list[dict[str, float]]) -> str:
    """Return rows as CSV, with a column for each name in any of them."""
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
