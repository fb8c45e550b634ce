"""Where a cluster lives: a directory of its own, with a disk of limited size for each host where one may become full.

The directory's name holds the process that made it: what a killed run left, the next one ends and removes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netsim.cluster.command import CommandFailed, run_command
from netsim.cluster.host import kill_postgres
from sel.embedded import running
from wattswarm.presence import daemon_process

disk_bytes = 4 << 30
"""More than a database comes to need: only what is used takes memory."""
ended_s_max = 5.0
spare_blocks_max = 2048
"""Room that a disk is left with at the most when it is made full while it is written to: 8 MiB in blocks of a page."""
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
                run_command("mount", "-t", "tmpfs", "-o", f"size={disk_bytes},mode=755", "wattswarm", str(disk))
            places.append(disk / "state")
        yield places
    finally:
        _remove(directory)


def fill_disk(disk: Path) -> None:
    """From now on a host's disk has room for what is on it, and for next to nothing more. Blocking.

    What is written in the meantime makes it too small for what it holds, and that is refused: a little more, then.
    """
    spare_blocks = 1
    while True:
        now = os.statvfs(disk)
        size = (now.f_blocks - now.f_bfree + spare_blocks) * now.f_frsize
        try:
            run_command("mount", "-o", f"remount,size={size}", str(disk))
        except CommandFailed:
            if spare_blocks == spare_blocks_max:
                raise
            spare_blocks *= 2
        else:
            return


def free_disk(disk: Path) -> None:
    """There is room again. Blocking."""
    run_command("mount", "-o", f"remount,size={disk_bytes}", str(disk))


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
            run_command("umount", "--lazy", str(disk))
    shutil.rmtree(directory)
