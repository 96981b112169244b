"""The official CIFAR-10 batch files, as a folder or in their archive.

Nothing in a file is unpickled before its MD5 is the published one, and even then by an unpickler that knows
only what NumPy arrays need.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, ClassVar

import numpy as np
import torch

from cifar_lightning.data.cache import Part
from cifar_lightning.data.split import Split, content_fingerprint

__all__ = ["Manifest", "OfficialArchive", "OfficialFiles", "md5_of", "official_manifest"]

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """Names and MD5 sums (hexadecimal) of the files of a data set in the format of CIFAR-10.

    Attributes:
        url: where the archive is published.
        archive: file name of the archive.
        archive_md5: MD5 of the archive.
        folder: folder of the batch files, in the data root as in the archive.
        train: (file name, MD5) of each training batch, in the order of the samples.
        test: (file name, MD5) of each test batch.
    """

    url: str
    archive: str
    archive_md5: str
    folder: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]

    def batches(self, part: Part) -> tuple[tuple[str, str], ...]:
        """(file name, MD5) of each batch file of a part."""
        return self.train if part == "train" else self.test


def official_manifest() -> Manifest:
    """The published files, as torchvision knows them."""
    from torchvision.datasets import CIFAR10  # Slow to import.

    return Manifest(
        url=CIFAR10.url,
        archive=CIFAR10.filename,
        archive_md5=CIFAR10.tgz_md5,
        folder=CIFAR10.base_folder,
        train=tuple((name, md5) for name, md5 in CIFAR10.train_list),
        test=tuple((name, md5) for name, md5 in CIFAR10.test_list),
    )


class OfficialFiles:
    """The folder `cifar-10-batches-py/` in a data root.

    Args:
        root: the data root.
        manifest: the files to expect.

    Raises:
        ValueError: when one of the six batch files is missing.
    """

    name: ClassVar[str] = "official batches"

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.folder = root.absolute() / manifest.folder
        self.manifest = manifest
        missing = [name for name, _ in manifest.train + manifest.test if not os.path.isfile(self.folder / name)]
        if missing:
            raise ValueError(
                f"Expected the official batch files in {self.folder}, got no {', '.join(missing)}. "
                f"Unpack {manifest.archive} again, or remove the folder to use another source."
            )

    def key(self, part: Part) -> str:
        """Hexadecimal SHA-256 over names, sizes and modification times (ns) of the part's batch files."""
        return _stat_key(self.name, part, [self.folder / name for name, _ in self.manifest.batches(part)])

    def decode(self, part: Part) -> Split:
        """Checks and reads the batch files of one part; opens no other file.

        Raises:
            ValueError: when a file cannot be read, is not the published one, or holds something else.
        """
        batches = []
        for name, md5 in self.manifest.batches(part):
            path = self.folder / name
            try:
                content = path.read_bytes()  # Once: what is checked is what is unpickled.
            except OSError as error:
                raise ValueError(_unreadable(path, error)) from error
            _check_md5(str(path), md5, hashlib.md5(content, usedforsecurity=False).hexdigest(), self.manifest)
            batches.append(_parse_batch(content, str(path)))
        return _join(batches)


class OfficialArchive:
    """The archive `cifar-10-python.tar.gz` in a data root. It is read where it lies and never unpacked to disk.

    Args:
        root: the data root.
        manifest: the files to expect.
    """

    name: ClassVar[str] = "official archive"

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.path = root.absolute() / manifest.archive
        self.manifest = manifest

    def key(self, part: Part) -> str:
        """Hexadecimal SHA-256 over name, size and modification time (ns) of the archive, and the part."""
        return _stat_key(self.name, part, [self.path])

    def decode(self, part: Part) -> Split:
        """Checks the archive and reads the batch files of one part in it.

        Raises:
            ValueError: when the archive cannot be read, is not the published one, or holds something else.
        """
        wanted = {f"{self.manifest.folder}/{name}": md5 for name, md5 in self.manifest.batches(part)}
        try:
            with open(self.path, "rb") as file:
                _check_md5(str(self.path), self.manifest.archive_md5, md5_of(file), self.manifest)
                file.seek(0)
                contents = _read_members(file, set(wanted), self.path)
        except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
            raise ValueError(_unreadable(self.path, error)) from error
        batches = []
        for name, md5 in wanted.items():
            # Again, for the file on the disk may have been replaced since its own sum was taken.
            found = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
            _check_md5(f"{self.path}:{name}", md5, found, self.manifest)
            batches.append(_parse_batch(contents[name], f"{self.path}:{name}"))
        return _join(batches)


