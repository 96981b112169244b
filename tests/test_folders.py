from __future__ import annotations

import os
import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from trees import random_images, write_class_folders

from cifar_lightning import CLASSES
from cifar_lightning.data.folders import ClassFolders
from cifar_lightning.data.split import content_fingerprint


@pytest.fixture
def root(tmp_path):
    write_class_folders(tmp_path)
    return tmp_path


def png_header(width, height):
    """Return a PNG with a size in its header and hardly any pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 99))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(("split", "n", "seed"), [("train", 4, 0), ("test", 2, 1)])
def test_decodes_what_was_written(root, split, n, seed):
    split = ClassFolders(root).decode(split)
    labels = torch.arange(10).repeat_interleave(n)
    images = torch.from_numpy(random_images(labels.numpy(), seed))
    assert torch.equal(split.labels, labels)
    assert torch.equal(split.images, images)
    assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    assert split.fingerprint == content_fingerprint(images, labels)


def test_many_chunks_keep_the_order(root, monkeypatch):
    whole = ClassFolders(root).decode("train")
    monkeypatch.setattr("cifar_lightning.data.folders._CHUNK", 3)
    assert ClassFolders(root).decode("train").fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("L", "grey.PNG", {}),
        ("LA", "grey_alpha.png", {}),
        ("RGBA", "alpha.png", {}),
        ("P", "palette.png", {"transparency": bytes(range(200))}),
        ("1", "bits.png", {}),
        ("RGB", "photo.JPG", {"quality": 95}),
        ("L", "photo.jpeg", {}),
        ("CMYK", "print.jpg", {}),
        ("RGB", "saved.jfif", {"format": "JPEG"}),
        ("RGB", "photo.JPE", {"format": "JPEG"}),
    ],
)
def test_other_modes_and_suffixes_become_rgb(root, mode, name, options):
    image = Image.linear_gradient("L").resize((32, 32)).convert("RGB").convert(mode)
    path = root / "test" / "airplane" / f"!{name}"  # sorts first
    image.save(path, **options)
    split = ClassFolders(root).decode("test")
    assert len(split) == 21
    with Image.open(path) as stored:
        # Alpha is only for blending: the pixels are the colours below it.
        expected = np.asarray(stored.convert("RGBA" if "A" in mode or mode == "P" else "RGB").convert("RGB"))
    assert np.array_equal(split.images[0].permute(1, 2, 0).numpy(), expected)


def test_other_files_are_ignored(root):
    fingerprint = ClassFolders(root).decode("train").fingerprint
    for name in ("Thumbs.db", ".DS_Store", "._0000_cat.png", "notes.txt", "no_suffix"):
        (root / "train" / "cat" / name).write_bytes(b"junk")
    (root / "train" / "cat" / "folder.png").mkdir()
    for folder in (".ipynb_checkpoints", "__MACOSX", "cat/.thumbnails", "cat/__MACOSX", "cat/deep/__MACOSX/deeper"):
        (root / "train" / folder).mkdir(parents=True)
        (root / "train" / folder / "x.png").write_bytes(b"junk")
    (root / "train" / "cat" / "notes").mkdir()
    (root / "train" / "cat" / "notes" / "read.me").write_bytes(b"junk")
    (root / "train" / "README.md").write_text("")
    assert ClassFolders(root).decode("train").fingerprint == fingerprint


def test_every_problem_is_named(root):
    cat = root / "train" / "cat"
    Image.new("RGB", (31, 32)).save(cat / "small.png")
    (cat / "text.png").write_text("hello")
    (cat / "zero.jpg").write_bytes(b"")
    whole = (cat / "0000_cat.png").read_bytes()
    (cat / "cut.png").write_bytes(whole[: len(whole) // 2])
    (cat / "flip.png").write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    (cat / "bomb.png").write_bytes(png_header(30_000, 30_000))
    (cat / "large.png").write_bytes(png_header(9_000, 9_000))
    Image.fromarray(np.full((32, 32), 40_000, np.uint16)).save(cat / "deep.png")
    os.symlink("nowhere", cat / "link.png")
    os.mkfifo(cat / "pipe.png")
    with pytest.raises(ValueError, match="10 of 50 that are not") as caught:
        ClassFolders(root).decode("train")
    message = str(caught.value)
    for expected in (
        "small.png: 31x32 pixels",
        "text.png: not a PNG or JPEG",
        "zero.jpg: not a PNG or JPEG",
        "cut.png: ",
        "flip.png: ",
        "bomb.png: ",
        "large.png: 9000x9000 pixels",
        "deep.png: more than 8 bits a channel (Pillow mode I;16)",
        "link.png: not a regular file",
        "pipe.png: not a regular file",
    ):
        assert f"{cat}/{expected}" in message
    assert "more" not in message.split("pipe.png")[1]
    assert "0000_cat.png" not in message


def test_other_formats_are_not_decoded(root):
    Image.new("RGB", (32, 32)).save(root / "train" / "cat" / "x.png", format="GIF")
    with pytest.raises(ValueError, match=r"x.png: not a PNG or JPEG"):
        ClassFolders(root).decode("train")


def test_pictures_that_are_not_read_are_named(root):
    """No file that looks like a picture of a class is skipped silently."""
    cat = root / "train" / "cat"
    nested = cat / "more" / "a"
    nested.mkdir(parents=True)
    (cat / "0000_cat.png").rename(nested / "0000_cat.png")
    for name in ("a.bmp", "b.WEBP", "c.gif", "d.tif", "e.heic", "line\nbreak.avif"):
        (cat / name).write_bytes(b"x")
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()
    source = ClassFolders(root)
    for call in (source.key, source.decode):
        with pytest.raises(ValueError, match="and no other pictures, directly in each of the ten class fold") as caught:
            call("train")
        lines = str(caught.value).splitlines()
        not_read = [f"  {cat}/{name}: not a PNG or JPEG" for name in ("a.bmp", "b.WEBP", "c.gif", "d.tif", "e.heic")]
        assert lines[1:-1] == [
            *not_read,
            rf"  {cat}/line\x0abreak.avif: not a PNG or JPEG",
            f"  {cat}/more: a sub-folder that holds pictures or cannot be listed",
            f"  {root}/train/dog: no PNG or JPEG",
        ]
        assert lines[-1].startswith("Move the images of sub-folders up into the class folder, convert other pictures")
    assert len(source.decode("test")) == 20


def test_ten_folders_below_class_folders_are_named_and_the_rest_counted(root):
    for name in CLASSES:
        for i in range(2):
            (root / "test" / name / f"more{i}").mkdir()
            shutil.copy(root / "test" / name / f"0000_{name}.png", root / "test" / name / f"more{i}")
    with pytest.raises(ValueError, match="and 10 more") as caught:
        ClassFolders(root).key("test")
    assert str(caught.value).count("a sub-folder that holds pictures") == 10


def test_a_folder_that_cannot_be_listed_below_a_class_folder_is_named(root, monkeypatch):
    secret = root / "train" / "cat" / "secret"
    secret.mkdir()
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == str(secret):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match=r"cat/secret: a sub-folder that .* cannot be listed"):
        ClassFolders(root).key("train")


def test_cyclic_links_are_named(root):
    cat = root / "train" / "cat"
    os.symlink("loop.png", cat / "loop.png")
    with pytest.raises(ValueError, match=r"1 of 41 that are not:\n  \S+/loop.png: not a regular file\n"):
        ClassFolders(root).decode("train")
    os.symlink(".", cat / "self")
    with pytest.raises(ValueError, match="cat/self: a sub-folder"):
        ClassFolders(root).decode("train")


def test_pictures_beside_the_class_folders_are_named(root):
    shutil.copy(root / "train" / "cat" / "0000_cat.png", root / "train" / "lost.png")
    with pytest.raises(ValueError, match=r"got pictures outside the class folders: train/lost\.png\."):
        ClassFolders(root)


def test_damaged_metadata_do_not_warn(root):
    """A JPEG with truncated EXIF data is read without a warning; pytest turns warnings into errors."""
    path = root / "test" / "airplane" / "!cut.jpg"
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHLL", 1, 0x11A, 5, 1, 4000)
    Image.new("RGB", (32, 32), (10, 200, 30)).save(path, exif=exif)
    with pytest.warns(UserWarning, match="Truncated File Read"):
        Image.open(path).close()
    assert ClassFolders(root).decode("test").images[0, :, 16, 16].tolist() == pytest.approx([10, 200, 30], abs=2)


def test_an_error_without_a_message_is_named_by_its_type(root, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *args, **options: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(ValueError, match=r"20 of 20 that are not:\n  \S+/0000_airplane.png: MemoryError\n"):
        ClassFolders(root).decode("test")


def test_a_wrong_size_is_reported_before_any_pixel_is_decoded(root, monkeypatch):
    (root / "train" / "cat" / "large.png").write_bytes(png_header(9_000, 9_000))
    decoded = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    with pytest.raises(ValueError, match="9000x9000"):
        ClassFolders(root).decode("train")
    assert set(decoded) == {(32, 32)}


def test_after_ten_problems_the_rest_is_counted(root):
    for i in range(1_200):
        (root / "test" / "dog" / f"x{i:04d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1,200 of 1,220") as caught:
        ClassFolders(root).decode("test")
    message = str(caught.value)
    assert "and 1,190 more" in message
    assert message.count(".png") == 10
    assert "x0009.png" in message


def test_missing_and_unknown_folders_in_one_message(root):
    shutil.rmtree(root / "train" / "cat")
    shutil.rmtree(root / "test" / "ship")
    (root / "train" / "lizard").mkdir()
    with pytest.raises(ValueError, match=r"missing: train/cat, test/ship; not a class: train/lizard\.") as caught:
        ClassFolders(root)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_split(root, split):
    shutil.rmtree(root / split)
    with pytest.raises(ValueError, match=f"missing: {', '.join(f'{split}/{name}' for name in CLASSES)}"):
        ClassFolders(root)
    (root / split).write_text("a file")
    with pytest.raises(ValueError, match=f"missing: {split}/airplane"):
        ClassFolders(root)


def test_empty_class_folders_are_named(root):
    for name in ("cat", "dog"):
        shutil.rmtree(root / "train" / name)
        (root / "train" / name).mkdir()
    (root / "train" / "dog" / "Thumbs.db").write_text("")
    source = ClassFolders(root)
    for call in (source.key, source.decode):
        with pytest.raises(ValueError, match=r"got:\n  \S+/cat: no PNG or JPEG\n  \S+/dog: no PNG or JPEG\nMove"):
            call("train")
    assert len(source.decode("test")) == 20


def test_class_folder_that_vanishes(root):
    source = ClassFolders(root)
    shutil.rmtree(root / "train" / "cat")
    with pytest.raises(ValueError, match=r"/cat: No such file or directory"):
        source.key("train")


@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_the_other_split_is_not_opened(root, split, other):
    source = ClassFolders(root)
    expected = (source.key(split), source.decode(split).fingerprint)
    shutil.rmtree(root / other)
    assert (source.key(split), source.decode(split).fingerprint) == expected


def test_key_follows_the_files(root):
    source = ClassFolders(root)
    path = root / "train" / "cat" / "0001_cat.png"
    keys = [source.key("train"), source.key("test")]
    os.utime(path, ns=(0, 1))
    keys.append(source.key("train"))
    path.write_bytes(path.read_bytes() + b"x")
    os.utime(path, ns=(0, 1))
    keys.append(source.key("train"))
    path.rename(path.with_name("other.png"))
    keys.append(source.key("train"))
    (path.with_name("other.png")).rename(root / "train" / "dog" / "other.png")
    keys.append(source.key("train"))
    assert len(set(keys)) == 6
    (root / "train" / "cat" / "notes.txt").write_text("")
    assert source.key("train") == keys[-1]
    assert source.key("test") == keys[1]
