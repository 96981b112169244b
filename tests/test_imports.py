"""The key that this user's runs are signed with."""

from __future__ import annotations

import secrets
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cifar_lightning import imports


def test_programs_that_start_together_sign_with_one_key(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    original = secrets.token_bytes

    def slowly(count: int) -> bytes:
        time.sleep(0.05)
        return original(count)

    monkeypatch.setattr(secrets, "token_bytes", slowly)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: imports.user_key(), range(8)))
    assert [len(key) for key in keys] == [32]
    file = tmp_path / "config/cifar_lightning/key"
    assert keys == {file.read_bytes()}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("home", ["relative", "/dev/null"])
def test_without_a_folder_of_the_user_there_is_no_key(monkeypatch, home):
    monkeypatch.setenv("XDG_CONFIG_HOME", home)
    with pytest.raises(OSError):
        imports.user_key()
