"""A full disk at every place where something is written: one message, nothing lost, and a resume once there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.training import DATA, KINDS, finish, record, remains, start
from PIL import Image

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
HERE = Path(__file__).parent
SITES = {  # a part of the file's name, and the command that writes it
    "config.yaml": "fit",
    "events.out": "fit",
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


@pytest.fixture
def disk(tmp_path):
    """A disk of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a disk is not allowed here")
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
    assert site in message.split(", got")[0], "it names another file"
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


def snapshot(run: Path) -> dict[str, bytes]:
    """Contents of all files of a run but the growing ones of TensorBoard."""
    files = (path for path in run.rglob("*") if path.is_file() and "events" not in path.name)
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}
