"""The decoded images of one part of the data set, kept in one uncompressed file that many runs share."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cifar_lightning.data.lock import locked
from cifar_lightning.data.split import Split

__all__ = ["FOLDER", "Part", "cached"]

logger = logging.getLogger(__name__)

Part = Literal["train", "test"]

FOLDER = ".cifar_lightning"
"""Name of the folder in the data root that holds the cache files and the locks."""

_FORMAT = 1  # Part of every file name: raise it when the content of a cache file or the decoding changes.


def cached(root: Path, part: Part, key: str, decode: Callable[[], Split]) -> Split:
    """Reads a part from the cache, or decodes it and leaves it there for the next run.

    The file lies in `<root>/.cifar_lightning/`, or in the user's cache folder when the root cannot be written. It
    holds plain arrays, is replaced as a whole, and is written by one process while the others wait for it. A file
    that cannot be read is made anew; when no folder can be written the part is decoded every time.

    Args:
        root: the data root.
        part: "train" or "test".
        key: hexadecimal key that changes whenever the files behind the part do.
        decode: makes the part from its source.

    Raises:
        ValueError: what `decode` raises.
    """
    name = f"{part}-v{_FORMAT}-{key[:20]}.npz"
    folders = _folders(root)
    for folder in folders:  # Without the lock: a finished file is never half there, and a read-only root has no lock.
        split = _read(folder / name)
        if split is not None:
            return split

    decode_once = functools.cache(decode)
    problems = []
    for folder in folders:
        try:
            return _read_or_write(folder, part, name, decode_once)
        except (OSError, NotImplementedError) as error:
            problems.append(f"{folder}: {getattr(error, 'strerror', None) or error}")
    _warn_uncached(root, "; ".join(problems))
    return decode_once()


def _folders(root: Path) -> list[Path]:
    """Where cache files may lie, in order of preference: the root itself, then the user's cache folder."""
    root = root.absolute()
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    # A user without a home directory has no cache folder either, rather than one called "~".
    return [root / FOLDER, *([user / "cifar_lightning" / name] if user.is_absolute() else [])]


def _read_or_write(folder: Path, part: Part, name: str, decode: Callable[[], Split]) -> Split:
    """Decodes into a folder under the part's lock, unless another process has done so by the time it is held."""
    with locked(folder / f"{part}.lock"):
        split = _read(folder / name, log_level=logging.DEBUG)  # If it is damaged, that has been said before.
        if split is None:
            split = decode()
            _write(folder / name, split)
            _remove_others(folder, part, name)
    return split


def _read(path: Path, log_level: int = logging.WARNING) -> Split | None:
    """The part in a cache file, or None when there is none or it is damaged. The zip layer checks a CRC-32."""
    try:
        # Opened here, for np.load leaves a file open that it cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels, fingerprint = arrays["images"], arrays["labels"], arrays["fingerprint"]
        if images.dtype != np.uint8 or images.shape != (len(labels), 3, 32, 32):
            raise ValueError(f"images are {images.dtype} {images.shape}")
        if labels.dtype != np.int64 or labels.ndim != 1 or len(labels) == 0:
            raise ValueError(f"labels are {labels.dtype} {labels.shape}")
        if fingerprint.dtype.kind != "U" or fingerprint.ndim != 0:
            raise ValueError(f"fingerprint is {fingerprint.dtype} {fingerprint.shape}")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except Exception as error:  # Damage shows as zip, zlib, header, memory and other errors; the answer is the same.
        logger.log(log_level, "Replacing the damaged cache file %s (%s: %s)", path, type(error).__name__, error)
        return None
    return Split(torch.from_numpy(images), torch.from_numpy(labels), str(fingerprint))


def _write(path: Path, split: Split) -> None:
    """Writes a cache file under a temporary name and renames it, so that no reader meets an unfinished one."""
    unfinished = path.parent / f"{path.name}.tmp"  # A fixed name: what a killed process left is overwritten.
    try:
        with open(unfinished, "wb") as file:
            np.savez(
                file,
                images=split.images.numpy(),
                labels=split.labels.numpy(),
                fingerprint=np.array(split.fingerprint),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _remove_others(folder: Path, part: Part, name: str) -> None:
    """Removes the part's files of older keys, and what killed processes left of them. The lock must be held."""
    for path in folder.glob(f"{part}-*.npz*"):
        if path.name != name:
            path.unlink(missing_ok=True)


@functools.cache
def _warn_uncached(root: Path, problems: str) -> None:
    """Warns once per root and cause, not for each part."""
    logger.warning("The images of %s are decoded anew in every run, for no cache can be written: %s", root, problems)
