"""Many processes: on a data root that nobody has read yet, on one run folder, and in one training."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from faults.training import DATA, KINDS, finish, fit, kill, record, remains, start, wait_for_checkpoint
from observe import descendants
from trees import write_class_folders

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
REPEATS = range(int(os.environ.get("FAULT_REPEATS", "1")))
PROCESSES = 10


@pytest.mark.parametrize("repeat", REPEATS)
def test_ten_trainings_on_a_cold_root(tmp_path, repeat):
    root = tmp_path / "root"
    write_class_folders(root)
    options = ["--data.root", root, "--data.val_size=10", "--data.batch_size=10", "--trainer.max_epochs=1"]
    processes = [start("fit", *KINDS["mlp"], *options, "--name", "crowd") for _ in range(PROCESSES)]
    said = [finish(process) for process in processes]
    for part in ("train", "test"):
        decoded = sum(f"Decoding the {part}" in text for text in said)
        assert decoded == (1 if part == "train" else 0), part  # fit does not look at the test images
        files = list((root / ".cifar_lightning").glob(f"{part}-*"))
        assert len(files) == decoded, files
        record("cold_root", repeat=repeat, part=part, processes=PROCESSES, decoded=decoded, files=len(files))
    runs = sorted(path.name for path in Path("lightning_logs/crowd").iterdir())
    assert runs == sorted(f"version_{i}" for i in range(PROCESSES))
    assert all((Path("lightning_logs/crowd") / run / "checkpoints/last.ckpt").is_file() for run in runs)


def test_two_processes_on_one_run_folder():
    first = fit("mlp", "part", "--trainer.max_epochs=400")
    run = Path("lightning_logs/mlp/part")
    wait_for_checkpoint(first, run)
    for command in ("fit", "test"):
        said = finish(start(command, "--run", run), status=2)
        assert f"error: Another process is using {run}" in said
    said = finish(fit("mlp", "part"), status=2)
    assert "Expected `--version` to name a new run" in said
    kill(first, signal.SIGTERM)
    finish(first, status=128 + signal.SIGTERM)
    finish(start("test", "--run", run))
    assert not (run / ".lock").exists()


@pytest.mark.parametrize("repeat", REPEATS)
def test_killed_while_it_writes_a_checkpoint(repeat):
    """A network of many weights, whose checkpoint takes a while to write."""
    big = ("--model.net.widths=[2000, 2000]", "--trainer.max_epochs=400", "--trainer.limit_train_batches=2")
    process = start("fit", *DATA, *KINDS["mlp"], *big, "--name", "big", "--version", "part")
    folder = Path("lightning_logs/big/part/checkpoints")
    while not (folder / "last.ckpt").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    while not list(folder.glob(".last.ckpt.*")):  # it is being written right now
        assert process.poll() is None, process.communicate()
    kill(process, signal.SIGKILL)
    process.communicate()
    assert list(folder.glob(".*.ckpt.*")), "it was written already: not what this test is for"
    finish(start("test", "--run", "lightning_logs/big/part", "--ckpt_path", folder / "last.ckpt"))
    finish(start("fit", "--run", "lightning_logs/big/part", "--trainer.max_epochs=1"))
    assert not list(folder.glob(".*"))
    record("kills_in_write", repeat=repeat, readable=True)


def test_one_of_two_processes_goes_wrong():
    poison = ["--trainer.callbacks=stopping.Poison", "--trainer.callbacks.what=loss", "--trainer.callbacks.value=nan"]
    process = fit("cnn-two-processes", "part", *poison, "--trainer.callbacks.steps=[13]", "--trainer.callbacks.rank=1")
    said = finish(process, status=2)
    assert "error: Expected finite numbers in training" in said
    run = Path("lightning_logs/cnn-two-processes/part")
    result = json.loads((run / "result.json").read_text())
    assert (result["status"], result["diverged"]) == ("failed", True)
    last = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_a_training_of_two_processes_dies_with_its_first():
    process = fit("cnn-two-processes", "part", "--trainer.max_epochs=400")
    wait_for_checkpoint(process, Path("lightning_logs/cnn-two-processes/part"))
    os.kill(process.pid, signal.SIGKILL)  # not its group
    process.communicate(timeout=60)  # ends when nobody has the pipe open any more


def test_a_process_that_the_system_kills_is_missed():
    """As it does when memory runs out: one process, not its group."""
    run = Path("lightning_logs/cnn-two-processes/part")
    process = fit("cnn-two-processes", "part", "--trainer.max_epochs=30")
    wait_for_checkpoint(process, run)
    (other,) = descendants(process.pid, "cifar_lightning")
    os.kill(other, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    if process.returncode != -signal.SIGKILL:  # Lightning, which looks every five seconds, was faster
        assert process.returncode == 2, said
        assert "Traceback" not in said
        assert "error: Lost contact with another process" in said
        assert f"Continue with: fit --run {run}" in said
        assert json.loads((run / "result.json").read_text())["status"] == "failed"
    finish(start("fit", "--run", run))
    finish(fit("cnn-two-processes", "whole", "--trainer.max_epochs=30"))
    assert remains(run) == remains(run.with_name("whole"))
