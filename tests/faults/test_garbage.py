"""Generated bad input: whatever comes, the answer is one message, and nothing is written where it should not be.

FAULT_EXAMPLES says how many inputs of each kind (default 10), FAULT_RESULTS where to write what came out.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import time
from pathlib import Path

import pytest
import trees
from faults.training import digest, record
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tiny import DATA, MLP

from cifar_lightning.__main__ import main
from cifar_lightning.data import official

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]
generated = settings(
    max_examples=int(os.environ.get("FAULT_EXAMPLES", "10")),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
KEYS = [
    *(
        "model.net.widths",
        "model.net.activation",
        "model.net.norm",
        "model.net.dropout",
        "model.net.whiten_components",
        "model.schedule",
    ),
    *("model.warmup_epochs", "model.final_lr_ratio", "model.label_smoothing", "model.tta", "model.compile", "model"),
    *("model.optimizer", "model.optimizer.lr", "model.optimizer.weight_decay", "model.nothing"),
    *("data.source", "data.batch_size", "data.eval_batch_size", "data.val_size", "data.split_seed", "data.flip"),
    *("data.translate_px", "data.cutout_px", "data.rotate_degrees", "data.image_sizes", "data.train_size", "data.root"),
    *(
        "data.synthetic_train",
        "data.synthetic_test",
        "data",
        "trainer",
        "figures",
        "finite",
        "trainer.max_epochs",
        "trainer.precision",
    ),
    *("trainer.devices", "trainer.accelerator", "trainer.strategy", "trainer.callbacks", "trainer.gradient_clip_val"),
    *("trainer.accumulate_grad_batches", "trainer.log_every_n_steps", "trainer.limit_train_batches", "trainer.logger"),
    *(
        "checkpoint.monitor",
        "checkpoint.mode",
        "early_stopping.patience",
        "early_stopping.monitor",
        "finite.skip_steps",
    ),
    *("figures.every_n_epochs", "figures.images", "layers.every_n_steps"),
    *(
        "seed_everything",
        "name",
        "version",
        "save_dir",
        "run",
        "ckpt_path",
        "config",
        "checkpoint_every_n_steps",
        "nothing",
    ),
]
GARBAGE = [
    *("", "null", "true", "nan", "inf", "-inf", "-1", "0", "1e30", "[]", "{}", "[0]", "[-1, 2]", "..", "/", "ü"),
    *("os.system", "{class_path: os.system, init_args: {command: touch hacked}}", "!!python/name:os.system"),
    *("/proc/self/mem", "../outside", "a\x00b", "lightning_logs", "*" * 300, "[[[[", "{a: ", "- -"),
]
VALUES = st.one_of(
    st.sampled_from(GARBAGE), st.integers(-(10**12), 10**12).map(str), st.floats().map(str), st.text(max_size=20)
)
FILES = ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "result.json", "metrics.csv", "events"]
COMMANDS = ["test", "validate", "fit", "predict", "report"]


def answer(run, *args: object) -> tuple[int, str]:
    """Exit status and what was said, within two minutes; anything but an exit is a failure of the test."""
    said, started = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = run([str(arg) for arg in args])
        except SystemExit as stop:
            status = int(stop.code or 0)
    assert time.monotonic() - started < 120, args
    return status, said.getvalue()


@contextlib.contextmanager
def in_a_room_of_its_own(base: Path):
    """A working folder; nothing may come to lie beside it."""
    room = base / "room"
    room.mkdir()
    beside = sorted(base.rglob("*"))
    before = os.getcwd()
    os.chdir(room)
    try:
        yield room
    finally:
        os.chdir(before)
        outside = [path for path in sorted(base.rglob("*")) if path not in beside and room not in path.parents]
        hacked = list(base.rglob("hacked"))
        shutil.rmtree(room)
    assert not outside, outside
    assert not hacked


def settled(kind: str, what: object, status: int, said: str) -> None:
    """The answer is a success, a part that could not be done, or one message."""
    record("garbage", kind=kind, input=repr(what)[:200], status=status, said=said[-200:])
    assert status in (0, 1, 2), said
    assert "Traceback" not in said, said
    if status == 2:
        assert "error:" in said, said


@generated
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_command_lines(tmp_path_factory, key, value):
    # As many processes as somebody asks for are a fair wish, which this machine could not grant.
    assume(key != "trainer.devices" or not value.isdecimal() or int(value) < 2)
    with in_a_room_of_its_own(tmp_path_factory.mktemp("base")):
        quick = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1")
        status, said = answer(main, "fit", *DATA, *MLP, *quick, f"--{key}={value}")
    settled("command line", (key, value), status, said)


@generated
@given(text=st.one_of(st.text(), st.binary().map(lambda b: b.decode("latin1")), VALUES), key=st.sampled_from(KEYS))
def test_configurations(tmp_path_factory, text, key):
    with in_a_room_of_its_own(tmp_path_factory.mktemp("base")) as room:
        nested = text
        for part in reversed(key.split(".")):
            nested = f"{part}:\n" + "\n".join(f"  {line}" for line in nested.splitlines())
        (room / "config.yaml").write_text(nested, encoding="utf-8")
        status, said = answer(main, "fit", "--config", "config.yaml", *DATA, *MLP, "--trainer.fast_dev_run=1")
    settled("configuration", nested, status, said)


@st.composite
def mutations(draw):
    """Changes to some bytes: (where, as a share of the length, what to do, with what)."""
    change = st.tuples(
        st.floats(0, 1), st.sampled_from(["set", "cut", "insert", "end"]), st.binary(min_size=1, max_size=9)
    )
    return draw(st.lists(change, min_size=1, max_size=4))


def mutated(content: bytes, changes) -> bytes:
    """The content with the changes."""
    for share, how, new in changes:
        at = int(share * max(len(content) - 1, 0))
        if how == "end":
            content = content[:at]
        elif how == "insert":
            content = content[:at] + new + content[at:]
        else:
            content = content[:at] + (new if how == "set" else b"") + content[at + len(new) :]
    return content


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run to break, and a picture."""
    folder = tmp_path_factory.mktemp("trained")
    status, said = answer(main, "fit", *DATA, *MLP, "--save_dir", folder, "--name", "mlp", "--version", "good")
    assert status == 0, said
    return folder / "mlp/good"


