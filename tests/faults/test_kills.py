"""Killed at a random moment and started again, a training ends as if nothing had been.

FAULT_REPEATS says how often for each kind of training (default 1), FAULT_RESULTS where to write what came out.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults.training import KINDS, finish, fit, kill, record, remains, start, wait_for_checkpoint
from tiny import BARE

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
EPOCHS = 30
LONG = f"--trainer.max_epochs={EPOCHS}"  # so that most of its time is training
REPEATS = range(int(os.environ.get("FAULT_REPEATS", "1")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What is left of a training of a kind that nobody disturbs, and its seconds; made once."""
    folder, known = tmp_path_factory.mktemp("undisturbed"), {}

    def of(kind):
        if kind not in known:
            started = time.monotonic()
            finish(fit(kind, "whole", LONG, "--save_dir", folder))
            known[kind] = remains(folder / kind / "whole"), time.monotonic() - started
        return known[kind]

    return of


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("kind", KINDS)
def test_ended_at_a_random_moment(undisturbed, kind, repeat, number):
    expected, seconds = undisturbed(kind)
    moment = random.Random(f"{kind} {repeat} {number}").uniform(0.2, 1) * seconds
    run = Path("lightning_logs") / kind / "part"
    process = fit(kind, "part", LONG)
    time.sleep(moment)
    kill(process, number)
    said, _ = process.communicate(timeout=300)
    status = process.returncode
    had = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()) if run.is_dir() else []
    if (run / "config.yaml").is_file():
        if status != 0:
            finish(start("fit", "--run", run))
    else:  # it had not begun
        shutil.rmtree(run, ignore_errors=True)
        finish(fit(kind, "part", LONG))
    found = remains(run)
    equal = {what: found[what] == value for what, value in expected.items()}
    epochs = len(found["metrics.csv"])
    record("kills", kind=kind, signal=number.name, second=round(moment, 2), status=status, equal=equal, files=len(had))
    assert all(equal.values()), (equal, said)
    assert epochs == EPOCHS
    assert "Traceback" not in said
    if number == signal.SIGTERM and status not in (0, -signal.SIGTERM):
        assert status == 128 + signal.SIGTERM
        assert "Go on with: fit --run" in said


# ---- stops that are asked for ----------------------------------------------------------------------------------------

STOPS = (LONG, *BARE)
STOPPED = ("mlp", "mlp-ema", "cnn", "cnn-muon")
CONSTANT = ("--model.schedule=constant", "--model.warmup_epochs=0")  # the length of the others follows from max_steps
PRUNING = "cifar_lightning.callbacks.pruning.Pruning"


def until_over(run: Path, *options: object) -> int:
    """Continues a run until its training is over, and returns how often that took."""
    calls = 0
    while json.loads((run / "result.json").read_text()).get("status") not in ("completed", "early_stopped", "pruned"):
        finish(start("fit", "--run", run, *options))
        calls += 1
    return calls


def compare(run: Path, whole: Path, **values: object) -> None:
    """Asserts that two runs are equal, and records it."""
    found, expected = remains(run), remains(whole)
    equal = {what: found[what] == value for what, value in expected.items()}
    ends = [json.loads((folder / "result.json").read_text()) for folder in (run, whole)]
    equal["status"] = ends[0]["status"] == ends[1]["status"]
    equal["epochs"] = ends[0]["fit"]["epochs"] == ends[1]["fit"]["epochs"]
    record("stops", **values, status=ends[0]["status"], epochs=ends[0]["fit"]["epochs"], equal=equal)
    assert all(equal.values()), equal


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("kind", STOPPED)
def test_stopped_by_max_steps_at_a_random_step(kind, repeat):
    steps = EPOCHS * 10 // (2 if kind == "cnn-muon" else 1)
    places = sorted(random.Random(f"{kind} {repeat} steps").sample(range(1, steps), 2))
    finish(fit(kind, "whole", *STOPS, *CONSTANT))
    finish(fit(kind, "part", *STOPS, *CONSTANT, f"--trainer.max_steps={places[0]}"))
    run = Path("lightning_logs") / kind / "part"
    finish(start("fit", "--run", run, f"--trainer.max_steps={places[1]}"))
    finish(start("fit", "--run", run, "--trainer.max_steps=-1"))
    compare(run, run.with_name("whole"), by="max_steps", kind=kind, repeat=repeat, places=places)


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("kind", STOPPED)
def test_stopped_by_max_time_until_it_is_over(kind, repeat):
    finish(fit(kind, "whole", *STOPS))
    finish(fit(kind, "part", *STOPS, "--trainer.max_time=00:00:00:01"))
    run = Path("lightning_logs") / kind / "part"
    calls = until_over(run)
    compare(run, run.with_name("whole"), by="max_time", kind=kind, repeat=repeat, calls=calls)


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("kind", STOPPED)
@pytest.mark.parametrize("by", ["early_stopping", "pruning"])
def test_killed_on_the_way_to_an_early_end(by, kind, repeat):
    chance = random.Random(f"{kind} {repeat} {by}")
    if by == "early_stopping":
        options = [f"--early_stopping.patience={chance.randint(1, 3)}"]
    else:  # a rival that is better from some rung on
        rung = Path(f"rungs/{chance.choice([1, 3, 9])}_epochs")
        rung.mkdir(parents=True)
        (rung / "rival.json").write_text("1.0")
        own = "+=" if any("callbacks" in option for option in KINDS[kind]) else "="
        options = [
            f"--trainer.callbacks{own}{PRUNING}",
            "--trainer.callbacks.folder=rungs",
            "--trainer.callbacks.run=own",
        ]
    finish(fit(kind, "whole", *STOPS, *options))
    run, whole = (Path("lightning_logs") / kind / version for version in ("part", "whole"))
    process = fit(kind, "part", *STOPS, *options)
    wait_for_checkpoint(process, run)
    moment = chance.uniform(0, 2)
    time.sleep(moment)
    kill(process, signal.SIGKILL)
    process.communicate(timeout=300)
    finish(start("fit", "--run", run))
    compare(run, whole, by=by, kind=kind, repeat=repeat, second=round(moment, 2))
