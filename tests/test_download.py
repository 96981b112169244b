from __future__ import annotations

import hashlib
import http.server
import logging
import os
import socket
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
from trees import ARCHIVE, manifest_of

from cifar_lightning.data import download
from cifar_lightning.data.download import download_archive

CONTENT = b"the archive" * 1000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    """A local server with the behaviours of `mode`; `asked` lists the paths of the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.server.mode == "missing":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT if self.server.mode == "whole" else CONTENT[:5000])
            if self.server.mode == "silent":
                self.server.stop.wait(10)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.mode, server.stop = [], "whole", threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stop.set()
        server.shutdown()
        thread.join()


def manifest_for(server):
    return manifest_of({}, CONTENT, url=f"http://127.0.0.1:{server.server_port}/{ARCHIVE}")


def visible_files(root):
    return sorted(path.name for path in root.iterdir() if path.name != ".cifar_lightning")


def test_download_creates_the_root_and_leaves_only_the_archive(tmp_path, server):
    download_archive(tmp_path / "a" / "b", manifest_for(server))
    assert (tmp_path / "a" / "b" / ARCHIVE).read_bytes() == CONTENT
    assert visible_files(tmp_path / "a" / "b") == [ARCHIVE]
    assert socket.getdefaulttimeout() is None  # a timeout for all sockets of the process


def test_partial_files_of_killed_downloads_are_removed(tmp_path, server):
    (tmp_path / f".{ARCHIVE}.0123456789abcdef").write_bytes(b"x" * 99_999)
    download_archive(tmp_path, manifest_for(server))
    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT
    assert visible_files(tmp_path) == [ARCHIVE]


def test_two_at_once_download_once(tmp_path, server):
    threads = [threading.Thread(target=download_archive, args=(tmp_path, manifest_for(server))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.asked == [f"/{ARCHIVE}"]
    assert (tmp_path / ARCHIVE).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("missing", "Cannot download .*: HTTP Error 404: Not Found"),
        ("silent", "Cannot download .*: timed out"),
        ("cut", "Expected MD5 .* for the 5,000 bytes received"),
    ],
)
def test_server_at_fault(tmp_path, server, monkeypatch, mode, message):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.5)
    server.mode = mode
    with pytest.raises(ValueError, match=message):
        download_archive(tmp_path, manifest_for(server))
    assert visible_files(tmp_path) == []


def test_wrong_file_is_not_kept(tmp_path, server):
    found = hashlib.md5(CONTENT).hexdigest()
    with pytest.raises(
        ValueError, match=f"Expected MD5 {'0' * 32} for http\\S+, got {found} for the 11,000 bytes received"
    ):
        download_archive(tmp_path, replace(manifest_for(server), archive_md5="0" * 32))
    assert visible_files(tmp_path) == []


def test_closed_port(tmp_path):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        start = time.monotonic()
        with pytest.raises(ValueError, match=rf"Cannot download {url}: \[Errno \d+\] Connection refused"):
            download_archive(tmp_path, manifest_of({}, url=url))
    assert time.monotonic() - start < 15
    assert visible_files(tmp_path) == []


def test_unknown_host(tmp_path):
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"Cannot download http://host\.invalid/x: "):
        download_archive(tmp_path, manifest_of({}, url="http://host.invalid/x"))
    assert time.monotonic() - start < 15


def test_the_progress_bar_counts_the_bytes(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    download_archive(tmp_path, manifest_for(server))
    assert "Downloading: 100%" in (printed := capsys.readouterr().err)
    assert "11.0k/11.0k" in printed


def test_no_progress_bar_outside_a_terminal(tmp_path, server, capsys, monkeypatch):
    # Another test may have turned on log lines in this process.
    monkeypatch.setattr(logging.getLogger("cifar_lightning"), "handlers", [])
    download_archive(tmp_path, manifest_for(server))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("url", ["nonsense", "http://"])
def test_no_url(tmp_path, url):
    with pytest.raises(ValueError, match=f"Cannot download {url}: "):
        download_archive(tmp_path, manifest_of({}, url=url))


def test_root_that_cannot_be_created(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=rf"`data.root` that can be written .* got {tmp_path}/file/root: Not a dir"):
        download_archive(tmp_path / "file" / "root", manifest_for(server))
    assert server.asked == []


def test_full_disk_is_not_blamed_on_the_network(tmp_path, server, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"that can be written .*: No space left on device"):
        download_archive(tmp_path, manifest_for(server))
    assert visible_files(tmp_path) == []
