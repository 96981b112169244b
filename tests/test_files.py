from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cifar_lightning import files
from cifar_lightning.files import write_text_atomic


def test_text_is_written_for_all_to_read(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("first\n", "zweite Fassung, länger\n", ""):
        write_text_atomic(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("is_new", [True, False])
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


def test_readers_never_see_half_a_file(tmp_path):
    path = tmp_path / "file.txt"
    texts = ("a" * 300_000, "b" * 300_000)
    write_text_atomic(path, texts[0])
    seen = []

    def read() -> None:
        while not done.is_set():
            seen.append(path.read_text() in texts)

    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for i in range(20):
            write_text_atomic(path, texts[i % 2])
        done.set()
        reader.result()
    assert seen
    assert all(seen)
