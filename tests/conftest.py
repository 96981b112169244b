"""Every test starts alike: in a folder of its own, seeded, on one thread, and away from the user's surroundings."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Of the tests, and of the processes that they start: threads of several programs on the same cores wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Runs are signed with a key in the user's configuration. That of the tests lies elsewhere, as a home may be read-only.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CONFIGURATION = tempfile.TemporaryDirectory(prefix="cifar_lightning-")  # removed when the tests end
    os.environ["XDG_CONFIG_HOME"] = CONFIGURATION.name

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from lightning.pytorch import Trainer
from tiny import CNN, DRAWING, fit

from cifar_lightning.data.datamodule import CIFAR10DataModule

# A shell makes its jobs in the background deaf to Ctrl-C, which some tests send.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = str(Path(__file__).parent)
REAL_ROOT = os.environ.get("CIFAR10_ROOT") and Path(os.environ["CIFAR10_ROOT"]).absolute()

# The same examples each time, and no folder of earlier ones; machines that are shared make deadlines lie.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _fresh_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("PL_GLOBAL_SEED", "CIFAR10_ROOT"):
        # Set first, so that it is taken back also where the test sets a variable that was not there.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    # A command on a run imports the modules that the run keeps, in place of those of the tests.
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, module in sys.modules.copy().items():  # in one go: threads import
        if str(getattr(module, "__file__", None)).startswith(HERE):
            monkeypatch.setitem(sys.modules, name, module)
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def real_root() -> Path:
    """Where the real CIFAR-10 is; a test that asks for it is marked `slow`."""
    if not REAL_ROOT:
        pytest.skip("CIFAR10_ROOT is not set")
    return REAL_ROOT


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fill a folder once in a session, however many workers ask for it: `once(name, fill)` returns it."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    base.mkdir(exist_ok=True)

    def get(name: str, fill: Callable[[Path], object]) -> Path:
        folder = base / name
        with FileLock(base / f"{name}.lock"):
            if not (base / f"{name}.filled").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                (base / f"{name}.filled").touch()
        return folder

    return get


@pytest.fixture
def finished(once) -> Callable[..., Path]:
    """Put a finished run into lightning_logs/: `finished(*MLP)`. Each is trained once in a session, and copied."""

    def copy(*args: str) -> Path:
        name = hashlib.sha256(repr(args).encode()).hexdigest()[:16]
        folder = once(name, lambda folder: fit(*args, "--save_dir", folder, save_dir=folder))
        (run,) = folder.glob("*/*")
        return Path(shutil.copytree(run, Path("lightning_logs", *run.parts[-2:])))

    return copy


@pytest.fixture(scope="session")
def drawn(once) -> Path:
    """A folder with the run cnn/v, trained with figures after each epoch and tested."""
    options = (*CNN, "--model.net.whiten_px=2", *DRAWING, "--test", "--version=v")
    return once("drawn", lambda folder: fit(*options, "--save_dir", folder, save_dir=folder))


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """A trainer on the CPU that writes and prints nothing, unless asked."""

    def make(**options: Any) -> Trainer:
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
        }
        return Trainer(**{**quiet, **options})

    return make


@pytest.fixture
def data() -> CIFAR10DataModule:
    """60 images to train on in 4 steps of 15, 20 to validate, 20 to test."""
    sizes = {"synthetic_train": 80, "synthetic_test": 20, "val_size": 20, "batch_size": 16, "eval_batch_size": 16}
    return CIFAR10DataModule(source="synthetic", **sizes)
