"""The published study has the runs of its recipes and the numbers of their comparison."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cifar_lightning.comparison.compare import compare
from cifar_lightning.sweeps.plan import expand, load_sweep

STUDY = Path(__file__).parents[1] / "docs/results/study"


LONG = ["thirty_epochs/networks", "thirty_epochs/stability"]


@pytest.mark.parametrize("sweep", ["architectures", "depth", "optimizers", "regularisation", *LONG])
def test_the_study_has_the_numbers_of_its_comparison(sweep, tmp_path):
    """The rows of compare.csv, written when the runs were measured."""
    compare([str(STUDY / sweep), "--output", str(tmp_path)])
    now, then = (
        list(csv.reader(folder.joinpath("compare.csv").read_text().splitlines()))
        for folder in (tmp_path, STUDY / sweep / "comparison")
    )
    assert now[1:] == then[1:]


def test_the_runs_of_the_study_are_those_of_its_recipes(tmp_path, monkeypatch):
    """Ids depend on the contents of the recipes, which are kept as they were."""
    (tmp_path / "configs/sweeps").mkdir(parents=True)
    (tmp_path / "configs/sweeps/study").symlink_to(STUDY / "recipes")
    monkeypatch.chdir(tmp_path)
    total = 0
    for path in sorted(STUDY.glob("*/runs.json")):
        kept = json.loads(path.read_text())["runs"]
        planned = expand(load_sweep(Path(f"configs/sweeps/study/{path.parent.name}.yaml")))
        assert {(row["id"], row["seed"]) for row in kept} == {(run.id, run.seed) for run in planned}
        assert [row["id"] for row in kept] == sorted(row["id"] for row in kept)
        assert all(row["result"]["git_commit"] and row["history"]["val/acc"] for row in kept)
        assert {row["id"]: row["point"] for row in kept} == {run.id: run.point for run in planned}
        total += len(kept)
    assert total == 336


@pytest.mark.parametrize("sweep", LONG)
def test_the_runs_over_thirty_epochs_are_those_of_the_sweeps_of_today(sweep, monkeypatch):
    """Not all of them were trained; the command in their README continues with what is missing."""
    monkeypatch.chdir(STUDY.parents[2])
    kept = json.loads((STUDY / sweep / "runs.json").read_text())["runs"]
    planned = {run.id: run for run in expand(load_sweep(Path(f"configs/sweeps/study/{Path(sweep).name}.yaml")))}
    assert all(planned[row["id"]].point == row["point"] for row in kept)
    whole = [row for row in kept if not row["result"].get("diverged")]
    assert all(len(row["history"]["val/acc"]) == 30 for row in whole)
    diverged = [(*row["point"].values(), row["seed"]) for row in kept if row not in whole]
    unstable = (["CNN without normalisation", "SGD with Nesterov momentum"], 3.0)
    assert diverged == ([(*unstable, 1), (*unstable, 2)] if sweep.endswith("stability") else [])


def test_the_readme_over_thirty_epochs_counts_its_runs():
    total = sum(len(json.loads((STUDY / sweep / "runs.json").read_text())["runs"]) for sweep in LONG)
    assert f"the {total} runs" in (STUDY / "thirty_epochs/README.md").read_text()
