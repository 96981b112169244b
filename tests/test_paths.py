"""`~` and variables in paths are expanded once, at the door; names of runs stay in their folder."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  (finds its fonts once, and keeps them in the home folder)
import pytest
import yaml
from jsonargparse import Namespace
from tiny import DATA, MLP

from cifar_lightning import export
from cifar_lightning.__main__ import main
from cifar_lightning.comparison import compare
from cifar_lightning.data.datamodule import CIFAR10DataModule
from cifar_lightning.files import RECIPES, expand_arguments, expand_options, expanded, recipe, user_path
from cifar_lightning.report import command as report
from cifar_lightning.runs import claim_folder
from cifar_lightning.sweeps import sweep
from cifar_lightning.sweeps.plan import load_sweep


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    for name, value in {
        "HOME": folder,
        "SCRATCH": folder / "scratch",
        "EMPTY": "",
        "SIGN": "a$b",
        "TILDE": "~",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("AGAIN", "$SCRATCH")
    monkeypatch.delenv("NOPE", raising=False)
    return folder


GOOD = {
    "~/runs": "{home}/runs",
    "~": "{home}",
    "$SCRATCH/runs": "{home}/scratch/runs",
    "${SCRATCH}/a b": "{home}/scratch/a b",
    "$TILDE/x": "{home}/x",
    "runs/~x": "runs/~x",
    "a$/5": "a$/5",
    "/plain": "/plain",
    "": "",
}
BAD = {
    "$NOPE/runs": r"\$NOPE has no value",
    "x/${NOPE}": r"\$\{NOPE\} has no value",
    "$EMPTY/runs": r"\$EMPTY has no value",
    "$AGAIN/x": r"it expands to \$SCRATCH/x, with \$SCRATCH in it",
    "~nobody-here/x": "there is no home folder of ~nobody-here",
    "./~x": "there is no home folder of ~x",
}


@pytest.mark.parametrize("path", GOOD)
def test_a_path_is_expanded_once(path, home):
    found = expanded(path, "save_dir")
    assert found == GOOD[path].format(home=home)
    assert expanded(found, "save_dir") == found


@pytest.mark.parametrize("path", BAD)
def test_a_path_that_cannot_be_expanded(path):
    with pytest.raises(ValueError, match=f"^Expected a path as `save_dir`, got '.*', but {BAD[path]}. Write the path"):
        expanded(path, "save_dir")


def test_every_path_of_a_configuration_at_any_depth(home):
    callback = Namespace(
        class_path="a.$B", init_args=Namespace(dirpath=Path("~/points"), monitor="~", folder="$SCRATCH")
    )
    loggers = [{"class_path": "~L", "init_args": {"save_dir": "~/logs", "name": "~n", "sub_dir": None}}]
    data = Namespace(root="~", source="~", download=False)
    trainer = Namespace(callbacks=[callback], logger=loggers, default_root_dir="$SCRATCH")
    options = Namespace(save_dir="~/runs", name="~", run=None, ckpt_path="$SCRATCH/a.ckpt", data=data, trainer=trainer)
    assert expand_options(options) is options
    assert options.as_dict() == {
        "save_dir": f"{home}/runs",
        "name": "~",
        "run": None,
        "ckpt_path": f"{home}/scratch/a.ckpt",
        "data": {"root": str(home), "source": "~", "download": False},
        "trainer": {
            "callbacks": [
                {
                    "class_path": "a.$B",
                    "init_args": {"dirpath": home / "points", "monitor": "~", "folder": f"{home}/scratch"},
                }
            ],
            "logger": [{"class_path": "~L", "init_args": {"save_dir": f"{home}/logs", "name": "~n", "sub_dir": None}}],
            "default_root_dir": f"{home}/scratch",
        },
    }
    loggers[0]["init_args"]["save_dir"] = "$NOPE"
    with pytest.raises(ValueError, match=r"Expected a path as `trainer.logger.init_args.save_dir`, got '\$NOPE'"):
        expand_options(Namespace(trainer=Namespace(logger=loggers)))


def test_the_files_that_are_read_before_the_parser(home):
    args = [
        "fit",
        "--config",
        "~/a.yaml",
        "--config=$SCRATCH/b.yaml",
        "-c",
        "c.yaml",
        "--run=~/r",
        "--name=~n",
        "--run",
    ]
    found = ["fit", "--config", f"{home}/a.yaml", f"--config={home}/scratch/b.yaml", "-c", "c.yaml", f"--run={home}/r"]
    assert expand_arguments(args) == [*found, "--name=~n", "--run"]
    with pytest.raises(ValueError, match=r"Expected a path as `--run`, got '\$NOPE/r'"):
        expand_arguments(["fit", "--run", "$NOPE/r"])


def test_a_run_is_whole_in_one_folder(home):
    """Options in a file and on the command line, of this project and of a class of Lightning, trained and tested."""
    profiler = {"class_path": "SimpleProfiler", "init_args": {"dirpath": "$SCRATCH/profiles", "filename": "times"}}
    Path(home / "run.yaml").write_text(yaml.safe_dump({"save_dir": "~/runs", "trainer": {"profiler": profiler}}))
    assert main(["fit", *DATA, *MLP, "--config=~/run.yaml", "--trainer.max_epochs=1"]) == 0
    run = home / "runs/mlp/version_0"
    kinds = ["checkpoints", "config.yaml", "events*", "metrics.csv", "result.json"]
    assert all(list(run.glob(kind)) for kind in kinds)
    assert (home / "scratch/profiles/fit-times.txt").is_file()
    last = "--ckpt_path=~/runs/mlp/version_0/checkpoints/last.ckpt"
    assert main(["test", "--run=$SCRATCH/../runs/mlp/version_0", last]) == 0
    assert '"test"' in (run / "result.json").read_text()
    assert os.listdir() == ["home"]


@pytest.mark.parametrize("option", ["save_dir", "data.root", "ckpt_path", "run", "config", "trainer.default_root_dir"])
def test_an_option_that_cannot_be_expanded(option, capsys):
    assert main(["fit", *DATA, *MLP, f"--{option}=$NOPE/x"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message == (
        f"error: Expected a path as `--{option}`, got '$NOPE/x', but $NOPE has no value. Write the path in full."
    )
    assert os.listdir() == ["home"]


PROGRAMS = [
    (report.parser, ["--run=~/a", "--output=$SCRATCH/b"], {"run": ["a"], "output": "scratch/b"}),
    (export.parser, ["--run=~/a", "--output=$SCRATCH/b"], {"run": "a", "output": "scratch/b"}),
    (compare.parser, ["$SCRATCH/a", "~/b", "--output=~/c"], {"folders": ["scratch/a", "b"], "output": "c"}),
    (
        sweep.parser,
        ["~/a.yaml", "--save_dir=$SCRATCH/b", "--results=~/c", "--output=~/d"],
        {"sweep": "a.yaml", "save_dir": "scratch/b", "results": "c", "output": "d"},
    ),
]


@pytest.mark.parametrize(("make", "args", "expected"), PROGRAMS)
def test_the_other_programs(make, args, expected, home):
    parsed = vars(make().parse_args(args))
    found = {key: parsed[key] for key in expected}
    assert found == {
        key: [home / name for name in value] if isinstance(value, list) else home / value
        for key, value in expected.items()
    }
    with pytest.raises(ValueError, match=r"^`--output`: Expected a path, got '\$NOPE', but \$NOPE has no value. Write"):
        make().parse_args([*args[:-1], "--output=$NOPE"])


def test_a_path_for_argparse(home):
    parser = ArgumentParser()
    parser.add_argument("--folder", type=user_path)
    assert parser.parse_args(["--folder", "~/x"]).folder == home / "x"


def test_the_data_root(home, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR10_ROOT", "~/data")
    assert CIFAR10DataModule().root == home / "data"
    assert main(["data"]) == 3
    assert main(["data", "--root=$SCRATCH"]) == 3
    said = capsys.readouterr().err
    assert f": {home}/data\n" in said
    assert f": {home}/scratch\n" in said
    monkeypatch.setenv("CIFAR10_ROOT", "$NOPE")
    assert main(["data"]) == 2
    assert "error: Expected a path as `CIFAR10_ROOT`, got '$NOPE'" in capsys.readouterr().err


OUTSIDE = ["/etc/x", "..", "../x", "a/../../x", "a/..", ".", "./a", "~", "~/x", "a/~x", "$HOME", "a/${X}", "", "/"]
OUTSIDE += ["a//b", "a/", r"..\x", r"a\b", r"C:\x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_stays_in_the_folder_of_all_runs(name, tmp_path):
    with pytest.raises(
        ValueError, match=r"^Expected `name` to name a folder in `save_dir`, such as cnn or study/cnn, got"
    ):
        claim_folder(tmp_path / "logs", name, None)
    with pytest.raises(ValueError, match=r"^Expected `version` to name one folder, such as version_0, got"):
        claim_folder(tmp_path / "logs", "cnn", name)
    assert os.listdir() == ["home"]


@pytest.mark.parametrize("name", ["cnn", "study/cnn/wide", "lr=0.1,ε 2", "a..b", "...", "a~", ".hidden"])
def test_names_that_are_folders(name, tmp_path):
    assert claim_folder(tmp_path / "logs", name, None) == tmp_path / "logs" / name / "version_0"
    if "/" not in name:
        assert claim_folder(tmp_path / "logs", "cnn", name) == tmp_path / "logs/cnn" / name
    else:
        with pytest.raises(ValueError, match="Expected `version` to name one folder"):
            claim_folder(tmp_path / "logs", "cnn", name)


def test_a_configuration_of_a_stranger_writes_nothing_outside(capsys):
    """A version that would lead to what is left of another run, which a new one takes away."""
    other = Path("other")
    other.mkdir()
    (other / "result.json").write_text("{}")
    Path("theirs.yaml").write_text("save_dir: logs\nname: mlp\nversion: ../../other\n")
    assert main(["fit", *DATA, *MLP, "--config=theirs.yaml"]) == 2
    assert (
        "error: Expected `version` to name one folder, such as version_0, got '../../other'" in capsys.readouterr().err
    )
    assert os.listdir(other) == ["result.json"]
    assert sorted(os.listdir()) == ["home", "other", "theirs.yaml"]


def test_a_configuration_that_is_not_here_is_that_of_the_package():
    shipped = RECIPES / "mlp.yaml"
    assert expand_arguments(["fit", "--config", "mlp.yaml", "--config=configs/mlp.yaml", "--run=mlp.yaml"]) == [
        *("fit", "--config", str(shipped), f"--config={shipped}", "--run=mlp.yaml"),
    ]
    assert recipe("overlays/gpu.yaml") == str(RECIPES / "overlays/gpu.yaml")
    assert load_sweep(Path("configs/sweeps/smoke.yaml")).name == "smoke"
    Path("mlp.yaml").write_text("name: mine")
    assert expand_arguments(["fit", "--config", "mlp.yaml"])[2] == "mlp.yaml"
    assert recipe("nothing.yaml") == "nothing.yaml"
