"""Run a command of `cifar-lightning`, with user errors as one message."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

from cifar_lightning.commands import COMMANDS, HELP, NAMES
from cifar_lightning.logs import lossy_output, set_up_logging, silence_libraries
from cifar_lightning.processes import Interrupted, stray_rank
from cifar_lightning.usage.config_files import UsageError
from cifar_lightning.usage.items import Given, given_options, shown

__all__ = ["main", "run_with_messages"]


BEFORE_COMMAND = ("-c", "--config", "-h", "--help", "--print_config")
USER_ERRORS = (ValueError, OSError, ImportError)


def main(args: list[str] | None = None) -> int:
    """Run one command.

    Args:
        args: the command line without the program's name; default: that of the process.

    Returns:
        The exit status: 0; 1 when a part of the work could not be done; 2 for a user error, which is printed as one
        message (with `--debug`, as a traceback); other commands name more.
    """
    args = sys.argv[1:] if args is None else args
    debug = "--debug" in args
    return run_with_messages(lambda: dispatch([arg for arg in args if arg != "--debug"]), debug, args)


def dispatch(args: list[str]) -> int:
    """Run the command of a command line; import only what it needs.

    Raises:
        UsageError: for a line without a command, or with options that have no place before it.
    """
    items = [item for item in given_options(args) if item.option != "--allow"]
    at = next((place for place, item in enumerate(items) if not item.option), len(items))
    name = items[at].value if at < len(items) else None
    early = [item.option for item in items[:at]]
    misplaced = name not in NAMES or not set(early) <= set(BEFORE_COMMAND)
    if any(item.option in ("-h", "--help") for item in (items if misplaced else items[:at])):
        print(HELP)
        return 0
    if name is None or misplaced:
        raise UsageError(no_command(items, at))
    rest = [arg for item in items[at + 1 :] for arg in item.args]
    options = {item.option for item in items[at + 1 :]}
    command = next((COMMANDS[key] for key in COMMANDS if key.split()[0] == name and options & {*key.split()[1:]}), None)
    command = command or COMMANDS[name]
    if early and not command.whole_line:
        raise UsageError(no_command(items, at))
    from cifar_lightning import imports

    args = imports.named_on_line(args)
    function: Callable[[list[str]], int] = resolve_name(f"cifar_lightning.{command.function}")
    set_up_logging()  # after the imports, in which Lightning adds handlers of its own
    return function(args if command.whole_line else rest)


def no_command(items: Sequence[Given], at: int) -> str:
    """Return the message for a line without a known command, or with options before it.

    Args:
        items: of the line.
        at: place of the first that is not an option; their number where there is none.
    """
    from cifar_lightning.usage.names import OTHER_COMMANDS
    from cifar_lightning.usage.typehints import any_of, did_you_mean

    text = f"Expected a command: {any_of(list(NAMES))}"
    if not items:
        return f"{text}. `python -m cifar_lightning --help` describes them."
    if at > 0:
        return f"{text}, before all options, got {items[0].option} first."
    typed = items[at].value or ""
    advice = OTHER_COMMANDS.get(typed.lower()) or did_you_mean(typed, NAMES).strip()
    return f"{text}, got {shown(typed)}. {advice}".strip()


def run_with_messages(work: Callable[[], int], debug: bool = False, args: Sequence[str] = ()) -> int:
    """Run a program and print the errors of its user as one message on standard error.

    Output that cannot be written changes nothing about the exit status.

    Args:
        work: returns the exit status.
        debug: raise a user error instead of printing its message.
        args: the command line, whose options messages name as they are typed.

    Returns:
        The exit status; 2 for a user error; 128 plus the number of a signal that ended the work.
    """
    with lossy_output():
        if problem := stray_rank():
            print(f"error: {problem}", file=sys.stderr)
            return 2
        silence_libraries()
        set_up_logging()
        try:
            return work()
        except Interrupted as stop:
            return stop.exit_status
        except SystemExit as stop:
            lightning = sys.modules.get("lightning.pytorch.utilities.exceptions")
            if lightning and isinstance(stop, lightning.SIGTERMException):
                return 128 + signal.SIGTERM
            raise
        except Exception as error:
            message = "" if debug else error_message(error, args)
            if not message:
                raise
            print(f"error: {message}", file=sys.stderr)
            return 2


def error_message(error: Exception, args: Sequence[str]) -> str:
    """Return the message for a user error or a lack of memory; empty for an error of the program."""
    if isinstance(error, UsageError):
        return str(error)  # a mistake in a file is named as it stands there
    if isinstance(error, USER_ERRORS):
        return as_typed(error_text(error), args)
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    if isinstance(error, MisconfigurationException):
        return as_typed(error_text(error), args)
    if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
        what = (str(error).strip().splitlines() or ["none left"])[0].rstrip(".")
        return (
            f"out of memory: {what}. Lower `data.batch_size` or `data.eval_batch_size`, take a smaller network, or end "
            "other programs on this machine."
        )
    return ""


def error_text(error: Exception) -> str:
    """Return the text of an error, and for one straight from the system what to do about it."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return re.sub(r"<(?:\w+\.)*(\w+) object at 0x\w+>", r"\1", str(error))  # Lightning names objects so
    return (
        f"Expected to read or write {os.fsdecode(error.filename)}, got: {error.strerror}. Make sure that its folder is "
        "there, may be written and has room, and start again."
    )


def as_typed(message: str, args: Sequence[str]) -> str:
    """Return a message with the options of a command line as they are typed: `--data.root` for `data.root`."""
    for option in {arg.partition("=")[0] for arg in args if arg.startswith("--")}:
        message = message.replace(f"`{option.removeprefix('--').removesuffix('+')}`", f"`{option}`")
    return message


def is_out_of_memory(error: Exception) -> bool:
    """Return whether Python, a GPU or a CPU ran out of memory; for the latter PyTorch has no class of its own."""
    import torch

    from cifar_lightning.private import CPU_OUT_OF_MEMORY

    words = (CPU_OUT_OF_MEMORY, "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error).lower() for w in words)
