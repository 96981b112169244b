"""The run folder: `lightning_logs/<name>/<version>/`, where everything about one run lies."""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout

from cifar_lightning.files import check_folder_name, write_text_atomic

__all__ = [
    "Progress",
    "at_work",
    "check_checkpoint",
    "checkpoint_path",
    "claim_folder",
    "config_path",
    "has_checkpoint",
    "newest_run",
    "read_result",
    "release_if_empty",
    "write_result",
]

CHECKPOINT_KEYS = ("state_dict", "epoch", "global_step", "optimizer_states", "pytorch-lightning_version")
ENDED = ("completed", "early_stopped", "pruned")
"""Statuses of trainings that are over."""
CONFIG, RESULT, HISTORY, CHECKPOINTS = "config.yaml", "result.json", "metrics.csv", "checkpoints"


def read_result(run: Path) -> dict[str, Any]:
    """The content of `result.json`, empty when there is none yet.

    Raises:
        ValueError: when the file is no JSON object.
    """
    path = run / RESULT
    if not path.is_file():
        return {}
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Expected JSON in {path}, got: {error}. Restore the file or delete it.") from error
    if not isinstance(result, dict):
        raise ValueError(f"Expected a JSON object in {path}, got {type(result).__name__}. Restore or delete the file.")
    return result


