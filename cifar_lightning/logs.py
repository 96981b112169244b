"""What the program prints: log lines, without noise of the libraries, to streams that may be lost."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from tqdm import tqdm

from cifar_lightning.private import NOISE, TENSORBOARD_THREAD, WARNINGS

__all__ = ["LossyStream", "lossy_output", "set_up_logging", "silence_libraries"]


class LossyStream:
    """A text stream that drops what cannot be written and reports the first loss on another stream.

    A closed pipe (`fit | head`) or a full disk under a log loses output, and does not stop the training.

    Args:
        stream: standard output or standard error.
        name: its name, for the report.

    Attributes:
        other: the stream to report on; None for no report.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self.other: LossyStream | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, if possible."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write lines, if possible."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Flush, if possible."""
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
                other.write(f"Could not write to {self._name}: {reason}. The program continues.\n")

    def give_up(self) -> None:
        """Discard what could not be written; otherwise Python would try again at exit, and fail."""
        self.other = None
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())


@contextlib.contextmanager
def lossy_output() -> Iterator[None]:
    """Make standard output and standard error lossy, so that a loss of output does not stop the work."""
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
    """Write to the current standard error, also where it was replaced after this handler was made."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, above a progress bar where there is one."""
        self.stream = sys.stderr
        with tqdm.external_write_mode(self.stream):
            super().emit(record)


def set_up_logging() -> None:
    """Send log lines to standard error without a prefix, and drop the noise of Lightning.

    Lightning adds handlers when it is imported: call this once more afterwards.
    """
    project = logging.getLogger("cifar_lightning")
    if not project.handlers:
        project.addHandler(StderrHandler())
        project.setLevel(logging.INFO)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers[:] = [handler := StderrHandler()]
        handler.addFilter(lambda record: not record.getMessage().startswith(NOISE))


def silence_libraries() -> None:
    """Ignore warnings that do not apply here, and the traceback of TensorBoard's writer thread.

    An error of that thread, such as a full disk, is raised by the next write, which reports it.
    """
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message)
    previous = threading.excepthook
    if getattr(previous, "__module__", "") == __name__:
        return

    def report_other_threads(failure: threading.ExceptHookArgs) -> None:
        if type(failure.thread).__name__ != TENSORBOARD_THREAD:
            previous(failure)

    threading.excepthook = report_other_threads
