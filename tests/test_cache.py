from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from trees import random_images

from cifar_lightning.data import cache
from cifar_lightning.data.cache import CACHE_FOLDER, cached
from cifar_lightning.data.split import ImageSet, content_fingerprint

KEY = "0123456789abcdef" * 4


def tiny_split(seed: int = 0) -> ImageSet:
    labels = torch.arange(10)
    images = torch.from_numpy(random_images(labels.numpy(), seed))
    return ImageSet(images, labels, content_fingerprint(images, labels))


def equal(a: ImageSet, b: ImageSet) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.fingerprint == b.fingerprint


def never() -> ImageSet:
    raise AssertionError("decoded again")


@pytest.fixture(autouse=True)
def user_cache(tmp_path, monkeypatch):
    folder = tmp_path / "user"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    cache._warn_uncached.cache_clear()
    return folder


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def cache_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_second_read_does_not_decode(root, user_cache):
    split = tiny_split()
    assert cached(root, "train", KEY, lambda: split) is split
    again = cached(root, "train", KEY, never)
    assert equal(again, split)
    again.images.add_(1)  # separate, writable memory
    assert equal(cached(root, "train", KEY, never), split)
    assert len(cache_files(root / CACHE_FOLDER)) == 1
    assert not user_cache.exists()


def test_splits_have_separate_files_and_old_keys_are_removed(root):
    cached(root, "train", KEY, tiny_split)
    cached(root, "test", KEY, lambda: tiny_split(1))
    (root / CACHE_FOLDER / ".train-v1-abc.npz.0123").write_bytes(b"the partial file of a killed process")
    cached(root, "train", KEY[::-1], lambda: tiny_split(2))
    assert len(cache_files(root / CACHE_FOLDER)) == 2
    assert equal(cached(root, "train", KEY[::-1], never), tiny_split(2))
    assert equal(cached(root, "test", KEY, never), tiny_split(1))
    assert equal(cached(root, "train", KEY, lambda: tiny_split(3)), tiny_split(3))


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:200],
        lambda content: content[:-1],
        lambda content: flip(content, 5_000),
        lambda content: flip(content, content.rindex(b"PK\x01\x02")),
        lambda content: b"PK" + b"\0" * 5_000,
        lambda content: pickle.dumps({"images": 1}),
    ],
    ids=["empty", "head", "tail", "pixel", "directory", "zeros", "pickle"],
)
def test_damaged_file_is_logged_and_replaced(root, caplog, damage):
    cached(root, "train", KEY, tiny_split)
    (path,) = cache_files(root / CACHE_FOLDER)
    path.write_bytes(damage(path.read_bytes()))
    assert equal(cached(root, "train", KEY, lambda: tiny_split(1)), tiny_split(1))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"Replacing the damaged cache file {path}" in record.getMessage()
    assert equal(cached(root, "train", KEY, never), tiny_split(1))
    assert cache_files(root / CACHE_FOLDER) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((10, 3, 32, 32), np.float32)}, "images are float32"),
        ({"images": np.zeros((10, 32, 32, 3), np.uint8)}, "images are uint8"),
        ({"images": np.zeros((9, 3, 32, 32), np.uint8)}, "images are uint8"),
        ({"labels": np.zeros(10, np.int32)}, "labels are int32"),
        ({"labels": np.zeros((10, 1), np.int64)}, "labels are int64"),
        ({"images": np.zeros((0, 3, 32, 32), np.uint8), "labels": np.zeros(0, np.int64)}, "labels are int64"),
        ({"fingerprint": np.array(["a"])}, "fingerprint is"),
        ({"fingerprint": np.array(1)}, "fingerprint is"),
        ({"labels": np.array([{}] * 10)}, "Object arrays cannot be loaded"),
        ({"fingerprint": None}, "KeyError"),
    ],
)
def test_file_with_other_content_is_replaced(root, caplog, change, message):
    split = tiny_split()
    cached(root, "train", KEY, lambda: split)
    (path,) = cache_files(root / CACHE_FOLDER)
    arrays = {"images": split.images.numpy(), "labels": split.labels.numpy(), "fingerprint": np.array("ab"), **change}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    assert cached(root, "train", KEY, lambda: split) is split
    assert message in caplog.text
    assert equal(cached(root, "train", KEY, never), split)


