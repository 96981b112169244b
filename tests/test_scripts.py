"""The scripts that a person calls, and the commands that the README and the pages of docs/ show."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from benchmarks import command
from PIL import Image
from tiny import DATA, MLP
from trees import write_class_folders

from cifar_lightning.__main__ import main
from cifar_lightning.audit import command as audit
from cifar_lightning.runs import Run
from cifar_lightning.sweeps import sweep
from cifar_lightning.sweeps.plan import expand, load_sweep

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_bench_input_prints_a_table_and_writes_json():
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "scripts/bench.py",
            "input",
            "--source=synthetic",
            "--rounds=1",
            "--output=out/input.json",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ratio" in done.stdout
    result = json.loads(Path("out/input.json").read_text())
    assert result["images"] == 5000
    ours, theirs = result["images_per_second"].values()
    assert result["ratios"] == [ours[0] / theirs[0]]


def test_the_data_command_says_what_is_there(capsys):
    assert main(["data", "--root", "nowhere"]) == 3
    assert "--data.source synthetic" in capsys.readouterr().err
    write_class_folders(Path("root"))
    assert main(["data", "--root", "root"]) == 0
    assert "class folders" in capsys.readouterr().out
    (Path("root") / "train/cat").rename("root/train/lion")
    assert main(["data", "--root", "root"]) == 2


def shown_commands(*starts: str) -> list[str]:
    """Return the lines of the README and of the pages of docs/ that start like this, each once."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines = [line.partition(" #")[0].strip() for line in lines if line.startswith(starts)]
    return list(dict.fromkeys(lines))


