"""Disks that are full where something is written, read-only, or gone: one message, nothing lost, and a way on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults.training import DATA, KINDS, finish, fit, record, remains, start, wait_for_checkpoint
from PIL import Image

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
SITES = {  # a part of the file's name, and the command that writes it
    "config.yaml": "fit",
    "events.out": "fit",
    "events.out:9": "fit",
    "best.ckpt": "fit",
    "last.ckpt": "fit",
    "metrics.csv": "fit",
    "result.json": "fit",
    "confusion.png": "test",
    "test.csv": "predict",
    "report.html": "report",
    "model.onnx": "export",
    "images.csv": "images",
}

SAID = {"events.out": "mlp/part", "events.out:9": "mlp/part"}  # TensorBoard's thread knows of no name


def mount(folder: Path, *options: str) -> None:
    """Mounts a disk in memory, or changes it."""
    if subprocess.run(["mount", *options, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a disk is not allowed here")


@pytest.fixture
def disk(tmp_path):
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", "size=24m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def command(what: str, run: Path) -> list[str]:
    """The command line after the program."""
    if what == "images":
        return ["predict", "--run", str(run), "--images", str(Path("pictures").absolute())]
    return [what, "--run", str(run)]


@pytest.mark.parametrize("site", SITES)
def test_a_full_disk(disk, tmp_path, site):
    whole = Path("lightning_logs/mlp/whole")
    finish(start("fit", *DATA, *KINDS["mlp"], "--name", "mlp", "--version", "whole"))
    run = disk / "mlp/part"
    fit = ["fit", *DATA, *KINDS["mlp"], "--name", "mlp", "--version", "part", "--save_dir", str(disk)]
    if SITES[site] != "fit":
        finish(start(*fit))
    if SITES[site] == "images":
        (tmp_path / "pictures").mkdir()
        Image.linear_gradient("L").save(tmp_path / "pictures/one.png")
    before = snapshot(run)
    words = fit if SITES[site] == "fit" else command(SITES[site], run)
    program = [sys.executable, str(HERE / "full_disk.py"), site, str(disk), *words]
    alike = {**os.environ, "OMP_NUM_THREADS": "1"}  # as `start` has it: two threads add up in another order
    done = subprocess.run(program, capture_output=True, text=True, timeout=300, env=alike)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "Traceback" not in said, said
    (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "No space left on device" in message
    assert SAID.get(site, site) in message.split(", got")[0], "it names another file"
    after = snapshot(run)
    assert {name: after.get(name) for name in before} == before, "a file that was there has changed"
    (disk / "filler").unlink()
    if SITES[site] == "fit":
        again = ["fit", "--run", str(run)] if (run / "config.yaml").exists() else fit
        finish(start(*again))
        assert remains(run) == remains(whole)
    else:
        finish(start(*words))
    assert json.loads((run / "result.json").read_text())["status"] == "completed"
    assert not [path for path in run.rglob(".*")], "something unfinished is left"
    record("full_disk", site=site, command=SITES[site], message=message, files_before=len(before))


def test_a_disk_that_has_become_read_only(disk):
    finish(start("fit", *DATA, *KINDS["mlp"], "--name", "mlp", "--version", "part", "--save_dir", disk))
    run = disk / "mlp/part"
    before = snapshot(run)
    mount(disk, "-o", "remount,ro")
    commands = [[what, "--run", run] for what in ("test", "validate", "predict", "report", "export")]
    commands.append(["fit", "--run", run, "--trainer.max_epochs=9"])
    for words in (*commands, ["fit", *DATA, *KINDS["mlp"], "--save_dir", disk]):
        said = finish(start(*words), status=2)
        (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "Read-only file system" in message
        assert str(disk) in message
    mount(disk, "-o", "remount,rw")
    assert snapshot(run) == before
    finish(start("test", "--run", run))


def test_a_run_folder_that_vanishes_under_a_training():
    process = fit("mlp", "part", "--trainer.max_epochs=20")
    run = Path("lightning_logs/mlp/part")
    wait_for_checkpoint(process, run)
    shutil.move(run, "elsewhere")
    said = finish(process, status=2)
    (message,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert str(run) in message
    assert "No such file or directory" in message
    shutil.move("elsewhere", run)
    finish(start("fit", "--run", run))
    finish(fit("mlp", "whole", "--trainer.max_epochs=20"))
    assert remains(run) == remains(run.with_name("whole"))


def snapshot(run: Path) -> dict[str, bytes]:
    """Contents of all files of a run but the growing ones of TensorBoard."""
    files = (path for path in run.rglob("*") if path.is_file() and "events" not in path.name)
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}
