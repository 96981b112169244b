"""Stop the worse runs of a sweep early: asynchronous successive halving."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from cifar_lightning.callbacks.ending import Ending
from cifar_lightning.files import write_text_atomic
from cifar_lightning.metrics import direction, epoch_metrics
from cifar_lightning.runs import PRUNED

__all__ = ["Pruning", "survives"]


def survives(own: float, others: list[float], factor: int) -> bool:
    """Return whether a value is among the best 1/factor of all; higher is better, and NaN is the worst.

    Args:
        own: The value.
        others: The values of the other runs so far, in any order.
        factor: At least 2. Of fewer runs than that the best survives.
    """
    if math.isnan(own):
        return False
    better = sum(other > own for other in others)
    return better < math.ceil((len(others) + 1) / factor)


class Pruning(Callback):
    """Stop a run after epoch first_epochs, first_epochs * factor, ... unless it is among the best 1/factor so far.

    This is the stopping variant of asynchronous successive halving (Li et al. 2020, arXiv 1810.05934). The runs of a
    sweep write their values into a shared folder, and none waits for another. Which runs are stopped depends on their
    order in time; a value that was written stays.

    Args:
        folder: Folder that the runs share.
        run: Name of this run in the folder.
        metric: Validation metric to compare.
        mode: Whether high ("max") or low ("min") values are good; "auto" follows from the metric.
        first_epochs: Epochs that every run gets.
        factor: One in `factor` of the runs that reach an epoch continues; at least 2.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, folder: str, run: str, metric: str = "val/acc", mode: str = "auto", first_epochs: int = 1, factor: int = 3
    ) -> None:
        if first_epochs < 1 or factor < 2 or mode not in ("auto", direction(metric)) or not metric.startswith("val/"):
            raise ValueError(
                "Expected Pruning with `first_epochs` of at least 1, `factor` of at least 2, a `metric` of validation "
                f"and the `mode` that fits it, auto or {direction(metric)}; got {first_epochs}, {factor}, {metric} and "
                f"{mode}."
            )
        self.folder = Path(folder)
        self.run = run
        self.metric = metric
        self.sign = 1 if direction(metric) == "max" else -1
        self.first_epochs = first_epochs
        self.factor = factor
        self.ended: Ending | None = None
        self._compared = 0

    def state_dict(self) -> dict[str, int]:
        """Return the epochs after which the run was compared last."""
        return {"compared": self._compared}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on comparing from there."""
        self._compared = state_dict["compared"]

    def _is_due(self, epochs: int) -> bool:
        """Return whether a rung lies between the last comparison and this epoch."""
        rung = self.first_epochs
        while rung <= self._compared:
            rung *= self.factor
        return rung <= epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare at a rung, or at the first validation after it; not in the last epoch."""
        epochs, metrics = trainer.current_epoch + 1, epoch_metrics(trainer)
        if not self._is_due(epochs) or epochs == trainer.max_epochs or not trainer.is_last_batch:
            return
        if self.metric not in metrics:
            if epochs % (trainer.check_val_every_n_epoch or 1) == 0:
                raise ValueError(
                    f"Expected {self.metric} after each validation to prune by, got a training without it."
                )
            return
        self._compared = epochs
        own = self.sign * metrics[self.metric]
        survivor = not trainer.is_global_zero or survives(own, self._exchange(epochs, own), self.factor)
        if not trainer.strategy.broadcast(survivor):
            self.ended = Ending(PRUNED, f"Pruning by {self.metric}")
            trainer.should_stop = True

    def _exchange(self, epochs: int, own: float) -> list[float]:
        """Write the value for the other runs, and return theirs."""
        rung = self.folder / f"{epochs}_epochs"
        rung.mkdir(parents=True, exist_ok=True)
        write_text_atomic(rung / f"{self.run}.json", json.dumps(own))
        others = (path for path in rung.glob("*.json") if path.stem != self.run and not path.name.startswith("."))
        return [json.loads(path.read_text(encoding="utf-8")) for path in others]
