"""Writes tiny CIFAR-10 trees in the true on-disk formats, for the tests of every module."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from cifar_lightning import CLASSES
from cifar_lightning.data.official import Manifest

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"


def random_images(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return noise around a colour for each class: uint8 (N, 3, 32, 32) for labels (N,)."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(10).integers(40, 216, size=(10, 3))
    noise = rng.integers(-40, 40, size=(len(labels), 3, 32, 32))
    return (colours[labels][:, :, None, None] + noise).astype(np.uint8)


_PicklerInPython: Any = pickle._Pickler  # the C implementation cannot be extended


class _Python2Pickler(_PicklerInPython):
    """Write as Python 2 and its NumPy did: byte strings, the old name of a function, numbers for booleans."""

    dispatch: ClassVar[dict[type, Callable[..., None]]] = dict(_PicklerInPython.dispatch)

    def save_string(self, value: bytes | str) -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        head = b"U" + bytes([len(content)]) if len(content) < 256 else b"T" + struct.pack("<i", len(content))
        self.write(head + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__name__", None) == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, np.dtype):
            return NotImplemented
        reduced: Any = obj.__reduce__()
        function, (kind, *flags), state = reduced
        return function, (kind, *map(int, flags)), state


def python2_pickle(value: object) -> bytes:
    """Return the bytes of a protocol 2 pickle as in the official files."""
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def batch(n: int, seed: int, title: str = "training batch 1 of 5") -> dict[bytes, object]:
    """Return the content of one official batch file: n images, all classes equally often, in a seeded order."""
    labels = np.random.default_rng(seed).permutation(np.arange(n) % 10)
    return {
        b"batch_label": title.encode(),
        b"labels": labels.tolist(),
        b"data": random_images(labels, seed).reshape(n, 3072),
        b"filenames": [f"image_s_{i:06d}.png".encode() for i in range(n)],
    }


def manifest_of(files: dict[str, bytes], archive: bytes = b"", url: str = "http://127.0.0.1:9/none.tar.gz") -> Manifest:
    """Return the manifest that declares these batch files, by name, and this archive official."""
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    return Manifest(
        url=url,
        archive=ARCHIVE,
        archive_md5=hashlib.md5(archive).hexdigest(),
        folder=FOLDER,
        train=tuple((name, md5) for name, md5 in sorted(sums.items()) if name.startswith("data_batch")),
        test=tuple((name, md5) for name, md5 in sorted(sums.items()) if name.startswith("test_batch")),
    )


def batch_files(n_per_batch: int = 20, seed: int = 0) -> dict[str, bytes]:
    """Return the six batch files by name; n_per_batch images each."""
    files = {
        f"data_batch_{i}": python2_pickle(batch(n_per_batch, seed * 10 + i, f"training batch {i} of 5"))
        for i in range(1, 6)
    }
    return {**files, "test_batch": python2_pickle(batch(n_per_batch, seed * 10 + 6, "testing batch 1 of 1"))}


def tar_gz(files: dict[str, bytes]) -> bytes:
    """Return a .tar.gz of these files, by member name, in the official folder if the name has no slash."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo(FOLDER)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name if "/" in name else f"{FOLDER}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)  # no time inside, so that equal files have equal MD5 sums


def write_official(root: Path, n_per_batch: int = 20, seed: int = 0, archive: bool = False) -> Manifest:
    """Write the six official batch files, or the archive of them, and return the manifest that matches them.

    Args:
        root: the data root; created.
        n_per_batch: images a batch file; there are five for training and one for testing.
        seed: of the pixels and of the order of the labels.
        archive: write `cifar-10-python.tar.gz` instead of the folder.
    """
    files = batch_files(n_per_batch, seed)
    meta = {
        "batches.meta": python2_pickle({b"label_names": [name.encode() for name in CLASSES], b"num_vis": 3072}),
        "readme.html": b"<html></html>",
    }
    root.mkdir(parents=True, exist_ok=True)
    packed = tar_gz({**dict(reversed(files.items())), **meta})  # the official archive is not sorted by name
    if archive:
        (root / ARCHIVE).write_bytes(packed)
    else:
        (root / FOLDER).mkdir(exist_ok=True)
        for name, content in {**files, **meta}.items():
            (root / FOLDER / name).write_bytes(content)
    return manifest_of(files, packed)


def write_class_folders(root: Path, train_per_class: int = 4, test_per_class: int = 2, seed: int = 0) -> None:
    """Write PNGs as `train/<class>/<n>_<class>.png` and `test/<class>/...`.

    Args:
        root: the data root; created.
        train_per_class: training images of each of the ten classes.
        test_per_class: test images of each of the ten classes.
        seed: of the pixels.
    """
    for offset, (part, n) in enumerate({"train": train_per_class, "test": test_per_class}.items()):
        labels = np.arange(10).repeat(n)
        for i, (image, label) in enumerate(zip(random_images(labels, 2 * seed + offset), labels, strict=True)):
            folder = root / part / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i % n:04d}_{CLASSES[label]}.png")
