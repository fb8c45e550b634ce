"""sd_notify: what is said arrives at the manager's socket, and without one nothing happens."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattswarm.systemd import notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        yield listening


def test_manager_hears_what_is_said(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="wsn-", dir="/tmp") as directory:
        manager.bind(str(Path(directory, "notify")))
        monkeypatch.setenv("NOTIFY_SOCKET", str(Path(directory, "notify")))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_abstract_address_is_understood(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    manager.bind("")  # the kernel chooses an abstract name
    name = manager.getsockname()
    monkeypatch.setenv("NOTIFY_SOCKET", "@" + name[1:].decode())
    notify("STOPPING=1")
    assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "127.0.0.1:1"])
def test_nobody_who_listens_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
