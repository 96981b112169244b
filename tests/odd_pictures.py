"""Makes pictures of every kind, valid and invalid, each with the expected result."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]
Kind = Literal["read", "skipped", "left out", "hidden"]

ORIENTATION, X_RESOLUTION, UNIT, EXIF_IFD, GPS_IFD = 0x112, 0x11A, 0x128, 0x8769, 0x8825
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SLONG, SRATIONAL, DOUBLE = 1, 2, 3, 4, 5, 7, 9, 10, 12
Entry = tuple[int, int, int, bytes]
SIX: Entry = (ORIENTATION, SHORT, 1, struct.pack("<H", 6))


class Case(NamedTuple):
    """A file, the expected result, and for a readable picture the expected input of the network.

    Attributes:
        name: relative to the folder.
        kind: read, skipped by name, counted as no picture, or hidden.
        expected: uint8 (32, 32, 3) for a picture that is read.
        tolerance: largest difference of a pixel from it, of 255.
    """

    name: str
    kind: Kind
    expected: Pixels | None = None
    tolerance: int = 1


def upright() -> Pixels:
    """Return a picture that differs in each of its eight orientations: uint8 (64, 96, 3), smooth because of JPEG."""
    y, x = np.mgrid[0:64, 0:96]
    return np.stack([x * 2.5, y * 3.9, 250 - (x + y) * 1.2], axis=-1).astype(np.uint8)


def seen(pixels: Pixels) -> Pixels:
    """Return the input of a network for a picture whose shorter side has 64 pixels, (H, W, 3) or grey (H, W)."""
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=-1)
    top, left = (pixels.shape[0] - 64) // 2, (pixels.shape[1] - 64) // 2
    square = pixels[top : top + 64, left : left + 64]
    return square.reshape(32, 2, 32, 2, 3).mean((1, 3)).round().astype(np.uint8)


def stored(orientation: int) -> Pixels:
    """Return the pixels of a file with an EXIF orientation that looks like `upright`; from the EXIF standard."""
    pixels = upright()
    return np.ascontiguousarray(
        {
            1: pixels,
            2: pixels[:, ::-1],
            3: pixels[::-1, ::-1],
            4: pixels[::-1],
            5: pixels.transpose(1, 0, 2),
            6: np.rot90(pixels, 1),
            7: pixels[::-1, ::-1].transpose(1, 0, 2),
            8: np.rot90(pixels, -1),
        }[orientation]
    )


def encoded(picture: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture in a format of Pillow."""
    if kind in ("JPEG", "MPO", "AVIF", "WEBP"):
        options.setdefault("quality", 95)
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def ifd(entries: list[Entry], following: int = 0) -> bytes:
    """Return a little-endian TIFF header with one directory, as in EXIF data; `following` is the offset of the next."""
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    data = b""
    for tag, kind, count, value in sorted(entries):
        if len(value) > 4:
            offset = 8 + 2 + 12 * len(entries) + 4 + len(data)
            data += value
            value = struct.pack("<L", offset)
        head += struct.pack("<HHL", tag, kind, count) + value.ljust(4, b"\0")
    return head + struct.pack("<L", following) + data


def tiff(pixels: Pixels, entries: list[Entry]) -> bytes:
    """Return an uncompressed TIFF with further entries in its directory."""
    height, width = pixels.shape[:2]
    size = pixels.size

    def whole(offset: int) -> bytes:
        tags = {256: width, 257: height, 259: 1, 262: 2, 273: offset, 277: 3, 278: height, 279: size}
        basic = [(tag, LONG, 1, struct.pack("<L", value)) for tag, value in tags.items()]
        return ifd([*basic, (258, SHORT, 3, struct.pack("<3H", 8, 8, 8)), *entries])

    return whole(len(whole(0))) + pixels.tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png_with(kind: bytes, data: bytes, pixels: Pixels) -> bytes:
    """Return a PNG with one more chunk before its pixels."""
    whole = encoded(pixels, "PNG")
    return whole[:33] + chunk(kind, data) + whole[33:]


def jpeg_with(block: bytes, pixels: Pixels) -> bytes:
    """Return a JPEG with one more APP1 segment."""
    whole = encoded(pixels, "JPEG")
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + whole[2:]


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG with a size in its header and hardly any pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def xmp(orientation: int, as_element: bool) -> bytes:
    """Return XMP data with an orientation."""
    inner = f"<tiff:Orientation>{orientation}</tiff:Orientation>" if as_element else ""
    attribute = "" if as_element else f' tiff:Orientation="{orientation}"'
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"{attribute}>{inner}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


