"""Run the commands of one run of a sweep, as typed by hand, in processes that end with this one."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_lightning import runs
from cifar_lightning.imports import allowed
from cifar_lightning.processes import end_with_parent
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["Outcome", "RunDiedError", "StoppedError", "done", "execute", "last_error"]

PROGRAM = [sys.executable, "-m", "cifar_lightning"]
POLL_SECONDS = 0.2
"""How often a running command is looked at, for whether the sweep has stopped."""


class RunDiedError(RuntimeError):
    """A run was killed: it may be started again."""


class StoppedError(RuntimeError):
    """The sweep stopped while a run was going on."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        id: of the run.
        error: its error message; empty when all went well.
    """

    id: str
    error: str = ""


def done(folder: Path, stages: list[str]) -> bool:
    """Return whether a run was trained, and went through all the stages after that.

    Args:
        folder: the run folder.
        stages: of "test" and "predict".
    """
    run = runs.Run(folder)
    if run.status == runs.PRUNED or run.result.get("diverged"):
        return True  # a result as well, which needs no test
    if not run.is_finished:
        return False
    return all(run.predictions_path().is_file() if s == "predict" else s in run.result for s in stages)


def execute(
    run: PlannedRun,
    sweep: Sweep,
    parent: Path,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> Outcome:
    """Train a run, or continue it where it was interrupted, then test it and predict as the sweep wants.

    Args:
        run: the run.
        sweep: its sweep.
        parent: folder of the sweep's runs.
        cwd: folder that the paths of the recipes start at.
        environment: variables that its commands get in addition to those of this process.
        stop: kills the running command when it is set.

    Returns:
        The outcome, with the error of a command that failed; the whole output is in logs/<id>.log.

    Raises:
        RunDiedError: when a command is killed.
        StoppedError: when `stop` is set.
    """
    folder, log = parent / run.id, parent / "logs" / f"{run.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The system releases the lock when this process ends, however it ends.
        with FileLock(parent / "logs" / f"{run.id}.lock", timeout=0), log.open("a", encoding="utf-8") as output:
            before = None
            while command := next_command(run, sweep, folder):
                last = runs.Run(folder).checkpoint_path("last")
                now = command, last.stat().st_mtime_ns if last.is_file() else 0  # `max_time` takes several calls
                if now == before:
                    return Outcome(run.id, f"it ended without an error, but left no result in {folder}")
                before = now
                output.write(f"$ {' '.join(command)}\n")
                output.flush()
                status = run_command(command, output.fileno(), sweep.cpus, cwd, environment or {}, stop)
                if status < 0 or status > 128:  # a shell or a container adds 128 to the signal
                    raise RunDiedError(f"{run.id} was ended by signal {-status if status < 0 else status - 128}")
                if status and not done(folder, sweep.stages):  # a training that diverges has a result
                    error = last_error(log.read_text(encoding="utf-8", errors="replace"))
                    return Outcome(run.id, error[:300] or f"exit status {status}")
    except Timeout:
        return Outcome(run.id, f"another process is working on {folder}")
    return Outcome(run.id)


def next_command(run: PlannedRun, sweep: Sweep, folder: Path) -> list[str] | None:
    """Return the next command of a run; None when it is done."""
    allowing = [f"--allow={name}" for name in allowed()]
    if done(folder, []):
        left = [stage for stage in sweep.stages if not done(folder, [stage])]
        return [*PROGRAM, left[0], "--run", str(folder), *allowing] if left else None
    if runs.Run(folder).checkpoint_path("last").is_file() and (folder / runs.CONFIG).is_file():
        return [*PROGRAM, "fit", "--run", str(folder), *allowing]
    if folder.exists():
        shutil.rmtree(folder)  # it ended before its first checkpoint
    place = ["--save_dir", str(folder.parent.parent), "--name", folder.parent.name, "--version", run.id]
    return [*PROGRAM, "fit", *run.arguments(), *pruning(run, sweep, folder.parent), *place, *allowing]


def pruning(run: PlannedRun, sweep: Sweep, parent: Path) -> list[str]:
    """Return options of `fit` that end a run early when it does worse than the others."""
    if sweep.prune is None:
        return []
    options = {"folder": parent / "rungs", "run": run.id, "metric": sweep.metric}
    options |= dataclasses.asdict(sweep.prune)
    own = "cifar_lightning.callbacks.pruning.Pruning"
    return [f"--trainer.callbacks+={own}", *(f"--trainer.callbacks.{key}={value}" for key, value in options.items())]


def run_command(
    command: list[str],
    output: int,
    threads: int,
    cwd: Path,
    environment: Mapping[str, str],
    stop: threading.Event | None,
) -> int:
    """Return the exit status of a command; below 0 it is the signal that ended it."""
    variables = {k: v for k, v in os.environ.items() if k != "PL_GLOBAL_SEED"}  # each run has a seed of its own
    variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **environment}
    stop = stop or threading.Event()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=variables,
        cwd=cwd,
        preexec_fn=end_with_parent if os.name == "posix" else None,  # no run outlives its sweep
    ) as process:
        try:
            while not stop.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
            raise StoppedError(f"the sweep stopped during {' '.join(command)}")
        finally:
            # Every epoch is in its checkpoint, and the next start goes on from there.
            process.kill()


def last_error(text: str) -> str:
    """Return the error message at the end of an output, or its last line where there is none."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error:")]
    return " ".join(lines[errors[-1] :]) if errors else "".join(lines[-1:])
