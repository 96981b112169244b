"""How the program speaks: quiet libraries, plain log lines, and one message for an error of its user."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO, cast

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
    ".*SWA is currently only supported every epoch.*",  # its schedule takes the place of ours, as it should
    ".*accumulate_grad_batches != 1.* and overriding.*",  # ours is meant to be called at each optimizer step
    ".*requested to overfit but enabled.*",  # the data module keeps one order; Lightning does not know its loader
    ".*torch.jit.trace.* is deprecated.*",  # how torch's own TensorBoard writer makes the graph
    ".*might cause the trace to be incorrect.*",  # the graph is drawn and never run
)
# Lines of Lightning that advertise, or say what hardware is not there or what was asked for.
NOISE = (
    "💡 Tip",
    "Loading `train_dataloader`",
    "Restoring states",
    "Loaded model weights",
    "TPU available",
    "Seed set to",
    "Time limit reached",  # the line about the stop has the step
    "Running in `fast_dev_run` mode",
    "GPU available: False",
    "`Trainer.fit` stopped: `max_",  # in the middle of the progress bar
)
USER_ERRORS = (ValueError, OSError, ImportError)
RANKS = {
    "RANK": ("WORLD_SIZE", "MASTER_ADDR"),
    "LOCAL_RANK": ("WORLD_SIZE", "MASTER_ADDR"),
    "SLURM_PROCID": ("SLURM_NTASKS",),
    "JSM_NAMESPACE_RANK": ("JSM_NAMESPACE_SIZE",),
}
"""Variables that number the processes of one training, in the order in which Lightning looks, and those that torchrun,
Lightning, SLURM and LSF set beside them."""


class LossyStream:
    """A text stream that drops what cannot be written, and reports the first loss on another stream.

    A reader that has gone (`fit | head`) or a full disk under a log costs the output and not the training.

    Args:
        stream: standard output or standard error.
        name: of it, for the report.

    Attributes:
        other: where to report; None for nowhere.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self.other: LossyStream | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, if it can be."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, if they can be."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush, if it can be."""
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # a ValueError where it is closed, or has no such character
            other, self.other = self.other, None
            if other is not None:
                reason = getattr(error, "strerror", None) or error
                other.write(f"Could not write to {self._name}: {reason}. The program goes on.\n")

    def give_up(self) -> None:
        """Send what could not be written nowhere: Python would try again when it ends, and fail."""
        self.other = None
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def lossy_output() -> Iterator[None]:
    """Let no loss of output end the work: see `LossyStream`."""
    with contextlib.ExitStack() as stack:
        # A stream that was closed before the program started is None.
        given = [stream or stack.enter_context(open(os.devnull, "w")) for stream in (sys.stdout, sys.stderr)]
        out, err = LossyStream(given[0], "standard output"), LossyStream(given[1], "standard error")
        out.other, err.other = err, out
        try:
            with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
                yield
        finally:
            for stream in (out, err):
                stream.flush()
            for stream in (out, err):
                stream.give_up()


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
    return run_script(lambda: dispatch([arg for arg in args if arg != "--debug"]), debug, args)


def run_script(work: Callable[[], int], debug: bool = False, args: Sequence[str] = ()) -> int:
    """Does what a script does, with the same messages.

    Args:
        work: gives the exit status.
        debug: show a user's error with its traceback.
        args: the command line, whose options messages name as they are typed.

    Returns:
        The exit status; 2 for a user's error, 128 and the number of a signal that ended it. Output that cannot be
        written changes nothing about it.
    """
    with lossy_output():
        if problem := stray_rank():
            print(f"error: {problem}", file=sys.stderr)
            return 2
        return run_with_messages(work, debug, args)


def stray_rank() -> str:
    """Return what is wrong when the environment numbers this process as one of several that nobody has started.

    Such a process would leave the run folder to a first one that is not there, and wait for it. Empty when all is well.
    """
    for rank, beside in RANKS.items():
        number = os.environ.get(rank, "0")
        missing = [name for name in beside if name not in os.environ]
        if not number.isdecimal() or (int(number) and missing):
            without = f" without {' and '.join(missing)}" if missing else ""
            return (
                f"Expected {rank} to be the number of this process, set by a launcher together with "
                f"{' and '.join(beside)}, got {rank}={number}{without}. Take it away with `unset {rank}`, or start all "
                "processes with torchrun or srun."
            )
    return ""


def run_with_messages(work: Callable[[], int], debug: bool, args: Sequence[str]) -> int:
    """Do the work, with the errors of its user as messages: see `run_script`."""
    for message in IRRELEVANT:
        warnings.filterwarnings("ignore", message)

    from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

    from cifar_lightning.processes import Interrupted
    from cifar_lightning.usage.config_files import UsageError

    set_up_logging()
    leave_out_writers(threading.excepthook)
    try:
        return work()
    except Interrupted as stop:
        return stop.exit_status
    except SIGTERMException:
        return 128 + signal.SIGTERM
    except (*USER_ERRORS, MisconfigurationException) as error:
        if debug:
            raise
        message = in_words(error)
        # A mistake in a file is named as it stands there.
        print(f"error: {message if isinstance(error, UsageError) else as_typed(message, args)}", file=sys.stderr)
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
    """Whether Python, a GPU or a CPU ran out of memory; for the latter PyTorch has no class of its own."""
    import torch

    words = ("defaultcpuallocator", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(w in str(error).lower() for w in words)


def dispatch(args: list[str]) -> int:
    """Runs the command that the line names; imports only what it needs."""
    from cifar_lightning import imports

    args = imports.named_on_line(args)
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