# Odd entries beside an orientation that can be read.
ODD_ENTRIES: dict[str, list[Entry]] = {
    "no_oddity": [],
    "denominator_0": [(X_RESOLUTION, SRATIONAL, 1, struct.pack("<ll", -1, 0))],
    "negative_rational": [(X_RESOLUTION, SRATIONAL, 1, struct.pack("<ll", -72, 1))],
    "two_resolutions": [(X_RESOLUTION, RATIONAL, 2, struct.pack("<4L", 72, 1, 72, 1))],
    "rational_of_4_billion": [(X_RESOLUTION, RATIONAL, 1, struct.pack("<LL", 2**32 - 1, 2**32 - 1))],
    "resolution_is_text": [(X_RESOLUTION, ASCII, 3, b"72\0"), (UNIT, SHORT, 1, b"\x02\0")],
    "resolution_is_empty_text": [(X_RESOLUTION, ASCII, 1, b"\0"), (UNIT, SHORT, 1, b"\x02\0")],
    "resolution_is_missing": [(X_RESOLUTION, RATIONAL, 0, b""), (UNIT, SHORT, 1, b"\x02\0")],
    "resolution_is_nan": [(X_RESOLUTION, DOUBLE, 1, struct.pack("<d", float("nan"))), (UNIT, SHORT, 1, b"\x03\0")],
    "negative_width": [(0x100, SLONG, 1, struct.pack("<l", -5))],
    "bytes_of_text": [(0x10F, ASCII, 5, b"\xe9\xe8\xff\0\0"), (0x13B, UNDEFINED, 3, b"\xff\xfe\0")],
    "unknown_type": [(0x9C9B, 77, 3, b"abc")],
    "count_of_4_billion": [(0x9C9C, BYTE, 2**32 - 1, b"\0\0\0\0")],
    "exif_folder_far_away": [(EXIF_IFD, LONG, 1, struct.pack("<L", 2**32 - 16))],
    "exif_folder_is_itself": [(EXIF_IFD, LONG, 1, struct.pack("<L", 8))],
    "exif_folder_is_rational": [(EXIF_IFD, RATIONAL, 1, struct.pack("<LL", 26, 0))],
    "exif_folder_is_negative": [(EXIF_IFD, SLONG, 1, struct.pack("<l", -8))],
    "exif_folder_is_text": [(EXIF_IFD, ASCII, 4, b"abc\0")],
    "exif_folder_is_nan": [(EXIF_IFD, DOUBLE, 1, struct.pack("<d", float("nan")))],
    "gps_folder_is_text": [(GPS_IFD, ASCII, 4, b"abc\0")],
    "gps_folder_is_negative": [(GPS_IFD, SLONG, 1, struct.pack("<l", -8))],
    "many_entries": [(0xC000 + i, SHORT, 1, b"\x01\0") for i in range(1000)],
}
# Orientation 6 in unusual forms, and EXIF data without an orientation.
SIXES: dict[str, bytes] = {
    "as_long": ifd([(ORIENTATION, LONG, 1, struct.pack("<L", 6))]),
    "as_rational": ifd([(ORIENTATION, RATIONAL, 1, struct.pack("<LL", 6, 1))]),
    "next_folder_is_itself": ifd([SIX], following=8),
    "next_folder_far_away": ifd([SIX], following=2**32 - 1),
    "rest_cut_off": ifd([SIX, (X_RESOLUTION, RATIONAL, 1, struct.pack("<LL", 72, 1))])[:-6],
    "big_endian": b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHLHHL", ORIENTATION, SHORT, 1, 6, 0, 0),
}
UNKNOWN: dict[str, bytes] = {
    "empty": b"",
    "three_bytes": b"II*",
    "header_alone": b"II*\0\x08\0\0\0",
    "wrong_magic": b"\0\x08\0\x02\x01\x12\0\x03",
    "folder_far_away": b"II*\0\xff\xff\xff\xff",
    "too_many_entries": b"II*\0\x08\0\0\0\xff\xff",
    "noise": bytes(range(256)),
    **{f"orientation_{n}": ifd([(ORIENTATION, SHORT, 1, struct.pack("<H", n))]) for n in (0, 9, 99, 65535)},
    "orientation_is_a_byte": ifd([(ORIENTATION, BYTE, 1, b"\x06")]),  # as Pillow takes it
    "orientation_is_text": ifd([(ORIENTATION, ASCII, 2, b"6\0")]),
    "orientation_is_nan": ifd([(ORIENTATION, DOUBLE, 1, struct.pack("<d", float("nan")))]),
    "orientation_over_0": ifd([(ORIENTATION, RATIONAL, 1, struct.pack("<LL", 6, 0))]),
    "orientation_is_missing": ifd([(ORIENTATION, SHORT, 0, b"")]),
}


