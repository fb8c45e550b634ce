"""What a service manager wants to hear: sd_notify(3) in a few lines. Silence where nobody asked (NOTIFY_SOCKET)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(said: str) -> None:
    """Send ``READY=1``, ``STOPPING=1`` or ``STATUS=…``. A manager that is gone is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.sendto(said.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)
