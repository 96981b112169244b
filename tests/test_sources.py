from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trees import ARCHIVE, FOLDER, write_class_folders, write_official

from cifar_lightning.data import cache, official
from cifar_lightning.data.sources import find_source, load_images

ALTERNATIVES = (
    "put the official archive or class folders at --data.root, or set CIFAR10_ROOT",
    "--data.download true",
    "--data.source synthetic",
)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("no_proxy", "*")
    cache._warn_uncached.cache_clear()


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def test_order(root):
    write_class_folders(root)
    assert find_source(root, download=False).name == "class folders"
    manifest = write_official(root, archive=True)
    assert find_source(root, download=False, manifest=manifest).name == "official archive"
    write_official(root)
    for download in (False, True):
        assert find_source(root, download, manifest).name == "official batches"
    shutil.rmtree(root / FOLDER)
    (root / ARCHIVE).unlink()
    assert find_source(root, download=True, manifest=manifest).name == "class folders"


def test_the_published_manifest_is_the_default(root, monkeypatch):
    manifest = write_official(root)
    with pytest.raises(ValueError, match=r"data_batch_1 to be the published file with MD5 c99cafc1"):
        find_source(root, download=False).decode("train")
    monkeypatch.setattr(official, "official_manifest", lambda: manifest)
    assert len(find_source(root, download=False).decode("train")) == 100


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_there(tmp_path, monkeypatch, exists):
    monkeypatch.chdir(tmp_path)
    if exists:
        Path("data").mkdir()
    with pytest.raises(ValueError, match=r"Expected `data\.root` to hold CIFAR-10") as caught:
        find_source(Path("data"), download=False)
    message = str(caught.value)
    for text in (f"{FOLDER}/", ARCHIVE, "train/<class>/", "test/<class>/", str(tmp_path / "data"), *ALTERNATIVES):
        assert text in message
    assert ("a folder that does not exist" in message) is not exists
    assert Path("data").exists() is exists


def test_root_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=f"folder that can be read, got {tmp_path}/file: Not a directory"):
        find_source(tmp_path / "file", download=False)


@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_source_is_an_error_even_if_there_is_another(root, download):
    write_class_folders(root)
    manifest = write_official(root, archive=True)
    write_official(root)
    (root / FOLDER / "data_batch_5").unlink()
    with pytest.raises(ValueError, match="got no data_batch_5"):
        find_source(root, download, manifest)
    shutil.rmtree(root / FOLDER)
    (root / ARCHIVE).write_bytes(b"")
    with pytest.raises(ValueError, match=f"{ARCHIVE} to be the published file"):
        load_images(find_source(root, download, manifest), "train", root)
    (root / ARCHIVE).unlink()
    shutil.rmtree(root / "test")
    with pytest.raises(ValueError, match="missing: test/airplane"):
        find_source(root, download, manifest)


def test_failed_download_names_the_cause_and_the_alternatives(tmp_path, root):
    manifest = write_official(tmp_path / "elsewhere")  # its URL is a closed port
    with pytest.raises(ValueError, match=r"Cannot download http://127.0.0.1:9/\S+: .*refused") as caught:
        find_source(root, download=True, manifest=manifest)
    for text in ALTERNATIVES:
        assert text in str(caught.value)


def test_the_download_is_used(root, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        "cifar_lightning.data.sources.download_archive",
        lambda root, manifest: fetched.append(write_official(root, archive=True)),
    )
    source = find_source(root, download=True)
    assert len(fetched) == 1
    assert source.name == "official archive"


def test_load_images_decodes_once_and_logs_it(root, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    write_class_folders(root)
    source = find_source(root, download=False)
    first = load_images(source, "train", root)
    assert [record.getMessage() for record in caplog.records] == [
        f"Decoding the training images of {root} (class folders), once for all later runs"
    ]
    monkeypatch.setattr(source, "decode", None)
    assert load_images(source, "train", root).fingerprint == first.fingerprint
    assert len(caplog.records) == 1
    monkeypatch.undo()
    assert len(load_images(source, "test", root)) == 20
    assert "Decoding the test images" in caplog.text


def test_changed_image_is_decoded_again(root):
    write_class_folders(root)
    source = find_source(root, download=False)
    before = load_images(source, "train", root)
    shutil.copy(root / "train" / "dog" / "0000_dog.png", root / "train" / "cat" / "0000_cat.png")
    after = load_images(source, "train", root)
    assert (before.images != after.images).flatten(1).any(1).nonzero().flatten().tolist() == [12]


READ_ONLY = """
import logging, os, sys
from pathlib import Path
from cifar_lightning.data.sources import find_source, load_images

logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.INFO)
for root in map(Path, sys.argv[1:]):
    assert not os.access(root, os.W_OK), "this process must not be able to write there"
    source = find_source(root, download=False)
    print(*(len(load_images(source, split, root)) for split in ("train", "train", "test", "test")))
os.environ["XDG_CACHE_HOME"] = sys.argv[1]
print(*(len(load_images(source, split, root)) for split in ("train", "train", "test", "test")))
try:
    find_source(root / "new", download=True)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_read_only_roots(tmp_path):
    cached, fresh = tmp_path / "cached", tmp_path / "fresh"
    for root in (cached, fresh):
        write_class_folders(root)
    for split in ("train", "test"):
        load_images(find_source(cached, download=False), split, cached)
    command = [sys.executable, "-c", READ_ONLY, str(cached), str(fresh)]
    if os.geteuid() == 0:  # permission bits apply to root only without these capabilities
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root needs setpriv to be without write permission")
        command = [setpriv, "--bounding-set", "-dac_override,-dac_read_search", *command]
    folders = [*cached.rglob("*"), cached, fresh]
    for folder in folders:
        folder.chmod(0o555)
    try:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    decoding = [line for line in lines if line.startswith("Decoding")]
    # The cache in the first root is read. The second root is decoded into the user's folder, and, when that cannot be
    # written either, each time: twice per split.
    assert [line.split(" (")[0] for line in decoding] == [
        f"Decoding the {part} images of {fresh}" for part in ("training", "test", *["training"] * 2, *["test"] * 2)
    ]
    assert lines.count("40 40 20 20") == 3
    (warning,) = [line for line in lines if "no cache can be written" in line]
    assert f"{fresh / cache.CACHE_FOLDER}: Permission denied; {cached}" in warning
    assert f"`data.root` that can be written for `data.download`, got {fresh / 'new'}: Permission denied" in done.stdout
    assert not (fresh / cache.CACHE_FOLDER).exists()
    assert len(list((tmp_path / "user").rglob("*.npz"))) == 2
