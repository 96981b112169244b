"""The official CIFAR-10 batch files, in a folder or in their archive.

The batch files are pickles, and a pickle can run any code when it is loaded. One rule makes them safe: nothing is
unpickled unless its MD5, or that of the archive around it, is the published one. `_read_published` checks this.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, cast

import numpy as np
import torch

from cifar_lightning.data.split import ImageSet, SourceSplit, content_fingerprint

__all__ = ["Manifest", "OfficialArchive", "OfficialFiles", "official_manifest"]


@dataclass(frozen=True)
class Manifest:
    """Names and MD5 sums (hexadecimal) of the files of a data set in the format of CIFAR-10.

    Attributes:
        url: where the archive is published.
        archive: file name of the archive.
        archive_md5: MD5 of the archive.
        folder: folder of the batch files, in the data root and in the archive.
        train: (file name, MD5) of each training batch, in the order of the samples.
        test: (file name, MD5) of each test batch.
    """

    url: str
    archive: str
    archive_md5: str
    folder: str
    train: tuple[tuple[str, str], ...]
    test: tuple[tuple[str, str], ...]

    def batches(self, split: SourceSplit) -> tuple[tuple[str, str], ...]:
        """Return (file name, MD5) of each batch file of a split."""
        return self.train if split == "train" else self.test


def official_manifest() -> Manifest:
    """Return the published names and sums, which torchvision holds."""
    from torchvision.datasets import CIFAR10  # slow to import

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
        manifest: the expected files.

    Raises:
        ValueError: if any of the six batch files is missing.
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

    def key(self, split: SourceSplit) -> str:
        """Return the SHA-256 (hexadecimal) of names, sizes and modification times (ns) of the split's batch files."""
        return _stat_key(self.name, split, [self.folder / name for name, _ in self.manifest.batches(split)])

    def decode(self, split: SourceSplit) -> ImageSet:
        """Check and read the batch files of one split, without opening the others.

        Raises:
            ValueError: if a file cannot be read or is not the published one.
        """
        batches = self.manifest.batches(split)
        return _unpickle(_read_published(self.folder / name, md5, self.manifest) for name, md5 in batches)


class OfficialArchive:
    """The archive `cifar-10-python.tar.gz` in a data root, which is read without unpacking it to disk.

    Args:
        root: the data root.
        manifest: the expected files.
    """

    name: ClassVar[str] = "official archive"

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.path = root.absolute() / manifest.archive
        self.manifest = manifest

    def key(self, split: SourceSplit) -> str:
        """Return the SHA-256 (hexadecimal) of name, size and modification time (ns) of the archive, and the split."""
        return _stat_key(self.name, split, [self.path])

    def decode(self, split: SourceSplit) -> ImageSet:
        """Check the archive and read the batch files of one split in it.

        Raises:
            ValueError: if the archive cannot be read or is not the published one.
        """
        content = io.BytesIO(_read_published(self.path, self.manifest.archive_md5, self.manifest))
        names = [f"{self.manifest.folder}/{name}" for name, _ in self.manifest.batches(split)]
        with tarfile.open(fileobj=content, mode="r:gz") as tar:  # one pass: to go back is to decompress again
            files = {m.name: cast(IO[bytes], tar.extractfile(m)).read() for m in tar if m.name in names}
        return _unpickle(files[name] for name in names)


def _read_published(path: Path, md5: str, manifest: Manifest) -> bytes:
    """Return the content of a file if it is the published one.

    The file is read once, so that what is unpickled is what was checked.

    Raises:
        ValueError: if the file cannot be read or its MD5 is another.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(_unreadable(path, error)) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(
            f"Expected {path} to be the published file with MD5 {md5}, got MD5 {found}: it is damaged, incomplete or "
            f"another file. Delete it and download it again from {manifest.url}, or with `--data.download true`."
        )
    return content


def _unpickle(batches: Iterable[bytes]) -> ImageSet:
    """Return the images of batch files, in order. Only pass what `_read_published` has checked.

    A batch file is a pickled dictionary of `data`, uint8 (n, 3072) with 1024 red, 1024 green and 1024 blue pixels a
    row, and `labels`, a list of n integers in [0, 9].
    """
    with warnings.catch_warnings():
        # NumPy 2.4 expects booleans where these pickles of Python 2 hold 0 and 1.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        loaded = [pickle.loads(batch, encoding="bytes") for batch in batches]
    images = torch.from_numpy(np.concatenate([batch[b"data"] for batch in loaded]).reshape(-1, 3, 32, 32))
    labels = torch.tensor([label for batch in loaded for label in batch[b"labels"]])
    return ImageSet(images, labels, content_fingerprint(images, labels))


def _unreadable(path: Path, error: OSError) -> str:
    return f"Cannot read {path}: {error.strerror or error}. Check its permissions, or delete it and download it again."


def _stat_key(source: str, split: SourceSplit, paths: list[Path]) -> str:
    digest = hashlib.sha256(f"{source}\0{split}\n".encode())
    for path in paths:
        try:
            status = path.stat()
        except OSError as error:
            raise ValueError(_unreadable(path, error)) from error
        digest.update(b"%b\0%d\0%d\n" % (os.fsencode(path.name), status.st_size, status.st_mtime_ns))
    return digest.hexdigest()
