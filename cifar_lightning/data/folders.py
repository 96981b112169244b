"""CIFAR-10 as class folders of images: `train/<class>/*.png` and `test/<class>/*.png`, or JPEG."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cifar_lightning import CLASSES
from cifar_lightning.data.pictures import JPEG_PNG_SUFFIXES, entries_below, is_hidden, is_picture, readable
from cifar_lightning.data.split import ImageSet, SourceSplit, content_fingerprint

__all__ = ["ClassFolders"]

_MAX_NAMED = 10  # problems in a message; the rest are counted
_CHUNK = 500  # images that a thread decodes at a time


class _Entry(NamedTuple):
    """An image file as the folder lists it, before it is read. Size -1: a broken link."""

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
        ValueError: if one of the twenty folders is missing, or there is a folder that is not a class, or a picture
            beside the class folders.
    """

    name: ClassVar[str] = "class folders"

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        missing, unknown, outside = [], [], []
        for split in ("train", "test"):
            found, stray = _names(self.root / split)
            missing += [f"{split}/{name}" for name in CLASSES if name not in found]
            unknown += [f"{split}/{readable(name)}" for name in sorted(found - set(CLASSES))]
            outside += [f"{split}/{readable(name)}" for name in sorted(stray)]
        problems = [f"missing: {', '.join(missing)}"] * bool(missing)
        problems += [f"not a class: {', '.join(unknown)}"] * bool(unknown)
        if outside:
            more = f" and {len(outside) - _MAX_NAMED:,} more" if len(outside) > _MAX_NAMED else ""
            problems.append(f"pictures outside the class folders: {', '.join(outside[:_MAX_NAMED])}{more}")
        if problems:
            raise ValueError(
                f"Expected `data.root` {self.root} to hold the folders train/<class> and test/<class> for the classes "
                f"{', '.join(CLASSES)}, got {'; '.join(problems)}. Add the missing folders and move the others away."
            )

    def key(self, split: SourceSplit) -> str:
        """Return the SHA-256 (hexadecimal) of names, sizes and modification times (ns) of the split's images.

        Raises:
            ValueError: as for `decode`, if a class folder holds anything but images.
        """
        digest = hashlib.sha256(self.name.encode())
        for entry in self._entries(split):
            name = os.fsencode(os.path.basename(entry.path))
            digest.update(b"%d/%b\0%d\0%d\n" % (entry.label, name, entry.size, entry.mtime_ns))
        return digest.hexdigest()

    def decode(self, split: SourceSplit) -> ImageSet:
        """Decode the images of one split, sorted by class, then by file name, without reading the other split.

        Args:
            split: "train" or "test".

        Returns:
            Images in RGB (grey and palette images are converted, transparency is dropped) and their labels.

        Raises:
            ValueError: if a file is not a readable 32x32 PNG or JPEG; or, before any file is read, if a class folder is
                empty or cannot be listed, holds a folder with pictures, or a picture that is not named as a PNG or
                JPEG. The message names the first ten and counts the rest.
        """
        entries = self._entries(split)
        images = np.empty((len(entries), 3, 32, 32), dtype=np.uint8)

        def decode_chunk(start: int) -> list[str]:
            chunk = zip(entries[start : start + _CHUNK], images[start : start + _CHUNK], strict=True)
            return [f"{readable(e.path)}: {problem}" for e, out in chunk if (problem := _decode_into(e, out))]

        # Decompression releases the interpreter lock, but the Python code does not: more threads gain nothing.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about metadata that is not used here
            problems = [p for found in pool.map(decode_chunk, range(0, len(entries), _CHUNK)) for p in found]
        if problems:
            raise ValueError(
                f"Expected 32x32 PNG or JPEG images in {self.root / split}, got {len(problems):,} of {len(entries):,} "
                f"that are not:{_as_lines(problems)}\nReplace these files or remove them."
            )
        tensor = torch.from_numpy(images)
        labels = torch.tensor([entry.label for entry in entries])
        return ImageSet(tensor, labels, content_fingerprint(tensor, labels))

    def files(self, split: SourceSplit) -> list[str]:
        """Return the files of a split in the order of the samples, relative to the root."""
        return [Path(entry.path).relative_to(self.root).as_posix() for entry in self._entries(split)]

    def _entries(self, split: SourceSplit) -> list[_Entry]:
        """Return the image files of a split in the order of the samples."""
        entries: list[_Entry] = []
        problems: list[str] = []
        for label, name in enumerate(CLASSES):
            folder = self.root / split / name
            try:
                found, wrong = _image_entries(folder, label)
            except OSError as error:
                problems.append(f"{folder}: {error.strerror}")
                continue
            if not found and not wrong:
                problems.append(f"{folder}: no PNG or JPEG")
            entries += found
            problems += wrong
        if problems:
            raise ValueError(
                f"Expected PNG or JPEG images, and no other pictures, directly in each of the ten class folders of "
                f"{self.root / split}, got:{_as_lines(problems)}\nMove the images of sub-folders up into the class "
                "folder, convert other pictures to PNG, and fill empty class folders."
            )
        return entries


