"""Pictures of any size and mode, converted to the images that networks take."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = [
    "JPEG_PNG_SUFFIXES",
    "MAX_PIXELS",
    "UnreadableError",
    "entries_below",
    "find_pictures",
    "is_hidden",
    "is_picture",
    "load_picture",
    "readable",
]

logger = logging.getLogger(__name__)

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a small file can ask for any amount of memory."""
JPEG_PNG_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif")
# fmt: off
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI", "SGI", "TIFF",
    "WEBP", "TGA",  # TGA files have no signature: they are tried last
)
"""What Pillow may decode: not EPS, for which it would start Ghostscript."""
READ_SUFFIXES = (
    *JPEG_PNG_SUFFIXES, ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".icns", ".ico", ".j2c", ".j2k", ".jp2",
    ".jpc", ".jpf", ".jpx", ".mpo", ".pbm", ".pcx", ".pfm", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".sgi", ".tga",
    ".tif", ".tiff", ".webp",
)
UNREAD_SUFFIXES = (
    ".eps", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jxl", ".svg", ".svgz",
    ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ".sr2", ".srf", ".srw", ".x3f",  # raw camera files, from which Pillow reads a thumbnail or undeveloped pixels
)
"""Pictures that have to be converted first, because Pillow cannot read them, or not correctly."""
# fmt: on
PICTURE_SUFFIXES = frozenset((*READ_SUFFIXES, *UNREAD_SUFFIXES))
MAX_KINDS_NAMED = 5
SIDE_PX = 32
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn a picture upright, for each EXIF orientation."""
# Control characters, line and paragraph separators, marks that change the direction of text, and bytes that are not
# UTF-8.
UNPRINTABLE = re.compile("[\\\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\udc80-\udcff]")


class UnreadableError(ValueError):
    """A file is not a readable picture; the message is a sentence about "it"."""


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or is the folder that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(name: str) -> bool:
    """Return whether a file is named as a picture, readable or not."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


def readable(name: Path | str) -> str:
    r"""Return a name as one line of valid text, different for each name.

    Bytes that are not UTF-8, control characters and line breaks are written as `\xNN`, one for each byte, and a
    backslash as two.
    """
    text = name.as_posix() if isinstance(name, Path) else name
    text = os.fsencode(text).decode("utf-8", "surrogateescape")

    def escape(match: re.Match[str]) -> str:
        if match[0] == "\\":
            return r"\\"
        return "".join(f"\\x{byte:02x}" for byte in match[0].encode("utf-8", "surrogateescape"))

    return UNPRINTABLE.sub(escape, text)


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Return the given files, and the files named as pictures in folders at any depth, sorted by name.

    Hidden files and folders are skipped. Files that are not named as pictures are counted in one log line. Folders that
    cannot be listed and links to folders, which are not followed, are returned too: `load_picture` refuses them.

    Args:
        paths: files and folders.

    Raises:
        ValueError: if a path does not exist, or a folder holds no pictures.
    """
    found: list[Path] = []
    others: Counter[str] = Counter()
    for path in paths:
        try:
            is_folder = stat.S_ISDIR(path.stat().st_mode)
        except OSError as error:
            raise ValueError(
                f"Expected `--images` to name files or folders, got {readable(path)} ({error.strerror})."
            ) from error
        if not is_folder:
            found.append(path)
            continue
        inside: list[Path] = []
        rest: Counter[str] = Counter()
        for entry, is_file in entries_below(path):
            if is_file and not is_picture(entry.name):
                rest[readable(entry.suffix.lower()) or "without a suffix"] += 1
            else:
                inside.append(entry)
        if not inside:
            raise ValueError(
                f"Expected pictures in the folder {readable(path)}, such as *.jpg, *.png or *.webp, found none. "
                f"Other files: {rest.total():,}."
            )
        found += sorted(inside)
        others += rest
    if others:
        kinds = [f"{n:,} {kind}" for kind, n in sorted(others.items(), key=lambda item: (-item[1], item[0]))]
        kinds[MAX_KINDS_NAMED:] = ["..."] * (len(kinds) > MAX_KINDS_NAMED)
        logger.info(f"Left out, not pictures: {', '.join(kinds)} ({others.total():,} in all)")
    return found


def entries_below(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield (path, True) for each file at any depth, and (path, False) for each folder that is not searched.

    These are folders that cannot be listed, and links to folders, which may form a cycle. Hidden files and folders are
    skipped.
    """
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    path = here / entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    else:
                        yield path, not (entry.is_symlink() and os.path.isdir(path))
        except OSError:
            yield here, False


