"""One table of commands: one `--help`, functions that there are, and nothing heavy before a command runs."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import pytest
from tiny import CNN, DATA, MLP, fit

from cifar_lightning.__main__ import main
from cifar_lightning.commands import COMMANDS, NAMES

ROOT = Path(__file__).parents[1]


def test_help_lists_every_command_with_one_line(capsys):
    for args in (["--help"], ["-h", "fit"], ["nonsense", "--help"], ["--run", "x", "--help"]):
        assert main(args) == 0
        text = capsys.readouterr().out
        rows = [line.split(maxsplit=1) for line in text[text.index("commands:") : text.index("options:")].splitlines()]
        assert {row[0] for row in rows if row} >= set(NAMES)
        assert all(command.help in text for command in COMMANDS.values())
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_function_of_its_arguments(name):
    function = resolve_name(f"cifar_lightning.{COMMANDS[name].function}")
    (argument,) = inspect.signature(function).parameters
    assert argument == "args"
    assert inspect.signature(function).return_annotation == "int"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own(name, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([name.split()[0], "--help", *name.split()[1:]])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cifar-lightning {name.split()[0]} ")
    # One spelling of options; `--dry-run` and `--no-estimate` are the older one.
    options = {word.strip(",[]") for word in text.split() if word.strip("[").startswith("--")}
    assert {option for option in options if "-" in option[2:]} <= {"--dry-run", "--no-estimate"}


@pytest.mark.parametrize("args", [["--help"], ["data", "--root", "nowhere"]])
def test_a_light_command_imports_nothing_heavy(args):
    program = (
        "import sys; from cifar_lightning.main import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'lightning', 'matplotlib', 'jsonargparse'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, check=True)
    heavy = json.loads(done.stderr.splitlines()[-1].replace("'", '"'))
    assert heavy == [] if args == ["--help"] else "lightning" not in heavy


@pytest.mark.parametrize("script", ["sweep", "compare"])
def test_a_script_is_the_command_of_its_name(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / f"scripts/{script}.py"), run_name="__main__")
    said = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([script, "--help"])
    assert said == capsys.readouterr().out


# ---- fit --test ------------------------------------------------------------------------------------------------------


def without_times(entry: dict) -> dict:
    return {key: value for key, value in entry.items() if key in ("metrics", "tta", "confusion", "precision")}


@pytest.mark.parametrize(
    "options",
    [
        CNN,
        [*MLP, "--data.val_size=0"],
        [*CNN, "--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5", "--model.tta=flip"],
    ],
    ids=["best", "last", "averaged"],
)
def test_fit_and_test_in_one_command(options, capsys):
    run = fit(*options, "--test")
    said = capsys.readouterr().err
    assert "test on 200 SYNTHETIC images: accuracy" in said
    assert said.count("Run folder: ") == 1
    result = json.loads((run / "result.json").read_text())
    assert result["status"] == "completed"
    assert "\ntest:" not in (run / "config.yaml").read_text()
    assert main(["test", "--run", str(run)]) == 0
    again = json.loads((run / "result.json").read_text())
    assert without_times(result["test"]) == without_times(again["test"])
    assert set(result["test"]) == set(again["test"])
    assert {**result, "test": None, "finished": None} == {**again, "test": None, "finished": None}


def test_a_run_that_is_complete_can_still_be_tested(capsys, finished):
    run = finished(*MLP)
    assert main(["fit", "--run", str(run), "--test"]) == 0
    assert "is complete after" in capsys.readouterr().err
    assert "test" in json.loads((run / "result.json").read_text())


def test_a_trial_run_tests_the_weights_that_it_has():
    assert main(["fit", *DATA, *MLP, "--trainer.fast_dev_run=true", "--test"]) == 0
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--test", "--trainer.enable_checkpointing=false"], "Expected `--trainer.enable_checkpointing` true with"),
        (["--test", "--trainer.limit_test_batches=0"], "Expected `--trainer.limit_test_batches` to leave"),
        (["--test=maybe"], "Expected `--test` to be true or false, got maybe."),
        (["--test", "--data.batch_sise=3"], "There is no option `--data.batch_sise`"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_the_training(options, words, capsys):
    assert main(["fit", *DATA, *MLP, *options]) == 2
    (message,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert message.startswith(f"error: {words}")
    assert "Expected a value" not in message
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_a_flag_may_stand_before_the_configuration(capsys):
    Path("test.yaml").write_text("test: true\n")
    for options in (["--test", *MLP], [*MLP, "--test"], [*MLP, "--config", "test.yaml"], [*MLP, "--test", "true"]):
        with pytest.raises(SystemExit):
            main(["fit", *options, "--print_config"])
        assert "\ntest: true\n" in capsys.readouterr().out