def _as_lines(problems: list[str]) -> str:
    """Return one line for each of the first ten problems, then a count."""
    more = [f"and {len(problems) - _MAX_NAMED:,} more"] if len(problems) > _MAX_NAMED else []
    return "".join(f"\n  {line}" for line in problems[:_MAX_NAMED] + more)


def _names(folder: Path) -> tuple[set[str], set[str]]:
    """Return the names of the folders and pictures in a folder, except hidden ones; empty if it does not exist."""
    folders, stray = set(), set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if _is_folder(entry):
                    folders.add(entry.name)
                elif is_picture(entry.name):
                    stray.add(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ValueError(f"Cannot read {folder}: {error.strerror}. Check its permissions.") from error
    return folders, stray


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _image_entries(folder: Path, label: int) -> tuple[list[_Entry], list[str]]:
    """Return the images of a class folder, sorted by name, and the pictures and folders that do not belong there.

    Hidden files and folders are skipped, and so are files that are not named as pictures.
    """
    found, wrong = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if _is_folder(entry):
                if any(not is_file or is_picture(path.name) for path, is_file in entries_below(Path(entry.path))):
                    wrong.append(f"{readable(entry.path)}: a sub-folder that holds pictures or cannot be listed")
            elif entry.name.lower().endswith(JPEG_PNG_SUFFIXES):
                try:
                    status = entry.stat()
                except OSError:
                    found.append(_Entry(entry.path, label, -1, -1, False))
                else:
                    is_regular = stat.S_ISREG(status.st_mode)
                    found.append(_Entry(entry.path, label, status.st_size, status.st_mtime_ns, is_regular))
            elif is_picture(entry.name):
                wrong.append(f"{readable(entry.path)}: not a PNG or JPEG")
    return sorted(found), sorted(wrong)


def _decode_into(entry: _Entry, out: npt.NDArray[np.uint8]) -> str | None:
    """Decode an image file.

    Args:
        entry: the file.
        out: uint8, shape (3, 32, 32), receives the RGB pixels.

    Returns:
        What is wrong with the file; None if nothing is.
    """
    if not entry.is_regular:  # opening a named pipe would wait forever
        return "not a regular file"
    try:
        with Image.open(entry.path, formats=("PNG", "JPEG")) as image:
            if image.size != (32, 32):  # from the header: the pixels of a decompression bomb are not decoded
                return f"{image.width}x{image.height} pixels"
            if image.mode.startswith(("I", "F")):  # Pillow would clip these, not scale them
                return f"more than 8 bits a channel (Pillow mode {image.mode})"
            image.info.pop("transparency", None)  # Pillow warns about palettes that have one
            out[:] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Image.UnidentifiedImageError:
        return "not a PNG or JPEG"
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        return str(error) or type(error).__name__
    return None
