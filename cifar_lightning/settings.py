"""Options of a run that are settings: those that change its numbers. Comparisons and HPARAMS show these alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

__all__ = ["CHANGES_NO_NUMBER", "is_setting", "short_text"]

CHANGES_NO_NUMBER = (
    "checkpoint.auto_insert_metric_name",
    "checkpoint.dirpath",
    "checkpoint.enable_version_counter",
    "checkpoint.filename",
    "checkpoint.save_last",
    "checkpoint.save_on_exception",
    "checkpoint.save_top_k",
    "checkpoint.save_weights_only",
    "checkpoint.verbose",
    "checkpoint_every_n_steps",
    "data.download",
    "data.eval_batch_size",
    "data.root",  # images are compared by their fingerprint, wherever they are
    "early_stopping.log_rank_zero_only",
    "early_stopping.verbose",
    "figures",
    "finite.every_n_steps",
    "layers",
    "model.optimizer.capturable",
    "model.optimizer.differentiable",
    "model.optimizer.foreach",
    "model.optimizer.fused",
    "trainer.barebones",
    "trainer.default_root_dir",
    "trainer.detect_anomaly",
    "trainer.enable_autolog_hparams",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.inference_mode",
    "trainer.limit_predict_batches",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.max_time",  # a training that it stops is not finished
    "trainer.model_registry",
    "trainer.num_sanity_val_steps",
    "trainer.profiler",
)
"""Options, or groups of them, that change no number of a finished run: where and how to work, and what to log.
Options that change the rounding, such as `precision`, `devices` or `model.compile`, change numbers."""
IDENTITY = ("run", "ckpt_path", "version", "save_dir", "name")
"""Options that name a run."""


def is_setting(key: str) -> bool:
    """Return whether an option, named with dots, may change a number of a finished run."""
    return not any(key == other or key.startswith(f"{other}.") for other in (*CHANGES_NO_NUMBER, *IDENTITY))


def short_text(value: Any) -> str:
    """Return a value as a few characters that every file system takes."""
    if isinstance(value, dict) and "class_path" in value:
        value = [value["class_path"].rsplit(".", 1)[-1], *value.get("init_args", {}).values()]
    if isinstance(value, list):
        return "-".join(short_text(item) for item in value)
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        value = Path(value).stem
    return re.sub(r"[^\w.+-]", "", value if isinstance(value, str) else json.dumps(value))
