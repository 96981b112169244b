"""Download of the official CIFAR-10 archive."""

from __future__ import annotations

import hashlib
import http.client
import logging
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

from filelock import FileLock
from tqdm import tqdm

from cifar_lightning.data.cache import CACHE_FOLDER
from cifar_lightning.data.official import Manifest
from cifar_lightning.files import replacing

__all__ = ["download_archive"]

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 12.0  # to connect, and between two blocks
_BLOCK_BYTES = 1 << 20


def download_archive(root: Path, manifest: Manifest) -> None:
    """Download the official archive into the data root, unless another process does so first.

    Args:
        root: the data root; created if it does not exist.
        manifest: URL, file name and MD5 of the archive.

    Raises:
        ValueError: if the root cannot be written, the server does not respond within 12 seconds, the connection
            breaks, or the file is not the published one. No partial file is left.
    """
    archive = root.absolute() / manifest.archive
    try:
        (archive.parent / CACHE_FOLDER).mkdir(parents=True, exist_ok=True)
        with FileLock(archive.parent / CACHE_FOLDER / "download.lock"):
            if archive.exists():  # another process has downloaded it in the meantime
                return
            for partial in archive.parent.glob(f".{archive.name}.*"):  # left by a process that was killed
                partial.unlink()
            logger.info("Downloading %s to %s", manifest.url, root)
            with replacing(archive) as file:
                digest = hashlib.md5(usedforsecurity=False)
                for block in _blocks(manifest.url):
                    file.write(block)
                    digest.update(block)
                if digest.hexdigest() != manifest.archive_md5:
                    raise ValueError(
                        f"Expected MD5 {manifest.archive_md5} for {manifest.url}, got {digest.hexdigest()} for the "
                        f"{file.tell():,} bytes received. The connection broke, or a proxy answered: try again."
                    )
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        reason = getattr(error.__cause__ or error, "strerror", None) or error
        raise ValueError(
            f"Expected a `data.root` that can be written for `data.download`, got {archive.parent}: {reason}."
        ) from error


def _blocks(url: str) -> Iterator[bytes]:
    """Yield the content of a URL in blocks, with a progress bar in a terminal.

    Raises:
        ValueError: if the network or the server fails.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            total = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=total, desc="Downloading", unit="B", unit_scale=True, disable=None) as bar:
                while block := response.read(_BLOCK_BYTES):
                    bar.update(len(block))
                    yield block
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it is an open response
        reason = error.reason if type(error) is URLError else error
        raise ValueError(f"Cannot download {url}: {reason}.") from error
