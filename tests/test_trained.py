"""`cifar_lightning.load`: the network that `test` tests, wherever the run comes from."""

from __future__ import annotations

import doctest
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import CNN

import cifar_lightning
from cifar_lightning import load
from cifar_lightning.__main__ import main
from cifar_lightning.runs import Run
from cifar_lightning.trained import load_trained


@pytest.fixture
def run(finished) -> Path:
    """A CNN that was trained and tested."""
    return finished(*CNN, "--test")


def change(run: Path, **trainer: object) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"] |= trainer
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def test_the_network_is_the_one_that_was_tested(run):
    model, data = load_trained(run, device="cpu")
    assert not any(module.training for module in model.modules())
    saved = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert model.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    data.setup("test")
    with torch.inference_mode():
        right = (model(data.test.images).argmax(1) == data.test.labels).double().mean()
    assert float(right) == pytest.approx(Run(run).result["test"]["metrics"]["test/acc"], abs=1e-6)


def test_a_run_object_and_the_last_checkpoint(run):
    (run / "checkpoints/best.ckpt").unlink()
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    found = load(Run(run), torch.device("cpu")).state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in found.items())


def test_the_machine_that_trained_it_does_not_matter(run):
    change(run, accelerator="gpu", devices=8, num_nodes=4, strategy="ddp", precision="16-mixed", logger=True)
    assert load(run, device="cpu").device == torch.device("cpu")


def test_nothing_else_changes(run, monkeypatch):
    monkeypatch.delenv("PL_SEED_WORKERS", raising=False)
    environment = dict(os.environ)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    files = sorted(Path().rglob("*"))
    load(run)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert dict(os.environ) == environment
    assert sorted(Path().rglob("*")) == files


def test_what_cannot_be_loaded(run):
    def message(path: object, device: str | None = None) -> str:
        with pytest.raises(ValueError, match="Expected") as caught:
            load(path, device)
        return str(caught.value)

    assert "Expected the folder of a run, such as lightning_logs/cnn/version_0, or the name of a published" in message(
        "nowhere"
    )
    assert "got lightning_logs/nowhere, which does not exist" in message("lightning_logs/nowhere")
    assert "got lightning_logs/cnn, which holds no config.yaml" in message("lightning_logs/cnn")
    assert 'Expected `device` to be a device of this machine, such as "cpu", got abacus' in message(run, "abacus")
    best, last = (run / f"checkpoints/{name}.ckpt" for name in ("best", "last"))
    content = best.read_bytes()
    best.write_bytes(content[: len(content) // 2])
    assert "Expected a checkpoint of this project in " in message(run)
    best.write_bytes(content)
    config = (run / "config.yaml").read_text()
    assert "- 8\n" in config
    (run / "config.yaml").write_text(config.replace("- 8\n", "- 9\n"))
    assert "Expected a checkpoint of this network in " in message(run)
    best.unlink()
    last.unlink()
    assert "Expected the checkpoint best.ckpt in lightning_logs/cnn/version_0/checkpoints, found none" in message(run)


def test_the_example(run):
    found = doctest.DocTestFinder().find(load, "load", globs={})
    runner = doctest.DocTestRunner()
    assert [runner.run(test).failed for test in found] == [0]
    assert runner.tries > 5


def test_the_page_about_runs(run, monkeypatch):
    """Every block of docs/runs.md, one after the other, as in a notebook."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert main(["predict", "--run", str(run)]) == 0
    page = (Path(__file__).parents[1] / "docs/runs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 7
    assert names["history"]["val/acc"] == Run(run).history()["val/acc"]
    assert names["probabilities"].shape == (8, 10)
    files = {path.relative_to(run).parts[0] for path in run.rglob("*") if path.is_file()}
    files = {f"{name}/" if (run / name).is_dir() else re.sub("(?<=tfevents).*", ".*", name) for name in files}
    assert files - {"checkpoints/"} <= set(re.findall(r"^\| `([^`]*)`", page, re.MULTILINE))


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, cifar_lightning; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    folder = str(Path(cifar_lightning.__file__).parents[1])
    imported = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=folder).split()
    assert not {"torch", "lightning", "numpy", "yaml", "jsonargparse"} & set(imported)
