from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar_lightning import files
from cifar_lightning.files import write_text_atomic


def test_text_is_written_whole(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("first\n", "zweite Fassung, länger\n", ""):
        write_text_atomic(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.fixture(params=[0o077, 0o022, 0o002])
def umask(request) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_permissions_are_those_of_a_file_that_is_written_in_place(tmp_path, umask):
    path, other = tmp_path / "file.txt", tmp_path / "other.txt"
    other.write_text("written in place")
    write_text_atomic(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode) == 0o666 & ~umask
    for mode in (0o600, 0o664):
        path.chmod(mode)
        write_text_atomic(path, "again")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_is_private_is_so_from_its_first_byte(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    path.chmod(0o600)
    with files.replacing(path) as file:
        assert Path(file.name).parent == tmp_path
        assert Path(file.name).match(".file.txt.*")  # what RunCheckpoint takes away
        assert stat.S_IMODE(Path(file.name).stat().st_mode) == 0o600


def test_temporary_names_differ(tmp_path):
    with files.replacing(tmp_path / "file.txt") as one, files.replacing(tmp_path / "file.txt") as other:
        one.write(b"one")
        other.write(b"other")
        assert one.name != other.name
    assert (tmp_path / "file.txt").read_text() == "one"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize(("call", "is_new"), [("fsync", True), ("fsync", False), ("chmod", False), ("replace", True)])
def test_a_failure_leaves_the_old_file_alone(tmp_path, monkeypatch, call, error, is_new):
    path = tmp_path / "file.txt"
    if not is_new:
        path.write_text("old")

    def fail(*_):
        raise error

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(type(error)):
        write_text_atomic(path, "new")
    assert os.listdir(tmp_path) == ([] if is_new else ["file.txt"])
    assert is_new or path.read_text() == "old"


def test_text_that_cannot_be_encoded_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(path, "x" * 100_000 + "\ud800")
    assert os.listdir(tmp_path) == ["file.txt"]
    assert path.read_text() == "old"
