from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10
from trees import ARCHIVE, FOLDER, batch, batch_files, manifest_of, python2_pickle, tar_gz, write_official

from cifar_lightning.data.official import Manifest, OfficialArchive, OfficialFiles, official_manifest
from cifar_lightning.data.split import content_fingerprint

PARTS = ("train", "test")


def source_of(root: Path, files: dict[str, bytes], archived: bool) -> OfficialFiles | OfficialArchive:
    """These batch files as folder or archive, with a manifest that agrees."""
    packed = tar_gz(files)
    manifest = manifest_of(files, packed)
    if archived:
        (root / ARCHIVE).write_bytes(packed)
        return OfficialArchive(root, manifest)
    (root / FOLDER).mkdir()
    for name, content in files.items():
        (root / FOLDER / name).write_bytes(content)
    return OfficialFiles(root, manifest)


def torchvision_split(root: Path, manifest: Manifest, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What torchvision's own reader makes of the folder."""

    lists = {f"{name}_list": [list(pair) for pair in manifest.batches(name)] for name in PARTS}
    tiny = type("Tiny", (CIFAR10,), {**lists, "meta": {**CIFAR10.meta, "md5": None}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy complains about the flags in the official pickles.
        data = tiny(str(root), train=part == "train")
    return torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets)


def code_runner(marker: Path) -> bytes:
    """A pickle that creates a folder when it is loaded."""

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    return pickle.dumps({b"data": Hostile()}, protocol=2)


@pytest.mark.parametrize("part", PARTS)
def test_folder_and_archive_equal_torchvision(tmp_path, part):
    manifest = write_official(tmp_path, n_per_batch=7)
    write_official(tmp_path, n_per_batch=7, archive=True)
    from_files = OfficialFiles(tmp_path, manifest).decode(part)
    from_archive = OfficialArchive(tmp_path, manifest).decode(part)
    images, labels = torchvision_split(tmp_path, manifest, part)

    assert from_files.images.dtype == torch.uint8
    assert from_files.labels.dtype == torch.int64
    assert len(from_files) == (35 if part == "train" else 7)
    for split in (from_files, from_archive):
        assert torch.equal(split.images, images)
        assert torch.equal(split.labels, labels)
        assert split.fingerprint == content_fingerprint(images, labels)


def test_pickles_of_python_3_are_read_too(tmp_path):
    content = batch(5, seed=3)
    files = {**batch_files(5), "test_batch": pickle.dumps(content, protocol=2)}
    split = source_of(tmp_path, files, archived=False).decode("test")
    assert split.labels.tolist() == content[b"labels"]
    assert np.array_equal(split.images.numpy().reshape(5, 3072), content[b"data"])


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
    with pytest.raises(ValueError, match="Delete it and bring it again") as caught:
        source.decode("train")
    expected = manifest.archive_md5 if archived else manifest.train[2][1]
    found = hashlib.md5(path.read_bytes()).hexdigest()
    assert f"Expected {path} to be the published file with MD5 {expected}, got MD5 {found}" in str(caught.value)


@pytest.mark.parametrize("agrees", [False, True])
@pytest.mark.parametrize("archived", [False, True])
def test_a_pickle_never_runs_code(tmp_path, archived, agrees):
    marker = tmp_path / "ran"
    files = {**batch_files(), "test_batch": code_runner(marker)}
    source = source_of(tmp_path, files, archived)
    if not agrees:
        source.manifest = replace(source.manifest, test=(("test_batch", "0" * 32),))
    with pytest.raises(ValueError, match="refused the global posix.mkdir" if agrees else "MD5"):
        source.decode("test")
    assert not marker.exists()
    pickle.loads(files["test_batch"])
    assert marker.exists(), "the pickle must be able to run code, or this test shows nothing"


def test_other_codecs_are_refused(tmp_path):
    hostile = b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."
    assert pickle.loads(hostile) == "n"
    with pytest.raises(ValueError, match="refused the codec rot13"):
        source_of(tmp_path, {**batch_files(), "test_batch": hostile}, archived=False).decode("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"data": np.zeros((4, 3072), np.int16)}, r"b'data' is not uint8 \(n, 3072\) but int16 \(4, 3072\)"),
        ({b"data": np.zeros((4, 3000), np.uint8)}, r"but uint8 \(4, 3000\)"),
        ({b"data": np.array(4, np.uint8)}, r"but uint8 \(\)"),
        ({b"data": [0] * 4}, "but list"),
        ({b"labels": [0, 1, 2, 10]}, r"b'labels' is not a list of integers in \[0, 9\]"),
        ({b"labels": [0, 1, 2, -1]}, "b'labels' is not"),
        ({b"labels": [0, 1, 2, True]}, "b'labels' is not"),
        ({b"labels": None}, "b'labels' is not"),
        ({b"labels": [0, 1, 2]}, "4 images have 3 labels"),
        ({b"data": None, b"labels": 1}, "but NoneType; b'labels' is not"),
    ],
)
def test_malformed_batch(tmp_path, change, message):
    files = {**batch_files(4), "test_batch": python2_pickle({**batch(4, 0), **change})}
    with pytest.raises(ValueError, match=f"test_batch to hold a CIFAR-10 batch, got: .*{message}"):
        source_of(tmp_path, files, archived=False).decode("test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1], protocol=2), "to hold a CIFAR-10 batch"),
        (b"", "to be a pickle of arrays and numbers"),
        (b"\x80\x02}q", "to be a pickle of arrays and numbers"),
        (b"hello", "to be a pickle of arrays and numbers"),
    ],
)
def test_no_batch_at_all(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        source_of(tmp_path, {**batch_files(4), "test_batch": content}, archived=False).decode("test")


def with_member(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """The archive of a tiny data set with one more member at its end."""
    buffer = io.BytesIO(tar_gz(batch_files(2)))
    with tarfile.open(fileobj=buffer) as tar:
        files = [(m, f.read() if (f := tar.extractfile(m)) else b"") for m in tar.getmembers()]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member.size = len(content)
        for info, data in [*files, (member, content)]:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/tmp/outside", tarfile.REGTYPE),
        ("../outside", tarfile.REGTYPE),
        (f"{FOLDER}/../../outside", tarfile.REGTYPE),
        (f"{FOLDER}/link", tarfile.SYMTYPE),
        (f"{FOLDER}/link", tarfile.LNKTYPE),
        (f"{FOLDER}/device", tarfile.CHRTYPE),
        (f"{FOLDER}/pipe", tarfile.FIFOTYPE),
    ],
)
def test_archive_with_a_harmful_member_is_refused(tmp_path, name, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    packed = with_member(member, b"climbed" if kind == tarfile.REGTYPE else b"")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / ARCHIVE).write_bytes(packed)
    source = OfficialArchive(tmp_path / "root", manifest_of(batch_files(2), packed))
    with pytest.raises(ValueError, match=f"got the member '{name}': refused"):
        source.decode("train")
    assert [path.name for path in tmp_path.rglob("*")] == ["root", ARCHIVE]


