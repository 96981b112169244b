"""`config.yaml` and `result.json` of a run."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from cifar_lightning import environment
from cifar_lightning.analysis.cost import depth, executed_flops_per_image, flops_per_image
from cifar_lightning.callbacks.ending import Ending, ending, epochs_processed
from cifar_lightning.callbacks.finite import NotFiniteError
from cifar_lightning.callbacks.timing import Timing
from cifar_lightning.config import with_findings
from cifar_lightning.data.datamodule import data_of
from cifar_lightning.files import write_text_atomic
from cifar_lightning.imports import keep_source
from cifar_lightning.metrics import epoch_metrics
from cifar_lightning.models.classifier import ImageClassifier
from cifar_lightning.processes import Interrupted
from cifar_lightning.runs import COMPLETED, CONFIG, FAILED, INTERRUPTED, Run, write_result

__all__ = ["RunResult"]


class RunResult(Callback):
    """Write `config.yaml` at the start of a training, and `result.json` at the end of each stage.

    "fit", "validate" and "test" have an entry each in `result.json`. A training that continues a run changes neither
    file before it has saved a checkpoint.

    The time of a stage does not include imports and reading the data.

    Args:
        run: Run folder.
        name: Name of the run.
        seed: Seed of the run.
        config: Configuration of the run, as YAML.
        timing: Clocks of the trainer.
        continues: Whether the training continues in the folder of the checkpoint that it starts from.
    """

    repeats_train_end = True

    def __init__(self, run: Path, name: str, seed: int, config: str, timing: Timing, continues: bool = False) -> None:
        self.run = run
        self.name = name
        self.seed = seed
        self.config = config
        self.continues = continues
        self.timing = timing
        self._recorded = False
        self._first_epoch = self._depth = 0

    def _write(self, trainer: Trainer, model: ImageClassifier, stage: str, entry: dict[str, Any], **top: Any) -> None:
        if not trainer.is_global_zero:
            return
        seconds = self.timing.stage_seconds
        now = datetime.now(UTC).isoformat(timespec="seconds")
        images = self.timing.images * trainer.world_size
        entry |= {
            "seconds": seconds and round(seconds, 3),
            "images_per_second": seconds and round(images / seconds, 1),
            "devices": trainer.world_size,
            "precision": str(trainer.precision),
            "peak_rss_bytes": environment.peak_rss_bytes(),
        }
        seen = Run(self.run).result
        write_result(
            self.run,
            name=self.name,
            seed=self.seed,
            **top,
            params=sum(p.numel() for p in model.net.parameters()),
            flops_per_image=flops_per_image(model.net),
            depth=self._depth or depth(model.net),
            data={**seen.get("data", {}), **data_of(trainer).describe()},
            **({} if stage != "fit" and "fit" in seen else self._made_with()),
            started=seen.get("started") or self._started_at,
            finished=now,
            **{stage: entry},
        )

    @staticmethod
    def _made_with() -> dict[str, Any]:
        """Return what the training ran with; a test on another machine does not change that."""
        return {
            "git_commit": environment.git_commit(),
            "versions": environment.versions(),
            "hardware": environment.hardware(),
        }

    def setup(self, trainer: Trainer, pl_module: ImageClassifier, stage: str) -> None:
        """Keep the time at which the run started."""
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    def on_train_start(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Write the configuration of a new run."""
        self._first_epoch = trainer.current_epoch
        self._depth = depth(pl_module.net)  # before parts are frozen
        if not self.continues:
            self._write_config(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: ImageClassifier, checkpoint: dict[str, Any]) -> None:
        """Write the configuration of a continued run once there is something that was trained with it."""
        if not self._recorded and self.timing.images:
            self._write_config(trainer)
            if trainer.is_global_zero:
                write_result(self.run, status=None, stopped_by=None, error=None, diverged=None)

    def _write_config(self, trainer: Trainer) -> None:
        self._recorded = True
        if trainer.is_global_zero:
            keep_source(self.run)
            write_text_atomic(self.run / CONFIG, with_findings(self.config, trainer))

    def on_train_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Write the entry "fit" and the status."""
        found = ending(trainer) or Ending(COMPLETED)
        cut_short = self.timing.images > 0 and not trainer.is_last_batch  # by max_steps
        everyone: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        entry = {
            "metrics": _floats(trainer, ("train/", "val/")),
            "epochs": epochs_processed(trainer) - cut_short,
            "steps": trainer.global_step,
            "resumed_from_epoch": self._first_epoch or None,
            "best": _best(trainer),
            **self._flops(trainer, pl_module),
            "skipped_steps": sum(getattr(callback, "skipped_steps", 0) for callback in everyone),
        }
        about = {"status": found.status, "stopped_by": found.stopped_by, "error": None, "diverged": None}
        self._write(trainer, pl_module, "fit", entry, **about)

    def _flops(self, trainer: Trainer, model: ImageClassifier) -> dict[str, int]:
        """Return the FLOPs of the training: three forward passes an image, and those that were executed."""
        groups = trainer.optimizers[0].param_groups
        counted = executed = 0
        for (size, step), images in self.timing.trained.items():
            # Several processes compute the gradients of frozen parts.
            frozen_from = step if trainer.world_size == 1 else 0
            trained = {p for g in groups if g.get("freeze_step", math.inf) > frozen_from for p in g["params"]}
            for name, share in model.trained_networks().items():
                net, count = model.get_submodule(name), round(share * images) * trainer.world_size
                counted += count * 3 * flops_per_image(net, size)
                executed += count * executed_flops_per_image(net, size, trained)
        return {"training_flops": counted, "executed_flops": executed}

    def on_exception(self, trainer: Trainer, pl_module: ImageClassifier, exception: BaseException) -> None:
        """Record an error or a stop. A continued training that has saved nothing changes nothing."""
        nothing_new = self.continues and not self._recorded
        if not trainer.is_global_zero or trainer.state.fn != "fit" or nothing_new:
            return
        if self.run.is_dir() and any(self.run.iterdir()):
            stopped = isinstance(exception, Interrupted | KeyboardInterrupt)
            about = {
                "status": INTERRUPTED if stopped else FAILED,
                "stopped_by": exception.cause if isinstance(exception, Interrupted) else None,
                "error": (str(exception) if isinstance(exception, Interrupted) else repr(exception))[:500],
                "diverged": isinstance(exception, NotFiniteError) or None,
            }
            with contextlib.suppress(OSError):  # on a full disk, the message is about the first file that did not fit
                write_result(self.run, name=self.name, seed=self.seed, **about)

    def on_evaluation_end(self, trainer: Trainer, pl_module: ImageClassifier) -> None:
        """Write the entry "validate" or "test"."""
        stage = trainer.state.fn
        if stage is None or stage == "fit":
            return
        model, split = pl_module, "val" if stage == "validate" else "test"
        entry = {
            "metrics": _floats(trainer, (f"{split}/",)),
            "tta": model.tta,
            "confusion": model.confusion[split].tolist(),
        }
        self._write(trainer, model, stage.value, entry)

    on_validation_end = on_test_end = on_evaluation_end  # type: ignore[assignment]


def _floats(trainer: Trainer, prefixes: tuple[str, ...]) -> dict[str, float]:
    """Return the epoch metrics of some splits."""
    return {k: v for k, v in epoch_metrics(trainer).items() if k.startswith(prefixes)}


def _best(trainer: Trainer) -> dict[str, Any] | None:
    callback = trainer.checkpoint_callback
    monitor = getattr(callback, "monitor", None)
    score = getattr(callback, "best_model_score", None)
    return None if monitor is None or score is None else {"monitor": monitor, "score": float(score)}
