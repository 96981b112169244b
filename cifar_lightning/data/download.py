"""The download of the official CIFAR-10 archive."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import queue
import threading
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError

from cifar_lightning.data.cache import FOLDER
from cifar_lightning.data.lock import locked
from cifar_lightning.data.official import Manifest, md5_of

__all__ = ["download_archive"]

logger = logging.getLogger(__name__)

_ANSWER_SECONDS = 12.0  # until a server answers, name resolution included; also the longest silence while reading
_BLOCK_BYTES = 1 << 20


def download_archive(root: Path, manifest: Manifest) -> None:
    """Downloads the official archive into the data root; a second process waits for the first.

    Args:
        root: the data root; created when it does not exist.
        manifest: says from where, under which name, and with which MD5.

    Raises:
        ValueError: when the root cannot be written, no server answers within 12 seconds, the connection breaks or falls
            silent as long, or the file is not the published one. Nothing partial is left.
    """
    root = root.absolute()
    is_new = not root.exists()
    try:
        with locked(root / FOLDER / "download.lock"):
            if not (root / manifest.archive).exists():  # Else another process has brought it meanwhile.
                _download_locked(root, manifest)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Expected a `data.root` that can be written for `data.download`, got {root}: {reason}."
        ) from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                root.rmdir()  # fails when the download has come


def _download_locked(root: Path, manifest: Manifest) -> None:
    """Fetches the archive under a temporary name, checks it and renames it."""
    unfinished = root / f"{manifest.archive}.part"  # A fixed name: what a killed process left is overwritten.
    logger.info("Downloading %s to %s", manifest.url, root)
    try:
        with open(unfinished, "w+b") as file:
            _fetch(manifest.url, file)
            file.flush()
            os.fsync(file.fileno())
            found, received = md5_of(file), file.tell()
        if found != manifest.archive_md5:
            raise ValueError(
                f"Expected MD5 {manifest.archive_md5} of {manifest.url}, got {found} for the {received:,} bytes that "
                "came. The connection was cut or something answered in the server's place: try again."
            )
        os.replace(unfinished, root / manifest.archive)
    finally:
        unfinished.unlink(missing_ok=True)


def _fetch(url: str, file: IO[bytes]) -> None:
    """Writes what a URL answers to a file.

    Raises:
        ValueError: when the network is at fault.
        OSError: when the file cannot be written.
    """
    try:
        response = _open_url(url, _ANSWER_SECONDS)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if type(error) is URLError else error  # Its own text is a repr.
        raise ValueError(f"Cannot download {url}: {reason}.") from error
    with response:
        while True:
            try:
                block = response.read(_BLOCK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise ValueError(f"The download of {url} broke off: {error}.") from error
            if not block:
                return
            file.write(block)


def _open_url(url: str, seconds: float) -> Any:
    """Opens a URL, proxies included, or gives up after so many seconds.

    A socket's timeout does not cover name resolution, which can hang for minutes on a machine without a network.
    The attempt runs in a daemon thread, which cannot keep the process from ending.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def attempt() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=seconds))
        except Exception as error:
            if isinstance(error, HTTPError):
                error.close()  # It is an open response as well.
            answers.put(error)

    threading.Thread(target=attempt, name="open-url", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
