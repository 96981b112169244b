"""Each section of CONTRIBUTING: the file is written or the diff applied, the commands run, and the effect is there."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import BARE

from cifar_lightning.__main__ import main
from cifar_lightning.runs import Run

ROOT = Path(__file__).parents[1]
DATA = (  # 4 steps in each of 2 epochs
    "--data.source=synthetic",
    "--data.synthetic_train=300",
    "--data.synthetic_test=100",
    "--data.val_size=100",
    "--data.batch_size=50",
    "--data.images_per_step=50",
    "--trainer.max_epochs=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.precision=32-true",
)
WIDTHS = ("--model.net.widths=[8]", "--model.net.whiten_components=0")
STEPS = 8
PROGRAM = """
import sys, shlex
from cifar_lightning.main import main
for line in sys.argv[1:]:
    if status := main(shlex.split(line)):
        sys.exit(status)
"""


class Section(NamedTuple):
    """What a section asks a reader to do."""

    files: dict[str, str]
    diffs: list[str]
    commands: list[str]


def read_sections() -> dict[str, Section]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Extending it\n")[2]
    sections = {}
    for part in text.split("\n### ")[1:]:
        title, _, body = part.partition("\n")
        files = dict(re.findall(r"`(\w+\.py)`:\n\n```python\n(.*?)```", body, re.DOTALL))
        diffs = re.findall(r"```diff\n(.*?)```", body, re.DOTALL)
        assert body.count("```python") + body.count("```diff") == len(files) + len(diffs) == 1, title
        (block,) = re.findall(r"```bash\n(.*?)```", body, re.DOTALL)
        commands = block.replace("\\\n", " ").splitlines()
        assert all(line.startswith("python -m cifar_lightning ") for line in commands)
        sections[title] = Section(files, diffs, [line.partition("cifar_lightning ")[2] for line in commands])
    return sections


SECTIONS = read_sections()
TESTED: list[str] = []


def shows(title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Mark the test of a section."""
    TESTED.append(title)
    return lambda test: test


@pytest.fixture
def run_section(monkeypatch):
    """Write the file of a section, run its commands with more options, and return the run folders."""
    shutil.copytree(ROOT / "configs", "configs")
    known = set(sys.modules)

    def run(title: str, *options: str, commands: list[str] | None = None) -> list[Path]:
        section = SECTIONS[title]
        for name, code in section.files.items():
            Path(name).write_text(code, encoding="utf-8")
        runs = []
        for i, line in enumerate(commands or section.commands):
            before = set(Path("lightning_logs").glob("*/*"))
            assert main([*shlex.split(line), *DATA, *BARE, *options]) == 0, i
            runs += set(Path("lightning_logs").glob("*/*")) - before
            assert Run(runs[-1]).status == "completed"
            for name, code in section.files.items():  # the run keeps what it uses
                is_used = f"{Path(name).stem}." in line
                assert is_used == (runs[-1] / "code" / name).is_file()
                assert not is_used or (runs[-1] / "code" / name).read_text(encoding="utf-8") == code
        return runs

    monkeypatch.syspath_prepend("")
    yield run
    for name in set(sys.modules) - known:
        if name in {Path(file).stem for section in SECTIONS.values() for file in section.files}:
            del sys.modules[name]


@pytest.fixture(scope="module")
def patched(once) -> Path:
    """Apply each diff alone and then all of them to a copy of the package, and run their commands in one process.

    Returns the folder, with the output in output.txt.
    """
    return once("patched", patch)


