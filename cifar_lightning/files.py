"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["not_written", "replacing", "write_bytes_atomic", "write_text_atomic"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends, flushed; an error leaves `path` alone.

    What can only write to a path may write to the file's `name`.

    Raises:
        OSError: when it cannot be written, saying which and why.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner reads
        os.replace(temporary, path)
    except BaseException as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def not_written(path: Path, error: OSError) -> OSError:
    """An error that says what was not written, why, and what to do."""
    before = "what was there is as it was" if path.exists() else "nothing was written"
    return OSError(
        f"Expected to write {path}, got: {error.strerror or error} ({before}). Make room or choose another folder, and "
        "start again."
    )


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text_atomic(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    write_bytes_atomic(path, text.encode())
