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
from cifar_lightning.data.cache import Part
from cifar_lightning.data.pictures import JPEG_PNG_SUFFIXES, entries_below, is_hidden, is_picture, readable
from cifar_lightning.data.split import Split, content_fingerprint

__all__ = ["ClassFolders"]

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
        ValueError: when one of the twenty folders is missing, or there is a folder that is no class, or a picture
            beside the class folders.
    """

    name: ClassVar[str] = "class folders"

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        missing, unknown, outside = [], [], []
        for part in ("train", "test"):
            found, stray = _names(self.root / part)
            missing += [f"{part}/{name}" for name in CLASSES if name not in found]
            unknown += [f"{part}/{readable(name)}" for name in sorted(found - set(CLASSES))]
            outside += [f"{part}/{readable(name)}" for name in sorted(stray)]
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

    def key(self, part: Part) -> str:
        """Hexadecimal SHA-256 over names, sizes and modification times (ns) of the part's images.

        Raises:
            ValueError: as `decode`, when a class folder does not hold images alone.
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
            ValueError: naming every file that is not a readable 32x32 PNG or JPEG; and before any file is read, every
                class folder that is empty or cannot be listed, every folder with pictures below a class folder, and
                every picture whose name is not one of a PNG or JPEG (the first ten, then a count).
        """
        entries = self._entries(part)
        images = np.empty((len(entries), 3, 32, 32), dtype=np.uint8)

        def decode_chunk(start: int) -> list[str]:
            chunk = zip(entries[start : start + _CHUNK], images[start : start + _CHUNK], strict=True)
            return [f"{readable(e.path)}: {problem}" for e, out in chunk if (problem := _decode_into(e, out))]

        # Inflating releases the interpreter lock, Python's share of the work does not: more threads gain nothing.
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about metadata that nothing here looks at.
            problems = [p for found in pool.map(decode_chunk, range(0, len(entries), _CHUNK)) for p in found]
        if problems:
            raise ValueError(
                f"Expected 32x32 PNG or JPEG images in {self.root / part}, got {len(problems):,} of {len(entries):,} "
                f"that are not:{_as_lines(problems)}\nReplace these files or remove them."
            )
        tensor = torch.from_numpy(images)
        labels = torch.tensor([entry.label for entry in entries])
        return Split(tensor, labels, content_fingerprint(tensor, labels))

    def _entries(self, part: Part) -> list[_Entry]:
        """The image files of a part in the order of the samples."""
        entries: list[_Entry] = []
        problems: list[str] = []
        for label, name in enumerate(CLASSES):
            folder = self.root / part / name
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
                f"{self.root / part}, got:{_as_lines(problems)}\nMove the images of sub-folders up into the class "
                "folder, convert other pictures to PNG, and fill empty class folders."
            )
        return entries


def _as_lines(problems: list[str]) -> str:
    """A line for each problem, the first ten, then a count."""
    more = [f"and {len(problems) - _MAX_NAMED:,} more"] if len(problems) > _MAX_NAMED else []
    return "".join(f"\n  {line}" for line in problems[:_MAX_NAMED] + more)


def _names(folder: Path) -> tuple[set[str], set[str]]:
    """Names of the folders and of the pictures in a folder, without hidden ones; empty when there is no such folder."""
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
    """Whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _image_entries(folder: Path, label: int) -> tuple[list[_Entry], list[str]]:
    """The images of one class folder, sorted by name, and each picture or folder with pictures that is none of them.

    Hidden files and folders are passed over, and so is what is not named as a picture.
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
    """Decodes one image file.

    Args:
        entry: the file.
        out: uint8, shape (3, 32, 32), takes the RGB pixels.

    Returns:
        What is wrong with the file, or None.
    """
    if not entry.is_regular:  # Opening a named pipe would wait forever.
        return "not a regular file"
    try:
        with Image.open(entry.path, formats=("PNG", "JPEG")) as image:
            if image.size != (32, 32):  # From the header: the pixels of a bomb are never decoded.
                return f"{image.width}x{image.height} pixels"
            if image.mode.startswith(("I", "F")):  # Pillow would clip these, not scale them.
                return f"more than 8 bits a channel (Pillow mode {image.mode})"
            image.info.pop("transparency", None)  # Pillow warns about a palette that has one.
            out[:] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except Image.UnidentifiedImageError:
        return "not a PNG or JPEG"
    except Exception as error:  # Pillow's decoders raise many types on damaged files, and each belongs in the report.
        return str(error) or type(error).__name__
    return None
