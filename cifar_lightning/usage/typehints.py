"""The types of options in a person's words, and the classes that an option takes."""

from __future__ import annotations

import argparse
import copy
import difflib
import functools
import importlib
import inspect
import types
from collections.abc import Callable, Iterable
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import jsonargparse
import torch
from jsonargparse import typing as numbers

from cifar_lightning.imports import may_import
from cifar_lightning.private import actions_of, typehint_of

__all__ = [
    "accepts",
    "any_of",
    "arguments_of",
    "classes_of",
    "default_class",
    "did_you_mean",
    "expected",
    "find_class",
    "import_path",
    "known_classes",
    "literals",
    "options_of",
    "parts",
    "passes_on",
    "positional",
    "typehint_of",
]

WORDS: dict[Any, tuple[str, str]] = {  # one, several
    int: ("a whole number", "whole numbers such as [2, 3]"),
    float: ("a number", "numbers such as [0.1, 0.2]"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    timedelta: ("a duration such as 1:30:00", "durations"),
    dict: ("keys with values", "keys with values"),
    numbers.PositiveInt: ("a whole number of at least 1", "whole numbers of at least 1"),
    numbers.NonNegativeInt: ("a whole number of at least 0", "whole numbers of at least 0"),
    numbers.PositiveFloat: ("a number above 0", "numbers above 0"),
    numbers.NonNegativeFloat: ("a number of at least 0", "numbers of at least 0"),
    numbers.ClosedUnitInterval: ("a number in [0, 1]", "numbers in [0, 1]"),
    numbers.OpenUnitInterval: ("a number in (0, 1)", "numbers in (0, 1)"),
}
CLASSES = {
    "ImageClassifier": ("model", ""),
    "Module": ("network", "torchvision.models.resnet18"),
    "LRScheduler": ("scheduler", "torch.optim.lr_scheduler.OneCycleLR"),
    "Optimizer": ("optimizer", "torch.optim.AdamW"),
    "Callback": ("callback", "lightning.pytorch.callbacks.LearningRateMonitor"),
    "Logger": ("logger", "lightning.pytorch.loggers.CSVLogger"),
}
"""Names of base classes, in words, and an example of each."""


def parts(typehint: Any) -> list[Any]:
    """The types of a union, and of unions in it; another type as it is."""
    if get_origin(typehint) in (Union, types.UnionType):
        return [part for inner in get_args(typehint) for part in parts(inner)]
    return [typehint]


def classes_of(typehint: Any) -> tuple[type, ...]:
    """The base classes of what an option takes as a class with arguments; empty for plain values."""
    found: list[type] = []
    for part in parts(typehint):
        origin, args = get_origin(part), get_args(part)
        if origin is Callable and args:
            found += classes_of(args[-1])
        elif is_collection(part) and args:
            found += classes_of(args[0])
        elif inspect.isclass(part) and origin is None and not issubclass(part, plain_types()):
            found.append(part)
    return tuple(dict.fromkeys(found))


def default_class(action: argparse.Action) -> Any:
    """The class that an option has unless another is named; None where there is none."""
    path = action.default.get("class_path") if isinstance(action.default, dict | jsonargparse.Namespace) else None
    return find_class(path, classes_of(typehint_of(action)))[0] if path else None


def positional(typehint: Any) -> int:
    """How many arguments of a class come from the program: the parameters of an optimizer, for example."""
    callables = [part for part in parts(typehint) if get_origin(part) is Callable]
    return max((len(get_args(part)[0]) for part in callables), default=0)


def literals(typehint: Any) -> list[str]:
    """The values that a type lists."""
    return [str(value) for part in parts(typehint) if get_origin(part) is Literal for value in get_args(part)]


def plain_types() -> tuple[type, ...]:
    """Types whose values are written down, and not made by a class with arguments."""
    return (int, float, str, bytes, types.NoneType, Path, timedelta, Enum, dict, list, tuple, set, torch.Tensor)


def expected(typehint: Any) -> str:
    """What an option takes, to follow "Expected X to be"."""
    all_parts = [part for part in parts(typehint) if part is not torch.Tensor]
    if float in all_parts and int in all_parts:
        all_parts.remove(int)
    values = list(dict.fromkeys(value for part in all_parts for value in values_of(part)))
    classes = classes_of(typehint)
    words = list(dict.fromkeys(filter(None, map(words_of, all_parts)))) + [class_words(cls) for cls in classes]
    if classes and any(classes_of(part) and is_collection(part) for part in all_parts):
        words.append("a list of them")
    if types.NoneType in all_parts and not classes:
        words.append("null")
    several = len(values) > 2 and set(words) <= {"null"}
    return any_of([*([f"one of {values[0]}", *values[1:]] if several else values), *words]) or "another value"


def values_of(part: Any) -> list[str]:
    """The values that a type lists."""
    if part is bool:
        return ["true", "false"]
    return list(part.__members__) if inspect.isclass(part) and issubclass(part, Enum) else literals(part)


def words_of(part: Any) -> str:
    """A type that is no union in words; empty for what is said in another way."""
    if part in WORDS:
        return WORDS[part][0]
    if get_origin(part) is dict:
        return WORDS[dict][0]
    if get_origin(part) is type:
        return class_words(get_args(part)[0])
    inner = get_args(part)
    return f"a list of {WORDS.get(inner[0], ('', 'values'))[1]}" if is_collection(part) and not classes_of(part) else ""


def is_collection(part: Any) -> bool:
    """Whether a type is a list of another type, or the like."""
    origin = get_origin(part)
    return inspect.isclass(origin) and issubclass(origin, Iterable) and not issubclass(origin, dict)


def any_of(words: list[str]) -> str:
    """Words joined to "a, b, or c"."""
    return " or ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])}, or {words[-1]}"


def class_words(cls: type) -> str:
    """A base class in words, with its subclasses where they are few, or an example."""
    kind, example = CLASSES.get(cls.__name__, (cls.__name__, ""))
    names = sorted(known_classes((cls,)).keys() - {cls.__name__})
    if example or len(names) > 4:
        return f"{article(kind)} class such as {example or names[0]}"
    return f"{article(kind)} class" + (f" ({', '.join(names)})" if names else "")


def article(noun: str) -> str:
    """A noun with its article."""
    return f"{'an' if noun[0].lower() in 'aeio' else 'a'} {noun}"


def import_path(cls: type) -> str:
    """The path by which a class is usually imported: of the shortest package that has it."""
    *packages, _ = cls.__module__.split(".")
    for end in range(1, len(packages) + 1):
        module = importlib.import_module(".".join(packages[:end]))
        if getattr(module, cls.__name__, None) is cls:
            return f"{module.__name__}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__name__}"


def known_classes(bases: Iterable[type], counts: Callable[[str], bool] = may_import) -> dict[str, list[type]]:
    """Classes that are imported, not abstract, and may be named for one of the bases, by their short name.

    Args:
        bases: the classes of which each is one.
        counts: which modules count; default: those that a configuration may import.
    """
    found: dict[str, list[type]] = {}
    pending, seen = list(bases), set()
    while pending:
        cls = pending.pop()
        if cls in seen:
            continue
        seen.add(cls)
        pending += cls.__subclasses__()
        public = not any(part.startswith("_") or part == "<locals>" for part in import_path(cls).split("."))
        if public and not inspect.isabstract(cls) and counts(cls.__module__):
            found.setdefault(cls.__name__, []).append(cls)
    return found


def did_you_mean(name: str, known: Iterable[str], before: str = "") -> str:
    """Question for the nearest of some names; empty when none is near."""
    by_letters = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_letters, n=2, cutoff=0.6)
    scores = [difflib.SequenceMatcher(None, other, name.lower()).ratio() for other in near]
    near = [
        f"`{before}{by_letters[other]}`" for other, score in zip(near, scores, strict=True) if score > scores[0] - 0.1
    ]
    return f" Did you mean {any_of(near)}?" if near else ""


