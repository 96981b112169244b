"""Trainings in processes of their own, which the tests disturb, and what is left of them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CNN, MLP

DATA = (
    "--data.source=synthetic",
    "--data.synthetic_train=600",
    "--data.synthetic_test=200",
    "--data.val_size=100",
    "--data.batch_size=50",
    "--data.flip=true",
    "--data.translate_px=2",
    "--trainer.max_epochs=4",
    "--trainer.log_every_n_steps=1",
    "--early_stopping.patience=1000",
)
EMA = ("--trainer.callbacks=lightning.pytorch.callbacks.EMAWeightAveraging", "--trainer.callbacks.decay=0.9")
ONE_CYCLE = ("--model.schedule=cosine", "--model.warmup_epochs=1")
MUON = ("--model.optimizer=cifar_lightning.optim.Muon", "--trainer.accumulate_grad_batches=2")
SHORT = (
    "--model.net.whiten_px=2",
    "--model.net.whiten_bias=true",
    '--model.freeze_epochs={"whiten": 0.5, "stages.0": 2.2}',
    "--model.cooldown_epochs=1",
    "--model.final_lr_ratio=0.1",
    "--data.flip=alternating",
    "--data.brightness_percent=5",
    "--data.contrast_percent=10",
    "--trainer.callbacks=cifar_lightning.callbacks.lookahead.Lookahead",
    "--trainer.callbacks.every_n_steps=4",
    "--trainer.callbacks.last_epochs=2",
)
COMPILED = ("--model.compile=true",)
TWO_PROCESSES = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp", "--data.batch_size=25")
KINDS = {
    "mlp": (*MLP, *ONE_CYCLE),
    "mlp-ema": (*MLP, *EMA),
    "cnn": (*CNN, "--data.image_sizes=[16, 32]"),
    "cnn-muon": (*CNN, *MUON),
    "cnn-short": (*CNN, *MUON, *SHORT),
    "cnn-two-processes": (*CNN, *TWO_PROCESSES),
    "cnn-compiled": (*CNN, *COMPILED),
}


def start(*args: object, output: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    """A command of the program, on one thread, in a group of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "cifar_lightning", *(str(arg) for arg in args)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def fit(kind: str, version: str, *more: object) -> subprocess.Popen[str]:
    """A training of its kind, in lightning_logs/<kind>/<version>."""
    return start("fit", *DATA, *KINDS[kind], "--name", kind, "--version", version, *more)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """What a command said, once it has ended as it should."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == status, said
    assert "Traceback" not in said, said
    return said


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path) -> None:
    """Waits until a training has finished an epoch."""
    while not (run / "checkpoints/last.ckpt").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def kill(process: subprocess.Popen[str], number: int) -> None:
    """Sends a signal to a training; SIGKILL to all its processes, as a machine that dies would."""
    (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)


def remains(run: Path) -> dict[str, object]:
    """Everything about a finished run that must not depend on how often it was interrupted."""
    return {
        "last": digest(run / "checkpoints/last.ckpt"),
        "best": digest(run / "checkpoints/best.ckpt"),
        "metrics.csv": history(run),
        "curves": curves(run),
    }


def digest(path: Path) -> str:
    """SHA-256 over weights, buffers and the state of the optimizer in a checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    found = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, torch.Tensor):
            found.update(value.contiguous().cpu().numpy().tobytes())
        elif isinstance(value, dict):
            for key, entry in value.items():
                found.update(repr(key).encode())
                add(entry)
        elif isinstance(value, list | tuple):
            for entry in value:
                add(entry)
        else:
            found.update(repr(value).encode())

    add([checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step")])
    return found.hexdigest()


def history(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without the rate, which is of the clock."""
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if "per_second" not in k} for row in csv.DictReader(file)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of all curves in TensorBoard but those of the clock.

    By steps: TensorBoard reads the event files of one second in the order of their names, of which 10 is before 9. Of
    the final metrics for HPARAMS the last count: every end of a run writes them, and a longer training ends again.
    """
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "second" not in tag]
    by_step = {tag: sorted(events.Scalars(tag), key=lambda point: point.step) for tag in tags}
    found = {tag: [(point.step, point.value) for point in by_step[tag]] for tag in tags}
    return {tag: points[-1:] if tag.startswith("hp/") else points for tag, points in found.items()}


def record(test: str, **values: object) -> None:
    """Adds a line to FAULT_RESULTS/<test>.jsonl, if somebody wants it."""
    if folder := os.environ.get("FAULT_RESULTS"):
        with (Path(folder) / f"{test}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
