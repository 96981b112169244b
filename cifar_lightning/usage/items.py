"""The items of a command line, and how messages name them."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lightning.usage.config_files import Keys, UsageError, parse_config

__all__ = ["Config", "Given", "given_options", "is_file", "joined", "line_of", "loaded", "nearest", "shown"]

ROWS, COLUMNS = 5, 100
"""A message has so many rows of so many characters at most."""


@dataclass(frozen=True)
class Given:
    """One item of a command line.

    Attributes:
        option: the option as it was typed, without the value; empty for a value without an option.
        value: its value; None when there is none.
        args: the arguments that it was in.
    """

    option: str
    value: str | None
    args: tuple[str, ...]


@dataclass(frozen=True)
class Config:
    """A configuration of a command line.

    Attributes:
        keys: the options that it sets.
        name: its file, for messages.
        args: what the parser is to read in its place.
    """

    keys: Keys
    name: str
    args: tuple[str, ...]


def given_options(args: Iterable[str], flags: Iterable[str] = ()) -> Iterator[Given]:
    """Splits a command line into options with their values, and what is neither.

    Args:
        args: the command line.
        flags: options that take no value, beside those of every command.
    """
    flags = {"-h", "--help", "--print_config", *flags}
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        option, equals, value = arg.partition("=")
        if not is_option(arg):
            yield Given("", arg, (arg,))
        elif equals:
            yield Given(option, value, (arg,))
        elif option in flags or not rest or is_option(rest[0]):
            yield Given(option, None, (arg,))
        else:
            yield Given(option, rest[0], (arg, rest.pop(0)))


def is_option(arg: str) -> bool:
    """Whether an argument is an option, and not a value such as -1 or a sentence."""
    return re.match(r"[-\u2013\u2014]+[^\W\d][^\s=]*(=|$)", arg) is not None  # editors turn -- into a dash


def is_file(text: str) -> bool:
    """Whether a text names a file; none that the system does not take as a name does."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def shown(value: Any) -> str:
    """A value as it is written down, cut to what a message bears."""
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    text = " ".join(text.split()) or text
    return text if len(text) <= 60 else f"{text[:57]}..."


def loaded(value: Any) -> Any:
    """A value of the command line that is written as a YAML list or mapping; another as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return parse_config(f"value: {value}", "").get("value")
        except UsageError:
            return value
    return value


def line_of(mapping: Any, key: str, otherwise: int) -> int:
    """The line of a key in a file, or that of what it is in."""
    return mapping.lines.get(key, otherwise) if isinstance(mapping, Keys) else otherwise


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The options that a misspelt one may stand for, at most two.

    Those of the same group may differ more than others.
    """
    group, _, last = name.lower().rpartition(".")
    scores = {}
    for option in names:
        its_group, _, its_last = option.lower().rpartition(".")
        ends = difflib.SequenceMatcher(None, last, its_last).ratio()
        near = ends > (0.6 if its_group == group else 0.75)
        whole = difflib.SequenceMatcher(None, name.lower(), option.lower()).ratio()
        if near or whole > 0.8:
            scores[option] = max(ends, whole) + (its_group == group) / 10
    best = sorted(scores, key=lambda option: -scores[option])
    return [option for option in best if scores[option] > scores[best[0]] - 0.05][:2]


def joined(problems: Sequence[str]) -> str:
    """Problems as one message, one a line; how many more there are where they are too many."""
    taken: list[str] = []
    for problem in problems:
        rows = sum(len(textwrap.wrap(line, COLUMNS)) for line in ("error: ", *taken, problem)) - 1
        if taken and rows >= ROWS:
            taken.append(f"And {len(problems) - len(taken)} more.")
            break
        taken.append(problem)
    return "\n".join(taken)
