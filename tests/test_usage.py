"""What is mistyped on a command line or in a configuration file gets one short message; what is right is read."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import textwrap
import threading
from pathlib import Path

import messages
import pytest
import yaml
from messages import MISTAKES, PAGE
from tiny import DATA, MLP

from cifar_lightning import export, inference
from cifar_lightning.__main__ import main
from cifar_lightning.comparison import compare
from cifar_lightning.data import command as data
from cifar_lightning.report import command as report
from cifar_lightning.sweeps import sweep
from cifar_lightning.usage.command_parser import ArgumentParser
from cifar_lightning.usage.config_files import UsageError, parse_config
from cifar_lightning.usage.names import ELSEWHERE, OLD, USUAL_NAMES

PARSERS = {
    "export": export.parser(),
    "report": report.parser(),
    "predict": inference.parser(),
    "sweep": sweep.parser(),
    "compare": compare.parser(),
    "data": data.parser(),
}
INNER_LIFE = ("Traceback", "Union", "NestedArg", "Namespace", "usage:", "init_args", "subtypes", "class 'Nonetype")


def config_of(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    """Return the configuration that results from a command line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *args, "--print_config"])
    assert exit_.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.line[-60:] or "nothing")
def test_a_mistake_gets_one_short_message(mistake):
    status, said = messages.make(mistake)
    assert status == 2
    assert said.count("error: ") == 1
    assert said.startswith("error: ")
    assert sum(len(textwrap.wrap(line, 100)) for line in said.splitlines()) <= 5
    assert [words for words in INNER_LIFE if words in said] == []
    assert [words for words in mistake.words if words not in said] == []
    assert {path.name for path in Path().rglob("*")} == {name for name, _ in mistake.files}
    assert messages.row(mistake, said) in PAGE.read_text(), "run python tests/messages.py"


def test_options_of_other_commands_are_known_by_their_parsers():
    options = {
        option.lstrip("-")
        for parser in PARSERS.values()
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    of_fit = {"help", "run", "save_dir", "tta", "root", "download"}  # `--model.tta` and `--data.root` are near
    assert set(ELSEWHERE) == options - of_fit | {"test"}  # which `validate` has not


def test_names_from_elsewhere_lead_to_options_that_there_are(capsys):
    config = config_of(capsys, *MLP)
    for text in [*USUAL_NAMES.values(), *OLD.values()]:
        for name in re.findall(r"<([\w.]+)>", text):
            if name in ("model", "run", "ckpt_path"):
                continue
            found = config
            for key in name.split("."):
                found = found.get("init_args", found)
                assert key in found, name
                found = found[key]


# ---- configuration files ---------------------------------------------------------------------------------------------


def test_files_that_set_nothing_and_a_byte_order_mark(capsys):
    Path("empty.yaml").write_text("")
    Path("comments.yaml").write_text("# data:\n#   batch_size: 3\n")
    Path("bom.yaml").write_bytes(b"\xef\xbb\xbfdata:\n  batch_size: 7\n")
    options = ["--config", "empty.yaml", "--config=comments.yaml", "-c", "bom.yaml", *MLP]
    assert config_of(capsys, *options)["data"]["batch_size"] == 7
    assert config_of(capsys, "--config", "comments.yaml", *MLP) == config_of(capsys, *MLP)


def test_keys_with_values_in_a_file_are_no_mistake_beside_one(capsys):
    Path("frozen.yaml").write_text("model:\n  freeze_epochs: {net: 2}\n")
    assert main(["fit", *MLP, "--config", "frozen.yaml", "--log_dir", "x"]) == 2
    assert capsys.readouterr().err == "error: There is no option `--log_dir`. Did you mean `--save_dir`?\n"


def test_a_pipe_is_read_once_and_checked_like_a_file(capsys):
    def piped(text: str) -> str:
        os.mkfifo("pipe") if not Path("pipe").exists() else None
        threading.Thread(target=Path("pipe").write_text, args=(text,), daemon=True).start()
        return "pipe"

    assert config_of(capsys, "--config", piped("data:\n  batch_size: 7\n"), *MLP)["data"]["batch_size"] == 7
    assert config_of(capsys, "--config", piped("# nothing\n"), *MLP) == config_of(capsys, *MLP)
    assert main(["fit", *MLP, "--config", piped("data: {flip: true}\ndata: {flip: false}\n")]) == 2
    assert "in pipe with `data` once, got it in lines 1 and 2" in capsys.readouterr().err


def test_a_configuration_as_text_and_one_before_the_command(capsys):
    text = '{"data": {"batch_size": 7}}'
    assert config_of(capsys, "--config", text, *MLP)["data"]["batch_size"] == 7
    assert main(["fit", *MLP, "--config", '{"data": {"batch_siz": 7}}']) == 2
    assert "`data.batch_siz` in `--config` (line 1). Did you mean `data.batch_size`?" in capsys.readouterr().err
    Path("levels.yaml").write_text("fit:\n  data:\n    batch_siz: 7\n")
    assert main(["--config", "levels.yaml", "fit", *MLP]) == 2
    assert "`data.batch_siz` in levels.yaml (line 3)" in capsys.readouterr().err


def test_a_file_in_place_of_a_group_is_read_by_the_same_door(capsys):
    Path("data.yaml").write_text("batch_size: 7\n")
    Path("config.yaml").write_text("data: data.yaml\n")
    assert config_of(capsys, "--config", "config.yaml", *MLP)["data"]["batch_size"] == 7
    Path("data.yaml").write_text("batch_size: 7\nbatch_size: 8\n")
    assert main(["fit", *MLP, "--config", "config.yaml"]) == 2
    assert "data.yaml with `batch_size` once, got it in lines 1 and 2" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a: {b: 1, c: {d: 1, d: 2}}\n", "a:\n- b: 1\n- d: 1\n  d: 2\n"])
def test_a_key_twice_is_refused_at_every_level(text):
    with pytest.raises(UsageError, match="with `d` once"):
        parse_config(text, "x.yaml")


def test_a_merged_key_may_be_set_again():
    assert parse_config("a: &a {b: 1}\nc:\n  <<: *a\n  b: 2\n", "x.yaml")["c"] == {"b": 2}


def test_a_file_without_permission(monkeypatch, capsys):
    Path("secret.yaml").write_text("data: {}\n")

    def refuse(path):  # root may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["fit", *MLP, "--config", "secret.yaml"]) == 2
    assert "Expected a configuration in secret.yaml, got: Permission denied." in capsys.readouterr().err


# ---- what is as it was -----------------------------------------------------------------------------------------------


def test_help_is_whole_and_debug_shows_the_traceback(capsys):
    for args, words in ((["fit", "--help"], "--data.batch_size"), (["report", "-h"], "--run")):
        with pytest.raises(SystemExit) as exit_:
            main(args)
        assert exit_.value.code == 0
        assert words in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"batch_sise") as caught:
        main(["fit", *MLP, *DATA, "--data.batch_sise=3", "--debug"])
    assert isinstance(caught.value.__cause__, argparse.ArgumentError)


