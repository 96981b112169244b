from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tiny import MLP, fit

from cifar_lightning.__main__ import main
from cifar_lightning.callbacks.checkpoint import AtomicCheckpointIO


def test_a_checkpoint_comes_back(tmp_path):
    path = tmp_path / "new" / "folder" / "last.ckpt"
    checkpoint = {"state_dict": {"weight": torch.arange(6.0).view(2, 3)}, "epoch": 3}
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    found = torch.load(path, weights_only=True)
    assert found["epoch"] == 3
    assert torch.equal(found["state_dict"]["weight"], checkpoint["state_dict"]["weight"])
    assert os.listdir(path.parent) == ["last.ckpt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_breaks_off_leaves_the_old_checkpoint_alone(tmp_path, monkeypatch, error):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def half(checkpoint, file):
        file.write(b"half")
        raise error

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(type(error)):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_fit_writes_all_its_checkpoints_so(monkeypatch):
    written = []
    save = AtomicCheckpointIO.save_checkpoint
    monkeypatch.setattr(
        AtomicCheckpointIO,
        "save_checkpoint",
        lambda self, *args, **kw: written.append(args[1]) or save(self, *args, **kw),
    )
    run = fit(*MLP)
    assert {Path(path).name for path in written} == {"best.ckpt", "last.ckpt"}
    assert sorted(os.listdir(run / "checkpoints")) == ["best.ckpt", "last.ckpt"]


def test_what_a_killed_training_left_is_removed_when_it_goes_on():
    run = fit(*MLP, "--trainer.max_epochs=1")
    left = [run / "checkpoints" / f".{name}.ckpt.x7f3" for name in ("best", "last")]
    for path in left:
        path.write_bytes(b"half a checkpoint")
    assert main(["validate", "--run", str(run)]) == 0  # which owns nothing in the folder
    assert all(path.exists() for path in left)
    assert main(["fit", "--run", str(run), "--trainer.max_epochs=2"]) == 0
    assert sorted(os.listdir(run / "checkpoints")) == ["best.ckpt", "last.ckpt"]
