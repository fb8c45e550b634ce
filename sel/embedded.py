"""The embedded PostgreSQL of a state directory: the first process that needs it starts it, the last one out stops it.

Three files under ``<state-dir>/pg`` carry all of that; no process id that was read from a file is ever signalled:

- ``server.lock`` is locked by the server itself: the descriptor is inherited by the postmaster and all its children.
  Held means that something of the server still lives; free means that nothing does, however it ended. Only who gets
  this lock may start a server.
- ``users.lock`` is shared by every process that uses the server. Who can turn his share into the whole is the last.
- ``data/.s.PGSQL.5432``, the server's only socket, lies inside the data directory (mode 0700): who may open the data
  may connect, and a copied directory holds a dead socket, never a way to the original's server.

Blocking, and free of trio: an async caller runs ``__enter__``, ``ensure_running`` and ``__exit__`` in a thread.
It knows neither what the database holds nor the library that talks to it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from sel.binaries import Account, programs, server_account
from sel.cluster import (
    belongs_to_another,
    data_argument,
    database,
    diagnosed,
    ensure_cluster,
    role,
    surroundings,
    unusable,
)
from sel.errors import StoreUnavailable
from sel.liveness import answers, descriptors, fits, postmaster, reachable, socket_name

poll_s = 0.003
pid_written_s_max = 2.0
log_bytes_max = 1024 * 1024
log_tail_bytes = 8192
stop_steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))  # fast shutdown; then at once, to recover at next start

# Given on the command line, so that they are this version's whatever version made the data.
settings = {
    "listen_addresses": "",
    "unix_socket_directories": ".",  # relative to the data directory
    "max_connections": "50",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: a killed server leaves nothing in /dev/shm
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_level": "minimal",  # nobody replicates an embedded server; the swarm replicates the log
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "io_method": "sync",  # no I/O workers to start and stop
    "jit": "off",
    "autovacuum": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "log",  # an error goes to the client that made it, not to a file that grows
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """The server's life as one user of it sees it: ``with EmbeddedPostgres(state_dir) as server: server.dsn``.

    ``dsn`` is valid inside the ``with``, in this process, and stays the same when the server is restarted.
    Any number of processes, and of these objects in one process, may use one state directory. ``start_ms_max``
    bounds the wait for a server to answer, crash recovery included; a server that needs longer goes on recovering.
    """

    def __init__(self, state_dir: Path, start_ms_max: int = 60_000) -> None:
        self._pg = _place(state_dir)
        self._start_s_max = start_ms_max / 1000
        self._user = -1  # descriptor of our share in users.lock
        self._directory = -1  # descriptor of the data directory, when its path is too long for a socket
        self._child: subprocess.Popen[bytes] | None = None
        self.dsn = ""

    def __enter__(self) -> Self:
        """Start the server or join it. Raises ``StoreUnavailable``, ``StoreCorrupt``."""
        with _own_errors(self._pg):
            _prepare(self._pg)
            self._user = _share(self._pg / "users.lock", self._start_s_max)
            try:
                self._join()
                self.dsn = self._address()
            except StoreUnavailable:
                self._leave()  # without stopping: a server that is slow to recover would never get done
                raise
            except BaseException:
                self._leave_and_stop_if_last()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave, and stop the server if nobody else uses it. Raises ``StoreUnavailable`` if it will not stop."""
        with _own_errors(self._pg):
            self._leave_and_stop_if_last()

    def ensure_running(self) -> None:
        """Have a server that answers, after a connection was lost. Any thread, any number of processes at once.

        Raises ``StoreUnavailable``, ``StoreCorrupt``.
        """
        assert self.dsn, "used outside its with statement"
        with _own_errors(self._pg):
            self._join()

    def _join(self) -> None:
        deadline = time.monotonic() + self._start_s_max
        while True:
            with _whole(self._pg / "server.lock") as held:
                if held is not None:
                    self._child = _start(self._pg, held, deadline)
            if answers(self._pg / "data"):
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the PostgreSQL server of {self._pg} did not answer within {self._start_s_max:g} s. It may still "
                    "be recovering after a crash: try again in a while" + _last_lines(self._pg / "server.log")
                )
            time.sleep(poll_s)

    def _address(self) -> str:
        data = self._pg / "data"
        if fits(data):
            return url(self._pg.parent)
        self._directory = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        return _url(f"{descriptors}/{self._directory}")

    def _leave(self) -> None:
        for descriptor in (self._user, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._user = self._directory = -1
        self.dsn = ""

    def _leave_and_stop_if_last(self) -> None:
        try:
            if _take_whole(self._user):  # from here to _leave, newcomers wait at users.lock
                _stop(self._pg)
                if self._child is not None:
                    self._child.wait()
        finally:
            self._leave()


def running(state_dir: Path) -> bool:
    """Whether a server of this state directory lives, on this host, ready or not. Changes nothing."""
    try:
        lock = os.open(_place(state_dir) / "server.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unusable(_place(state_dir), error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


@contextmanager
def unused(state_dir: Path) -> Iterator[bool]:
    """Whether nobody uses the server of this state directory; nobody begins to before the block ends."""
    with _whole(_place(state_dir) / "users.lock") as held:
        yield held is not None


def url(state_dir: Path) -> str:
    """Where the server is found while it runs, for people and their tools (``psql URL``).

    A path too long for a socket (over 107 bytes in all) needs ``EmbeddedPostgres.dsn``, which works in its process.
    """
    return _url(str(_place(state_dir) / "data"))


def _url(socket_directory: str) -> str:
    # The port is said because PGPORT would be believed otherwise.
    return f"postgresql://{role}@/{database}?host={quote(socket_directory)}&port=5432"


def _place(state_dir: Path) -> Path:
    return Path(os.path.realpath(state_dir), "pg")


@contextmanager
def _own_errors(pg: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unusable(pg, error) from error


def _prepare(pg: Path) -> None:
    with suppress(FileExistsError):
        pg.parent.mkdir(parents=True, exist_ok=True)
        pg.mkdir(mode=0o700)
    owner = pg.stat().st_uid
    if owner != os.geteuid():
        raise belongs_to_another(pg, owner)
    if not reachable(pg / "data"):
        raise StoreUnavailable(f"{pg} is too long a path for a socket on this system: choose a shorter --state-dir")


def _share(path: Path, wait_s_max: float) -> int:
    """Our share of a lock, as a descriptor. Waits while somebody has the whole: the last one out, stopping."""
    deadline = time.monotonic() + wait_s_max
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise StoreUnavailable(
                    f"{path} is held by a process that has been stopping the server too long"
                ) from None
            time.sleep(poll_s)
        except BaseException:
            os.close(lock)
            raise
        else:
            return lock


def _take_whole(lock: int) -> bool:
    """Turn our share into the whole lock, if we are the only one. The share is lost either way, as flock(2) has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _whole(path: Path) -> Iterator[int | None]:
    """The whole lock for the length of the block, as a descriptor; None if anybody else has any of it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield lock if _take_whole(lock) else None
    finally:
        os.close(lock)


def _start(pg: Path, held: int, deadline: float) -> subprocess.Popen[bytes]:
    """Start the server and wait until it answers, or is killed by somebody: then it is worth another try."""
    account = server_account()
    binaries = programs(account)
    data = ensure_cluster(pg, binaries, account, held)
    _remove_traces(data)
    child, said_from = _spawn(pg, data, binaries, account, held)
    # The parent must collect it whenever it ends, also when this process has long stopped using it.
    threading.Thread(target=child.wait, name="collect-postgres", daemon=True).start()
    while not answers(data):
        if child.poll() == -signal.SIGKILL:
            break
        if child.returncode is not None:
            said = _tail(pg / "server.log", said_from)
            raise diagnosed(f"the PostgreSQL server of {pg} did not start", said, pg)
        if time.monotonic() > deadline:
            raise StoreUnavailable(
                f"the PostgreSQL server of {pg} is not ready in time; it goes on by itself (recovery after a crash "
                "can be long): try again in a while" + _last_lines(pg / "server.log")
            )
        time.sleep(poll_s)
    return child


def _spawn(pg: Path, data: Path, binaries: Path, account: Account, held: int) -> tuple[subprocess.Popen[bytes], int]:
    """The server as a direct child, and where in its log it begins."""
    log = pg / "server.log"
    with suppress(FileNotFoundError):
        if log.stat().st_size > log_bytes_max:
            log.replace(pg / "server.log.1")
    shown = {"wattswarm.state_dir": str(pg.parent)}  # so that ps tells whose server it is
    command = [str(binaries / "postgres"), "-D", data_argument(data)]
    for name, value in (settings | shown).items():
        command += ["-c", f"{name}={value}"]
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        said_from = os.fstat(output).st_size
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **surroundings(data, account, held),
        )
    finally:
        os.close(output)
    return child, said_from


def _remove_traces(data: Path) -> None:
    """Forget a server that is gone (its lock is free): its process id may be anybody's by now, even our own."""
    stranger = _stranger(data)
    if stranger is not None:
        raise StoreUnavailable(
            f"a PostgreSQL server that wattswarm did not start (process {stranger}) uses {data}: stop it first"
        )
    for trace in ("postmaster.pid", socket_name, f"{socket_name}.lock"):
        (data / trace).unlink(missing_ok=True)


def _stranger(data: Path) -> int | None:
    """A server that a person started here by hand, where /proc shows it. PostgreSQL itself has a second check.

    A server that just begins has made its file and not yet written into it.
    """
    deadline = time.monotonic() + pid_written_s_max
    with suppress(OSError, ValueError):
        while not (said := (data / "postmaster.pid").read_text()) and time.monotonic() < deadline:
            time.sleep(poll_s)
        pid = int(said.split("\n", 1)[0])
        if os.path.samefile(f"/proc/{pid}/cwd", data):
            return pid
    return None


def _stop(pg: Path) -> None:
    """End the server and wait until nothing of it lives. The caller has all of users.lock, so nobody starts one."""
    pid = None
    for step, wait_s in stop_steps:
        sent = False
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            with _whole(pg / "server.lock") as held:
                if held is not None:
                    return
            pid = pid if pid is not None else postmaster(pg / "data")
            if pid == 0:
                return  # it runs in another container, which ends it
            if pid is not None and not sent:
                with suppress(ProcessLookupError):
                    os.kill(pid, step)
                sent = True
            time.sleep(poll_s)
    raise StoreUnavailable(f"the PostgreSQL server of {pg} does not stop" + _last_lines(pg / "server.log"))


def _tail(log: Path, begin: int = 0) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - log_tail_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _last_lines(log: Path) -> str:
    last = "\n".join(f"  {line}" for line in _tail(log).strip().splitlines()[-8:])
    return f"\nPostgreSQL said last:\n{last}" if last else ""
