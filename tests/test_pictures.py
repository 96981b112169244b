"""Each picture of a user is read correctly or reported as skipped, whatever the other files are."""

from __future__ import annotations

import csv
import errno
import html
import json
import logging
import os
import re
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import odd_pictures
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from odd_pictures import Case
from PIL import EpsImagePlugin, Image

from cifar_lightning import inference
from cifar_lightning.data.pictures import UnreadableError, find_pictures, load_picture, readable

MAKERS = (odd_pictures.turned, odd_pictures.formats_and_modes, odd_pictures.damaged, odd_pictures.names_and_places)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[Case]]:
    """Return a folder of all odd pictures, and its files in the order of their paths."""
    folder = tmp_path_factory.mktemp("made")
    cases = [case._replace(name=f"{m.__name__}/{case.name}") for m in MAKERS for case in m(folder / m.__name__)]
    return folder, sorted(cases, key=lambda case: Path(case.name))


@pytest.fixture
def shown(monkeypatch) -> list[torch.Tensor]:
    """Return the list of batches that reach the network, which replaces that of a run."""
    batches: list[torch.Tensor] = []

    def predict_logits(images: torch.Tensor, tta: str) -> torch.Tensor:
        batches.append(images)
        return torch.zeros(len(images), 10)

    network = SimpleNamespace(device=torch.device("cpu"), predict_logits=predict_logits)
    monkeypatch.setattr(inference, "load", lambda run: network)
    Path("run").mkdir()
    return batches


def predict(*paths: Path | str) -> int:
    """Return the exit status of a prediction, which is written to `out`."""
    return inference.predict_pictures(["--run", "run", "--output", "out", "--images", *map(str, paths)])


def skipped(caplog) -> dict[str, str]:
    """Return the reason in the log for each skipped file."""
    lines = [record.getMessage() for record in caplog.records]
    assert not any(line.splitlines()[1:] for line in lines)
    return dict(re.fullmatch(r"Skipped (.*?): (.+)", line).groups() for line in lines if line.startswith("Skipped "))


def test_every_file_is_read_correctly_or_reported_as_skipped(made, shown, caplog, capfd):
    """pytest turns warnings of Pillow into errors, which would make good pictures unreadable."""
    folder, cases = made
    caplog.set_level(logging.INFO, "cifar_lightning")
    assert predict(folder) == 1
    of_kind = {kind: [c for c in cases if c.kind == kind] for kind in ("read", "skipped", "left out", "hidden")}
    on_disk = [Path(top, name) for top, _, names in os.walk(folder) for name in names]
    links_to_folders = 2
    assert sum(map(len, of_kind.values())) == len(on_disk) + links_to_folders
    names = [readable(folder / case.name) for case in of_kind["read"]]

    with Path("out/images.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["file"] for row in table] == names
    assert len(Path("out/images.csv").read_text(encoding="utf-8").splitlines()) == 1 + len(names)
    as_json = json.loads(Path("out/images.json").read_text(encoding="utf-8"))
    assert [row["file"] for row in as_json] == names
    page = Path("out/images.html").read_text(encoding="utf-8")
    in_page = [html.unescape(name) for name in re.findall(r"<small>(.*?)</small>", page)]
    assert in_page == names[: inference.MAX_GALLERY]

    images = torch.cat(shown).permute(0, 2, 3, 1).numpy().astype(int)
    wrong = {
        case.name: difference
        for case, image in zip(of_kind["read"], images, strict=True)
        if (difference := np.abs(image - case.expected).max()) > case.tolerance
    }
    assert wrong == {}

    reasons = skipped(caplog)
    assert sorted(reasons) == sorted(readable(folder / case.name) for case in of_kind["skipped"])
    n = len(names) + len(reasons)
    assert f"Predicted {len(names):,} of {n:,} files, {len(reasons):,} skipped" in caplog.text
    others = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Left out")]
    assert others == ["Left out, not pictures: 2 .txt, 1 .db, 1 .mp4, 1 .pdf, 1 without a suffix (6 in all)"]
    for name, expected in {
        "phone.heic": ".heic files cannot be read. Convert it to JPEG or PNG.",
        "camera.NEF": ".NEF files cannot be read. Convert it to JPEG or PNG.",
        "renamed.jpg": "it is not a picture in a known format. If it is a picture, convert it to JPEG or PNG.",
        "empty.jpg": "it is empty.",
        "bomb_11000_10000.png": "it has 11000 x 10000 pixels; at most 100,000,000 are decoded. Make it smaller first.",
        "bomb_zTXt.png": "it cannot be read (Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK).",
    }.items():
        assert reasons[f"{folder}/damaged/{name}"] == expected
    for name, expected in {
        "pipe.png": "it is not a regular file.",
        "dangling.png": "it cannot be read (No such file or directory).",
        "loop.png": "it cannot be read (Too many levels of symbolic links).",
        "a/up.png": "it is a link to a folder. Give that folder itself to read its pictures.",
    }.items():
        assert reasons[f"{folder}/names_and_places/{name}"] == expected
    assert "Warning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        *(struct.error("argument out of range"), ValueError("bad"), TypeError("bad"), OverflowError("too large")),
        *(MemoryError(), RecursionError("too deep"), zlib.error("Error -3"), KeyError(7), AssertionError()),
        *(PermissionError(errno.EACCES, "Permission denied", "b.png"), SystemError("two\nlines \x1b[31m")),
    ],
    ids=repr,
)
def test_no_error_of_one_file_loses_the_others(error, shown, caplog, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (32, 32), (7, 8, 9)).save(name)
    open_image = Image.open

    def fail(path, **options):
        if Path(path).name == "b.png":
            raise error
        return open_image(path, **options)

    monkeypatch.setattr(Image, "open", fail)
    assert predict("a.png", "b.png", "c.png") == 1
    assert torch.cat(shown).shape == (2, 3, 32, 32)
    (reason,) = skipped(caplog).values()
    words = {"MemoryError": "MemoryError", "AssertionError": "AssertionError", "PermissionError": "Permission denied"}
    words["SystemError"] = r"two lines \x1b[31m"
    assert reason == f"it cannot be read ({words.get(type(error).__name__, str(error))})."


