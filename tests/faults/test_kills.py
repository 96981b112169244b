"""Killed at a random moment and started again, a training ends as if nothing had been.

FAULT_REPEATS says how often for each kind of training (default 1), FAULT_RESULTS where to write what came out.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from faults.training import KINDS, finish, fit, kill, record, remains, start

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
