"""Reading configuration files: each is checked as a file before anything looks at its options."""

from __future__ import annotations

import codecs
import copy
import difflib
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Keys", "UsageError", "parse_config", "read_config", "read_text"]


class UsageError(ValueError):
    """A command line or a configuration file that the program does not take."""


class Keys(dict[str, Any]):
    """A mapping of a YAML file.

    Attributes:
        lines: the line of each key, from 1; empty for a mapping from elsewhere.
    """

    lines: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.lines = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """A plain dictionary: what checks a value may make one of the same type, without its keys."""
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}


class DuplicateKeyError(yaml.YAMLError):
    """A key that one mapping has twice: YAML would silently keep the last."""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads plain values and refuses duplicate keys."""


def construct_keys(loader: Any, node: yaml.MappingNode) -> Generator[Keys, None, None]:
    """Constructs a mapping in two steps, as PyYAML does for nodes that may refer to themselves."""
    keys = Keys()
    yield keys
    for key, _ in node.value:
        name, line = key.value, key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or name == "<<":
            continue
        if name in keys.lines:
            where = f"lines {keys.lines[name]} and {line}" if line > keys.lines[name] else f"line {line} twice"
            raise DuplicateKeyError(f"`{name}` once, got it in {where}: the first would be lost. Join them")
        keys.lines[name] = line
    keys.update(loader.construct_mapping(node))


Loader.add_constructor("tag:yaml.org,2002:map", construct_keys)


def read_config(path: str | Path, what: str = "a configuration") -> Keys:
    """Reads a configuration file.

    Args:
        path: the file.
        what: what it should hold, for messages.

    Returns:
        Its keys, none for a file that is empty or holds nothing but comments.

    Raises:
        UsageError: with the name of the file, when it cannot be read, is no UTF-8 or no YAML, has a key twice, or
            holds something else than keys.
    """
    return parse_config(read_text(path, what), str(path), what)


def read_text(path: str | Path, what: str = "a configuration") -> str:
    """Reads a text file.

    Raises:
        UsageError: with the name of the file, when it cannot be read or is no UTF-8.
    """
    file = Path(os.path.expanduser(path))
    try:
        if file.is_dir():
            run = f" Did you mean `--run {path}`?" if (file / "config.yaml").is_file() else " Name a file in it."
            raise UsageError(f"Expected {what} in a file, got the folder {path}.{run}")
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"Expected {what} in {path}, but there is no such file.{similar_files(file)}") from None
    except OSError as error:
        raise UsageError(f"Expected {what} in {path}, got: {error.strerror}.") from error
    save = "Save the file as UTF-8"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"Expected UTF-8 text in {path}, got UTF-16, as PowerShell's > writes it. {save}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = f"byte 0x{content[error.start]:02x} in line {line}"
        raise UsageError(
            f"Expected UTF-8 text in {path}, got {got}, as in Latin-1 or a binary file. {save}."
        ) from error


def similar_files(file: Path) -> str:
    """The files with a similar name, in the same folder or in configs/, as a question; empty for none."""
    found = [path for folder in {file.parent, Path("configs")} for path in sorted(folder.glob("*.y*ml"))]
    names = difflib.get_close_matches(file.name, [path.name for path in found], n=1, cutoff=0.75)
    same = [str(path) for path in found if path.name in names]
    return f" Did you mean {same[0]}?" if same else " Paths start at the current folder."


def parse_config(text: str, name: str, what: str = "a configuration") -> Keys:
    """Parses the text of a configuration.

    Args:
        text: the YAML.
        name: of its file, for messages.
        what: what it should hold, for messages.

    Raises:
        UsageError: with the name, when it is no YAML, has a key twice, or holds something else than keys.
    """
    try:
        content = yaml.load(text, Loader=Loader)
    except DuplicateKeyError as error:
        raise UsageError(f"Expected {what} in {name} with {error}.") from error
    except RecursionError:
        raise UsageError(f"Expected {what} in {name}, got lists or keys nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        where, problem = yaml_problem(error, text)
        raise UsageError(f"Expected {what} as YAML in {name}{where}, got {problem}.") from error
    if content is None:
        return Keys()
    if not isinstance(content, Keys):
        got = "a list" if isinstance(content, list) else f"only {str(content)[:40]!r}"
        raise UsageError(f"Expected {what} in {name} as `key: value` lines, got {got}.")
    return content


YAML_PROBLEMS = {
    "mapping values are not allowed": "a second `: ` in one line, or lines that are not indented alike",
    "did not find expected key": "lines that are not indented alike, or quotes or brackets that do not match",
    "cannot start any token": "a value that needs quotes",
    "did not find expected ',' or ']'": "a list without its `]`",
    "did not find expected ',' or '}'": "keys without their `}`",
    "unexpected end of stream": "a quote that is not closed",
}
"""What PyYAML writes, and what it means."""


def yaml_problem(error: Exception, text: str) -> tuple[str, str]:
    """Where a YAML is wrong, as " (line 2)" or empty, and what is wrong with it."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if not problem or not mark:
        return "", str(error).splitlines()[0]
    words = next((words for written, words in YAML_PROBLEMS.items() if written in problem), problem)
    if any(line.lstrip(" ").startswith("\t") for line in text.splitlines()[mark.line : mark.line + 1]):
        words = "a tab, where YAML wants spaces"
    return f" (line {mark.line + 1})", words
