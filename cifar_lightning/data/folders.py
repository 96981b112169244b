"""CIFAR-10 as class folders of images: `train/<class>/*.png` and `test/<class>/*.png`, or JPEG."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cifar_lightning import CLASSES
from cifar_lightning.data.cache import Part
from cifar_lightning.data.split import Split, content_fingerprint

__all__ = ["ClassFolders"]

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MAX_NAMED = 10  # problems that a message names before it counts the rest
_CHUNK = 500  # images that a thread decodes at a time


class _Entry(NamedTuple):
    """One image file, as the folder lists it: nothing of it has been read. Size -1: a link that leads nowhere."""

    path: str
    label: int
    size: int
    mtime_ns: int
    is_regular: bool


class ClassFolders:
    """The twenty class folders below a data root.

    Args:
        root: the data root, which holds `train/` and `test/`.

    Raises:
        ValueError: when one of the twenty folders is missing, or there is a folder that is no class.
    """

    name: ClassVar[str] = "class folders"

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        missing, unknown = [], []
        for part in ("train", "test"):
            found = _folder_names(self.root / part)
            missing += [f"{part}/{name}" for name in CLASSES if name not in found]
            unknown += [f"{part}/{name}" for name in sorted(found - set(CLASSES))]
        problems = [f"missing: {', '.join(missing)}"] * bool(missing)
        problems += [f"not a class: {', '.join(unknown)}"] * bool(unknown)
        if problems:
            raise ValueError(
                f"Expected `data.root` {self.root} to hold the folders train/<class> and test/<class> for the classes "
                f"{', '.join(CLASSES)}, got {'; '.join(problems)}. Add the missing folders and move the others away."
            )

    def key(self, part: Part) -> str:
        """Hexadecimal SHA-256 over names, sizes and modification times (ns) of the part's images.

        Raises:
            ValueError: as `decode`, when a class folder is empty or cannot be listed.
        """
        digest = hashlib.sha256(self.name.encode())
        for entry in self._entries(part):
            name = os.fsencode(os.path.basename(entry.path))
            digest.update(b"%d/%b\0%d\0%d\n" % (entry.label, name, entry.size, entry.mtime_ns))
        return digest.hexdigest()

    def decode(self, part: Part) -> Split:
        """Decodes the images of one part, sorted by class, then by file name; reads no file of the other part.

        Args:
            part: "train" or "test".

        Returns:
            Images in RGB (grey and palette images are converted, transparency is dropped) and their labels.

        Raises:
            ValueError: naming every file that is not a readable 32x32 PNG or JPEG (the first ten, then a count), and
                every class folder that is empty or cannot be listed.
        """
        entries = self._entries(part)
        images = np.empty((len(entries), 3, 32, 32), dtype=np.uint8)

        def decode_chunk(start: int) -> list[str]:
            chunk = zip(entries[start : start + _CHUNK], images[start : start + _CHUNK], strict=True)
            return [problem for entry, out in chunk if (problem := _decode_into(entry, out))]

        # Inflating releases the interpreter lock, Python's share of the work does not: more threads gain nothing.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            problems = [p for found in pool.map(decode_chunk, range(0, len(entries), _CHUNK)) for p in found]
        if problems:
            named = "".join(f"\n  {problem}" for problem in problems[:_MAX_NAMED])
            rest = f"\n  and {len(problems) - _MAX_NAMED:,} more" if len(problems) > _MAX_NAMED else ""
            raise ValueError(
                f"Expected 32x32 PNG or JPEG images in {self.root / part}, got {len(problems):,} of {len(entries):,} "
                f"that are not:{named}{rest}\nReplace these files or remove them."
            )
        tensor = torch.from_numpy(images)
        labels = torch.tensor([entry.label for entry in entries])
        return Split(tensor, labels, content_fingerprint(tensor, labels))

    def _entries(self, part: Part) -> list[_Entry]:
        """The image files of a part in the order of the samples."""
        entries, problems = [], []
        for label, name in enumerate(CLASSES):
            folder = self.root / part / name
            try:
                found = _image_entries(folder, label)
            except OSError as error:
                problems.append(f"{folder} ({error.strerror})")
                continue
            if not found:
                problems.append(f"{folder} (no *.png, *.jpg or *.jpeg)")
            entries += found
        if problems:
            raise ValueError(
                f"Expected images in each of the ten class folders of {self.root / part}, got none from: "
                f"{', '.join(problems)}. Put the images there, 32x32 pixels each."
            )
        return entries


def _folder_names(folder: Path) -> set[str]:
    """Names of the folders in a folder, without hidden ones; empty when there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise ValueError(f"Cannot read {folder}: {error.strerror}. Check its permissions.") from error


def _image_entries(folder: Path, label: int) -> list[_Entry]:
    """The files of one class folder that are named as images, sorted by name; hidden files are no images."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.lower().endswith(_SUFFIXES) or entry.name.startswith(".") or entry.is_dir():
                continue
            try:
                status = entry.stat()
            except OSError:
                found.append(_Entry(entry.path, label, -1, -1, False))
            else:
                is_regular = stat.S_ISREG(status.st_mode)
                found.append(_Entry(entry.path, label, status.st_size, status.st_mtime_ns, is_regular))
    return sorted(found)


def _decode_into(entry: _Entry, out: npt.NDArray[np.uint8]) -> str | None:
    """Decodes one image file.

    Args:
        entry: the file.
        out: uint8, shape (3, 32, 32), takes the RGB pixels.

    Returns:
        What is wrong with the file, or None.
    """
    if not entry.is_regular:  # Opening a named pipe would wait for ever.
        return f"{entry.path}: not a regular file"
    try:
        with Image.open(entry.path, formats=("PNG", "JPEG")) as image:
            if image.size != (32, 32):  # From the header: the pixels of a bomb are never decoded.
                return f"{entry.path}: {image.width}x{image.height} pixels"
            if image.mode.startswith(("I", "F")):  # Pillow would clip these, not scale them.
                return f"{entry.path}: more than 8 bits a channel (Pillow mode {image.mode})"
            image.info.pop("transparency", None)  # Pillow warns about a palette that has one.
            out[:] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Image.UnidentifiedImageError:
        return f"{entry.path}: not a PNG or JPEG"
    except Exception as error:  # Pillow's decoders raise many types on damaged files, and each belongs in the report.
        return f"{entry.path}: {error}"
    return None
