"""Where a cluster lives: a directory of its own, with a disk of limited size for each host where one may become full.

The directory's name holds the process that made it: what a killed run left, the next one ends and removes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netsim.cluster.host import kill_postgres
from sel.embedded import running
from wattswarm.presence import daemon_process

disk_bytes = 4 << 30
"""More than a database comes to need: only what is used takes memory."""
ended_s_max = 5.0
tries_max = 12
"""To make a disk full while it is written to; the last leaves room for 8 MiB."""
prefix = "wscluster"
base = Path("/tmp")  # noqa: S108 - a socket's path must be short, and the directory below is this run's own
_named = re.compile(rf"{prefix}-(\d+)-\w+")


@contextmanager
def open_places(size: int, *, own_disks: bool) -> Iterator[list[Path]]:
    """State directories to be, on disks of their own if wanted (takes root); gone with the block."""
    for left in _left_behind():
        _remove(left)
    directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=base))
    directory.chmod(0o755)
    try:
        places = []
        for number in range(size):
            disk = directory / f"n{number:03}"
            disk.mkdir(mode=0o755)
            if own_disks:
                _run("mount", "-t", "tmpfs", "-o", f"size={disk_bytes},mode=755", "wattswarm", str(disk))
            places.append(disk / "state")
        yield places
    finally:
        _remove(directory)


def fill_disk(disk: Path) -> None:
    """From now on a host's disk has room for what is on it, and for next to nothing more. Blocking.

    What is written in the meantime makes it too small for what it holds, and that is refused: a little more, then.
    """
    for spare_blocks in (1 << number for number in range(tries_max)):
        now = os.statvfs(disk)
        size = (now.f_blocks - now.f_bfree + spare_blocks) * now.f_frsize
        done = _ran("mount", "-o", f"remount,size={size}", str(disk))
        if done.returncode == 0:
            return
    raise AssertionError(f"{disk} cannot be made full: {done.stderr}")


def free_disk(disk: Path) -> None:
    """There is room again. Blocking."""
    _run("mount", "-o", f"remount,size={disk_bytes}", str(disk))


def _left_behind() -> list[Path]:
    """Directories of this user's whose maker is gone."""
    found = [(path, _named.fullmatch(path.name)) for path in base.glob(f"{prefix}-*")]
    mine = [(path, match[1]) for path, match in found if match and path.stat().st_uid == os.geteuid()]
    return [path for path, maker in mine if not Path("/proc", maker).exists()]


def _remove(directory: Path) -> None:
    """End what still runs there, and take it away."""
    for state in directory.glob("*/state"):
        pid = daemon_process(state)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        kill_postgres(state)
        deadline = time.monotonic() + ended_s_max
        while running(state) and time.monotonic() < deadline:
            time.sleep(0.01)
    for disk in directory.glob("*"):
        if os.path.ismount(disk):
            _run("umount", "--lazy", str(disk))
    shutil.rmtree(directory)


def _ran(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)


def _run(*words: str) -> None:
    done = _ran(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
