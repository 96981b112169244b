"""The parser of Lightning's commands: what is wrong with a line is one short message."""

from __future__ import annotations

import argparse
import re
import stat
import textwrap
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from cifar_lightning.usage.check import NO_NETWORK, OptionCheck
from cifar_lightning.usage.config_files import Keys, UsageError, parse_config, read_config, read_text
from cifar_lightning.usage.items import Config, Given, given_options, joined, shown
from cifar_lightning.usage.names import COMMANDS, OTHER_COMMANDS
from cifar_lightning.usage.typehints import any_of, did_you_mean, options_of

__all__ = ["PARSER_ERRORS", "Parser", "check_command", "explain_config", "in_short", "parse_line"]

PARSER_ERRORS = (
    jsonargparse.ArgumentError,
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    RecursionError,
    yaml.YAMLError,
)
"""What jsonargparse raises for a line that it does not take, by design or not."""
BEFORE_COMMAND = ("-c", "--config", "-h", "--help", "--print_config")


class Parser(LightningArgumentParser):
    """Lightning's parser, which raises errors and prints no usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"exit_on_error": False, **kwargs})


def parse_line(parser: argparse.ArgumentParser, args: list[str]) -> Any:
    """Parses a command line, its configuration files included.

    Args:
        parser: the parser, with a subcommand for each of the commands.
        args: the command line.

    Raises:
        UsageError: when there is anything in it that the parser does not take.
    """
    commands, items, at = check_command(parser, args)
    if at == len(items):
        return parser.parse_args(args)  # which prints help
    command = str(items[at].value)
    check = OptionCheck(options_of(commands[command]), commands[command].prog.replace(" [options]", ""))
    configs = {
        place: open_config(item, command, place < at)
        for place, item in enumerate(items)
        if item.option in ("-c", "--config") and item.value is not None and "://" not in item.value
    }
    for config in configs.values():
        check.check_groups(config.keys, config.name)
    if check.problems:
        raise UsageError(joined(check.problems))
    try:
        return parser.parse_args([arg for place, item in enumerate(items) for arg in configs.get(place, item).args])
    except PARSER_ERRORS as error:
        for place, item in enumerate(items):
            if place != at:
                check.check(configs.get(place, item))
        if not check.problems and not check.classes.get("model"):
            check.problem(NO_NETWORK)
        raise UsageError(joined(check.problems) or in_short(error)) from error


def check_command(
    parser: argparse.ArgumentParser, args: list[str]
) -> tuple[dict[str, argparse.ArgumentParser], list[Given], int]:
    """Checks that a line has a command, before all options but those that any line may have.

    Returns:
        The parsers of the commands, the items of the line, and the place of the command among them; their number where
        there is none and help is wanted.

    Raises:
        UsageError: for a line without a command, or with one that there is not.
    """
    commands = next(action.choices for action in parser._actions if isinstance(action.choices, dict))
    items = list(given_options(args))
    at = next((place for place, item in enumerate(items) if not item.option), len(items))
    early = [item.option for item in items[:at] if item.option not in BEFORE_COMMAND]
    if early or at == len(items) or items[at].value not in commands:
        if any(item.option in ("-h", "--help") for item in items):
            return commands, items, len(items)
        raise UsageError(no_command(items, at))
    return commands, items, at


def open_config(item: Given, command: str, before: bool) -> Config:
    """Opens a configuration that an option names, or holds as text.

    A pipe can be read once, so the parser gets its text; a file that sets nothing is left out.

    Args:
        item: the option with its value.
        command: the command of the line.
        before: whether it stands before the command; the options are then one level down.

    Raises:
        UsageError: for a file that cannot be read, or has its options at the wrong level.
    """
    value = item.value or ""
    try:
        mode = Path(value).stat().st_mode
    except (OSError, ValueError):
        mode = None
    name, args = value, item.args
    if mode is None and (value.lstrip().startswith("{") or ": " in value or "\n" in value):
        name = f"`{item.option}`"
        keys = parse_config(value, name)
    elif mode is None or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        keys = read_config(value)
    else:
        text = read_text(value)
        keys, args = parse_config(text, value), (f"--config={text}",)
    args = args if keys else ()
    if before:
        inner = keys.get(command)
        return Config(inner if isinstance(inner, Keys) else Keys(), name, args)
    if command in keys:
        raise UsageError(
            f"Expected the options of `{command}` in {name}, got them one level down, below `{command}:` (line "
            f"{keys.lines[command]}). Take that level away, or put the file first: `--config {name} {command}`."
        )
    return Config(keys, name, args)


def no_command(items: list[Given], at: int) -> str:
    """Return the message for a line without a known command, or with options before it."""
    text = f"Expected a command: {any_of(list(COMMANDS))}"
    if not items:
        return f"{text}. `python -m cifar_lightning --help` describes them."
    if at > 0:
        return f"{text}, before all options, got {items[0].option} first."
    typed = items[at].value or ""
    advice = OTHER_COMMANDS.get(typed.lower()) or did_you_mean(typed, COMMANDS).strip()
    return f"{text}, got {shown(typed)}. {advice}".strip()


def explain_config(parser: argparse.ArgumentParser, keys: Keys, file: str) -> str:
    """What is wrong with a configuration file for a parser without commands; empty when its options do not show it."""
    check = OptionCheck(options_of(parser), parser.prog)
    check.check(Config(keys, file, ()))
    missing = [f"`{action.dest}`" for action in parser._actions if action.required and action.dest not in keys]
    if missing and not check.problems:
        check.problem(f"Expected {' and '.join(missing)} in {file}, got no such key.")
    return joined(check.problems)


def in_short(error: Exception) -> str:
    """A parser's message in one sentence, without what the parser calls things."""
    own = (
        "Does not validate|Subtypes:|Errors:|Given value|Parser key|Unable to load|Problem with given|Expected a path "
        "but|Expected a <class 'NoneType'>"
    )
    lines = [line.strip(" -") for line in str(error).splitlines()]
    lines = [line for line in lines if line and not re.match(own, line)] or [type(error).__name__]
    text = re.split(r"\. Got value|Namespace\(|NestedArg\(", lines[0])[0]
    return f"Expected options that fit each other, got: {textwrap.shorten(text, 300)}"
