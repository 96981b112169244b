"""Pictures of any size and mode as images that the networks take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["MAX_PIXELS", "find_pictures", "load_picture"]

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a small file can ask for any amount of memory."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
SIDE_PX = 32


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Files as they are given, and the pictures below folders, sorted by name.

    Args:
        paths: files and folders.

    Raises:
        ValueError: for a path that does not exist, or a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not inside:
                raise ValueError(f"Expected pictures ({', '.join(SUFFIXES)}) in the folder {path}, found none.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ValueError(f"Expected `--images` to name files or folders, got {path}, which does not exist.")
    return found


def load_picture(path: Path) -> Tensor:
    """A picture as a network sees it.

    Turned upright as its EXIF data say; what is transparent becomes white; 16 bits become 8; scaled so that its
    shorter side has 32 pixels, each the mean of what it covers, and cut to the middle square. Of an animation the
    first frame is taken.

    Args:
        path: of a file in any format that Pillow reads.

    Returns:
        uint8 (3, 32, 32).

    Raises:
        ValueError: when the file is no picture, is cut short, or has too many pixels.
    """
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"it has {picture.width} x {picture.height} pixels; at most {MAX_PIXELS:,} are decoded. Make it "
                    "smaller first."
                )
            upright = ImageOps.exif_transpose(picture)
            rgb = as_rgb(upright)
    except UnidentifiedImageError as error:
        raise ValueError("it is no picture in a known format.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has too many pixels; at most {MAX_PIXELS:,} are decoded.") from error
    except (OSError, SyntaxError, EOFError) as error:  # Pillow's own ways to say that a file is damaged
        raise ValueError(f"it cannot be read ({str(error).strip() or type(error).__name__}).") from error
    small = ImageOps.fit(
        rgb, (SIDE_PX, SIDE_PX), Image.Resampling.BOX if min(rgb.size) > SIDE_PX else Image.Resampling.BICUBIC
    )
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def as_rgb(picture: Image.Image) -> Image.Image:
    """A picture of any mode with three channels of 8 bits."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture, dtype=np.float64)
        top = 65535 if picture.mode != "F" or values.max(initial=0) > 1 else 1
        top = 255 if picture.mode == "F" and 1 < values.max(initial=0) <= 255 else top
        return Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8)).convert("RGB")
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
