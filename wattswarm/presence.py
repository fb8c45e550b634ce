"""Whether a daemon lives in a state directory, which process it is, and what it says of itself.

``daemon.lock`` is locked for the daemon's life: the kernel knows who holds it and lets go of it however the process
ends, so what a dead process left behind is never believed and no stale process id is ever signalled.
``node_state.json`` is what the daemon says of itself: always whole, and only worth something while the lock is held.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from wattswarm.home import write_whole
from wattswarm.kernel.refusal import Refused

lock_name = "daemon.lock"
state_name = "node_state.json"
_FLOCK = "@hhqqi" if sys.platform == "linux" else "@qqihh"
"""fcntl(2) ``struct flock`` with 64-bit offsets: of Linux, or of macOS and the BSDs."""

# The kernel lets go of a process's lock when the process closes the file anywhere, so it is opened here only, and
# where it is locked by this very process nobody asks the kernel.
_held_here: set[Path] = set()


class NodeState(Struct, frozen=True):
    """``node_state.json``. Times in unix ms; ``phase``: starting, ready or stopping; ``listen`` is empty without a
    network. ``tasks``: open tasks that are attended to. ``clock_off_ms``: by how much this host's clock is ahead of its
    peers', or behind. ``kept_out``: nodes and hosts not let in, until when. ``not_connected``: members -> since when
    nothing connects them with this node, in networks so small that a node is connected to every other."""

    pid: int
    boot_id: str
    version: str
    phase: str
    started_at: int
    refreshed_at: int
    node_id: str = ""
    network_id: str = ""
    listen: str = ""
    autopilot: bool = False
    tasks: int = 0
    alarms: list[str] = []
    clock_off_ms: int = 0
    peers: list[dict[str, Any]] = []
    kept_out: list[dict[str, Any]] = []
    not_connected: dict[str, int] = {}


def _lock_path(state_dir: Path) -> Path:
    return Path(os.path.realpath(state_dir), lock_name)


@contextmanager
def presence(state_dir: Path) -> Iterator[None]:
    """Be the daemon of the state directory. Raises ``Refused`` if another process is."""
    path = _lock_path(state_dir)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        taken = path in _held_here
        lock = -1 if taken else os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused("state_dir", f"the state directory {state_dir} cannot be used: {error.strerror}") from None
    if taken:
        raise _runs_already(state_dir, os.getpid())
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = _holder(lock)
        os.close(lock)
        raise _runs_already(state_dir, pid) from None
    _held_here.add(path)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            (path.parent / state_name).unlink()
        _held_here.discard(path)
        os.close(lock)


def _runs_already(state_dir: Path, pid: int | None) -> Refused:
    return Refused(
        "daemon_runs",
        f"a daemon of {state_dir} runs already{f' (process {pid})' if pid else ''}; `wattswarm node status` shows it, "
        "`wattswarm node down` ends it, --state-dir names another place",
    )


def daemon_process(state_dir: Path) -> int | None:
    """The process id of the daemon that lives here; 0 if it cannot be seen from here (another container)."""
    path = _lock_path(state_dir)
    if path in _held_here:
        return os.getpid()
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused("state_dir", f"{path} cannot be read: {error.strerror}") from None
    try:
        return _holder(lock)
    finally:
        os.close(lock)


def _holder(lock: int) -> int | None:
    """Who holds the lock, as the kernel says (F_GETLK)."""
    linux = sys.platform == "linux"
    asked = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    said = struct.unpack(_FLOCK, fcntl.fcntl(lock, fcntl.F_GETLK, struct.pack(_FLOCK, *asked)))
    kind, pid = (said[0], said[4]) if linux else (said[3], said[2])
    return None if kind == fcntl.F_UNLCK else int(pid)


def ask_to_stop(state_dir: Path) -> int | None:
    """Send SIGTERM to the daemon that lives here; its process id, or None if there is none. Raises ``Refused``."""
    pid = daemon_process(state_dir)
    if pid == 0:
        raise Refused("daemon_elsewhere", f"the daemon of {state_dir} runs in another container: stop it there")
    if pid is None:
        return None
    try:
        _signal(state_dir, pid)
    except ProcessLookupError:
        return None
    except PermissionError:
        raise Refused("not_yours", f"process {pid} belongs to another account: stop it from there") from None
    return pid


def _signal(state_dir: Path, pid: int) -> None:
    """Signal that very process: a descriptor cannot come to mean another one between the look and the signal."""
    if not hasattr(os, "pidfd_open"):
        os.kill(pid, signal.SIGTERM)
        return
    process = os.pidfd_open(pid)
    try:
        if daemon_process(state_dir) == pid:
            signal.pidfd_send_signal(process, signal.SIGTERM)
    finally:
        os.close(process)


def read_state(state_dir: Path) -> NodeState | None:
    """What the daemon said of itself last, or a dead one left; None if nothing that can be read."""
    try:
        return msgspec.json.decode((state_dir / state_name).read_bytes(), type=NodeState)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_state(state_dir: Path, state: NodeState) -> None:
    """Say it. Blocking."""
    write_whole(state_dir / state_name, msgspec.json.format(msgspec.json.encode(state)) + b"\n", 0o644)


def boot_id() -> str:
    """What tells this run of the host from the one before; empty where the host does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