def sound(path: Path, original: Path) -> bool:
    """Whether a checkpoint holds what it held."""
    try:
        return digest(path) == digest(original)
    except Exception:  # it cannot be read
        return False


@generated
@given(changes=mutations(), name=st.sampled_from(FILES), command=st.sampled_from(COMMANDS))
def test_run_folders(tmp_path_factory, trained, changes, name, command):
    with in_a_room_of_its_own(tmp_path_factory.mktemp("base")) as room:
        run = room / "lightning_logs/mlp/bad"
        shutil.copytree(trained, run)
        path = next(run.glob("events*")) if name == "events" else run / name
        path.write_bytes(mutated(path.read_bytes(), changes))
        read = "checkpoints/last.ckpt" if command == "fit" else "checkpoints/best.ckpt"
        fine = name != read or sound(path, trained / name)
        options = ["--trainer.max_epochs=3"] if command == "fit" else []
        status, said = answer(main, command, "--run", run, *options)
    settled("run folder", (name, command, changes), status, said)
    assert status == 2 or fine, "a checkpoint of other numbers was taken"


@generated
@given(changes=mutations(), form=st.sampled_from(["png", "jpeg", "gif", "bmp", "webp", "tiff"]))
def test_pictures(tmp_path_factory, trained, changes, form):
    from PIL import Image

    with in_a_room_of_its_own(tmp_path_factory.mktemp("base")) as room:
        buffer = io.BytesIO()
        Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(buffer, form)
        (room / "pictures").mkdir()
        (room / f"pictures/bad.{form}").write_bytes(mutated(buffer.getvalue(), changes))
        (room / f"pictures/good.{form}").write_bytes(buffer.getvalue())
        shutil.copytree(trained, room / "run")
        status, said = answer(main, "predict", "--run", "run", "--images", "pictures")
        written = (room / "run/predictions/images.csv").read_text()
    settled("picture", (form, changes), status, said)
    assert "good" in written


@generated
@given(changes=mutations(), archive=st.booleans(), which=st.integers(0, 6))
def test_archives(tmp_path_factory, changes, archive, which):
    with in_a_room_of_its_own(tmp_path_factory.mktemp("base")) as room, pytest.MonkeyPatch.context() as patch:
        manifest = trees.write_official(room / "root", archive=archive)
        patch.setattr(official, "official_manifest", lambda: manifest)
        files = sorted(path for path in (room / "root").rglob("*batch*") if path.is_file())  # or the archive
        path = (files or list((room / "root").iterdir()))[which % max(len(files), 1)]
        before = path.read_bytes()
        path.write_bytes(after := mutated(before, changes))
        where = ("--data.root=root", "--data.val_size=10", "--data.batch_size=10")
        status, said = answer(main, "fit", *where, *MLP, "--trainer.fast_dev_run=1")
    settled("archive", (path.name, changes), status, said)
    unread = {"batches.meta", "test_batch"}  # `fit` does not look at the test images
    assert status == 2 or before == after or path.name in unread, "a changed archive was taken"
