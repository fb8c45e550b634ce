"""Real servers and real processes for the tests of the embedded PostgreSQL, and what all of them ask of these.

Most tests use one state dir, made once (initdb takes a second).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from sel.embedded import EmbeddedPostgres, running
from sel.liveness import postmaster

patience_s = 30.0
in_clone = Path(__file__).parents[3]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes accounts or mounts, which takes root")

# One user of the server in a process of its own; argv: state dir, account to become or -1, site of the programs or "".
# Prints its DSN once it is in; answers each line of SQL; leaves at the end of its input.
user_program = """
import asyncio, os, sys
from pathlib import Path
import sel.embedded
from sel.errors import StoreError
state_dir, uid, site = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
if site:
    sys.path.insert(0, site)
if uid >= 0:
    import asyncpg, encodings.idna  # the interpreter may be out of reach soon
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
async def ask(dsn, query):
    import asyncpg
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
try:
    with sel.embedded.EmbeddedPostgres(state_dir) as server:
        print(server.dsn, flush=True)
        for line in sys.stdin:
            print(asyncio.run(ask(server.dsn, line)), flush=True)
except StoreError as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    sys.exit(1)
"""


class User:
    """A process that uses the server."""

    def __init__(self, state_dir: Path, uid: int = -1, site: str = "", wait: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", user_program, str(state_dir), str(uid), site],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=in_clone,
        )
        self.dsn = self.hear() if wait else ""

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, query: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(query + "\n")
        self.process.stdin.flush()
        return self.hear()

    def leave(self) -> str:
        """The rest of what it said."""
        said, _ = self.process.communicate(timeout=30)
        return said

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


def ask(dsn: str, *queries: str) -> Any:
    """The value that the last query gives, on a connection of its own."""

    async def session() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return [await connection.fetchval(query) for query in queries][-1]
        finally:
            await connection.close()

    return asyncio.run(session())


kept = "SELECT n FROM kept WHERE n = 7"


def starts(state_dir: Path) -> int:
    return (state_dir / "pg/server.log").read_text().count("LOG:  starting PostgreSQL")


def server(state_dir: Path) -> int:
    pid = postmaster(state_dir / "pg/data")
    assert pid
    return pid


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def children() -> set[int]:
    """Our processes, zombies among them."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def copy(state_dir: Path, to: Path, how: str = "-a") -> Path:
    subprocess.run(["cp", how, str(state_dir), str(to)], check=True)
    return to


def _ownerless_segments() -> list[str]:
    """Postgres's shared memory that no living process uses: left by a server, not in use by another one here."""
    used = set()
    for process in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            used |= {line.split("/dev/shm/")[1] for line in process.read_text().splitlines() if "/dev/shm/" in line}
    return [name for name in os.listdir("/dev/shm") if name.startswith("PostgreSQL") and name not in used]


@pytest.fixture(scope="session")
def room() -> Iterator[Path]:
    """A place with a short path that any account can enter. Afterwards nothing of ours may be left anywhere."""
    path = Path(tempfile.mkdtemp(prefix="ws-", dir="/tmp"))
    path.chmod(0o777)
    before = set(_ownerless_segments())
    yield path
    left = [line for line in _commands() if str(path) in line]
    shutil.rmtree(path)
    assert left == []
    deadline = time.monotonic() + patience_s  # a server that another test kills meanwhile is started again by it
    while fresh := set(_ownerless_segments()) - before:
        assert time.monotonic() < deadline, fresh
        time.sleep(0.2)


def _commands() -> list[str]:
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(process.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return lines


@pytest.fixture(scope="session")
def made(room: Path) -> Path:
    """A state dir with a table ``kept`` that has the row 7. Tests add rows, each its own number."""
    state_dir = room / "made" / "state"
    with EmbeddedPostgres(state_dir) as joined:
        ask(joined.dsn, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
    return state_dir


@pytest.fixture
def state_dir(made: Path) -> Iterator[Path]:
    """``made``, with no server. Whatever a test does, its server is gone afterwards, and collected."""
    (made / "pg/server.log").unlink(missing_ok=True)
    before = children()
    yield made
    assert not running(made)
    eventually(lambda: children() <= before)  # the last one out need not be the parent


@contextmanager
def spoilt(file: Path, content: bytes) -> Iterator[None]:
    good = file.read_bytes()
    file.write_bytes(content)
    yield
    file.write_bytes(good)


@contextmanager
def moved(state_dir: Path, to: Path) -> Iterator[Path]:
    yield state_dir.rename(to)
    to.rename(state_dir)
