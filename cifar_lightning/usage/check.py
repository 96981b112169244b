"""What is wrong with the options of a command line or a configuration file, found from the options themselves."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any, get_origin

from cifar_lightning.usage.config_files import UsageError, read_config
from cifar_lightning.usage.items import Config, Given, is_file, line_of, loaded, nearest, shown
from cifar_lightning.usage.names import ELSEWHERE, OLD, USUAL_NAMES
from cifar_lightning.usage.typehints import (
    accepts,
    any_of,
    arguments_of,
    classes_of,
    default_class,
    did_you_mean,
    expected,
    find_class,
    known_classes,
    literals,
    parts,
    positional,
    typehint_of,
)

__all__ = ["NO_NETWORK", "OptionCheck"]

Options = dict[str, argparse.Action]
NO_NETWORK = (
    "Expected a network before its options: name a recipe such as `--config configs/mlp.yaml`, a class such as "
    "`--model MLPClassifier`, or an earlier run with `--run FOLDER`."
)


class OptionCheck:
    """Goes through options in the order in which they count, and collects what is wrong with them.

    Args:
        options: the options by their dotted names, as `options_of` gives them.
        program: name of the program with its command, whose help lists them.

    Attributes:
        problems: what was found, each a sentence or two.
        classes: the classes that were named, by option; None for one that was misspelt.
    """

    def __init__(self, options: Options, program: str) -> None:
        self.options = options
        self.program = program
        self.groups = {name.split(".")[0] for name in options if "." in name} - set(options)
        self.problems: list[str] = []
        self.classes: dict[str, Any] = {}
        self._file = ""
        self._typed = ""

    def check(self, item: Given | Config) -> None:
        """Checks an item of a command line, or a configuration file."""
        if isinstance(item, Config):
            self._file, self._typed = item.name, ""
            for key, value in item.keys.items():
                self._set(self.options, "", key, value, item.keys.lines.get(key, 0))
            return
        self._file, self._typed = "", item.option
        name = re.sub(r"^\W+", "", item.option).removesuffix("+")
        begins = [option for option in self.options if option.startswith(name)]
        if len(begins) == 1:
            name = begins[0]  # the parser takes the beginning of an option for the option
        if not item.option:
            self._stray(item.value or "")
        elif name in ("help", "h", "print_config") or name.endswith(".help"):
            return
        elif name in ("config", "c"):
            self.problem(f"Expected a file after `{item.option}`.")
        elif item.value is None and name in self.options:
            if self.options[name].nargs != "?":
                self.problem(f"Expected a value after `--{name}`: {expected(typehint_of(self.options[name]))}.")
        elif not item.option.startswith("--"):
            self._unknown(name)
        else:
            self._set(self.options, "", name, item.value)

    def check_groups(self, keys: dict[str, Any], file: str) -> None:
        """Checks that the groups of options in a configuration hold options.

        jsonargparse leaves out a number in their place when other options of the group follow.

        Raises:
            UsageError: for a file that is named in place of a group and cannot be read.
        """
        self._file = file
        for group in sorted(self.groups & set(keys)):
            value = loaded(keys[group])
            if isinstance(value, str) and is_file(path := str(Path(file).parent / value)):
                read_config(path)
            elif not isinstance(value, dict):
                self._holds_no_options(group, value, line_of(keys, group, 0))

    def problem(self, text: str) -> None:
        """Adds a problem, once."""
        if text not in self.problems:
            self.problems.append(text)

    def _set(self, options: Options, before: str, key: Any, value: Any, line: int = 0) -> None:
        """Checks a value for the key of one of some options, whose names go on after `before`."""
        if not isinstance(key, str):
            self.problem(f"Expected names of options{self._where(line)}, got the key {shown(key)}.")
            return
        key = key.removesuffix("+")
        outer = max((name for name in options if key.startswith(f"{name}.")), key=len, default="")
        if key in options:
            self._check_value(options[key], before + key, value, line)
        elif any(name.startswith(f"{key}.") for name in options):
            inner = self._options_in(value, before + key, line)
            for name, item in inner.items():
                self._set(options, before, f"{key}.{name}", item, line_of(inner, name, line))
        elif outer:
            self._set_argument(options[outer], before + outer, key[len(outer) + 1 :], value, line)
        else:
            self._unknown(before + key, line)

    def _options_in(self, value: Any, name: str, line: int) -> dict[str, Any]:
        """The options that a group holds, as such or in a file that it names."""
        value = loaded(value)
        if isinstance(value, str) and is_file(value):
            try:
                return read_config(value)
            except UsageError as error:
                self.problem(str(error))
        elif isinstance(value, dict):
            return value
        else:
            self._holds_no_options(name, value, line)
        return {}

    def _set_argument(self, action: argparse.Action, name: str, key: Any, value: Any, line: int) -> None:
        """Checks an argument of the class that an option names."""
        key = str(key).removeprefix("init_args.")
        if key == "class_path":
            self._check_value(action, name, value, line)
        elif key == "init_args":
            self._set_arguments(action, name, loaded(value), line)
        elif not classes_of(typehint_of(action)):
            if dict not in {get_origin(part) or part for part in parts(typehint_of(action))}:
                self._unknown(f"{name}.{key}", line)
        elif key.split(".")[0] != "dict_kwargs" and (arguments := self._arguments(action, name)) is not None:
            self._set(arguments, f"{name}.", key, value, line)

    def _set_arguments(self, action: argparse.Action, name: str, values: Any, line: int) -> None:
        """Checks the arguments of the class that an option names."""
        if not isinstance(values, dict):
            self.problem(f"Expected {self._label(name, line)} with names and values of arguments, got {shown(values)}.")
            return
        for key, value in values.items():
            self._set_argument(action, name, key, value, line_of(values, key, line))

    def _arguments(self, action: argparse.Action, name: str) -> Options | None:
        """The arguments of the class that an option has at this point; None when they are not known."""
        typehint = typehint_of(action)
        otherwise = default_class(action) or classes_of(typehint)[0]
        cls = self.classes.get(name, otherwise)
        return None if cls is None else arguments_of(cls, positional(typehint))

    def _check_value(self, action: argparse.Action, name: str, value: Any, line: int) -> None:
        """Checks the value of an option."""
        typehint = typehint_of(action)
        if typehint is None:
            follows = action.option_strings[0].split()[0]
            self.problem(f"Expected no {self._label(name, line)}: it follows {self._quoted(follows)}, which sets both.")
            return
        taken = accepts(typehint, value)
        content = loaded(value)
        if classes_of(typehint) and not (taken and isinstance(content, str) and str in parts(typehint)):
            for item in content if isinstance(content, list) else [content]:
                self._check_class(action, name, item, line, taken)
        elif not taken:
            self._unexpected(action, name, value, line)

    def _check_class(self, action: argparse.Action, name: str, item: Any, line: int, taken: bool) -> None:
        """Checks a value that names a class, with or without its arguments."""
        if isinstance(item, str) and is_file(item):
            item = self._options_in(item, name, line)
        path = item.get("class_path") if isinstance(item, dict) else item
        if isinstance(path, str) and not (taken and path == "null"):
            self.classes[name], why = find_class(path, classes_of(typehint_of(action)))
            if why:
                self._unexpected(action, name, path, line_of(item, "class_path", line), why)
        elif not taken and (not isinstance(item, dict) or "class_path" in item):
            self._unexpected(action, name, path, line)
        if isinstance(item, dict):
            inner = item.get("init_args", {} if "class_path" in item else item)
            self._set_arguments(action, name, inner, line_of(item, "init_args", line))

    def _unexpected(self, action: argparse.Action, name: str, value: Any, line: int, why: str = "") -> None:
        """Adds that an option does not take a value, and why or which is near."""
        typehint = typehint_of(action)
        why = why or f".{did_you_mean(str(value), literals(typehint))}"
        self.problem(f"Expected {self._label(name, line)} to be {expected(typehint)}, got {shown(value)}{why}")

    def _names(self) -> list[str]:
        """Every option that there is at this point, those of the classes that are named included."""
        found = list(self.options)
        for name in found:  # which grows
            action = self._action(name)
            named = name in self.classes or name == "model" or is_own(action)
            if action and classes_of(typehint_of(action)) and (named or default_class(action)):
                found += [f"{name}.{key}" for key in self._arguments(action, name) or ()]
        return found

    def _action(self, name: str) -> argparse.Action | None:
        """The option of a dotted name, also below a class."""
        if name in self.options:
            return self.options[name]
        before, _, last = name.rpartition(".")
        owner = self._action(before) if before else None
        arguments = self._arguments(owner, before) if owner and classes_of(typehint_of(owner)) else None
        return arguments.get(last) if arguments else None

    def _unknown(self, name: str, line: int = 0) -> None:
        """Adds that there is no such option, with where it went or what is near."""
        if name.startswith("model.") and not {"model", "model.net"} & self.classes.keys():
            self.problem(NO_NETWORK)
            return
        names = self._names()
        group, _, last = name.replace("-", "_").rpartition(".")
        begins = [option for option in names if option.startswith(f"{group}.{last}".lstrip("."))]
        same_end = [option for option in names if option.rpartition(".")[2] == last]
        action = self._action(group)
        others = [
            other
            for other, classes in (known_classes(classes_of(typehint_of(action))) if action else {}).items()
            if last in (arguments_of(classes[0], positional(typehint_of(action))) or ())
        ]
        in_group = [option.rpartition(".")[2] for option in names if group and option.rpartition(".")[0] == group]
        if last in OLD and group in ("", "trainer", "data"):
            advice = f"In its place there is {OLD[last]}."
        elif not group and name in ELSEWHERE:
            advice = f"It belongs to {ELSEWHERE[name]}."
        elif same_end:
            advice = f"Did you mean {any_of([f'<{option}>' for option in same_end[:3]])}?"
        elif last in USUAL_NAMES:
            advice = f"Did you mean {USUAL_NAMES[last]}?"
        elif others:
            advice = f"It belongs to {any_of(others[:3])}."
        elif near := begins[:4] or nearest(name.replace("-", "_"), names):
            advice = f"Did you mean {any_of([f'<{option}>' for option in near])}?"
        elif in_group:
            advice = f"There are {', '.join(in_group[:12])}{' and others' if in_group[12:] else ''}."
        else:
            advice = f"`{self.program} --help` lists all."
        cls = self.classes.get(group) or (classes_of(typehint_of(action))[0] if is_own(action) else None)
        of_class = f" of {cls.__name__}" if inspect.isclass(cls) else ""
        typed = f"`{self._typed}`" if self._typed and not self._file else self._quoted(name)
        advice = re.sub(r"<([\w.]+)>", lambda found: self._quoted(found[1]), advice)
        self.problem(f"There is no option {typed}{of_class}{self._where(line)}. {advice}")

    def _stray(self, value: str) -> None:
        """Adds a value of the command line that belongs to no option."""
        name, equals, rest = value.partition("=")
        if value.endswith((".yaml", ".yml")):
            advice = f" Did you mean `--config {value}`?"
        elif equals and name in self._names():
            advice = f" Did you mean `--{name}={rest}`?"
        else:
            advice = " A value with spaces in it needs quotes."
        self.problem(f"Expected options, which begin with --, got {shown(value)}.{advice}")

    def _holds_no_options(self, name: str, value: Any, line: int) -> None:
        some = [self._quoted(option) for option in self.options if option.startswith(f"{name}.")]
        label = self._label(name, line)
        self.problem(f"Expected {label} to hold options, got {shown(value)}. Its options are {', '.join(some[:3])} ...")

    def _label(self, name: str, line: int) -> str:
        """An option as it is typed, with its file where it stands in one."""
        return f"{self._quoted(name)}{self._where(line)}"

    def _where(self, line: int) -> str:
        return f" in {self._file}" + (f" (line {line})" if line else "") if self._file else ""

    def _quoted(self, name: str) -> str:
        return f"`{name}`" if self._file else f"`--{name}`"


def is_own(action: argparse.Action | None) -> bool:
    """Whether an option takes a class of this package and its subclasses, such as the network of `MLPClassifier`."""
    return any(cls.__module__.startswith("cifar_lightning.") for cls in classes_of(typehint_of(action)))
