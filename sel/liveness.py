"""Whether the PostgreSQL server in a data directory serves, and which process it is: asked of its socket, not of files.

The socket lies in the data directory, so whoever answers on it is that directory's own server. A path too long for a
socket address is reached through a descriptor of the directory (Linux).
This file starts and stops nothing, and speaks no more of PostgreSQL's protocol than a login.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sel.cluster import database, role

socket_name = ".s.PGSQL.5432"
socket_path_bytes_max = 103 if sys.platform == "darwin" else 107
answer_s_max = 2.0
descriptors = "/proc/self/fd"


@contextmanager
def _connected(data: Path) -> Iterator[socket.socket]:
    """A connection to the server in ``data``, on a path short enough. Raises ``OSError``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(answer_s_max)
        if fits(data):
            connection.connect(str(data / socket_name))
        else:
            directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
            try:
                connection.connect(f"{descriptors}/{directory}/{socket_name}")
            finally:
                os.close(directory)
        yield connection


def fits(data: Path) -> bool:
    """Whether the path of the socket in ``data`` fits a socket address."""
    return len(os.fsencode(data / socket_name)) <= socket_path_bytes_max


def reachable(data: Path) -> bool:
    """Whether the socket in ``data`` has a path short enough, one way or the other."""
    return fits(data) or os.path.exists(descriptors)


def postmaster(data: Path) -> int | None:
    """The process that listens in ``data``, as the kernel knows it; 0 if it is outside our process namespace."""
    try:
        with _connected(data) as connection:
            if sys.platform == "darwin":
                return connection.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            pid: int = struct.unpack("3i", credentials)[0]
            return pid
    except OSError:
        return None


def answers(data: Path) -> bool:
    """Whether the server takes clients now: log in as one, and out (PostgreSQL's frontend/backend protocol 3.0)."""
    if not _says_ready(data):
        return False  # it would refuse, and log that it did
    asked = b"user\0%b\0database\0%b\0\0" % (role.encode(), database.encode())
    said = b""
    try:
        with _connected(data) as connection:
            connection.sendall(struct.pack("!II", len(asked) + 8, 3 << 16) + asked)
            while chunk := connection.recv(4096):
                said += chunk
                if said.endswith(b"Z\0\0\0\5I"):  # ready for query
                    connection.sendall(b"X\0\0\0\4")  # terminate
                    return True
    except OSError:
        return False
    # Refused, but not for starting or stopping (57P01..03): too many clients, say. The server is there.
    return said.startswith(b"E") and b"\0C57P0" not in said


def _says_ready(data: Path) -> bool:
    """What the server wrote last about itself: a cheap hint when to ask it, never a proof."""
    try:
        lines = (data / "postmaster.pid").read_text().split("\n")
    except OSError:
        return False
    return len(lines) > 7 and lines[7].strip() == "ready"
