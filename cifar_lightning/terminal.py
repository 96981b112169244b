"""How the program speaks: quiet libraries, plain log lines, and one message for an error of its user."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TextIO

__all__ = ["run_command", "run_script"]

# Advice of the libraries that does not hold here, each with the reason.
IRRELEVANT = (
    ".*does not have many workers.*",  # there are no worker processes: batches are cut from memory
    ".*exists and is not empty.*",  # checkpoints of a continued run belong into its folder
    ".*number of training batches .* is smaller than the logging interval.*",  # epochs are logged as well
    ".*saving a checkpoint outside the 'fit' stage.*",
    ".*loading a checkpoint outside the 'fit' stage.*",  # an evaluation takes the averaged weights, as it should
    ".*GPU available but not used.*",
    ".*Total length of `list` across ranks is zero.*",  # no validation was asked for
    ".*The dirpath has changed.*best_model_score.*",  # a run that continues another has a best of its own
    ".*is not supported by the model summary.*",
    ".*your dataloader is not resumable.*",  # the data module keeps its place
    ".*could not find the monitored key.*",  # a training that ends before its first validation
    ".*AMP with fp16 is not supported on CPU.*",  # an error of ours says so
    ".*Glyph .* missing from font.*",  # a run may be named in any script; the picture is as good without
    ".*LeafSpec.* is deprecated.*",  # Lightning 2.6.6 on torch 2.15
    ".*could be decompression bomb.*",  # pictures above our own limit are refused with a message
    ".*torch.jit.trace.* is deprecated.*",  # how torch's own TensorBoard writer makes the graph
)
# Lines of Lightning that advertise, or say what hardware is not there or what was asked for.
NOISE = (
    "💡 Tip",
    "Loading `train_dataloader`",
    "Restoring states",
    "Loaded model weights",
    "TPU available",
    "Seed set to",
    "Running in `fast_dev_run` mode",
    "GPU available: False",
    "`Trainer.fit` stopped: `max_",  # in the middle of the progress bar
)
USER_ERRORS = (ValueError, OSError, ImportError)


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to standard error as it is at the time, also where something has replaced it since."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        self.stream = sys.stderr
        super().emit(record)


def set_up_logging() -> None:
    """Sends the project's lines to standard error as they are, and drops Lightning's noise."""
    project = logging.getLogger("cifar_lightning")
    if not project.handlers:
        project.addHandler(StderrHandler())
        project.setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric"):
        # Their own handlers would go on writing to a standard error that has been replaced.
        logging.getLogger(name).handlers[:] = [StderrHandler()]
        logging.getLogger(name).handlers[0].addFilter(is_signal)


def is_signal(record: logging.LogRecord) -> bool:
    """Whether a line of Lightning tells the user anything."""
    return not record.getMessage().startswith(NOISE)


def leave_out_writers(before: Callable[[threading.ExceptHookArgs], object]) -> None:
    """Has what ends TensorBoard's thread, such as a full disk, told by whoever writes next, and not as a traceback.

    Args:
        before: what tells of all other threads.
    """

    def tell_of_thread(failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__name__ != "_AsyncWriterThread":
            before(failure)

    if getattr(before, "__name__", "") != tell_of_thread.__name__:
        threading.excepthook = tell_of_thread


def run_command(args: list[str]) -> int:
    """Runs the command line and turns a user's error into one message on standard error.

    Args:
        args: the command line without the program's name.

    Returns:
        0; 1 when a part of the work could not be done; 2 for a user's error.
    """
    debug = "--debug" in args
    return run_script(lambda: dispatch([arg for arg in args if arg != "--debug"]), debug)


def run_script(work: Callable[[], int], debug: bool = False) -> int:
    """Does what a script does, with the same messages.

    Args:
        work: gives the exit status.
        debug: show a user's error with its traceback.

    Returns:
        The exit status; 2 for a user's error, 128 and the number of a signal that ended it.
    """
    for message in IRRELEVANT:
        warnings.filterwarnings("ignore", message)

    from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

    from cifar_lightning.processes import Interrupted

    set_up_logging()
    leave_out_writers(threading.excepthook)
    try:
        return work()
    except Interrupted as stop:
        return 128 + stop.signal_number  # as a shell tells it
    except SIGTERMException:
        return 128 + signal.SIGTERM
    except (*USER_ERRORS, MisconfigurationException) as error:
        if debug:
            raise
        print(f"error: {in_words(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if debug or not is_out_of_memory(error):
            raise
        what = (str(error).strip().splitlines() or ["none left"])[0].rstrip(".")
        print(
            f"error: Expected enough memory, got: {what}. Lower `data.batch_size` or `data.eval_batch_size`, take a "
            "smaller network, or end what else runs here.",
            file=sys.stderr,
        )
        return 2


def in_words(error: Exception) -> str:
    """What an error says, and for one straight from the system what to do about it."""
    if not isinstance(error, OSError) or not isinstance(error.filename, str | bytes):
        return str(error)
    return (
        f"Expected to read or write {os.fsdecode(error.filename)}, got: {error.strerror}. Make sure that its folder is "
        "there, may be written and has room, and start again."
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, a GPU or a CPU ran out of memory; for the latter PyTorch has no class of its own."""
    import torch

    words = ("defaultcpuallocator", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error).lower() for w in words)


def dispatch(args: list[str]) -> int:
    """Runs the command that the line names; imports only what it needs."""
    command, rest = args[:1], args[1:]
    if command == ["report"]:
        from cifar_lightning.report.command import report

        report(rest)
        return 0
    if command == ["export"]:
        from cifar_lightning.export import export

        export(rest)
        return 0
    if command == ["predict"] and any(arg.split("=")[0] == "--images" for arg in rest):
        from cifar_lightning.inference import predict_pictures

        return predict_pictures(rest)
    from cifar_lightning.cli import CifarCLI

    CifarCLI(args)
    return 0