def test_a_folder_that_cannot_be_listed_is_named(shown, caplog, monkeypatch):
    for folder in ("mine/secret", "mine/open"):
        Path(folder).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(f"{folder}/a.png")
    scandir = os.scandir

    def refuse(path):
        if Path(path) == Path("mine/secret"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert predict("mine") == 1
    assert skipped(caplog) == {"mine/secret": "it is a folder that cannot be listed."}
    assert len(torch.cat(shown)) == 1


def test_hidden_files_are_read_when_given():
    for name in (".hidden.png", "__MACOSX/a.png", ".folder/b.png", "._c.png", "plain"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (7, 8, 9)).save(name, "PNG")
    named = [Path(name) for name in (".hidden.png", "__MACOSX", ".folder", "._c.png", "plain")]
    found = find_pictures(named)
    assert [str(path) for path in found] == [".hidden.png", "__MACOSX/a.png", ".folder/b.png", "._c.png", "plain"]
    assert all(load_picture(path)[:, 0, 0].tolist() == [7, 8, 9] for path in found)


def test_other_files_are_counted_in_one_line(caplog):
    caplog.set_level(logging.INFO, "cifar_lightning")
    for i, suffix in enumerate([".txt"] * 3 + [".MP4", ".mp4", "", ".a", ".b", ".c", ".d", ".png", ".heic"]):
        Path("mine").mkdir(exist_ok=True)
        Path(f"mine/{i}{suffix}").write_bytes(b"x")
    assert [path.name for path in find_pictures([Path("mine")])] == ["10.png", "11.heic"]
    (record,) = caplog.records
    expected = "Left out, not pictures: 3 .txt, 2 .mp4, 1 .a, 1 .b, 1 .c, ... (10 in all)"
    assert record.getMessage() == expected


def test_a_folder_without_pictures_and_a_missing_path_are_errors():
    Path("mine/.git").mkdir(parents=True)
    for name in ("mine/notes.txt", "mine/.git/a.png", "mine/._a.png"):
        Path(name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pictures in the folder mine, such as .*, found none\. Other files: 1\."):
        find_pictures([Path("mine")])
    for name, reason in (
        ("no\nwhere", r"no\x0awhere (No such file or directory)"),
        ("x" * 300, "(File name too long)"),
    ):
        with pytest.raises(ValueError, match=re.escape(reason)):
            find_pictures([Path(name)])


def test_ghostscript_never_starts(monkeypatch):
    """Whatever the name of the file: PostScript is a program."""
    drawing = odd_pictures.encoded(np.zeros((32, 32, 3), np.uint8), "EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **options: pytest.fail("it was started"))
    for name in ("a.eps", "a.ps", "a.png", "a"):
        Path(name).write_bytes(drawing)
        with pytest.raises(UnreadableError, match="onvert it to JPEG or PNG"):
            load_picture(Path(name))
        with Image.open(name) as picture, pytest.raises(pytest.fail.Exception):
            picture.load()


@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_a_readable_name_is_one_line_and_keeps_the_bytes(name):
    text = readable(os.fsdecode(name))
    assert len(f"{text}.".splitlines()) == 1
    assert not any(character < " " for character in text)
    escaped = re.sub(rb"\\(\\|x(..))", lambda m: bytes.fromhex(m[2].decode()) if m[2] else b"\\", text.encode())
    assert escaped == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"caf\xe9.jpg", r"caf\xe9.jpg"),
        (rb"caf\xe9.jpg", r"caf\\xe9.jpg"),
        ("café 🧑‍🚀.jpg".encode(), "café 🧑‍🚀.jpg"),
        (b"two\nlines", r"two\x0alines"),
        ("\u2028\u202e\x85".encode(), r"\xe2\x80\xa8\xe2\x80\xae\xc2\x85"),
    ],
)
def test_readable_names(name, expected):
    assert readable(Path(os.fsdecode(name))) == expected
