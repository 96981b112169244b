"""A user's error gives one message, exit status 2, no traceback, and nothing written."""

import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import CNN, DATA, MLP, fit
from trees import write_class_folders, write_official

from cifar_lightning.__main__ import main


def files() -> set[Path]:
    """The files here, without the empty lock file that a download or a decoding leaves in the data root."""
    locks = {path for path in Path().rglob(".cifar_lightning/*.lock") if not path.stat().st_size}
    return set(Path().rglob("*")) - locks - {path.parent for path in locks}


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """Runs a command that must fail as the design says, and returns its message."""
    before = files()
    capsys.readouterr()
    try:
        status = main([str(arg) for arg in args])
    except SystemExit as exit_:  # how jsonargparse ends
        status = exit_.code
    printed = capsys.readouterr()
    assert status == 2
    assert "Traceback" not in printed.err + printed.out
    assert printed.err.count("error: ") == 1
    assert files() == before
    return printed.err


def real(*args: object) -> list[str]:
    """A short training on whatever lies in the folder `root`."""
    return ["fit", *MLP, "--data.root=root", "--data.val_size=10", "--trainer.max_epochs=1", *map(str, args)]


# ---- data ------------------------------------------------------------------------------------------------------------


def test_truncated_archive(capsys):
    write_official(Path("root"), archive=True)
    archive = Path("root/cifar-10-python.tar.gz")
    archive.write_bytes(archive.read_bytes()[:1000])
    message = refused(capsys, *real())
    assert "cifar-10-python.tar.gz" in message
    assert "again" in message


def test_flipped_byte_in_a_batch_file(capsys):
    write_official(Path("root"))
    batch = next(Path("root").rglob("data_batch_3"))
    content = bytearray(batch.read_bytes())
    content[100] ^= 1
    batch.write_bytes(content)
    assert "data_batch_" in refused(capsys, *real())


