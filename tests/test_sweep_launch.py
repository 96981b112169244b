"""Runs are placed on this machine by its cores and GPUs, or on a Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from cifar_lightning.sweeps import execute, local
from cifar_lightning.sweeps.check import Cost
from cifar_lightning.sweeps.cluster import connect
from cifar_lightning.sweeps.launch import check_resources, launch
from cifar_lightning.sweeps.local import LocalPool, Resources, visible_gpus
from cifar_lightning.sweeps.plan import PlannedRun, Sweep

PROGRAM = """
import json, os, pathlib, sys, time
started, name = time.time(), sys.argv[sys.argv.index("--version") + 1]
pathlib.Path("events").mkdir(exist_ok=True)
attempt = len(list(pathlib.Path("events").glob(f"{name}-*")))
event = pathlib.Path(f"events/{name}-{attempt}")
event.touch()
time.sleep(float(os.environ.get("SLEEP", "0.3")))
if attempt < int(os.environ.get("DEATHS", "0")):
    os.kill(os.getpid(), 9)
if name == "bad":
    sys.exit("error: Expected a good run, got a bad one.")
event.write_text(json.dumps([name, started, time.time(), os.environ.get("CUDA_VISIBLE_DEVICES")]))
folder = pathlib.Path(sys.argv[sys.argv.index("--save_dir") + 1]) / sys.argv[sys.argv.index("--name") + 1] / name
folder.mkdir(parents=True)
(folder / "result.json").write_text('{"status": "completed"}')
"""
"""Stands in for `fit`: sleeps, and leaves a result and a note of when and where it ran."""


@pytest.fixture(autouse=True)
def program(monkeypatch) -> None:
    Path("program.py").write_text(PROGRAM)
    monkeypatch.setattr(execute, "PROGRAM", [sys.executable, str(Path("program.py").resolve())])


def a_sweep(**options) -> Sweep:
    return Sweep("s", [{"model.dropout": [0]}], test=False, **options)


def go(names: str, sweep: Sweep, devices: int = 1, gpu: bool = False) -> dict[str, str]:
    """Run a sweep and return the error of each run."""
    runs = [PlannedRun(name, (), {}, {}, 0) for name in names.split()]
    costs = {run.id: Cost(1, 1, devices, gpu, seconds=1.0) for run in runs}
    return {outcome.id: outcome.error for outcome in launch(sweep, runs, costs, Path("logs/s"))}


def events() -> list[tuple[str, float, float, str | None]]:
    return sorted((json.loads(path.read_text()) for path in Path("events").iterdir()), key=lambda event: event[1])


def most_at_once() -> int:
    moments = [moment for _, start, end, _ in events() for moment in ((start, 1), (end, -1))]
    running = [sum(change for _, change in sorted(moments)[:i]) for i in range(len(moments) + 1)]
    return max(running)


@pytest.mark.parametrize(("cores", "cpus", "devices", "expected"), [(4, 1, 1, 4), (5, 2, 1, 2), (4, 1, 2, 2)])
def test_as_many_runs_at_once_as_there_are_cores_for(monkeypatch, cores, cpus, devices, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setenv("SLEEP", "0.8")
    names = "abcde"[: expected + 1]
    assert go(" ".join(names), a_sweep(cpus=cpus), devices) == dict.fromkeys(names, "")
    assert most_at_once() == expected


@pytest.mark.parametrize("devices", [1, 2])
def test_runs_at_the_same_time_have_gpus_of_their_own(monkeypatch, devices):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["3", "5", "MIG-a", "MIG-b"])
    monkeypatch.setenv("SLEEP", "0.8")
    go("a b c d e f", a_sweep(), devices, gpu=True)
    assert most_at_once() == 4 // devices
    for name, start, end, gpus in events():
        assert len(set(gpus.split(","))) == devices
        for other, other_start, other_end, other_gpus in events():
            if name != other and start < other_end and other_start < end:
                assert not set(gpus.split(",")) & set(other_gpus.split(","))


def test_runs_that_share_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setenv("SLEEP", "0.8")
    assert go("a b c d e", a_sweep(runs_per_gpu=2), gpu=True) == dict.fromkeys("abcde", "")
    assert most_at_once() == 4
    first = [gpus for _, start, _, gpus in events() if start < min(end for _, _, end, _ in events())]
    assert sorted(first) == ["0", "0", "1", "1"]
    with pytest.raises(ValueError, match="Expected runs on one GPU where `runs_per_gpu` is 2, got a run on 2"):
        go("f", a_sweep(runs_per_gpu=2), devices=2, gpu=True)


def test_a_run_on_the_cpu_sees_no_gpu_and_without_gpus_nothing_is_set(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "visible_gpus", lambda: [])
    go("a", a_sweep())
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0"])
    go("b", a_sweep())
    assert [gpus for _, _, _, gpus in events()] == [None, ""]


@pytest.mark.parametrize(
    ("variable", "count", "expected"),
    [(None, 2, ["0", "1"]), ("4,7", 2, ["4", "7"]), ("", 0, []), ("GPU-x", 1, ["GPU-x"]), (None, 0, [])],
)
def test_gpus_are_those_that_this_process_may_use(monkeypatch, variable, count, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert visible_gpus() == expected


@pytest.mark.parametrize(
    ("deaths", "retries", "error"), [(1, 1, ""), (2, 3, ""), (2, 1, "died: a was ended by signal 9")]
)
def test_a_run_that_dies_is_started_again_as_often_as_the_sweep_allows(monkeypatch, deaths, retries, error):
    monkeypatch.setenv("DEATHS", str(deaths))
    assert go("a", a_sweep(retries=retries)) == {"a": error}
    assert len(list(Path("events").iterdir())) == min(deaths, retries) + 1


def test_a_run_that_fails_is_not_started_again_and_holds_up_no_other():
    assert go("a bad b", a_sweep(retries=2)) == {"a": "", "bad": "error: Expected a good run, got a bad one.", "b": ""}
    assert len(list(Path("events").glob("bad-*"))) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stopped_sweep_kills_its_runs_and_starts_no_other(monkeypatch, number):
    monkeypatch.setenv("SLEEP", "60")
    before = signal.getsignal(signal.SIGTERM)

    def stop_it() -> None:
        while not Path("events").is_dir() or not list(Path("events").iterdir()):
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop_it, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        go("a b c d e f", a_sweep(retries=5))
    assert time.monotonic() - started < 45
    assert len(list(Path("events").iterdir())) <= len(os.sched_getaffinity(0))
    assert signal.getsignal(signal.SIGTERM) is before


def test_more_than_any_machine_has():
    machines = [Resources(2, 0), Resources(1, 1)]
    check_resources(machines, [Resources(2, 0), Resources(1, 1)])
    with pytest.raises(ValueError, match="with 3 cores and 0 GPUs for a run, got 2 with at most 2 cores and 1 GPUs"):
        check_resources(machines, [Resources(1, 0), Resources(3, 0)])
    with pytest.raises(ValueError, match="Expected a machine with 2 cores and 1 GPUs for a run"):
        check_resources(machines, [Resources(2, 1)])
    with pytest.raises(ValueError, match=r"Lower `cpus` or `trainer\.devices`"):
        go("a", a_sweep(cpus=1000))
    assert LocalPool(a_sweep(), Path("logs")).machines()[0].cores == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_a_sweep_imports_no_ray():
    code = "import sys, cifar_lightning.sweeps.sweep; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- Ray, which is a stand-in here; tests/test_sweep.py has a real cluster -------------------------------------------


class AuthenticationError(Exception):
    """As Ray 2.60 has it: no OSError."""


@pytest.mark.parametrize("error", [ConnectionError("Failed to connect"), AuthenticationError("no token was found")])
def test_a_cluster_that_does_not_let_us_in_may_have_a_token(error, monkeypatch):
    def init(**options: object) -> None:
        raise error

    ray = SimpleNamespace(init=init, exceptions=SimpleNamespace(RayError=AuthenticationError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"^Expected a Ray cluster") as caught:
            connect(address)
    message = str(caught.value)
    assert message.startswith(
        f"Expected a Ray cluster at `--address` {address}, got: {error}\nSomething listens there."
    )
    assert "copy ~/.ray/auth_token from its first machine to this one, and set RAY_AUTH_MODE=token" in message


def test_nothing_listens_at_the_address(monkeypatch):
    ray = SimpleNamespace(exceptions=SimpleNamespace(RayError=AuthenticationError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(ValueError, match=r"^Expected a Ray cluster at `--address` 127.0.0.1:1, got: .*refused$"):
        connect("127.0.0.1:1")


def test_an_address_without_ray_is_one_message_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"^`--address` needs Ray, which is not installed: pip install '\.\[sweep\]'"):
        connect("node1:6379")


def test_this_machine_needs_no_address():
    with pytest.raises(ValueError, match="Leave it out to run the sweep on this machine"):
        connect("local")
