"""The state directory: the node's key, its network, and the making of both on first use.

``node_seed.hex`` (64 hex digits, mode 0600) is the identity; ``network.cbor`` the genesis of the one network that the
directory belongs to; ``author_guard`` is made together with the identity and never again by itself. Files appear
whole or not at all, and two processes that begin at once agree, because making happens under a lock.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sel.guard import AuthorGuard
from wattswarm.kernel.genesis import Genesis, local_genesis, parse_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.refusal import Refused

seed_name = "node_seed.hex"
network_name = "network.cbor"
lock_name = "home.lock"


@dataclass(frozen=True, slots=True)
class Home:
    """An opened state directory."""

    path: Path
    keys: Keypair
    genesis: Genesis


def exists(path: Path) -> bool:
    """Whether a node lives here, or what is left of one."""
    return any((path / name).exists() for name in (seed_name, network_name))


def open_home(path: Path, now_ms: int, genesis: Genesis | None = None) -> Home:
    """Open the state directory, making what is missing.

    ``genesis``: the network that a new directory belongs to; None: one of its own, ``local``. Raises ``Refused`` if
    a file is damaged, belongs to somebody else, or the directory is of another network than ``genesis``.
    """
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _making(path):
            keys = _identity(path)
            found = _network(path, keys, now_ms, genesis)
    except OSError as error:
        raise Refused("state_dir", f"the state directory {path} cannot be used: {error.strerror or error}") from None
    if genesis is not None and found.network_id != genesis.network_id:
        raise Refused(
            "other_network",
            f"{path} belongs to network {found.network_id.hex()[:16]}… ({found.said.name}), "
            f"not to {genesis.network_id.hex()[:16]}…; use another --state-dir",
        )
    return Home(path, keys, found)


@contextmanager
def _making(path: Path) -> Iterator[None]:
    fd = os.open(path / lock_name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _identity(path: Path) -> Keypair:
    file = path / seed_name
    try:
        mode = file.stat().st_mode & 0o777
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return _new_identity(path)
    if mode & 0o077:
        raise Refused("seed_mode", f"{file} has mode {mode:04o}: others may read the key; run: chmod 600 {file}")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32 or len(text) != 64:
        raise Refused("seed_damaged", f"{file} does not hold 64 hex digits; restore it, or use another --state-dir")
    return Keypair(seed)


def _new_identity(path: Path) -> Keypair:
    """A new key, and with it the guard that says it has signed nothing. The guard first: a key never lacks one."""
    if (path / network_name).exists():
        raise Refused(
            "seed_missing", f"{path / seed_name} is missing but the directory was used; restore it, or use another one"
        )
    seed = secrets.token_bytes(32)
    AuthorGuard(path).create()
    write_whole(path / seed_name, seed.hex().encode() + b"\n")
    return Keypair(seed)


def _network(path: Path, keys: Keypair, now_ms: int, genesis: Genesis | None) -> Genesis:
    file = path / network_name
    if file.exists():
        try:
            return parse_genesis(file.read_bytes())
        except Refused as refusal:
            raise Refused("network_file", f"{file} is damaged: {refusal.message}") from None
    with AuthorGuard(path) as guard:
        slot = guard.newest()
    if (path / "pg").exists() or (slot is not None and slot.end[0] >= 0):
        raise Refused(
            "network_missing",
            f"{file} is missing but the directory was used, and its log is of that network alone; restore the file, "
            "or use another --state-dir",
        )
    made = genesis or local_genesis(keys, now_ms)
    write_whole(file, made.wire())
    return made


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file, private unless ``mode`` says else, so that it is there whole or not at all, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
