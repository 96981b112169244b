"""What the program shows may be lost, and its work is not; a process that nobody started stops at the door."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from cifar_lightning.__main__ import main
from cifar_lightning.logs import LossyStream, StderrHandler
from cifar_lightning.main import run_with_messages
from cifar_lightning.processes import stray_rank

TINY = [
    "fit",
    "--model=MLPClassifier",
    "--model.net.widths=[8]",
    "--data.source=synthetic",
    "--data.synthetic_train=200",
]
TINY += ["--data.synthetic_test=20", "--data.val_size=100", "--data.batch_size=50", "--trainer.max_epochs=1"]
LAUNCHERS = {
    "torchrun": {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "first", "MASTER_PORT": "29500"},
    "Lightning": {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
    "SLURM": {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NTASKS": "8"},
    "LSF": {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "the first process": {"LOCAL_RANK": "0"},
    "nobody": {},
}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    for name in set().union(*LAUNCHERS.values()):
        monkeypatch.delenv(name, raising=False)


class Broken(io.StringIO):
    """Takes `room` characters, and then what is written fails with `error`."""

    def __init__(self, error: Exception, room: int = 0) -> None:
        super().__init__()
        self.error, self.room = error, room

    def write(self, text: str) -> int:
        if len(self.getvalue()) + len(text) > self.room:
            raise self.error
        return super().write(text)


def trained(**streams: int) -> str:
    """Trains in a process of its own, and returns what it wrote to standard error where that is a pipe."""
    done = subprocess.run([sys.executable, "-m", "cifar_lightning", *TINY], text=True, check=False, **streams)
    assert done.returncode == 0, done.stderr
    (result,) = Path("lightning_logs").glob("*/*/result.json")
    assert json.loads(result.read_text())["status"] == "completed"
    return done.stderr or ""


@pytest.mark.slow
def test_a_reader_that_has_gone_costs_no_training():
    reading, writing = os.pipe()
    os.close(reading)
    said = trained(stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert said.count("Could not write to standard output: Broken pipe. The program continues.\n") == 1
    assert "Run folder: lightning_logs" in said
    assert "Exception ignored" not in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log_costs_no_training():
    with open("/dev/full", "w") as full:
        trained(stdout=full, stderr=full)


def test_a_log_line_starts_a_line_of_its_own_above_a_progress_bar(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    handler = StderrHandler()
    with tqdm(total=3, file=shown) as bar:
        bar.update()
        handler.emit(logging.makeLogRecord({"msg": "a line"}))
    assert any(part.startswith("a line\n") for part in shown.getvalue().split("\r"))
    assert "1/3" in shown.getvalue().split("a line\n")[1]  # the bar is drawn again below


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), ValueError("closed file")]
)
def test_the_status_is_that_of_the_work(error, monkeypatch):
    out, err = Broken(error), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def work() -> int:
        for _ in range(3):
            print("lost", flush=True)
        print("kept", file=sys.stderr)
        return 7

    assert run_with_messages(work) == 7
    reason = getattr(error, "strerror", None) or error
    assert err.getvalue() == f"Could not write to standard output: {reason}. The program continues.\nkept\n"
    assert (sys.stdout, sys.stderr) == (out, err)


def test_what_can_be_written_is_whole(monkeypatch):
    out, err = Broken(OSError(28, "No space left"), room=8), Broken(OSError(28, "No space left"))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def work() -> int:
        for text in ("one\n", "a longer line\n", "two\n"):
            sys.stdout.write(text)
        return 0

    assert run_with_messages(work) == 0
    assert out.getvalue() == "one\ntwo\n"


def test_streams_that_are_closed_from_the_start(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run_with_messages(lambda: print("nowhere", file=sys.stderr) or sys.stderr.isatty() + 5) == 5


def test_errors_of_the_work_are_not_swallowed(capsys):
    def fail() -> int:
        with open("missing/file", "w"):
            return 0

    assert run_with_messages(fail) == 2
    assert "error: Expected to read or write missing/file, got: No such file" in capsys.readouterr().err


def test_other_attributes_are_those_of_the_stream(tmp_path):
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        stream = LossyStream(file, "a log")
        assert (stream.encoding, stream.fileno(), stream.isatty()) == ("utf-8", file.fileno(), False)
        stream.writelines(["one\n", "two\n"])
        assert stream.write("three") == 5
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree"


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_of_a_launcher_pass(launcher, monkeypatch):
    for name, value in LAUNCHERS[launcher].items():
        monkeypatch.setenv(name, value)
    assert stray_rank() == ""


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 without WORLD_SIZE and MASTER_ADDR"),
        ({"RANK": "2", "WORLD_SIZE": "4"}, "RANK=2 without MASTER_ADDR"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID=1 without SLURM_NTASKS"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1 without WORLD_SIZE and MASTER_ADDR"),
        ({"SLURM_PROCID": "one", "SLURM_NTASKS": "8"}, "SLURM_PROCID=one"),
    ],
)
def test_a_stray_rank_is_refused_before_anything_is_made(given, got, monkeypatch, capsys):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(TINY) == 2
    (message,) = capsys.readouterr().err.splitlines()
    rank = next(iter(given))
    assert message.startswith(f"error: Expected {rank} to be the rank of this process, set by a launcher")
    assert f"got {got}. Remove it with `unset {rank}`" in message
    assert not os.listdir()
