"""A sweep from its YAML to its comparison, and what is left of it when its processes are killed."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from observe import descendants, listening, processes, wait_until
from tiny import state_sha256

from cifar_lightning.__main__ import main
from cifar_lightning.sweeps.execute import RunDiedError, done, execute, next_command
from cifar_lightning.sweeps.plan import PlannedRun, Prune, Sweep

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "configs/sweeps/smoke.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def words(save_dir: Path, *options: str) -> list[str]:
    """The arguments of half of the sweep; on a cluster, of its MLPs alone."""
    sweep, lines = save_dir.with_name(f"{save_dir.name}.yaml"), SMOKE.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if "label: CNN" not in line or "--address" not in options)
    sweep.write_text(text.replace("[0.001, 0.02]", "[0.02]"))
    return [str(sweep), "--save_dir", str(save_dir), *options]


def start(save_dir: Path, *options: str) -> subprocess.Popen[str]:
    """Start the sweep in a process of its own, where its recipes are; it finds Ray only where it needs it."""
    hidden = [str(Path(__file__).parent / "without_ray")] if "--address" not in options else []
    return subprocess.Popen(
        [sys.executable, "scripts/sweep.py", *words(save_dir, *options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*hidden, str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What a sweep said, once it has ended well."""
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return out


@pytest.fixture
def here(monkeypatch, capsys) -> Callable[..., str]:
    """Run the sweep in this process, where it has nothing to train, and return what it said."""

    def sweep(save_dir: Path, *options: str) -> str:
        with monkeypatch.context() as patch:
            patch.chdir(ROOT)
            assert main(["sweep", *words(save_dir, *options)]) == 0
        return capsys.readouterr().out

    return sweep


def table(save_dir: Path) -> list[list[str]]:
    """The comparison without the times, which no two sweeps share."""
    with (save_dir / "smoke/comparison/compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [[cell for column, cell in row.items() if column != "fit, s"] for row in rows]


def trainings(save_dir: Path) -> list[int]:
    """Ids of the processes that train a run of a sweep."""
    return [pid for pid, (_, line) in processes().items() if "-m cifar_lightning" in line and str(save_dir) in line]


def finished(save_dir: Path) -> int:
    """Number of runs that have been trained."""
    results = (json.loads(path.read_text()) for path in (save_dir / "smoke").glob("*/result.json"))
    return sum(result.get("status") == "completed" for result in results)


@pytest.fixture(scope="module")
def undisturbed(once) -> Path:
    def sweep(folder: Path) -> None:
        out = finish(start(folder))
        assert "4 runs, 0 of them done" in out
        assert "0 left" in out

    return once("undisturbed", sweep)


def test_a_sweep_runs_every_combination_with_every_seed_and_compares_them(undisturbed):
    rows = table(undisturbed)
    assert {(row[0], row[1]) for row in rows} == {("MLP", "2"), ("CNN", "2")}
    runs = [path.parent for path in (undisturbed / "smoke").glob("*/result.json")]
    assert len(runs) == 4
    for run in runs:
        result = json.loads((run / "result.json").read_text())
        assert result["status"] == "completed"
        assert result["hardware"]["threads"] == 1
        assert result["fit"]["metrics"]["val/acc"] > 0


def test_nothing_runs_twice(undisturbed, here):
    before = {path: path.stat().st_mtime_ns for path in (undisturbed / "smoke").glob("*/result.json")}
    assert "4 runs, 4 of them done" in here(undisturbed, "--no-estimate")
    assert {path: path.stat().st_mtime_ns for path in (undisturbed / "smoke").glob("*/result.json")} == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_killed_and_started_again_it_ends_in_the_same_table(undisturbed, tmp_path):
    first = start(tmp_path, "--no-estimate")
    wait_until(lambda: finished(tmp_path) >= 1)
    os.kill(wait_until(lambda: trainings(tmp_path))[0], signal.SIGKILL)  # the sweep starts it again
    wait_until(lambda: finished(tmp_path) >= 2)
    first.kill()
    out, _ = first.communicate(timeout=60)
    assert "FAILED" not in out
    wait_until(lambda: not trainings(tmp_path))  # no run outlives its sweep

    before = finished(tmp_path)
    out = finish(start(tmp_path, "--no-estimate"))
    assert int(re.findall(r"4 runs, (\d) of them done", out)[0]) >= before >= 2
    assert table(tmp_path) == table(undisturbed)
    for path in (undisturbed / "smoke").glob("*/result.json"):
        run = path.parent.name
        assert state_sha256(tmp_path / "smoke" / run) == state_sha256(undisturbed / "smoke" / run)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_it_listens_to_nobody_and_when_asked_to_stop_leaves_nothing_behind(tmp_path, number):
    process = start(tmp_path, "--no-estimate")
    wait_until(lambda: trainings(tmp_path))
    assert not listening([process.pid, *descendants(process.pid, "")])
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    assert "Stopped. Start the same command again to continue." in out
    assert "Traceback" not in out
    wait_until(lambda: not trainings(tmp_path), 30)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_two_nodes_of_a_ray_cluster_give_the_same_table_when_a_worker_is_killed(undisturbed, tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")  # with Ray's own 15, other work leaves it a fiftieth of a core
    with contextlib.ExitStack() as stack:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        stack.callback(cluster.shutdown)
        cluster.add_node(num_cpus=1)
        process = stack.enter_context(start(tmp_path, "--no-estimate", "--address", cluster.address))
        stack.callback(process.kill)
        wait_until(lambda: trainings(tmp_path))
        os.kill(wait_until(lambda: descendants(os.getpid(), "^ray::MLP"))[0], signal.SIGKILL)
        finish(process)
    (row,) = table(tmp_path)
    assert row[1:] in [other[1:] for other in table(undisturbed) if other[0] == "MLP"]


def test_a_dry_run_shows_the_plan_and_leaves_nothing(tmp_path, here):
    out = here(tmp_path, "--dry-run")
    assert "4 runs, 0 of them done, about" in out
    lines = [line.split() for line in out.splitlines() if line.startswith(("MLP", "CNN"))]
    assert [line[:3] for line in lines][:2] == [["MLP,lr=0.02", "2", "98,698"], ["CNN,lr=0.02", "2", "1,576"]]
    assert all(float(line[4].replace(",", "")) >= 0 for line in lines)
    assert not list(tmp_path.iterdir())


def a_run(**options) -> PlannedRun:
    small = {"data.source": "synthetic", "data.synthetic_train": 300, "data.synthetic_test": 100, "data.val_size": 100}
    more = {"model": "MLPClassifier", "model.net.widths": [8], "data.batch_size": 100, "trainer.max_epochs": 1}
    return PlannedRun("one", (), {**more, **small, **options}, {}, 0)


def a_sweep(**options) -> Sweep:
    return Sweep("sweep", [{"model.net.dropout": [0]}], **options)


def run_it(run: PlannedRun, **options):
    return execute(run, a_sweep(**options), Path("sweep").resolve(), Path.cwd())


def test_a_run_that_fails_keeps_its_log():
    outcome = run_it(a_run(**{"model.net.dropout": 3}))
    assert "Expected `--model.net.dropout` in [0, 1), got 3" in outcome.error
    assert outcome.error in " ".join(Path("sweep/logs/one.log").read_text().split())
    assert not done(Path("sweep/one"), ["test"])


def test_a_run_that_is_killed_may_be_started_again(monkeypatch):
    killed = {"trainer.callbacks": "stopping.Kill"}
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT)]))
    with pytest.raises(RunDiedError, match="ended by signal 9"):
        run_it(a_run(**killed))
    # Its first epoch had not ended, so the next one starts from the beginning.
    assert next_command(a_run(), a_sweep(), Path("sweep/one"))[3] == "fit"
    assert run_it(a_run()).error == ""
    assert done(Path("sweep/one"), ["test"])
    assert not done(Path("sweep/one"), ["test", "predict"])
    assert next_command(a_run(), a_sweep(predict=True), Path("sweep/one"))[3] == "predict"