def test_harmless_members_are_ignored(tmp_path):
    packed = with_member(tarfile.TarInfo("notes.txt"), b"hello")
    (tmp_path / ARCHIVE).write_bytes(packed)
    assert len(OfficialArchive(tmp_path, manifest_of(batch_files(2), packed)).decode("train")) == 10
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE], "nothing is unpacked to disk"


def test_archive_without_a_batch(tmp_path):
    files = batch_files(2)
    packed = tar_gz({name: content for name, content in files.items() if name != "data_batch_4"})
    (tmp_path / ARCHIVE).write_bytes(packed)
    source = OfficialArchive(tmp_path, manifest_of(files, packed))
    with pytest.raises(ValueError, match=f"to hold {FOLDER}/data_batch_4, got none"):
        source.decode("train")
    assert len(source.decode("test")) == 2


@pytest.mark.parametrize("packed", [tar_gz(batch_files(2))[:-200], b"not gzip", b""])
def test_archive_that_cannot_be_unpacked(tmp_path, packed):
    (tmp_path / ARCHIVE).write_bytes(packed)
    with pytest.raises(ValueError, match=f"Cannot read {tmp_path / ARCHIVE}: "):
        OfficialArchive(tmp_path, manifest_of(batch_files(2), packed)).decode("train")


def test_missing_batch_files_are_named(tmp_path):
    manifest = write_official(tmp_path)
    (tmp_path / FOLDER / "data_batch_2").unlink()
    (tmp_path / FOLDER / "test_batch").unlink()
    with pytest.raises(ValueError, match=f"batch files in {tmp_path / FOLDER}, got no data_batch_2, test_batch"):
        OfficialFiles(tmp_path, manifest)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("test", "train")])
def test_the_other_part_is_not_opened(tmp_path, archived, part, other):
    files = batch_files(2)
    prefix = "data_batch" if other == "train" else "test_batch"
    source = source_of(tmp_path, {n: b"junk" if n.startswith(prefix) else c for n, c in files.items()}, archived)
    source.manifest = replace(source.manifest, **{other: (("absent", "0" * 32),)})
    if not archived:
        for path in (tmp_path / FOLDER).glob(f"{prefix}*"):
            path.unlink()
    assert len(source.key(part)) == 64
    assert len(source.decode(part)) == (10 if part == "train" else 2)
    with pytest.raises(ValueError, match="absent"):
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
    before = {part: source.key(part) for part in PARTS}
    assert before["train"] != before["test"]
    assert {part: source.key(part) for part in PARTS} == before
    os.utime(path, ns=(0, 1))
    assert source.key("train") != before["train"]
    assert (source.key("test") == before["test"]) is not archived


def test_equal_trees_have_equal_manifests(tmp_path, monkeypatch):
    manifest = write_official(tmp_path / "a", archive=True)
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert write_official(tmp_path / "b") == manifest
    assert write_official(tmp_path / "c", seed=1) != manifest