def md5_of(file: IO[bytes]) -> str:
    """Hexadecimal MD5 of a whole open file; leaves its position at the end."""
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _check_md5(name: str, expected: str, found: str, manifest: Manifest) -> None:
    if found != expected:
        raise ValueError(
            f"Expected {name} to be the published file with MD5 {expected}, got MD5 {found}: it is damaged, incomplete "
            f"or another file. Delete it and bring it again from {manifest.url}, or by `--data.download true`."
        )


def _unreadable(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return f"Cannot read {path}: {reason}. Check its permissions, or delete it and bring it again."


def _stat_key(source: str, part: Part, paths: list[Path]) -> str:
    digest = hashlib.sha256(f"{source}\0{part}\n".encode())
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise ValueError(_unreadable(path, error)) from error
        digest.update(b"%b\0%d\0%d\n" % (os.fsencode(path.name), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def _read_members(file: IO[bytes], wanted: set[str], path: Path) -> dict[str, bytes]:
    """Reads the wanted members of a gzipped tar in one pass, once every member has been seen to be harmless.

    Args:
        file: the open archive, at its start.
        wanted: member names.
        path: the archive's path for messages.

    Raises:
        ValueError: when a member is not a plain file or folder inside, or a wanted one is missing.
    """
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=file, mode="r:gz") as tar:
        for member in tar:
            inside = PurePosixPath(member.name)
            if inside.is_absolute() or ".." in inside.parts or not (member.isreg() or member.isdir()):
                raise ValueError(
                    f"Expected {path} to hold plain files in {sorted(wanted)[0].split('/')[0]}/, got the member "
                    f"{member.name!r}: refused. Delete the archive and bring the official one."
                )
            if member.name in wanted:
                extracted = tar.extractfile(member)
                assert extracted is not None  # It is a regular file.
                contents[member.name] = extracted.read()
    missing = sorted(wanted - set(contents))
    if missing:
        raise ValueError(
            f"Expected {path} to hold {', '.join(missing)}, got none. Delete the archive and bring the official one."
        )
    return contents


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles containers, strings, numbers and NumPy arrays, whichever NumPy wrote them, and nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        """The stand-in for a global that the pickle names. Importing it by name would run what the pickle chose."""
        allowed: dict[tuple[str, str], Callable[..., object]] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _dtype,
            # NumPy 2 calls the module of this function numpy._core; asking an array for it works in both.
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # type: ignore[dict-item]
            ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # type: ignore[dict-item]
            ("_codecs", "encode"): _encode_latin1,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"refused the global {module}.{name}")
        return allowed[module, name]


def _dtype(kind: str | bytes, *_: object) -> np.dtype:
    """Drops the flags `align` and `copy`: the official files hold numbers, and NumPy 2.4.0 warns unless booleans."""
    return np.dtype(kind)  # type: ignore[arg-type]


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in a protocol 2 pickle. Any other codec is not for us to run."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"refused the codec {encoding}")
    return codecs.latin_1_encode(text)[0]


def _parse_batch(content: bytes, name: str) -> tuple[np.ndarray, list[int]]:
    """Unpickles a batch file whose MD5 has been checked.

    Args:
        content: the whole file.
        name: what messages call it.

    Returns:
        uint8 pixels, shape (n, 3072), as 1024 red, 1024 green and 1024 blue rows first, and n labels in [0, 9].

    Raises:
        ValueError: when the file is no pickle of that.
    """
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # A broken pickle can raise nearly anything.
        raise ValueError(f"Expected {name} to be a pickle of arrays and numbers alone, got: {error}.") from error
    batch = batch if isinstance(batch, dict) else {}
    data, labels = batch.get(b"data"), batch.get(b"labels")
    problems = []
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        shape = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        problems.append(f"b'data' is not uint8 (n, 3072) but {shape}")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label <= 9 for label in labels):
        problems.append("b'labels' is not a list of integers in [0, 9]")
    elif isinstance(data, np.ndarray) and data.ndim and len(data) != len(labels):
        problems.append(f"{len(data)} images have {len(labels)} labels")
    if problems:
        raise ValueError(f"Expected {name} to hold a CIFAR-10 batch, got: {'; '.join(problems)}.")
    assert isinstance(data, np.ndarray)
    assert isinstance(labels, list)
    return data, labels


def _join(batches: list[tuple[np.ndarray, list[int]]]) -> Split:
    """One part from its batches, in order."""
    images = torch.from_numpy(np.concatenate([data for data, _ in batches]).reshape(-1, 3, 32, 32))
    labels = torch.tensor([label for _, labels in batches for label in labels])
    return Split(images, labels, content_fingerprint(images, labels))