class Evil:
    """Unpickled, makes a file: the proof that code ran."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_pickle_that_would_run_code(capsys):
    write_official(Path("root"))
    for batch in Path("root").rglob("data_batch_*"):
        batch.write_bytes(pickle.dumps(Evil()))
    refused(capsys, *real())
    assert not Path("ran").exists()


def test_archive_member_that_climbs_out(capsys):
    import io
    import tarfile

    Path("root").mkdir()
    with tarfile.open("root/cifar-10-python.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("../climbed")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    refused(capsys, *real())
    assert not Path("climbed").exists()


def test_missing_class_folder(capsys):
    write_class_folders(Path("root"))
    shutil.rmtree("root/train/horse")
    assert "horse" in refused(capsys, *real())


def test_text_file_named_png(capsys):
    write_class_folders(Path("root"))
    Path("root/train/cat/note.png").write_text("not a picture")
    assert "note.png" in refused(capsys, *real())


def test_image_of_31_by_32(capsys):
    from PIL import Image

    write_class_folders(Path("root"))
    Image.new("RGB", (31, 32)).save("root/train/dog/thin.png")
    message = refused(capsys, *real())
    assert "thin.png" in message
    assert "31" in message


def test_empty_root_without_a_network(capsys, monkeypatch):
    # A port of this machine where nobody listens stands for a network that is not there.
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    Path("root").mkdir()
    message = refused(capsys, *real("--data.download=true"))
    for way in ("--data.root", "--data.download", "--data.source synthetic"):
        assert way in message


def test_no_root(capsys):
    message = refused(capsys, *real())
    assert str(Path("root").absolute()) in message
    assert "cifar-10-batches-py" in message


def as_a_user_without_rights() -> list[str]:
    """Root may write anywhere; without these capabilities it is held to permission bits like everybody."""
    if shutil.which("setpriv") is None:
        return []
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]


@pytest.mark.slow
def test_read_only_root(tmp_path):
    """With data in it, its cache goes to the user's folder; without, and told to download, one message."""
    write_class_folders(Path("root"), train_per_class=20)
    Path("empty").mkdir()
    for folder in [Path("root"), *(p for p in Path("root").rglob("*") if p.is_dir()), Path("empty")]:
        folder.chmod(0o555)
    program = [*as_a_user_without_rights(), sys.executable, "-m", "cifar_lightning"]
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    try:
        done = subprocess.run([*program, *real()], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert list((tmp_path / "cache").rglob("*.npz"))
        before = files()
        args = [*real("--data.download=true", "--data.root=empty", "--version=x")]
        done = subprocess.run([*program, *args], capture_output=True, text=True, env=environment)
        assert done.returncode == 2
        assert done.stderr.count("error: ") == 1
        assert "Traceback" not in done.stderr
        assert "written" in done.stderr
        assert files() == before
    finally:
        for folder in [Path("root"), *(p for p in Path("root").rglob("*") if p.is_dir()), Path("empty")]:
            folder.chmod(0o755)


# ---- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--model.width=[32]"], "width"),
        (["--data.batchsize=3"], "batchsize"),
        (["--data.batch_size=many"], "batch_size"),
        (["--data.batch_size=0"], "data.batch_size"),
        (["--data.val_size=600"], "data.val_size"),
        (["--data.translate_px=-1", "--data.cutout_px=99"], "data.cutout_px"),
        (["--data.synthetic_train=3"], "data.synthetic_train"),
        (["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=-1"], "learning rate"),
        (["--model.optimizer=torch.optim.Nonsense"], "Nonsense"),
        (["--model.label_smoothing=1.5"], "model.label_smoothing"),
        (["--model.net.dropout=2"], "model.net.dropout"),
        (["--model.net.activation=sine"], "activation"),
        (["--seed_everything=1.5"], "seed_everything"),
        (["--trainer.precision=16-mixed", "--trainer.accelerator=cpu"], "trainer.precision"),
        (["--trainer.precision=8-bit"], "precision"),
        (["--trainer.max_epochs=-1"], "trainer.max_epochs"),
        (["--trainer.gradient_clip_val=-1"], "`--trainer.gradient_clip_val` to be at least 0, got -1"),
        (["--trainer.gradient_clip_val=.nan"], "`--trainer.gradient_clip_val` to be at least 0, got nan"),
        (["--trainer.log_every_n_steps=-5"], "`--trainer.log_every_n_steps` to be at least 0, got -5"),
        (["--figures.every_n_epochs=-1"], "figures.every_n_epochs"),
        (["--figures.show=[confusion, confusoin]"], "figures.show"),
        (["--early_stopping.monitor=val/accuracy"], "early_stopping.monitor"),
        (["--trainer.limit_train_batches=2.5"], "limit_train_batches"),
        (["--config=missing.yaml"], "missing.yaml"),
        (["--run=nowhere"], "nowhere"),
        (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt"),
        (["--ckpt_path=last"], "last.ckpt"),
    ],
    ids=lambda value: value[0].split("=")[0] if isinstance(value, list) else "",
)
def test_bad_options(args, words, capsys):
    assert words in refused(capsys, "fit", *MLP, *DATA, *args)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(capsys):
    assert "accelerator" in refused(capsys, "fit", *MLP, *DATA, "--trainer.accelerator=gpu").lower()


@pytest.mark.parametrize("value", ["5", "3.5e277", "[1]", "true", "null"])
@pytest.mark.parametrize("group", ["data", "trainer", "figures", "finite", "early_stopping"])
def test_groups_of_options_that_hold_none(group, value, capsys):
    Path("config.yaml").write_text(f"{group}: {value}\n")
    said = refused(capsys, "fit", *MLP, *DATA, "--config=config.yaml")
    assert f"`{group}` in config.yaml (line 1) to hold options, got " in said


def test_unknown_key_in_a_file(capsys):
    Path("wrong.yaml").write_text("data:\n  bacth_size: 3\n")
    assert "bacth_size" in refused(capsys, "fit", *MLP, *DATA, "--config=wrong.yaml")


def test_file_that_is_no_yaml(capsys):
    Path("wrong.yaml").write_text("data: [1, 2\n")
    refused(capsys, "fit", *MLP, *DATA, "--config=wrong.yaml")


def test_validation_without_held_out_images(capsys):
    run = fit(*MLP, "--data.val_size=0")
    assert "data.val_size" in refused(capsys, "validate", "--run", run)