def test_a_run_that_does_worse_than_the_others_is_pruned():
    rung = Path("sweep/rungs/1_epochs")
    rung.mkdir(parents=True)
    for rival, value in enumerate((0.98, 0.99)):
        (rung / f"rival{rival}.json").write_text(json.dumps(value))
    assert run_it(a_run(**{"trainer.max_epochs": 4}), prune=Prune(first_epochs=1, factor=2)).error == ""
    result = json.loads(Path("sweep/one/result.json").read_text())
    assert (result["status"], result["fit"]["epochs"]) == ("pruned", 1)
    assert "test" not in result
    assert done(Path("sweep/one"), ["test"])
    # The best so far goes on, to the next comparison and through it.
    for rival in range(2):
        (rung / f"rival{rival}.json").write_text("0.01")
    again = PlannedRun("two", (), a_run(**{"trainer.max_epochs": 4}).options, {}, 0)
    assert run_it(again, prune=Prune(first_epochs=1, factor=2), test=False).error == ""
    assert json.loads(Path("sweep/two/result.json").read_text())["status"] == "completed"
    assert {path.parent.name for path in Path("sweep/rungs").glob("*/two.json")} == {"1_epochs", "2_epochs"}


def test_numbers_that_are_kept_stand_for_their_runs(undisturbed, tmp_path, here):
    here(undisturbed, "--no-estimate", "--results", str(tmp_path / "kept"))
    kept = tmp_path / "kept/smoke"
    assert {path.name for path in kept.iterdir()} == {"runs.json", "comparison"}
    rows = json.loads((kept / "runs.json").read_text())["runs"]
    runs = {path.parent.name: path.parent for path in (undisturbed / "smoke").glob("*/result.json")}
    assert [row["id"] for row in rows] == sorted(runs)
    for row in rows:
        run = runs[row["id"]]
        assert row["result"] == json.loads((run / "result.json").read_text())
        with (run / "metrics.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert row["history"] == {name: [float(line[name]) for line in lines] for name in lines[0]}
    # Another machine, which has only them.
    out = here(tmp_path / "new", "--no-estimate", "--results", str(tmp_path / "kept"))
    assert "4 runs, 4 of them done" in out
    assert not list((tmp_path / "new").glob("smoke/*/result.json"))
    assert table(kept.parent) == table(undisturbed)
    # Runs of an earlier plan stay.
    extra = {**rows[0], "id": "another"}
    (kept / "runs.json").write_text(json.dumps({"name": "smoke", "metric": "val/acc", "runs": [*rows[1:], extra]}))
    here(undisturbed, "--no-estimate", "--results", str(tmp_path / "kept"))
    assert json.loads((kept / "runs.json").read_text())["runs"] == sorted([*rows, extra], key=lambda row: row["id"])
    assert table(kept.parent) == table(undisturbed)
