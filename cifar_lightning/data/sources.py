"""The source of the images that a data root holds, and their way through the cache."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

from cifar_lightning.data import official
from cifar_lightning.data.cache import cached
from cifar_lightning.data.download import download_archive
from cifar_lightning.data.folders import ClassFolders
from cifar_lightning.data.split import ImageSet, SourceSplit
from cifar_lightning.files import expanded

__all__ = ["NoDataError", "Source", "default_root", "find_source", "load_images"]

logger = logging.getLogger(__name__)


_ALTERNATIVES = """There are three alternatives:
  - put the official archive or class folders at --data.root, or set CIFAR10_ROOT to their folder;
  - download the official archive with --data.download true;
  - train on the embedded stand-in, which is not CIFAR-10, with --data.source synthetic."""


class NoDataError(ValueError):
    """The data root holds no data, intact or damaged, and none could be downloaded."""


class Source(Protocol):
    """A place that holds both published splits of CIFAR-10."""

    @property
    def name(self) -> str:
        """Name in logs and in `result.json`."""

    def key(self, split: SourceSplit) -> str:
        """Return a hexadecimal key that changes when the files of the split do, without reading a file."""

    def decode(self, split: SourceSplit) -> ImageSet:
        """Read one split, and no file of the other."""


def default_root() -> Path:
    """Return `$CIFAR10_ROOT` if it is set, else `data` in the working directory.

    Raises:
        ValueError: if the variable holds a path that cannot be expanded.
    """
    return Path(expanded(os.environ.get("CIFAR10_ROOT") or "data", "CIFAR10_ROOT"))


def find_source(root: Path, download: bool, manifest: official.Manifest | None = None) -> Source:
    """Return the first source that the data root holds: official batches, official archive, class folders.

    A damaged source is an error rather than a reason to try the next one, which might hold other images.

    Args:
        root: the data root.
        download: download the official archive if the root holds no source.
        manifest: the expected official files; None for the published ones.

    Raises:
        NoDataError: if there is no source and none could be downloaded; a subclass of ValueError.
        ValueError: if there is a damaged source.
    """
    root = root.absolute()
    manifest = manifest or official.official_manifest()
    names = _listing(root)
    if names is not None:
        if manifest.folder in names:
            return official.OfficialFiles(root, manifest)
        if manifest.archive in names:
            return official.OfficialArchive(root, manifest)
        if not names.isdisjoint({"train", "test"}):
            return ClassFolders(root)
    if not download:
        found = "a folder without any of them" if names is not None else "a folder that does not exist"
        raise NoDataError(
            f"Expected `data.root` to hold CIFAR-10 as {manifest.folder}/, {manifest.archive}, or images in "
            f"train/<class>/ and test/<class>/, got {found}: {root}\n{_ALTERNATIVES}"
        )
    try:
        download_archive(root, manifest)
    except ValueError as error:
        raise NoDataError(f"{error}\n{_ALTERNATIVES}") from error
    return official.OfficialArchive(root, manifest)


def load_images(source: Source, split: SourceSplit, root: Path) -> ImageSet:
    """Return one split of the data set, from the cache if it has been decoded before.

    Args:
        source: where the images come from.
        split: "train" or "test"; no file of the other one is read.
        root: the data root, which holds the cache.

    Raises:
        ValueError: if the source is damaged.
    """

    def decode() -> ImageSet:
        what = "training" if split == "train" else "test"
        logger.info("Decoding the %s images of %s (%s), once for all later runs", what, root.absolute(), source.name)
        return source.decode(split)

    return cached(root, split, source.key(split), decode)


def _listing(root: Path) -> set[str] | None:
    """Return the names in a folder, or None if it does not exist."""
    try:
        return set(os.listdir(root))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(
            f"Expected `data.root` to be a folder that can be read, got {root}: {error.strerror}."
        ) from error
