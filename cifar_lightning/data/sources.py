"""Where the 60,000 images come from: which source a data root holds, and one part of it through the cache."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

from cifar_lightning.data import official
from cifar_lightning.data.cache import Part, cached
from cifar_lightning.data.download import download_archive
from cifar_lightning.data.folders import ClassFolders
from cifar_lightning.data.split import Split
from cifar_lightning.files import expanded

__all__ = ["NoDataError", "Part", "Source", "default_root", "find_source", "load_part"]

logger = logging.getLogger(__name__)


_WAYS_ON = """There are three ways on:
  - put the official archive or class folders at --data.root, or set CIFAR10_ROOT to where they are;
  - --data.download true fetches the official archive;
  - --data.source synthetic trains on the embedded stand-in, which is not CIFAR-10."""


class NoDataError(ValueError):
    """The data root holds no data, broken or whole, and none could be downloaded."""


class Source(Protocol):
    """A place that holds both parts of CIFAR-10."""

    @property
    def name(self) -> str:
        """What logs and `result.json` call it."""

    def key(self, part: Part) -> str:
        """Hexadecimal key that changes when the files of the part do; lists them and reads none."""

    def decode(self, part: Part) -> Split:
        """Reads one part, and no file of the other."""


def default_root() -> Path:
    """Return `$CIFAR10_ROOT` where it is set, else `data` in the working directory.

    Raises:
        ValueError: when the variable holds a path that cannot be expanded.
    """
    return Path(expanded(os.environ.get("CIFAR10_ROOT") or "data", "CIFAR10_ROOT"))


def find_source(root: Path, download: bool, manifest: official.Manifest | None = None) -> Source:
    """The first source that the data root holds: official batches, official archive, class folders.

    A source that is there but broken is an error: the next one might hold other images.

    Args:
        root: the data root.
        download: fetch the official archive when the root holds no source.
        manifest: the official files to expect; None for the published ones.

    Raises:
        NoDataError: when there is no source, and none could be downloaded; a ValueError like the others.
        ValueError: when there is a broken source.
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
            f"train/<class>/ and test/<class>/, got {found}: {root}\n{_WAYS_ON}"
        )
    try:
        download_archive(root, manifest)
    except ValueError as error:
        raise NoDataError(f"{error}\n{_WAYS_ON}") from error
    return official.OfficialArchive(root, manifest)


def load_part(source: Source, part: Part, root: Path) -> Split:
    """One part of the data set, from the cache when it has been decoded before.

    Args:
        source: where the images come from.
        part: "train" or "test"; no file of the other one is read.
        root: the data root, beside which the cache lies.

    Raises:
        ValueError: when the source is broken.
    """

    def decode() -> Split:
        what = "training" if part == "train" else "test"
        logger.info("Decoding the %s images of %s (%s), once for all later runs", what, root.absolute(), source.name)
        return source.decode(part)

    return cached(root, part, source.key(part), decode)


def _listing(root: Path) -> set[str] | None:
    """Names in a folder, or None when there is no such folder."""
    try:
        return set(os.listdir(root))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(
            f"Expected `data.root` to be a folder that can be read, got {root}: {error.strerror}."
        ) from error