def test_several_problems_come_in_one_message(capsys):
    message = refused(
        capsys, "fit", *MLP, *DATA, "--data.batch_size=0", "--data.translate_px=-1", "--data.cutout_px=99"
    )
    for name in ("batch_size", "translate_px", "cutout_px"):
        assert f"data.{name}" in message


def test_no_command_and_an_unknown_one(capsys):
    refused(capsys)
    assert "train" in refused(capsys, "train")


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match=r"data\.batch_size"):
        main(["fit", *MLP, *DATA, "--data.batch_size=0", "--debug"])


# ---- runs and checkpoints --------------------------------------------------------------------------------------------


def test_version_that_exists(capsys):
    fit(*MLP, "--version=mine")
    assert "--run" in refused(capsys, "fit", *MLP, *DATA, "--version=mine")


def test_evaluation_without_weights(capsys):
    assert "--run" in refused(capsys, "test", *MLP, *DATA)


def test_run_without_a_checkpoint(capsys, finished):
    run = finished(*MLP)
    shutil.rmtree(run / "checkpoints")
    assert "checkpoints" in refused(capsys, "test", "--run", run)


def test_checkpoint_with_a_pickled_object(capsys, finished):
    run = finished(*MLP)
    checkpoint = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    torch.save({**checkpoint, "extra": Evil()}, run / "checkpoints/best.ckpt")
    assert "never loaded" in refused(capsys, "test", "--run", run)
    assert not Path("ran").exists()


def test_truncated_checkpoint(capsys, finished):
    run = finished(*MLP)
    path = run / "checkpoints/best.ckpt"
    path.write_bytes(path.read_bytes()[:5000])
    assert "best.ckpt" in refused(capsys, "test", "--run", run)


def test_checkpoint_of_another_network(capsys, finished):
    run = finished(*MLP)
    message = refused(capsys, "test", *CNN, *DATA, "--ckpt_path", run / "checkpoints/best.ckpt")
    assert "--run" in message


def test_images_too_small_for_the_network(capsys):
    for model in ("MLPClassifier", "CNNClassifier"):
        args = ["fit", "--model", model, "--data.source=synthetic", "--data.image_sizes=[7, 32]", "--version=v"]
        assert main(args) == 2
        assert "Expected `--data.image_sizes` that the network takes, got 7 pixels" in capsys.readouterr().err
    assert main(["fit", "--model", "CNNClassifier", "--data.image_sizes=[0, 40]"]) == 2
    assert "`--data.image_sizes` in [1, 32] pixels, got [0, 40]" in capsys.readouterr().err


def test_sizes_of_the_first_layer_and_its_statistics(capsys):
    args = ["fit", "--model", "CNNClassifier", "--model.net.whiten_px=9", "--model.net.norm_momentum=0"]
    args += ["--model.net.whiten_stride=0"]
    assert main([*args, "--data.source=synthetic"]) == 2
    said = capsys.readouterr().err
    assert "`--model.net.whiten_px` in [0, 5] pixels, got 9" in said
    assert "`--model.net.whiten_stride` of at least 1 pixel, got 0" in said
    assert "`--model.net.norm_momentum` in (0, 1], got 0" in said


def test_out_of_memory(capsys):
    command = ["fit", *MLP, *DATA, "--version=hungry", "--trainer.callbacks=stopping.Devour"]
    assert main(command) == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "error: out of memory: " in message
    assert "1125899906842624 bytes" in message
    assert "`data.batch_size`" in message
    with pytest.raises(RuntimeError, match="allocate memory"):
        main([*command[:-2], "--debug", "--version=debug", command[-1]])


def test_a_configuration_imports_nothing_that_is_not_allowed(monkeypatch, capsys):
    Path("elsewhere.py").write_text("import pathlib\npathlib.Path('imported').touch()\nclass Thing: pass\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("config.yaml").write_text("trainer:\n  callbacks:\n  - class_path: elsewhere.Thing\n")
    command = ["fit", *MLP, "--data.source=synthetic", "--config=config.yaml"]
    assert main(command) == 2
    assert not Path("imported").exists()
    assert "add `--allow elsewhere` to the command line" in capsys.readouterr().err
    assert main([*command, "--allow", "elsewhere"]) == 2
    assert "elsewhere.Thing, which is another kind of class" in capsys.readouterr().err
    assert Path("imported").exists()
