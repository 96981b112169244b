"""Errors that a library raises because of a user's options, as one message that names the option."""

from __future__ import annotations

import contextlib
import difflib
import pydoc
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping

from cifar_lightning.private import COMPILERS, TRIED_TYPES
from cifar_lightning.trainer_options import PROFILERS

__all__ = ["configured_classes", "naming_the_option"]


@contextlib.contextmanager
def naming_the_option(config: Any) -> Iterator[None]:
    """Turn an error that a library raises inside a configured object into one message that names the option.

    Errors of the project, of the user's own modules and of the system (files, memory) pass unchanged.

    Args:
        config: the parsed options of a subcommand.

    Raises:
        ValueError: with the option, the first line of the library's message, and what to do.
    """
    try:
        yield
    except (OSError, MemoryError, Warning):
        raise
    except Exception as error:
        if config.get("model.init_args.compile") and from_compiler(error):
            raise ValueError(
                f"Expected `model.compile` to compile the network, got {in_short(error)} torch.compile needs a C++ "
                "compiler for a CPU (g++, or the one that CXX names) and Triton for a GPU. Install it, or train with "
                "`--model.compile false`."
            ) from error
        origin = first_raised(error)
        blamed = blamed_object(origin, configured_classes(config))
        if blamed is not None and "out of memory" not in str(origin).lower():
            found, option = blamed
            what = in_short(origin) + nearest_metric(found, origin)
            raise ValueError(
                f"Expected {option} to work with the other options, got {what} Change its arguments or take another "
                "one; `--debug` shows the traceback."
            ) from origin
        if origin is not error and not all(_is_library(frame.f_globals) for frame in frames_of(origin)):
            raise origin from None  # of the project or the user's own class, without the types that were tried
        raise


def configured_classes(config: Any) -> dict[type, str]:
    """Return the library classes that a configuration names, each with its option.

    Args:
        config: options as nested mappings and lists; a class is a mapping with a `class_path`.

    Returns:
        Such as {torch.optim.SparseAdam: "`model.optimizer` torch.optim.SparseAdam"}.
    """
    found: dict[type, str] = {}
    for option, path in _class_paths(config.as_dict(), ""):
        cls = pydoc.locate(path)
        if isinstance(cls, type) and _is_library(sys.modules[cls.__module__].__dict__):
            name = f"`{option}` {cls.__name__ if path.startswith('lightning.') else path}"
            found[cls] = f"{found[cls]} or {name}" if cls in found and found[cls] != name else name
    return {EarlyStopping: "`early_stopping`", **found}


def _class_paths(value: Any, option: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _class_paths(item, option)
    elif isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield option, value["class_path"]
        for key, inner in value.items():
            yield from _class_paths(inner, option if key == "init_args" else f"{option}.{key}".lstrip("."))
    elif isinstance(value, type):  # of a schedule
        yield option, f"{value.__module__}.{value.__qualname__}"
    elif option == "trainer.profiler" and value in PROFILERS:
        yield option, f"lightning.pytorch.profilers.{PROFILERS[value].__name__}"


def blamed_object(error: BaseException, classes: dict[type, str]) -> tuple[object, str] | None:
    """Return the configured object inside which a library raised, with its option.

    The frames are searched from the innermost one on, up to the first of the project or of the user's own modules:
    what these raise, or libraries on their behalf, is their own error.
    """
    for frame in reversed(frames_of(error)):
        owner = frame.f_locals.get("self")
        if type(owner) in classes:
            return owner, classes[type(owner)]
        if not _is_library(frame.f_globals):
            return None
    return None


def first_raised(error: Exception) -> Exception:
    """Return the exception of a class that jsonargparse made, out of its message on all types that it tried.

    It keeps these exceptions as the cause of its own, and all but the first in a variable.
    """
    if not from_parser(error):
        return error
    tried = frames_of(error)[-1].f_locals.get(TRIED_TYPES) or [error.__cause__]
    origins = [first_raised(each) for each in tried if isinstance(each, Exception)]
    return next((origin for origin in origins if not from_parser(origin)), error)


def from_parser(error: BaseException) -> bool:
    """Whether jsonargparse raised an error."""
    frames = frames_of(error)
    return bool(frames) and frames[-1].f_globals.get("__name__", "").startswith("jsonargparse.")


def frames_of(error: BaseException) -> list[FrameType]:
    """Return the frames of a traceback, the innermost last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _is_library(module_globals: dict[str, Any]) -> bool:
    """Whether a module belongs to Python or to an installed package other than this one."""
    if module_globals.get("__name__", "").partition(".")[0] == "cifar_lightning":
        return False
    path = Path(module_globals.get("__file__") or sysconfig.get_path("stdlib"))  # generated code has no file
    return path.is_relative_to(sysconfig.get_path("stdlib")) or not {"site-packages", "dist-packages"}.isdisjoint(
        path.parts
    )


def from_compiler(error: BaseException | None) -> bool:
    """Whether torch.compile raised an error or what led to it."""
    while error is not None:
        if type(error).__module__.startswith(COMPILERS):
            return True
        error = error.__cause__
    return False


def in_short(error: Exception, most: int = 400) -> str:
    """Return the class and the first line of an error, as a sentence of at most so many letters."""
    lines = str(error).strip().splitlines() or ["no message"]
    text = f"{type(error).__name__}: {lines[0].rstrip('.:')}"
    return f"{text}." if len(text) <= most else f"{text[:most]} ..."


def nearest_metric(found: object, error: Exception) -> str:
    """Return the metric in a message whose name is nearest to the one that a callback monitors, as a sentence."""
    monitored = str(getattr(found, "monitor", None))
    known = set(re.findall(r"[`'\"]([\w/]+)[`'\"]", str(error))) - {monitored}
    near = difflib.get_close_matches(monitored, sorted(known), 1)
    return f" The nearest metric is `{near[0]}`." if near else ""
