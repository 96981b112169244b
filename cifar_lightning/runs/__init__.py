"""The folder of a run.

`Run` reads it; `folder` says who may write there; `checkpoint` checks its checkpoints; `published` makes it for a
network that comes with the package.
"""

from cifar_lightning.runs.audits import AUDIT, audit_folder, doubtful_images, read_audit
from cifar_lightning.runs.checkpoint import Progress, check_checkpoint
from cifar_lightning.runs.folder import claim_folder, newest_run, release_if_empty, run_lock, write_result
from cifar_lightning.runs.published import published_card, published_names, run_folder, unpacked
from cifar_lightning.runs.run import (
    CHECKPOINTS,
    COMPLETED,
    CONFIG,
    EARLY_STOPPED,
    FAILED,
    HISTORY,
    INTERRUPTED,
    PREDICTIONS,
    PRUNED,
    RESULT,
    STATUS,
    Predictions,
    Run,
    flatten,
)

__all__ = [
    "AUDIT",
    "CHECKPOINTS",
    "COMPLETED",
    "CONFIG",
    "EARLY_STOPPED",
    "FAILED",
    "HISTORY",
    "INTERRUPTED",
    "PREDICTIONS",
    "PRUNED",
    "RESULT",
    "STATUS",
    "Predictions",
    "Progress",
    "Run",
    "audit_folder",
    "check_checkpoint",
    "claim_folder",
    "doubtful_images",
    "flatten",
    "newest_run",
    "published_card",
    "published_names",
    "read_audit",
    "release_if_empty",
    "run_folder",
    "run_lock",
    "unpacked",
    "write_result",
]
