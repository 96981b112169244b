"""One run of a sweep, by the same commands that a person types, in processes that end when this one does."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_lightning import runs
from cifar_lightning.processes import end_with_parent
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

__all__ = ["Outcome", "RunDiedError", "done", "execute", "last_words"]

PROGRAM = [sys.executable, "-m", "cifar_lightning"]


class RunDiedError(RuntimeError):
    """A run was killed: it may be started again."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        id: which.
        error: what it said in the end, empty when all went well.
    """

    id: str
    error: str = ""


def done(folder: Path, stages: list[str]) -> bool:
    """Whether a run has been trained and has been through all the stages after it.

    Args:
        folder: the run folder.
        stages: of "test" and "predict".
    """
    run = runs.Run(folder)
    if run.status == runs.PRUNED or run.result.get("diverged"):
        return True  # an outcome as well, and not worth a test
    if not run.is_finished:
        return False
    return all(run.predictions_path().is_file() if s == "predict" else s in run.result for s in stages)


def execute(run: PlannedRun, sweep: Sweep, parent: Path, cwd: Path) -> Outcome:
    """Trains a run, or goes on with it where it was interrupted, and does what comes after.

    Args:
        run: the run.
        sweep: the sweep that it is of.
        parent: folder of the sweep's runs.
        cwd: folder that the paths of the recipes start at.

    Returns:
        The outcome; a command that ends with an error is told there, and all it said stays in logs/<id>.log.

    Raises:
        RunDiedError: when a command is killed.
    """
    folder, log = parent / run.id, parent / "logs" / f"{run.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The system lets go of the lock when this process ends, however it ends.
        with FileLock(parent / "logs" / f"{run.id}.lock", timeout=0), log.open("a", encoding="utf-8") as said:
            before = None
            while command := next_command(run, sweep, folder):
                last = runs.Run(folder).checkpoint_path("last")
                now = command, last.stat().st_mtime_ns if last.is_file() else 0  # `max_time` takes several calls
                if now == before:
                    return Outcome(run.id, f"it ended well, but left no result in {folder}")
                before = now
                said.write(f"$ {' '.join(command)}\n")
                said.flush()
                status = wait_for(command, said.fileno(), sweep.cpus, cwd)
                if status < 0 or status > 128:  # a shell or a container adds 128 to the signal
                    raise RunDiedError(f"{run.id} was ended by signal {-status if status < 0 else status - 128}")
                if status and not done(folder, sweep.stages):  # a training that diverges is a result too
                    words = last_words(log.read_text(encoding="utf-8", errors="replace"))
                    return Outcome(run.id, words[:300] or f"exit status {status}")
    except Timeout:
        return Outcome(run.id, f"another process is working on {folder}")
    return Outcome(run.id)


def next_command(run: PlannedRun, sweep: Sweep, folder: Path) -> list[str] | None:
    """What is to be done next; None when all is done."""
    if done(folder, []):
        left = [stage for stage in sweep.stages if not done(folder, [stage])]
        return [*PROGRAM, left[0], "--run", str(folder)] if left else None
    if runs.Run(folder).checkpoint_path("last").is_file() and (folder / runs.CONFIG).is_file():
        return [*PROGRAM, "fit", "--run", str(folder)]
    if folder.exists():
        shutil.rmtree(folder)  # it broke off before its first epoch was over
    place = ["--save_dir", str(folder.parent.parent), "--name", folder.parent.name, "--version", run.id]
    return [*PROGRAM, "fit", *run.arguments(), *pruning(run, sweep, folder.parent), *place]


def pruning(run: PlannedRun, sweep: Sweep, parent: Path) -> list[str]:
    """Options of `fit` that end a run early when it does worse than the others."""
    if sweep.prune is None:
        return []
    options = {"folder": parent / "rungs", "run": run.id, "metric": sweep.metric}
    options |= dataclasses.asdict(sweep.prune)
    own = "cifar_lightning.callbacks.pruning.Pruning"
    return [f"--trainer.callbacks+={own}", *(f"--trainer.callbacks.{key}={value}" for key, value in options.items())]


def wait_for(command: list[str], output: int, threads: int, cwd: Path) -> int:
    """Exit status of a command; below 0 it is the signal that ended it."""
    environment = {k: v for k, v in os.environ.items() if k != "PL_GLOBAL_SEED"}  # a parent's seed is none of a run's
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=cwd,
        preexec_fn=end_with_parent if os.name == "posix" else None,  # no run is left without its sweep
    ) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()  # every epoch is in its checkpoint, and the next start goes on from there
            raise


def last_words(text: str) -> str:
    """What a command said in the end: its error message where there is one, else its last line."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    errors = [i for i, line in enumerate(lines) if line.startswith("error:")]
    return " ".join(lines[errors[-1] :]) if errors else "".join(lines[-1:])