def load_picture(path: Path) -> Tensor:
    """Load a picture as input of a network.

    It is turned upright by its EXIF or XMP orientation, scaled so that its shorter side has 32 pixels, each the mean of
    the pixels that it covers, and cropped to the central square. Transparent pixels become white, and 16 bits become 8.
    An animation gives its first frame.

    Args:
        path: of a file in one of `FORMATS`.

    Returns:
        uint8 (3, 32, 32).

    Raises:
        UnreadableError: if the file is not a picture, is truncated, or has too many pixels.
    """
    try:
        with open_picture(path) as picture:
            rgb = as_rgb(upright(picture))
        box_or_cubic = Image.Resampling.BOX if min(rgb.size) > SIDE_PX else Image.Resampling.BICUBIC
        small = np.array(ImageOps.fit(rgb, (SIDE_PX, SIDE_PX), box_or_cubic))
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        if path.suffix.lower() in UNREAD_SUFFIXES:
            raise UnreadableError(f"{path.suffix} files cannot be read. Convert it to JPEG or PNG.") from error
        raise UnreadableError(
            "it is not a picture in a known format. If it is a picture, convert it to JPEG or PNG."
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"it has too many pixels; at most {MAX_PIXELS:,} are decoded.") from error
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        words = (isinstance(error, OSError) and error.strerror) or str(error).strip(" .") or type(error).__name__
        raise UnreadableError(f"it cannot be read ({readable(' '.join(words.split()))}).") from error
    return torch.from_numpy(small).permute(2, 0, 1).contiguous()


@cache
def formats() -> list[str]:
    """Return the formats of `FORMATS` that the installed Pillow supports."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def open_picture(path: Path) -> Image.Image:
    """Open a picture without decoding its pixels.

    Raises:
        UnreadableError: if it is not a regular file, is empty, or has more than `MAX_PIXELS`.
        Exception: whatever Pillow raises.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableError(
            "it is a link to a folder. Give that folder itself to read its pictures."
            if path.is_symlink()
            else "it is a folder that cannot be listed."
        )
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait forever
        raise UnreadableError("it is not a regular file.")
    if not status.st_size:
        raise UnreadableError("it is empty.")
    # Such files can only be read if they are misnamed; most raw camera files would pass as TIFF.
    known = ["JPEG", "PNG"] if path.suffix.lower() in UNREAD_SUFFIXES else formats()
    try:
        picture: Image.Image = Image.open(path, formats=known)
    except UnidentifiedImageError:
        picture = open_jpeg_with_odd_exif(path)
    if picture.width * picture.height > MAX_PIXELS:
        size = f"{picture.width} x {picture.height} pixels"
        picture.close()
        raise UnreadableError(f"it has {size}; at most {MAX_PIXELS:,} are decoded. Make it smaller first.")
    return picture


def open_jpeg_with_odd_exif(path: Path) -> Image.Image:
    """Open a JPEG that Pillow rejects because of damaged EXIF data, by adding them after it is open.

    Raises:
        UnidentifiedImageError: if the file is not such a JPEG.
    """
    with path.open("rb") as file:
        content = file.read(2)
        content += file.read() if content == b"\xff\xd8" else b""
    start = content.find(b"Exif\0\0")
    if start < 0:
        raise UnidentifiedImageError
    picture = Image.open(io.BytesIO(content[:start] + b"none" + content[start + 4 :]), formats=["JPEG"])
    picture.info["exif"] = content[start : start + 0xFFFF]
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """Decode a picture and turn it by its orientation, if that is present and valid.

    Only the orientation is read. `ImageOps.exif_transpose` also rewrites all EXIF data, which fails for numbers that
    some cameras write.
    """
    if picture.format == "TIFF":  # Pillow turns TIFF itself, and first reads these directories, which may be damaged
        with contextlib.suppress(Exception):
            exif = picture.getexif()
            for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
                if tag in exif:
                    del exif[tag]
    picture.load()
    turn = None
    with contextlib.suppress(Exception):
        turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return picture if turn is None else picture.transpose(turn)


def as_rgb(picture: Image.Image) -> Image.Image:
    """Convert a picture of any mode to three channels of 8 bits."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float32)
        highest = values.max(initial=0, where=np.isfinite(values))
        top = 65535
        if picture.mode == "F" and highest <= 255:
            top = 1 if highest <= 1 else 255
        values = np.nan_to_num(values, posinf=top, neginf=0).clip(0, top)
        return Image.fromarray((values * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
