"""The embedded PostgreSQL outlives every way to kill its processes and users, and serves no copy of its data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import sel.embedded
from sel.binaries import programs, server_account
from sel.embedded import EmbeddedPostgres, _stranger, running
from sel.errors import StoreUnavailable
from sel.liveness import answers
from tests.sel.embedded.conftest import (
    User,
    ask,
    children,
    copy,
    eventually,
    kept,
    moved,
    server,
    starts,
)

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


def test_the_file_of_a_server_that_just_begins_is_read_when_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "postmaster.pid"
    file.touch()
    with subprocess.Popen(["sleep", "60"], cwd=tmp_path) as beginning:
        writing = threading.Timer(0.2, file.write_text, (f"{beginning.pid}\n",))
        writing.start()
        assert _stranger(tmp_path) == beginning.pid
        beginning.kill()


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