def find_class(name: str, bases: tuple[type, ...]) -> tuple[Any, str]:
    """The class of a name.

    Args:
        name: short, or with its module.
        bases: the classes of which it should be one.

    Returns:
        The class, or the function that takes its place, or None; and what to say after "got <name>" where it is None.
    """
    module_name, _, last = name.rpartition(".")
    if not module_name:
        known = known_classes(bases)
        found = known.get(name, [])
        if found and len(known_classes(bases, lambda module: True)[name]) > 1:  # the parser knows all of them
            return None, f", the name of several classes: write {any_of([import_path(cls) for cls in found])}."
        return (found[0], "") if found else (None, "." + did_you_mean(name, known))
    if not may_import(name):
        return None, not_allowed(name)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a module runs, and may raise anything
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return None, f", but importing {module_name} failed: {first}."
    if not hasattr(module, last):
        public = {key: value for key, value in vars(module).items() if inspect.isclass(value)}
        near = [key for key, value in public.items() if issubclass(value, bases)]
        return None, f", but {module_name} has no {last}.{did_you_mean(last, near, f'{module_name}.')}"
    found = getattr(module, last)
    if not may_import(home := getattr(found, "__module__", module_name)):
        return None, not_allowed(home)
    if inspect.isclass(found) and not issubclass(found, bases):
        return None, ", which is another kind of class."
    return found, ""


def not_allowed(module: str) -> str:
    """Return what to say after "got <name>" of a module that a file names and the command line does not."""
    root = module.partition(".")[0]
    return (
        f", which a configuration may not import, because that runs its code. If you trust it, add `--allow {root}` to "
        f'the command line, or `allow=["{root}"]` to `load`.'
    )


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The options of a parser that take a value, by their dotted names."""
    names = [action.dest for action in actions_of(parser)]
    return {
        action.dest: action
        for action in actions_of(parser)
        if action.dest not in (argparse.SUPPRESS, "help", "config", "print_config", "subcommand")
        and not action.dest.endswith(".help")
        and (typehint_of(action) or not any(name.startswith(f"{action.dest}.") for name in names))  # no group
    }


@functools.cache
def arguments_of(cls: Any, positional: int = 0) -> dict[str, argparse.Action] | None:
    """Return the arguments of a class or a function as options, but for so many positional ones.

    Returns:
        The options by name; None when they are not known.
    """
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if isinstance(cls, type) else parser.add_function_arguments
    try:
        add(cls, fail_untyped=False, skip={positional} if positional else None)
    except Exception:  # whatever a signature from elsewhere leads to
        return None
    return options_of(parser)


def passes_on(name: str, key: str) -> bool:
    """Return whether an argument of a network is one that its function passes on without naming it (`**kwargs`).

    Args:
        name: of the function, such as timm.models.resnet18.
        key: of the argument, such as num_classes.
    """
    found = find_class(name, (torch.nn.Module,))[0]
    if not inspect.isroutine(found):
        return False
    own = inspect.signature(found).parameters
    # jsonargparse finds where most functions pass their arguments on to, and then names these as well.
    is_unknown = set(arguments_of(found) or {}) <= set(own)
    return is_unknown and key not in own and any(p.kind == p.VAR_KEYWORD for p in own.values())


def accepts(typehint: Any, value: Any) -> bool:
    """Whether an option of a type takes a value."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=typehint)
        parser.parse_object({"value": copy.deepcopy(value)})
    except Exception:
        return False
    return True
