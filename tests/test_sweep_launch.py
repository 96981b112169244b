"""What a sweep reports of a Ray cluster that it cannot use; `ray` itself is a stand-in here."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace

import pytest

from cifar_lightning.sweeps.launch import start_ray


class AuthenticationError(Exception):
    """As Ray 2.60 has it: no OSError."""


@pytest.mark.parametrize("error", [ConnectionError("Failed to connect"), AuthenticationError("no token was found")])
def test_a_cluster_that_does_not_let_us_in_may_have_a_token(error, monkeypatch):
    def init(**options: object) -> None:
        raise error

    ray = SimpleNamespace(init=init, exceptions=SimpleNamespace(RayError=AuthenticationError))
    monkeypatch.setitem(sys.modules, "ray", ray)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match=r"^Expected a Ray cluster") as caught:
            start_ray(address)
    message = str(caught.value)
    assert message.startswith(
        f"Expected a Ray cluster at `--address` {address}, got: {error}\nSomething listens there."
    )
    assert "copy ~/.ray/auth_token from its first machine to this one, and set RAY_AUTH_MODE=token" in message


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with pytest.raises(ValueError, match=r"^Expected a Ray cluster at `--address` 127.0.0.1:1, got: .*refused$"):
        start_ray("127.0.0.1:1")
