"""What a continued run may change, and whether there is anything left to train."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import get_loader

from cifar_lightning import runs
from cifar_lightning.callbacks.ending import reached
from cifar_lightning.config import FINDERS

__all__ = ["check_changes", "nothing_left"]

SPLIT = ("data.source", "data.val_size", "data.split_seed", "data.val_fold", "data.synthetic_train")
"""Options that decide which images were held out."""
IN_CHECKPOINT = ("seed_everything", "early_stopping.patience", "model")
"""Options whose values a training takes from the checkpoint, or had its effect at the start."""
FREE = (
    "model.schedule",
    "model.warmup_epochs",
    "model.final_lr_ratio",
    "model.label_smoothing",
    "model.loss",
    "model.net.dropout",
    "model.tta",
    "model.temperature",
    "model.channels_last",
    "model.compile",
)
"""Options below these that have an effect at any time."""


def check_changes(run: Path, config: str, is_training: bool) -> None:
    """Make sure that a command on a run changes no option that would have no effect, or hold out other images.

    Args:
        run: the run folder, with a configuration and a checkpoint.
        config: the configuration of the command, as YAML.
        is_training: a training goes on, or its validation images are looked at.

    Raises:
        ValueError: naming all such options, with both values.
    """
    new = get_loader("yaml")(config)
    callbacks = str(new["trainer"]["callbacks"])
    if is_training and (finders := [name for name in FINDERS if name in callbacks]):
        raise ValueError(
            f"Expected {finders[0]} at the start of a training, got it for {run}, which goes on. Leave it out, or "
            "train a new run."
        )
    before, now = runs.flatten(runs.Run(run).config), runs.flatten(new)
    fixed = (*SPLIT, *IN_CHECKPOINT) if is_training else SPLIT
    changed = [
        name
        for name, value in now.items()
        if name.startswith(fixed) and not name.startswith(FREE) and name in before and before[name] != value
    ]
    if changed:
        what = ", ".join(f"`{name}` {before[name]} (got {now[name]})" for name in changed[:3])
        raise ValueError(
            f"Expected the options that {run} was trained with: {what}. "
            + (
                "Other options would hold out other images, which the network may have been trained on. Leave them out."
                if all(name.startswith(SPLIT) for name in changed)
                else "A continued training keeps its network, optimizer, seed and images. Leave these options out, or "
                "train a new run with them."
            )
        )


def nothing_left(run: Path, progress: runs.Progress, max_epochs: int | None, max_steps: int | None) -> str:
    """Return why a run is over, empty while there is something to train.

    Args:
        run: the run folder.
        progress: of its last checkpoint.
        max_epochs: epochs that are asked for; None and -1 stand for no limit.
        max_steps: the same for optimizer steps.
    """
    before = runs.Run(run)
    fit = before.result.get("fit", {})
    if before.status not in (runs.COMPLETED, runs.EARLY_STOPPED, runs.PRUNED) or fit.get("steps") != progress.steps:
        return ""
    done = f"{fit['epochs']} epochs, {progress.steps} steps"
    if before.status != runs.COMPLETED:
        return f"{run} was ended by {before.stopped_by or before.status} after {done}. It stays as it is."
    if reached(progress.epochs, progress.steps, max_epochs, max_steps):
        return f"{run} is complete after {done}. For more, ask for a longer `--trainer.max_epochs`."
    return ""