def test_user_folder_when_the_root_has_none(root, user_cache, caplog):
    (root / CACHE_FOLDER).write_text("a file where the folder should be")
    cached(root, "train", KEY, tiny_split)
    assert equal(cached(root, "train", KEY, never), tiny_split())
    (path,) = cache_files(user_cache)
    assert path.parent.parent == user_cache / "cifar_lightning"
    assert caplog.records == []
    other = root.with_name("other")
    other.mkdir()
    (other / CACHE_FOLDER).write_text("")
    cached(other, "train", KEY, lambda: tiny_split(1))
    assert len(cache_files(user_cache)) == 2


@pytest.mark.parametrize("xdg", ["", "relative"])
def test_user_folder_is_never_relative(root, tmp_path, monkeypatch, xdg):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", xdg)
    monkeypatch.setenv("HOME", str(tmp_path / "home") if xdg == "" else "nowhere")
    (root / CACHE_FOLDER).write_text("")
    cached(root, "train", KEY, tiny_split)
    assert bool(cache_files(tmp_path / "home")) is (xdg == "")
    assert not (tmp_path / "relative").exists()
    assert not (tmp_path / "nowhere").exists()


def test_no_folder_at_all_is_logged_once(root, user_cache, caplog):
    (root / CACHE_FOLDER).write_text("")
    user_cache.write_text("")
    calls = []
    for name in ("train", "test", "train"):
        split = cached(root, name, KEY, lambda: calls.append(1) or tiny_split())
        assert equal(split, tiny_split())
    assert len(calls) == 3
    (record,) = caplog.records
    assert f"The images of {root} are decoded in every run" in record.getMessage()
    assert f"{root / CACHE_FOLDER}: File exists" in record.getMessage()


def test_full_disk_decodes_once_and_leaves_nothing(root, user_cache, monkeypatch, caplog):
    def full(file, **arrays):
        file.write(b"some of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    calls = []
    assert equal(cached(root, "train", KEY, lambda: calls.append(1) or tiny_split()), tiny_split())
    assert len(calls) == 1
    assert cache_files(root) == cache_files(user_cache) == []
    assert caplog.text.count("No space left on device") == 2
    assert len(caplog.records) == 1


def test_full_root_uses_the_user_folder(root, user_cache, monkeypatch):
    write = cache._write

    def full(path, images):
        if root in path.parents:
            raise OSError(28, "No space left on device")
        write(path, images)

    monkeypatch.setattr(cache, "_write", full)
    cached(root, "train", KEY, tiny_split)
    assert equal(cached(root, "train", KEY, never), tiny_split())
    assert len(cache_files(user_cache)) == 1


def test_a_partial_file_never_has_the_final_name(root, monkeypatch):
    replace, seen = os.replace, []

    def watch(source, target):
        seen.append((Path(source).parent == Path(target).parent, Path(target).exists()))
        with np.load(source) as arrays:  # complete before it gets its name
            assert arrays["images"].shape == (10, 3, 32, 32)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watch)
    cached(root, "train", KEY, tiny_split)
    assert seen == [(True, False)]


def test_errors_of_the_source_are_raised(root):
    def broken():
        raise ValueError("a broken source")

    with pytest.raises(ValueError, match="a broken source"):
        cached(root, "train", KEY, broken)
    assert cache_files(root) == []
    assert equal(cached(root, "train", KEY, tiny_split), tiny_split())


def start_cold(root: Path, barrier, answers) -> None:
    """Run in each of the processes: decode, which adds a line to a file, or read the cache."""

    def decode() -> ImageSet:
        with open(root / "decoded", "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.3)
        return tiny_split()

    barrier.wait(60)
    answers.put(cached(root, "train", KEY, decode).fingerprint)


@pytest.mark.slow
def test_cold_processes_at_once_decode_once(root):
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(4), context.Queue()
    processes = [context.Process(target=start_cold, args=(root, barrier, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    fingerprints = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert fingerprints == [tiny_split().fingerprint] * 4
    assert len((root / "decoded").read_text().split()) == 1