def test_commands_without_a_trainer_have_the_same_messages():
    for name, args, words in (
        ("sweep", ["x.yaml", "--dry_rnu"], "Did you mean `--dry_run`?"),
        ("sweep", [], "Expected YAML: the sweep"),
        ("compare", ["a", "b", "--metrik", "val/acc"], "Did you mean `--metric`?"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)), contextlib.redirect_stderr(io.StringIO()) as said:
            PARSERS[name].parse_args(args)
        assert said.getvalue() == ""


def test_a_parser_with_subcommands_passes_on_what_it_does_not_know():
    parser = ArgumentParser("bench")
    inner = parser.add_subparsers(required=True, dest="what").add_parser("train")
    inner.add_argument("--rounds", type=int)
    assert parser.parse_known_args(["train", "--rounds", "3", "--data.flip", "x"])[1] == ["--data.flip", "x"]
    for args, words in (
        (["trian"], "what to be one of train, got trian. Did you mean `train`?"),
        (["train", "--rounds", "x"], "`--rounds` to be a whole number, got x."),
        (["train", "--ruonds", "3"], "Did you mean `--rounds`?"),
    ):
        with pytest.raises(UsageError, match=re.escape(words)):
            parser.parse_args(args)


def test_arguments_that_a_function_passes_on_reach_it(tmp_path, monkeypatch):
    """As those of timm do: the parser takes them as `dict_kwargs` alone."""
    (tmp_path / "maker.py").write_text(
        "from torch import nn\n"
        "def make(width: int = 4, **kwargs) -> nn.Module:\n"
        "    args = dict(kwargs)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, args['num_classes']))\n"
        "def plain(num_classes: int = 3) -> nn.Module:\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = (
        "--data.source=synthetic",
        "--data.synthetic_train=200",
        "--data.val_size=100",
        "--trainer.fast_dev_run=1",
    )
    assert main(["fit", "--model.net", "maker.make", "--model.net.num_classes", "10", *options]) == 0
    (tmp_path / "net.yaml").write_text(
        "model: {net: {class_path: maker.make, init_args: {num_classes: 10, width: 3}}}\n"
    )
    config = ("--config", str(tmp_path / "net.yaml"), "--allow", "maker")
    assert main(["fit", *config, *options]) == 0
    # The last network that is named counts.
    assert main(["fit", *config, "--model.net", "maker.plain", "--model.net.num_classes", "10", *options]) == 0
    (tmp_path / "net.yaml").write_text("model: {net: {class_path: maker.plain, init_args: {num_classes: 10}}}\n")
    assert main(["fit", *config, "--model.net", "maker.make", "--model.net.num_classes", "10", *options]) == 0