def turned(folder: Path) -> Iterator[Case]:
    """Return pictures with orientations: in every format that has them, and in EXIF data that are damaged elsewhere."""
    seen_upright, seen_turned = seen(upright()), seen(stored(6))
    for n in range(1, 9):
        exif = ifd([(ORIENTATION, SHORT, 1, struct.pack("<H", n))])
        pixels = stored(n)
        files = {
            "a.jpg": (jpeg_with(b"Exif\0\0" + exif, pixels), 6),
            "twice.jpg": (jpeg_with(b"Exif\0\0Exif\0\0" + exif, pixels), 6),
            "xmp.jpg": (encoded(pixels, "JPEG", xmp=xmp(n, as_element=False)), 6),
            "element.jpg": (encoded(pixels, "JPEG", xmp=xmp(n, as_element=True)), 6),
            "two.mpo": (
                encoded(pixels, "MPO", save_all=True, append_images=[Image.fromarray(pixels)], exif=b"Exif\0\0" + exif),
                6,
            ),
            "a.png": (png_with(b"eXIf", exif, pixels), 1),
            "a.webp": (encoded(pixels, "WEBP", lossless=True, exif=b"Exif\0\0" + exif), 1),
            "a.avif": (encoded(pixels, "AVIF", exif=b"Exif\0\0" + exif), 8),
            "raw.tif": (tiff(pixels, [(ORIENTATION, SHORT, 1, struct.pack("<H", n))]), 1),
            "lzw.tiff": (encoded(pixels, "TIFF", compression="tiff_lzw", tiffinfo={ORIENTATION: n}), 1),
        }
        for name, (content, tolerance) in files.items():
            yield write(folder, f"orientation_{n}_{name}", content, seen_upright, tolerance)
    for name, entries in ODD_ENTRIES.items():
        exif = ifd([SIX, *entries])
        yield write(folder, f"{name}.jpg", jpeg_with(b"Exif\0\0" + exif, stored(6)), seen_upright, 6)
        yield write(folder, f"{name}.png", png_with(b"eXIf", exif, stored(6)), seen_upright)
        if name not in ("negative_width",):  # which is the width of a TIFF itself
            yield write(folder, f"{name}.tif", tiff(stored(6), [SIX, *entries]), seen_upright)
    for name, exif in SIXES.items():
        yield write(folder, f"six_{name}.jpg", jpeg_with(b"Exif\0\0" + exif, stored(6)), seen_upright, 6)
        yield write(folder, f"six_{name}.png", png_with(b"eXIf", exif, stored(6)), seen_upright)
    for name, exif in UNKNOWN.items():
        yield write(folder, f"none_{name}.jpg", jpeg_with(b"Exif\0\0" + exif, stored(6)), seen_turned, 6)
        yield write(folder, f"none_{name}.png", png_with(b"eXIf", exif, stored(6)), seen_turned)
        webp = encoded(stored(6), "WEBP", lossless=True, exif=b"Exif\0\0" + exif)
        yield write(folder, f"none_{name}.webp", webp, seen_turned)