def patch(folder: Path) -> None:
    shutil.copytree(ROOT / "cifar_lightning", folder / "cifar_lightning", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copy(ROOT / "pyproject.toml", folder)

    def shell(*command: str, text: str = "") -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        done = subprocess.run(command, cwd=folder, input=text, **pipes)
        assert done.returncode == 0, done.stdout
        return done.stdout

    diffs = [diff for section in SECTIONS.values() for diff in section.diffs]
    for diff in diffs:
        shell("git", "apply", text=diff)
        for check in (["check"], ["format", "--check"]):
            shell(sys.executable, "-m", "ruff", *check, "--no-cache", "cifar_lightning")
        shell("git", "apply", "--reverse", text=diff)
    for diff in diffs:
        shell("git", "apply", text=diff)
    options = {
        "A metric": (*DATA, *BARE, *WIDTHS, "--model.tta=none", "--test"),  # version_0
        "A figure": (*DATA, *WIDTHS, "--model.tta=none"),  # version_1
        "A section of the report": (),
    }
    lines = [shlex.join([*shlex.split(line), *options[t]]) for t in options for line in SECTIONS[t].commands]
    (folder / "output.txt").write_text(shell(sys.executable, "-c", PROGRAM, *lines), encoding="utf-8")


def config(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def weights(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("net.")}


def images_of(run: Path) -> set[str]:
    return set(EventAccumulator(str(run), {"images": 0}).Reload().Tags()["images"])


def test_every_section_has_a_test():
    assert sorted(TESTED) == sorted(SECTIONS)


@shows("A network")
def test_a_network(run_section):
    (run,) = run_section("A network")
    net = config(run)["model"]["init_args"]["net"]
    assert net == {"class_path": "mynet.Tiny", "init_args": {"width": 32}}
    assert weights(run)["net.head.weight"].shape == (10, 32)


@pytest.mark.slow
@shows("A metric")
def test_a_metric(patched):
    output = (patched / "output.txt").read_text(encoding="utf-8")
    run = patched / "lightning_logs/mlp/version_0"
    assert re.search(r"val on 100 SYNTHETIC images: .*top-3 rate \d", output)
    assert re.search(r"test on 100 SYNTHETIC images: .*top-3 rate \d", output)
    curve = [float(row["val/top3"]) for row in rows(run)]
    assert all(float(row["val/acc"]) <= float(row["val/top3"]) <= 1 for row in rows(run))
    result = json.loads((run / "result.json").read_text())
    assert result["fit"]["best"] == {"monitor": "val/top3", "score": pytest.approx(max(curve))}
    assert 0 <= result["test"]["metrics"]["test/top3"] <= 1
    scalars = EventAccumulator(str(run)).Reload().Tags()["scalars"]
    assert {"train/top3", "val/top3", "test/top3", "hp/val/top3"} <= set(scalars)
    assert "top-3 rate, %" in (run / "report/report.md").read_text(encoding="utf-8")


@shows("An augmentation")
def test_an_augmentation(run_section):
    keep = ("--trainer.callbacks+", "recording.RecordImages", *WIDTHS)
    (line,) = SECTIONS["An augmentation"].commands
    (run,) = run_section("An augmentation", *keep)
    augmented = torch.load("images.pt", weights_only=True)
    (chosen,) = config(run)["data"]["augmentations"]
    assert chosen == {"class_path": "invert.Invert", "init_args": {"share": 0.2}}
    run_section("An augmentation", *keep, "--data.augmentations.share=0", commands=[line])
    plain = torch.load("images.pt", weights_only=True)
    inverted = (augmented == 255 - plain).flatten(1).all(1)
    assert torch.equal(augmented[~inverted], plain[~inverted])
    assert 20 <= inverted.sum() <= 60  # of 200, each with a probability of 0.2


@pytest.mark.slow
@shows("A figure")
def test_a_figure(patched):
    runs = patched / "lightning_logs/mlp"
    assert {"val/confidences", "val/confusion"} <= images_of(runs / "version_1")
    assert (runs / "version_0/report/figures/confidences.png").is_file()
    assert "confidences.png" in (runs / "version_0/report/report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@shows("A section of the report")
def test_a_section_of_the_report(patched):
    report = patched / "lightning_logs/mlp/version_0/report"
    titles = re.findall(r"^## (.*)$", (report / "report.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[titles.index("Doubts") + 1] == "Calibration"
    assert (report / "figures/doubts.png").is_file()


@shows("A callback")
def test_a_callback(run_section):
    (run,) = run_section("A callback", *WIDTHS)
    assert config(run)["trainer"]["callbacks"] == [{"class_path": "norms.WeightNorm"}]
    trained = [value for name, value in weights(run).items() if name.endswith(("weight", "bias"))]
    expected = math.sqrt(sum(float(value.square().sum()) for value in trained))
    assert float(rows(run)[-1]["weight_norm"]) == pytest.approx(expected, rel=1e-5)
    assert len(rows(run)) == 2


@shows("An optimizer")
def test_an_optimizer(run_section):
    steady = ("--model.schedule=constant", "--model.warmup_epochs=0", "--model.optimizer.weight_decay=0")
    (run,) = run_section("An optimizer", *WIDTHS, *steady, "--trainer.callbacks+", "recording.RecordWeights")
    chosen = config(run)["model"]["init_args"]["optimizer"]
    assert chosen["class_path"] == "lion.Lion"
    assert chosen["init_args"] == {"lr": 0.0003, "betas": [0.9, 0.99], "weight_decay": 0.0}
    first, second = (seen["net.head.weight"] for seen in torch.load("weights.pt", weights_only=True))
    moved = (second - first) / 0.0003  # by one in each of four steps
    torch.testing.assert_close(moved, moved.round(), rtol=0, atol=0.01)
    assert moved.round().abs().unique().tolist() == [0, 2, 4]


@shows("A learning-rate schedule")
def test_a_learning_rate_schedule(run_section):
    runs = run_section("A learning-rate schedule", *WIDTHS)
    peak = config(runs[0])["model"]["init_args"]["optimizer"]["init_args"]["lr"]

    def rates(make: Callable) -> list[float]:
        optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=peak)
        scheduler, found = make(optimizer), []
        for _ in range(STEPS):
            optimizer.step()
            scheduler.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found

    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    expected = {  # after each step, for the next one
        "trapezoid.Trapezoid": [peak * min(1, 2 * (1 - step / STEPS)) for step in range(1, STEPS + 1)],
        "torch.optim.lr_scheduler.OneCycleLR": rates(lambda opt: one_cycle(opt, max_lr=0.002, total_steps=STEPS)),
        "torch.optim.lr_scheduler.CosineAnnealingLR": [
            peak * (1 + math.cos(math.pi * step / STEPS)) / 2 for step in range(1, STEPS + 1)
        ],
    }
    for run, (name, values) in zip(runs, expected.items(), strict=True):
        assert config(run)["model"]["init_args"]["schedule"] == name
        steps, found = Run(run).steps()["step/lr"]
        assert steps == list(range(1, STEPS + 1))
        assert found == pytest.approx(values, rel=1e-5, abs=1e-9)


@shows("A loss")
def test_a_loss(run_section):
    (run,) = run_section("A loss", *WIDTHS)
    chosen = config(run)["model"]["init_args"]["loss"]
    assert chosen == {"class_path": "focal.Focal", "init_args": {"gamma": 1.0}}
    (same,) = run_section("A loss", *WIDTHS, "--model.loss.gamma=0")
    (plain,) = run_section("A loss", *WIDTHS, commands=["fit --config configs/mlp.yaml --model.label_smoothing 0"])
    losses = [Run(each).steps()["step/loss"][1] for each in (run, same, plain)]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)
    assert all(a < b for a, b in zip(losses[0], losses[1], strict=True))
    assert float(rows(run)[0]["train/loss"]) > losses[0][0]  # the cross-entropy


@shows("A training step")
def test_a_training_step(run_section):
    runs = [run_section("A training step", *WIDTHS)[0] for _ in range(2)]
    model = config(runs[0])["model"]
    assert (model["class_path"], model["init_args"]["alpha"]) == ("mixup.Mixup", 0.4)
    assert all(float(row["train/acc"]) <= 1 and float(row["train/loss"]) > 0 for row in rows(runs[0]))
    one, two = map(weights, runs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    (plain,) = run_section("A training step", *WIDTHS, commands=["fit --config configs/mlp.yaml"])
    assert not torch.equal(weights(plain)["net.head.weight"], one["net.head.weight"])
