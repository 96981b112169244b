"""Make, lock and release run folders, and write `result.json`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cifar_lightning.files import check_folder_name, write_text_atomic
from cifar_lightning.runs.run import CHECKPOINTS, RESULT, Run

__all__ = ["claim_folder", "newest_run", "release_if_empty", "run_lock", "write_result"]


def write_result(run: Path, **entries: Any) -> None:
    """Set entries of `result.json` and keep the others; None removes an entry."""
    result = {name: value for name, value in {**Run(run).result, **entries}.items() if value is not None}
    # JSON has no NaN or infinity: they are written as null.
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
    """Make the folder of a new run; two processes never get the same one.

    Args:
        save_dir: Folder of all runs.
        name: Name that runs of one kind share: a folder in `save_dir`, or nested folders (a/b).
        version: Name of this run, one folder; None for the next free `version_<n>`.

    Raises:
        ValueError: If a name leads out of `save_dir`, the version exists, or the folder cannot be made.
    """
    check_folder_name("name", name, nested=True)
    if version is not None:
        check_folder_name("version", version)
    parent = save_dir / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if version is not None:
            remove_aborted_run(parent / version)
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


def remove_aborted_run(folder: Path) -> None:
    """Delete the leftovers of a run that failed before it wrote `config.yaml`."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if names and all(name.startswith((".", "events.out.tfevents")) or name == RESULT for name in names):
        with run_lock(folder):
            for name in names:
                (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _make_new(folder: Path) -> bool:
    """Make a folder; return False if it exists."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def release_if_empty(run: Path) -> None:
    """Delete the folder of a run in which nothing was written, and its parents if they are empty."""
    with contextlib.suppress(OSError):  # at the first that is not empty
        for folder in (run, run.parent, run.parent.parent):
            folder.rmdir()


@contextlib.contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Lock a run, so that one process at a time writes to it; the lock ends with the process.

    Raises:
        ValueError: If another process holds the lock.
    """
    lock = FileLock(run / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"Another process is using {run}. Wait until it has ended, or start another run with another `--version`."
        ) from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def newest_run(parent: Path) -> Path:
    """Return the run in `parent` with the newest `last.ckpt`.

    Raises:
        ValueError: If no run there has one.
    """
    found = sorted(parent.glob(f"*/{CHECKPOINTS}/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ValueError(
            f"Expected a run with {CHECKPOINTS}/last.ckpt in {parent.absolute()}, found none. Name the run with "
            "`--run FOLDER`, or a checkpoint with `--ckpt_path FILE`."
        )
    return found[-1].parent.parent