def formats_and_modes(folder: Path) -> Iterator[Case]:
    """Return pictures in all formats and modes, with correct and wrong suffixes."""
    pixels = upright()
    picture = Image.fromarray(pixels)
    whole = seen(pixels)
    for suffix, kind, tolerance in (
        *((suffix, "JPEG", 6) for suffix in ("jpg", "JPEG", "jpe", "jfif", "png", "heic", "dng")),
        *((suffix, "PNG", 1) for suffix in ("png", "apng", "jpg", "svg")),
        *((suffix, "GIF", 10) for suffix in ("gif", "jpg")),
        *((suffix, "AVIF", 8) for suffix in ("avif", "avifs", "jpg")),
        *((suffix, "JPEG2000", 4) for suffix in ("jp2", "j2k", "jpx")),
        *((suffix, "TIFF", 1) for suffix in ("tif", "tiff", "png")),
        *((suffix, "PPM", 1) for suffix in ("ppm", "pnm")),
        *(("webp", "WEBP", 8), ("bmp", "BMP", 1), ("dib", "DIB", 1), ("tga", "TGA", 1), ("pcx", "PCX", 1)),
        *(("qoi", "QOI", 1), ("sgi", "SGI", 1), ("mpo", "MPO", 6)),
    ):
        yield write(folder, f"as_{kind}.{suffix}", encoded(pixels, kind), whole, tolerance)
    yield write(folder, "icon.ico", encoded(pixels[:, 16:80], "ICO", sizes=[(64, 64)]), whole)
    yield write(folder, "progressive.jpg", encoded(pixels, "JPEG", progressive=True), whole, 6)
    yield write(folder, "cmyk.jpg", encoded(picture.convert("CMYK"), "JPEG"), whole, 8)
    yield write(folder, "ycbcr.tif", encoded(picture.convert("YCbCr"), "TIFF"), whole, 3)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(picture, srgb, lab, outputMode="LAB")
    assert converted is not None
    yield write(folder, "lab.tif", encoded(converted, "TIFF"), whole, 12)
    grey = np.asarray(picture.convert("L"))
    yield write(folder, "grey.png", encoded(grey, "PNG"), seen(grey))
    yield write(folder, "grey.pgm", encoded(grey, "PPM"), seen(grey))
    black = np.where(grey > 100, 255, 0).astype(np.uint8)
    yield write(folder, "one_bit.png", encoded(Image.fromarray(black).convert("1"), "PNG"), seen(black))
    yield write(folder, "one_bit.pbm", encoded(Image.fromarray(black).convert("1"), "PPM"), seen(black))
    deep = grey.astype(np.uint16) * 257
    yield write(folder, "sixteen_bits.png", encoded(Image.fromarray(deep), "PNG"), seen(grey))
    yield write(folder, "sixteen_bits.tif", encoded(Image.fromarray(deep), "TIFF"), seen(grey))
    yield write(folder, "int32.tif", encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), seen(grey))
    float_pixels = (grey / 255).astype(np.float32)
    yield write(folder, "float.tif", encoded(Image.fromarray(float_pixels), "TIFF"), seen(grey))
    float_pixels[0:4, 16:80], float_pixels[4:8, 16:80] = np.nan, np.inf
    holes = grey.copy()
    holes[0:4, 16:80], holes[4:8, 16:80] = 0, 255
    yield write(folder, "nan_and_inf.tif", encoded(Image.fromarray(float_pixels), "TIFF"), seen(holes))

    clear = np.dstack([pixels, np.full((64, 96), 255, np.uint8)])
    clear[:16, :, 3], clear[16:32, :, 3] = 0, 128
    share = clear[:, :, 3:] / 255
    on_white = (pixels * share + 255 * (1 - share)).round().astype(np.uint8)
    yield write(folder, "transparent.png", encoded(clear, "PNG"), seen(on_white))
    yield write(folder, "transparent.webp", encoded(clear, "WEBP", lossless=True), seen(on_white), 2)
    colour = pixels[40, 48]
    one_clear = np.where((pixels == colour).all(-1, keepdims=True), 255, pixels).astype(np.uint8)
    yield write(folder, "one_colour.png", encoded(pixels, "PNG", transparency=tuple(map(int, colour))), seen(one_clear))
    palette = Image.fromarray((np.mgrid[0:64, 0:96][0] // 16).astype(np.uint8), "P")
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 90, 90, 90])
    colours = np.array([[255, 255, 255], [127, 227, 127], [0, 0, 200], [90, 90, 90]])
    by_row = colours[np.asarray(palette)].astype(np.uint8)
    yield write(
        folder, "palette_bytes.png", encoded(palette, "PNG", transparency=bytes([0, 128, 255])), seen(by_row), 2
    )
    by_row[16:32] = (0, 200, 0)
    yield write(folder, "palette_one.png", encoded(palette, "PNG", transparency=0), seen(by_row))
    yield write(folder, "palette_one.gif", encoded(palette, "GIF", transparency=0), seen(by_row))
    frames = [Image.fromarray(stored(3)), Image.fromarray(stored(2))]
    for suffix, kind, tolerance in (("gif", "GIF", 10), ("png", "PNG", 1), ("webp", "WEBP", 8), ("tif", "TIFF", 1)):
        animated = encoded(picture, kind, save_all=True, append_images=frames)
        yield write(folder, f"animated.{suffix}", animated, whole, tolerance)


