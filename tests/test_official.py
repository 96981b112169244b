from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10
from trees import ARCHIVE, FOLDER, batch, batch_files, manifest_of, tar_gz, write_official

from cifar_lightning.data.official import Manifest, OfficialArchive, OfficialFiles, official_manifest
from cifar_lightning.data.split import content_fingerprint

SPLITS = ("train", "test")


def source_of(root: Path, files: dict[str, bytes], archived: bool) -> OfficialFiles | OfficialArchive:
    """Write batch files as folder or archive, with a manifest that matches."""
    packed = tar_gz(files)
    manifest = manifest_of(files, packed)
    if archived:
        (root / ARCHIVE).write_bytes(packed)
        return OfficialArchive(root, manifest)
    (root / FOLDER).mkdir()
    for name, content in files.items():
        (root / FOLDER / name).write_bytes(content)
    return OfficialFiles(root, manifest)


def torchvision_split(root: Path, manifest: Manifest, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what torchvision's own reader returns for the folder."""
    lists = {f"{name}_list": [list(pair) for pair in manifest.batches(name)] for name in SPLITS}
    tiny = type("Tiny", (CIFAR10,), {**lists, "meta": {**CIFAR10.meta, "md5": None}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy complains about the flags in the official pickles.
        data = tiny(str(root), train=split == "train")
    return torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets)


def code_runner(marker: Path) -> bytes:
    """A pickle that creates a folder when it is loaded."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    return pickle.dumps({b"data": Hostile()}, protocol=2)


@pytest.mark.parametrize("split", SPLITS)
def test_folder_and_archive_equal_torchvision(tmp_path, split):
    manifest = write_official(tmp_path, n_per_batch=7)
    write_official(tmp_path, n_per_batch=7, archive=True)
    from_files = OfficialFiles(tmp_path, manifest).decode(split)
    from_archive = OfficialArchive(tmp_path, manifest).decode(split)
    images, labels = torchvision_split(tmp_path, manifest, split)

    assert from_files.images.dtype == torch.uint8
    assert from_files.labels.dtype == torch.int64
    assert len(from_files) == (35 if split == "train" else 7)
    for decoded in (from_files, from_archive):
        assert torch.equal(decoded.images, images)
        assert torch.equal(decoded.labels, labels)
        assert decoded.fingerprint == content_fingerprint(images, labels)


def test_pickles_of_python_3_are_read_too(tmp_path):
    content = batch(5, seed=3)
    files = {**batch_files(5), "test_batch": pickle.dumps(content, protocol=2)}
    decoded = source_of(tmp_path, files, archived=False).decode("test")
    assert decoded.labels.tolist() == content[b"labels"]
    assert np.array_equal(decoded.images.numpy().reshape(5, 3072), content[b"data"])


def test_official_manifest_is_the_published_one():
    manifest = official_manifest()
    assert (manifest.folder, manifest.archive) == (FOLDER, ARCHIVE)
    assert manifest.archive_md5 == "c58f30108f718f92721af3b95e74349a"
    assert [name for name, _ in manifest.train] == [f"data_batch_{i}" for i in range(1, 6)]
    assert manifest.test == (("test_batch", "40351d587109b95175f43aff81a1287e"),)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty"])
@pytest.mark.parametrize("archived", [False, True])
def test_damaged_file_is_named_with_both_sums(tmp_path, archived, damage):
    manifest = write_official(tmp_path, archive=archived)
    path = tmp_path / (ARCHIVE if archived else f"{FOLDER}/data_batch_3")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"flipped": bytes(content), "truncated": content[:-9], "empty": b""}[damage])
    source = (OfficialArchive if archived else OfficialFiles)(tmp_path, manifest)
    with pytest.raises(ValueError, match="Delete it and download it again") as caught:
        source.decode("train")
    expected = manifest.archive_md5 if archived else manifest.train[2][1]
    found = hashlib.md5(path.read_bytes()).hexdigest()
    assert f"Expected {path} to be the published file with MD5 {expected}, got MD5 {found}" in str(caught.value)


@pytest.mark.parametrize("archived", [False, True])
def test_a_pickle_that_is_not_the_published_one_never_runs_code(tmp_path, archived):
    marker = tmp_path / "ran"
    files = {**batch_files(), "test_batch": code_runner(marker)}
    source = source_of(tmp_path, files, archived)
    source.manifest = replace(source.manifest, archive_md5="0" * 32, test=(("test_batch", "0" * 32),))
    with pytest.raises(ValueError, match="MD5"):
        source.decode("test")
    assert not marker.exists()
    pickle.loads(files["test_batch"])
    assert marker.exists(), "the pickle must be able to run code, or this test shows nothing"


@pytest.mark.parametrize("archived", [False, True])
def test_what_is_unpickled_is_what_was_checked(tmp_path, archived, monkeypatch):
    """The file is replaced as soon as it has been read: the check must not read another one than the unpickler."""
    marker, read, paths = tmp_path / "ran", Path.read_bytes, []
    source = source_of(tmp_path, batch_files(2), archived)

    def read_and_replace(path):
        content = read(path)
        paths.append(path)
        path.write_bytes(code_runner(marker))
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    assert len(source.decode("train")) == 10
    assert len(paths) == len(set(paths)) == (1 if archived else 5)
    assert not marker.exists()


def test_nothing_is_unpacked_to_disk(tmp_path):
    packed = tar_gz({**batch_files(2), "../outside": b"climbed", "/tmp/outside": b"climbed"})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ARCHIVE).write_bytes(packed)
    assert len(OfficialArchive(tmp_path / "root", manifest_of(batch_files(2), packed)).decode("train")) == 10
    assert [path.name for path in tmp_path.rglob("*")] == ["root", ARCHIVE]


def test_missing_batch_files_are_named(tmp_path):
    manifest = write_official(tmp_path)
    (tmp_path / FOLDER / "data_batch_2").unlink()
    (tmp_path / FOLDER / "test_batch").unlink()
    with pytest.raises(ValueError, match=f"batch files in {tmp_path / FOLDER}, got no data_batch_2, test_batch"):
        OfficialFiles(tmp_path, manifest)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(("split", "other"), [("train", "test"), ("test", "train")])
def test_the_other_split_is_not_opened(tmp_path, archived, split, other):
    files = batch_files(2)
    prefix = "data_batch" if other == "train" else "test_batch"
    source = source_of(tmp_path, {n: b"junk" if n.startswith(prefix) else c for n, c in files.items()}, archived)
    source.manifest = replace(source.manifest, **{other: (("absent", "0" * 32),)})
    if not archived:
        for path in (tmp_path / FOLDER).glob(f"{prefix}*"):
            path.unlink()
    assert len(source.key(split)) == 64
    assert len(source.decode(split)) == (10 if split == "train" else 2)
    with pytest.raises((ValueError, KeyError), match="absent"):
        source.decode(other)


def test_unreadable_files(tmp_path):
    manifest = write_official(tmp_path)
    (tmp_path / ARCHIVE).mkdir()
    with pytest.raises(ValueError, match=f"Cannot read {tmp_path / ARCHIVE}: Is a directory"):
        OfficialArchive(tmp_path, manifest).decode("train")
    source = OfficialFiles(tmp_path, manifest)
    (tmp_path / FOLDER / "test_batch").unlink()
    for call in (source.decode, source.key):
        with pytest.raises(ValueError, match=r"Cannot read .*test_batch: No such file"):
            call("test")


@pytest.mark.parametrize("archived", [False, True])
def test_key_follows_the_files(tmp_path, archived):
    manifest = write_official(tmp_path, archive=archived)
    source = (OfficialArchive if archived else OfficialFiles)(tmp_path, manifest)
    path = tmp_path / (ARCHIVE if archived else f"{FOLDER}/data_batch_3")
    before = {split: source.key(split) for split in SPLITS}
    assert before["train"] != before["test"]
    assert {split: source.key(split) for split in SPLITS} == before
    os.utime(path, ns=(0, 1))
    assert source.key("train") != before["train"]
    assert (source.key("test") == before["test"]) is not archived
