"""The parser of Lightning's commands: what is wrong with a line is one short message."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import stat
import textwrap
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from cifar_lightning.private import actions_of
from cifar_lightning.usage.check import NO_NETWORK, OptionCheck
from cifar_lightning.usage.config_files import Keys, UsageError, parse_config, read_text
from cifar_lightning.usage.items import Config, Given, given_options, joined, shown
from cifar_lightning.usage.typehints import options_of, passes_on

__all__ = ["PARSER_ERRORS", "Parser", "explain_config", "in_short", "parse_line"]

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


class Parser(LightningArgumentParser):
    """Lightning's parser, which raises errors and prints no usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"exit_on_error": False, **kwargs})


def parse_line(parser: argparse.ArgumentParser, args: list[str]) -> Any:
    """Parse a command line, its configuration files included.

    Args:
        parser: of the command of the line.
        args: the command line with the command, before which there may be configurations.

    Raises:
        UsageError: when there is anything in it that the parser does not accept.
    """
    items = list(given_options(args))
    at = next(place for place, item in enumerate(items) if not item.option)
    check = OptionCheck(options_of(parser), parser.prog)
    configs = {
        place: open_config(item, str(items[at].value), place < at)
        for place, item in enumerate(items)
        if item.option in ("-c", "--config") and item.value is not None and "://" not in item.value
    }
    del items[at]
    configs = {place - (place > at): config for place, config in configs.items()}
    for config in configs.values():
        check.check_groups(config.keys, config.name)
    if check.problems:
        raise UsageError(joined(check.problems))
    items, configs = with_passed_on(items, configs)
    try:
        return parser.parse_args([arg for place, item in enumerate(items) for arg in configs.get(place, item).args])
    except PARSER_ERRORS as error:
        for place, item in enumerate(items):
            check.check(configs.get(place, item))
        helped = next((item for item in items if item.option.endswith(".help")), None)
        if helped is not None and not check.problems:
            check.problem(
                f"Expected a class after `{helped.option}`, got {shown(helped.value)}. In Python, `help` shows the "
                "arguments of a function."
            )
        if not check.problems and not {"model", "model.net"} & check.classes.keys():
            check.problem(NO_NETWORK)
        raise UsageError(joined(check.problems) or in_short(error)) from error


NET = "model.net"
"""The option that takes a network."""


def with_passed_on(items: list[Given], configs: dict[int, Config]) -> tuple[list[Given], dict[int, Config]]:
    """Move arguments that the function of a network passes on (`**kwargs`) to `dict_kwargs`, as the parser wants.

    Args:
        items: of a command line.
        configs: the configurations among them, by place.
    """
    nets = {place: net for place, config in configs.items() if (net := network_in(config.keys))}
    named = [str(net["class_path"]) for net in nets.values() if "class_path" in net]
    named += [item.value for item in items if item.option in (f"--{NET}", f"--{NET}.class_path") and item.value]
    if not named:
        return items, configs
    for place, net in nets.items():
        own = str(net.get("class_path", named[-1]))
        moved = [key for key in net.get("init_args") or {} if passes_on(own, key)]
        if moved:
            net.setdefault("dict_kwargs", Keys()).update({key: net["init_args"].pop(key) for key in moved})
            text = yaml.safe_dump(json.loads(json.dumps(configs[place].keys)), sort_keys=False)
            configs[place] = dataclasses.replace(configs[place], args=(f"--config={text}",))
    for place, item in enumerate(items):
        key = item.option.removeprefix(f"--{NET}.").removeprefix("init_args.")
        if item.option.startswith(f"--{NET}.") and key.isidentifier() and passes_on(named[-1], key):
            option = f"--{NET}.dict_kwargs.{key}"
            items[place] = Given(option, item.value, (f"{option}={item.value}",))
    return items, configs


def network_in(keys: Keys) -> dict[str, Any]:
    """Return the network of a configuration, with `class_path` and `init_args`; empty where it names none."""
    model = keys.get("model")
    if not isinstance(model, dict):
        return {}
    inner = model.get("init_args", model)
    net = inner.get("net") if isinstance(inner, dict) else None
    return net if isinstance(net, dict) and isinstance(net.get("init_args", {}), dict) else {}


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
    is_text = mode is None and (value.lstrip().startswith("{") or ": " in value or "\n" in value)
    name = f"`{item.option}`" if is_text else value
    text = value if is_text else read_text(value)
    keys = parse_config(text, name)
    if before:
        inner = keys.get(command)
        if not isinstance(inner, Keys):
            return Config(Keys(), name, ())
        return Config(inner, name, (f"--config={yaml.safe_dump(yaml.safe_load(text)[command])}",))
    if command in keys:
        raise UsageError(
            f"Expected the options of `{command}` in {name}, got them one level down, below `{command}:` (line "
            f"{keys.lines[command]}). Remove that level, or put the file first: `--config {name} {command}`."
        )
    is_pipe = mode is not None and not stat.S_ISREG(mode)
    return Config(keys, name, () if not keys else (f"--config={text}",) if is_pipe else item.args)


def explain_config(parser: argparse.ArgumentParser, keys: Keys, file: str) -> str:
    """What is wrong with a configuration file for a parser without commands; empty when its options do not show it."""
    check = OptionCheck(options_of(parser), parser.prog)
    check.check(Config(keys, file, ()))
    missing = [f"`{action.dest}`" for action in actions_of(parser) if action.required and action.dest not in keys]
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