def write_result(run: Path, **entries: Any) -> None:
    """Sets entries of `result.json` and leaves the others as they are; None takes an entry away."""
    result = {name: value for name, value in {**read_result(run), **entries}.items() if value is not None}
    # NaN is no JSON: a metric that is not a number is written as null.
    text = json.dumps(_without_nan(result), indent=2, allow_nan=False)
    write_text_atomic(run / RESULT, text + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def claim_folder(save_dir: Path, name: str, version: str | None) -> Path:
    """Makes the folder of a new run; two processes never get the same one.

    Args:
        save_dir: folder of all runs.
        name: name that runs of one kind share, a folder below `save_dir` or several (a/b).
        version: name of this run, one folder, or None for the next free `version_<n>`.

    Raises:
        ValueError: when a name leads out of `save_dir`, the named version exists, or the folder cannot be made.
    """
    check_folder_name("name", name, nested=True)
    if version is not None:
        check_folder_name("version", version)
    parent = save_dir / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if version is not None:
            take_away_stillborn(parent / version)
            (parent / version).mkdir()
            return parent / version
        taken = [int(p.name[8:]) for p in parent.glob("version_*") if p.name[8:].isdigit()]
        number = max(taken, default=-1) + 1
        while not _make_new(parent / f"version_{number}"):
            number += 1
        return parent / f"version_{number}"
    except OSError as error:
        if isinstance(error, FileExistsError) and parent.is_dir():
            raise ValueError(
                f"Expected `version` to name a new run, but {error.filename} exists. Choose another version, delete "
                f"the folder, or continue that run with `fit --run {error.filename}`."
            ) from error
        raise ValueError(
            f"Expected to make a run folder in {parent.absolute()}, got: {error.strerror}. Choose a folder that can be "
            "written with `--save_dir`."
        ) from error


def take_away_stillborn(folder: Path) -> None:
    """Deletes what is left of a run that broke off before it had a configuration: nothing that anybody could miss."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if names and all(name.startswith((".", "events.out.tfevents")) or name == RESULT for name in names):
        with at_work(folder):
            for name in names:
                (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _make_new(folder: Path) -> bool:
    """Makes a folder; False when another process was there first."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def release_if_empty(run: Path) -> None:
    """Takes back the claim on a folder in which nothing was written."""
    with contextlib.suppress(OSError):  # the first that is not empty ends it
        for folder in (run, run.parent, run.parent.parent):
            folder.rmdir()


@contextlib.contextmanager
def at_work(run: Path) -> Iterator[None]:
    """Keeps other processes from working on the same run; the system ends that when this process ends, however.

    Raises:
        ValueError: when another one is at work.
    """
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"Expected nobody else at work in {run}, but another process is. Wait until it has ended, or make a run of "
            "its own with another `--version`."
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def newest_run(parent: Path) -> Path:
    """The run below `parent` whose last checkpoint is the newest.

    Raises:
        ValueError: when no run there has a checkpoint.
    """
    found = sorted(parent.glob(f"*/{CHECKPOINTS}/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(
            f"Expected a run with {CHECKPOINTS}/last.ckpt in {parent.absolute()}, found none. Name the run with "
            "`--run FOLDER`, or a checkpoint with `--ckpt_path FILE`."
        )
    return found[-1].parent.parent


def config_path(run: Path) -> Path:
    """The configuration of a run.

    Raises:
        ValueError: when the folder is no run.
    """
    path = run / CONFIG
    if not path.is_file():
        what = "there is no such folder" if not run.is_dir() else f"it holds no {CONFIG}"
        raise ValueError(
            f"Expected `--run` to name the folder of a run, such as lightning_logs/cnn/version_0; got {run}, but "
            f"{what}."
        )
    return path


def checkpoint_path(run: Path, name: str) -> Path:
    """The checkpoint "best" or "last" of a run; "best" falls back to "last" where training had no validation.

    Raises:
        ValueError: when the run has no such checkpoint.
    """
    for candidate in ("best", "last") if name == "best" else (name,):
        path = run / CHECKPOINTS / f"{candidate}.ckpt"
        if path.is_file():
            return path
    raise ValueError(
        f"Expected the checkpoint {name}.ckpt in {run / CHECKPOINTS}, found none: the run ended before its first "
        "epoch did. Train it again with `fit`."
    )


def has_checkpoint(run: Path) -> bool:
    """Whether there is anything that a training can go on from."""
    return (run / CHECKPOINTS / "last.ckpt").is_file()


class Progress(NamedTuple):
    """How far the training behind a checkpoint was.

    Attributes:
        epochs: epochs that were over.
        steps: optimizer steps.
        split: what decides which images were held out, as `CIFAR10DataModule.split` has it; empty where that is not
            known.
    """

    epochs: int
    steps: int
    split: dict[str, Any]


def check_checkpoint(path: Path, model: torch.nn.Module) -> Progress:
    """Makes sure that a file is a checkpoint that fits the model, without running any code from it.

    Returns:
        How far the training was.

    Raises:
        ValueError: when the file is missing or damaged, is no checkpoint, holds pickled objects, or is of another
            network.
    """
    if not path.is_file():
        raise ValueError(f"Expected `--ckpt_path` to be a checkpoint file, got {path}, which does not exist.")
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:
        # torch raises whatever the broken bytes lead to: UnpicklingError, RuntimeError, EOFError, KeyError, ...
        # Its advice on what it cannot unpickle is to load the file unsafely, so that text is not passed on.
        pickled = isinstance(error, pickle.UnpicklingError)
        reason = ["no file of torch.save"] if pickled else str(error).strip().splitlines() or [type(error).__name__]
        what = (
            "it holds objects other than tensors and plain values, which could run code and are never loaded"
            if pickled and "unsupported global" in str(error).lower()
            else f"it cannot be read ({reason[0][:200]})"
        )
        raise ValueError(f"Expected a checkpoint of this project in {path}, but {what}.") from error
    missing = [key for key in CHECKPOINT_KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise ValueError(f"Expected a checkpoint of this project in {path}, but it holds no {', '.join(missing)}.")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict):
        raise ValueError(f"Expected a checkpoint of this project in {path}, but its state_dict holds no weights.")
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in weights.items()}
    if expected != found:
        differing = sorted({name for name, _ in expected.items() ^ found.items()})
        raise ValueError(
            f"Expected a checkpoint of this network in {path}, but {len(differing)} of its parameters differ in name "
            f"or shape, such as {differing[0]}. Give the configuration that it was trained with: `--run FOLDER` "
            "takes it from the run."
        )
    loop = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    split = checkpoint.get("CIFAR10DataModule", {}).get("split", {})
    return Progress(int(loop.get("processed", checkpoint["epoch"])), int(checkpoint["global_step"]), split)


def _check_sums(path: Path) -> None:
    """Compares the CRC-32 of everything in a file of torch.save, which torch.load leaves out: bits rot on disks."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":  # as torch tells its own format from the older ones
            return
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    if damaged:
        raise ValueError(f"{damaged} in it has changed since it was written")