def damaged(folder: Path) -> Iterator[Case]:
    """Return files that cannot be read."""
    pixels = stored(1)
    for suffix, kind in (
        *(("jpg", "JPEG"), ("png", "PNG"), ("gif", "GIF"), ("webp", "WEBP"), ("avif", "AVIF"), ("tif", "TIFF")),
        *(("bmp", "BMP"), ("jp2", "JPEG2000"), ("ppm", "PPM"), ("tga", "TGA"), ("ico", "ICO"), ("qoi", "QOI")),
    ):
        content = encoded(pixels, kind)
        for size in (1, 2, 4, 9, 17, 30, len(content) // 3, len(content) * 4 // 5):
            yield write(folder, f"cut_to_{size}.{suffix}", content[:size])
        yield write(folder, f"noise.{suffix}", np.random.default_rng(0).bytes(1000))
    for name in ("empty.jpg", "empty.heic"):
        yield write(folder, name, b"")
    yield write(folder, "page.jpg", b"<html>404</html>")
    yield write(folder, "text.tga", b"no picture " * 50)
    yield write(folder, "eps.jpg", encoded(Image.fromarray(pixels), "EPS"))
    yield write(folder, "drawing.eps", encoded(Image.fromarray(pixels), "EPS"))
    yield write(folder, "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    for name, brand in (("phone.heic", b"heic"), ("phone.HEIF", b"mif1"), ("renamed.jpg", b"heic"), ("a.jpg", b"mif1")):
        yield write(folder, name, b"\0\0\0\x18ftyp" + brand + b"\0" * 200)
    yield write(folder, "camera.dng", tiff(pixels, []))
    yield write(folder, "camera.NEF", tiff(pixels, []))
    for width, height in ((30_000, 30_000), (11_000, 10_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)):
        yield write(folder, f"bomb_{width}_{height}.png", png_of_size(width, height))
    yield write(folder, "large.png", png_of_size(9_000, 9_000))
    jpeg = encoded(pixels, "JPEG")
    start = jpeg.index(b"\xff\xc0") + 5
    yield write(folder, "bomb.jpg", jpeg[:start] + b"\xff\xdc\xff\xdc" + jpeg[start + 4 :])
    gif = encoded(pixels, "GIF")
    yield write(folder, "bomb.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:])
    bmp = encoded(pixels, "BMP")
    yield write(folder, "bomb.bmp", bmp[:18] + struct.pack("<ll", 2**31 - 1, 2**31 - 1) + bmp[26:])
    yield write(folder, "bomb.ppm", b"P6 99999 99999 255\n" + b"\0" * 99)
    big = zlib.compress(b"x" * 5_000_000)
    for kind in (b"zTXt", b"iCCP"):
        yield write(folder, f"bomb_{kind.decode()}.png", png_with(kind, b"a\0\0" + big, pixels))
    for kind in (b"tRNS", b"gAMA", b"pHYs", b"acTL", b"fcTL", b"cHRM"):
        yield write(folder, f"short_{kind.decode()}.png", png_with(kind, b"\0", pixels))


def names_and_places(folder: Path) -> Iterator[Case]:
    """Return unprintable names, links, pipes, folders, and files that are not pictures of the user."""
    good, whole = encoded(stored(1), "PNG"), seen(upright())
    odd = (os.fsdecode(b"caf\xe9.png"), "two\nlines.png", "\r\t\x1b[31m.png", "line\u2028.png", "\u202egnp.png")
    more = ("\U0001f469\u200d\U0001f680.png", "é" * 125 + ".png", '"a", =b;\'.png', "-rf.png", "back\\xe9.png", " .png")
    for name in (*odd, *more, "folder.png/inside.png", "a/b/c/deep.PNG"):
        yield write(folder, name, good, whole)
    yield write(folder, os.fsdecode(b"bad\n\xff.png"), b"no picture")
    (folder / "empty_folder.jpg").mkdir()
    os.symlink("a/b/c/deep.PNG", folder / "link.png")
    yield Case("link.png", "read", whole)
    os.symlink("nowhere", folder / "dangling.png")
    os.symlink("loop.png", folder / "loop.png")
    os.symlink("..", folder / "a/up.png")
    os.symlink("a", folder / "link_to_a")
    os.mkfifo(folder / "pipe.png")
    for name in ("dangling.png", "loop.png", "a/up.png", "link_to_a", "pipe.png"):
        yield Case(name, "skipped")
    for name in ("._cat.jpg", ".hidden.png", "__MACOSX/._cat.jpg", "__MACOSX/cat.png", ".hidden/cat.png", ".DS_Store"):
        yield write(folder, name, good)._replace(kind="hidden")
    for name in ("notes.txt", "film.mp4", "more.txt", "no_suffix", "book.pdf", "a/Thumbs.db"):
        yield write(folder, name, good)._replace(kind="left out")


def write(folder: Path, name: str, content: bytes, expected: Pixels | None = None, tolerance: int = 1) -> Case:
    """Write a file: a readable picture if an image is expected, else one that is skipped."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    assert not path.exists(), name
    path.write_bytes(content)
    return Case(name, "skipped" if expected is None else "read", expected, tolerance)