@pytest.fixture
def files_of_the_pages():
    """Write what the commands name: recipes, network, augmentation and configuration of the pages, and pictures."""
    for folder in ("configs", "docs"):
        Path(folder).symlink_to(ROOT / folder)
    for module, page in (("mynet", "README.md"), ("invert", "docs/data.md")):
        (source,) = [
            block
            for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
            if re.search("^class ", block, flags=re.MULTILINE)
        ]
        Path(f"{module}.py").write_text(source)
    (config,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/networks.md").read_text(), flags=re.DOTALL)
    Path("my.yaml").write_text(config)
    Path("holiday").mkdir()
    for name in ("holiday/beach.png", "cat.jpg"):
        Image.new("RGB", (40, 50)).save(name)
    path = list(sys.path)
    yield
    sys.path[:] = path
    for module in ("mynet", "invert"):
        sys.modules.pop(module, None)


def has_a_short_test(line: str) -> bool:
    """Whether another test runs the same command, which takes seconds."""
    return line.startswith(("python -m cifar_lightning report", "python -m cifar_lightning export"))


LINES = [
    pytest.param(line, marks=[pytest.mark.slow] * has_a_short_test(line), id=line[26:])
    for line in shown_commands("python -m cifar_lightning ")
]


@pytest.mark.parametrize("line", LINES)
def test_the_commands_of_the_pages_are_right(line, capsys, files_of_the_pages, finished):
    """Each is parsed whole, or run where it takes seconds, with real runs in place of those that it names."""
    args = shlex.split(line)[3:]
    places = [place for place, arg in enumerate(args, start=1) if arg == "--run"]
    for number, place in enumerate(places):
        args[place] = str(finished(*MLP, f"--version={number}"))
    if args[0] == "data":
        write_class_folders(Path("root"))  # so that nothing is downloaded
        assert main([*args, "--root", "root"]) == 0
    elif (
        args[0] in ("report", "export") or "--images" in args or len(places) > 1
    ):  # commands of their own: they are run
        assert main(args) == 0
    elif args[0] == "audit":
        assert audit.parser().parse_args(args[1:])
    elif args[0] == "compare":
        named = [arg for arg in args[1:] if arg.startswith("lightning_logs")]
        runs = [str(finished(*MLP, f"--version={number}")) for number in range(len(named))]
        assert main(["compare", *runs, "--output", "compared"]) == 0
    elif args[0] == "sweep":
        assert expand(load_sweep(sweep.parser().parse_args(args[1:]).sweep))
    else:
        with pytest.raises(SystemExit) as exit_:
            main([*args, *([] if "--help" in line or ".help" in line else ["--print_config"])])
        assert exit_.value.code == 0
        assert capsys.readouterr().out


def test_the_scripts_of_the_pages_are_right():
    lines = [shlex.split(line) for line in shown_commands("python scripts/", "bash scripts/")]
    assert {words[1] for words in lines} >= {"scripts/bench.py", "scripts/quickstart.sh", "scripts/test.sh"}
    for program, script, *args in lines:
        assert (ROOT / script).is_file(), script
        if script == "scripts/bench.py":
            parsed, rest = command.parser().parse_known_args(args)
            assert not rest
            assert not hasattr(parsed, "config") or (ROOT / parsed.config).is_file()
        elif program == "bash":
            subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_ci_runs_the_tests_with_the_command_of_the_readme():
    (block,) = re.findall(r"```bash\n(bash scripts/quickstart\.sh.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = [line.partition("#")[0].strip() for line in block.splitlines() if line]
    assert commands == ["bash scripts/quickstart.sh", "bash scripts/test.sh"]
    assert f"\n{commands[1]} " in (ROOT / ".ci/run").read_text()


@pytest.mark.slow
def test_the_wheel_is_whole(tmp_path):
    """Installed in a folder of its own, it trains, reports and has the published networks far from the checkout."""
    source, built, installed = tmp_path / "source", tmp_path / "built", tmp_path / "installed"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("cifar_lightning", "configs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    own = {
        name: value for name, value in os.environ.items() if name != "XDG_CONFIG_HOME"
    }  # where pip looks for the index
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", built, source], check=True, env=own)
    (wheel,) = built.iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", installed, wheel], check=True, env=own)
    (tmp_path / "work").mkdir()
    write_class_folders(tmp_path / "images")
    small = ("--data.images_per_step=100", "--model.net.widths=[8, 8]", "--model.net.depths=[1, 1]")
    program = f"""
import pathlib, cifar_lightning, torch
from cifar_lightning.main import main
assert pathlib.Path(cifar_lightning.__file__).is_relative_to({str(installed)!r})
assert main({["fit", "--config", "cnn_sgd.yaml", *DATA, *small, "--name=cnn", "--version", "v", "--test"]!r}) == 0
assert main(["sweep", "configs/sweeps/smoke.yaml", "--dry_run", "--no_estimate"]) == 0
assert main(["report", "--run", "lightning_logs/cnn/v"]) == 0
assert main(["compare", "lightning_logs/cnn/v"]) == 0
images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
assert cifar_lightning.load("mlp")(images).shape == (2, 10)
assert main(["predict", "--run", "mlp", "--images", {str(tmp_path / "images/test/cat")!r}]) == 0
assert main(["test", "--run", "mlp", "--data.root", {str(tmp_path / "images")!r}]) == 0
assert main(["export", "--run", "mlp", "--format", "torch_export"]) == 0
"""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path / "work", env=environment)
    logs = tmp_path / "work/lightning_logs"
    assert (logs / "cnn/v/report/report.html").is_file()
    (mlp,) = (logs / "published").iterdir()
    assert Run(mlp).result["test"]["metrics"].keys() >= {"test/acc", "test/loss"}
    assert len((mlp / "predictions/images.csv").read_text().splitlines()) == 3
    assert (mlp / "model.pt2").is_file()


def test_documents_are_filled_in_and_their_links_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text()
        assert not re.findall(r"@[A-Z_]+@", text), page
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("place", ["python", "copy/.venv/bin/python"])
def test_an_older_python_gets_one_message(place):
    """A stand-in for it, given as PYTHON or in an environment that is there already."""
    copy, old = Path("copy").absolute(), Path(place).absolute()
    for name in ("scripts/quickstart.sh", "scripts/environment.sh", "pyproject.toml", "constraints.txt"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    old.parent.mkdir(parents=True, exist_ok=True)
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13 || exit 1\n')
    old.chmod(0o755)
    before = sorted(copy.rglob("*"))
    environment = {**os.environ, "PYTHON": str(old)}
    done = subprocess.run(["bash", copy / "scripts/quickstart.sh"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    shown = old if place == "python" else ".venv/bin/python"
    assert done.stderr == (
        f"error: Expected Python 3.11 or newer, got Python 3.10.13 as {shown}. Set PYTHON to a newer one, and delete "
        ".venv if it is there.\n"
    )
    assert sorted(copy.rglob("*")) == before


def test_the_oldest_python_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
    assert project["tool"]["mypy"]["python_version"] == "3.11"
    assert "Python 3.11 or newer" in (ROOT / "README.md").read_text()
    assert "python_version" not in (ROOT / "constraints.txt").read_text()


@pytest.mark.slow
def test_quickstart_on_synthetic_images_in_an_environment_that_is_there():
    """The script from start to end, with fewer weights and images, in an environment that is there already."""
    smaller = ["--model.net.widths=[32,64,64]", "--data.synthetic_train=8000", "--data.batch_size=250"]
    smaller += ["--data.images_per_step=250"]  # half of them are trained on
    copy = Path("copy")
    ignored = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
    for name in filter(None, ignored.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name, follow_symlinks=False)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    stamp = subprocess.run(
        ["bash", "-c", "cat pyproject.toml constraints.txt <(echo '') | sha256sum | cut -c1-16"],
        capture_output=True,
        text=True,
        cwd=copy,
        check=True,
    ).stdout.strip()
    marker = Path(sys.prefix) / f"installed-{stamp}"
    had = marker.exists()
    marker.touch()
    environment = {k: v for k, v in os.environ.items() if k != "CIFAR10_ROOT"} | {"https_proxy": "http://127.0.0.1:9"}
    try:
        done = subprocess.run(
            ["bash", "scripts/quickstart.sh", *smaller], capture_output=True, text=True, cwd=copy, env=environment
        )
    finally:
        if not had:
            marker.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SYNTHETIC" in done.stdout
    (accuracy,) = re.findall(r"Test accuracy: ([\d.]+)", done.stdout)
    assert float(accuracy) > 0.9
    assert "tensorboard --logdir lightning_logs" in done.stdout
    (gallery,) = re.findall(r"Pictures: +(\S+),", done.stdout)
    assert (copy / gallery).read_text().count("<img") == 4
    (run,) = re.findall(r"Run folder: +(\S+)", done.stdout)[-1:]
    assert json.loads((copy / run / "result.json").read_text())["params"] < 400_000  # the options reached fit
