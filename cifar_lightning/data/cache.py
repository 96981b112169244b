"""Cache of the decoded images: one uncompressed file for each split, shared by all runs."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from cifar_lightning.data.split import ImageSet, SourceSplit
from cifar_lightning.files import replacing

__all__ = ["CACHE_FOLDER", "cached"]

logger = logging.getLogger(__name__)

CACHE_FOLDER = ".cifar_lightning"
"""Name of the folder in the data root that holds the cache files and the lock files."""

_FORMAT = 1  # part of every file name: increase it when the content of a cache file or the decoding changes


def cached(root: Path, split: SourceSplit, key: str, decode: Callable[[], ImageSet]) -> ImageSet:
    """Return the images of a split from the cache; decode and cache them if they are not there.

    The cache file is in `<root>/.cifar_lightning/`, or in the user's cache folder if the root is read-only. It holds
    plain arrays and is replaced as a whole. Processes that start at once wait for the first one to write it. A damaged
    file is replaced. If no folder can be written, the images are decoded every time.

    Args:
        root: the data root.
        split: "train" or "test".
        key: hexadecimal key that changes whenever the source files of the split do.
        decode: reads the images from the source.

    Raises:
        ValueError: what `decode` raises.
    """
    name = f"{split}-v{_FORMAT}-{key[:20]}.npz"
    folders = _folders(root)
    for folder in folders:  # without the lock: a read-only root can have a cache, but no lock
        if (images := _read(folder / name)) is not None:
            return images

    decode_once = functools.cache(decode)
    problems = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{split}.lock"):
                # Another process may have written it meanwhile. A damaged file has been reported above.
                images = _read(folder / name, log_level=logging.DEBUG)
                if images is None:
                    images = decode_once()
                    _write(folder / name, images)
                    for path in folder.iterdir():  # files of older keys, and what killed processes left
                        if path.name.removeprefix(".").startswith(f"{split}-") and path.name != name:
                            path.unlink(missing_ok=True)
            return images
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            problems.append(f"{folder}: {getattr(error.__cause__ or error, 'strerror', None) or error}")
    _warn_uncached(root, "; ".join(problems))
    return decode_once()


def _folders(root: Path) -> list[Path]:
    """Return the folders that may hold the cache files, in order of preference."""
    root = root.absolute()
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    # A user without a home directory has no cache folder either, rather than one called "~".
    return [root / CACHE_FOLDER, *([user / "cifar_lightning" / name] if user.is_absolute() else [])]


def _read(path: Path, log_level: int = logging.WARNING) -> ImageSet | None:
    """Return the content of a cache file, or None if it does not exist or is damaged. The zip layer checks a CRC-32."""
    try:
        # Opened here, because np.load leaves a file open that it cannot read.
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
    except Exception as error:  # damage raises zip, zlib, header, memory and other errors; all are handled alike
        logger.log(log_level, "Replacing the damaged cache file %s (%s: %s)", path, type(error).__name__, error)
        return None
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), str(fingerprint))


def _write(path: Path, images: ImageSet) -> None:
    """Write a cache file as a whole."""
    pixels, labels = images.images.numpy(), images.labels.numpy()
    with replacing(path) as file:
        np.savez(file, images=pixels, labels=labels, fingerprint=np.array(images.fingerprint))


@functools.cache
def _warn_uncached(root: Path, problems: str) -> None:
    """Warn once for each root and cause, not for each split."""
    logger.warning("The images of %s are decoded in every run, because no cache can be written: %s", root, problems)
