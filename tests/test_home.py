"""The state directory: made once, by one of those who begin at once; never replaced when a part of it is lost."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sel.guard import AuthorGuard
from tests.cast import genesis_ms, keys_of
from wattswarm import home as homes
from wattswarm.home import network_name, open_home, seed_name
from wattswarm.kernel.genesis import local_genesis, parse_genesis
from wattswarm.kernel.refusal import Refused


def make(path: Path) -> homes.Home:
    return open_home(path, genesis_ms)


def test_first_use_makes_a_private_key_a_guard_and_a_network_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "node"
    home = make(path)
    assert stat.S_IMODE((path / seed_name).stat().st_mode) == 0o600
    assert len((path / seed_name).read_text().strip()) == 64
    assert home.genesis.said.name == "local"
    assert parse_genesis((path / network_name).read_bytes()).network_id == home.genesis.network_id
    with AuthorGuard(path) as guard:
        assert guard.confirm(-1, None) == ()


def test_second_use_finds_the_same_node(tmp_path: Path) -> None:
    first, second = make(tmp_path), open_home(tmp_path, genesis_ms + 1)
    assert first.keys.node_id == second.keys.node_id
    assert first.genesis.network_id == second.genesis.network_id


def test_a_directory_of_another_network_is_refused(tmp_path: Path) -> None:
    own = make(tmp_path)
    other = local_genesis(keys_of("eve"), genesis_ms)
    with pytest.raises(Refused, match=f"belongs to network {own.genesis.network_id.hex()[:16]}.*--state-dir"):
        open_home(tmp_path, genesis_ms, other)
    assert open_home(tmp_path, genesis_ms, own.genesis).keys.node_id == own.keys.node_id


def test_those_who_begin_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: open_home(tmp_path, genesis_ms + at), range(16)))
    assert len({(home.keys.node_id, home.genesis.network_id) for home in found}) == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "author_guard",
        homes.lock_name,
        network_name,
        seed_name,
    ]


def test_seed_is_never_shown(tmp_path: Path) -> None:
    home = make(tmp_path)
    assert (tmp_path / seed_name).read_text().strip() not in repr(home)


def test_new_directory_takes_the_network_it_is_given(tmp_path: Path) -> None:
    theirs = local_genesis(keys_of("ada"), genesis_ms)
    assert open_home(tmp_path, genesis_ms, theirs).genesis.network_id == theirs.network_id


def test_directory_of_one_network_is_not_opened_for_another(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(Refused, match="belongs to network"):
        open_home(tmp_path, genesis_ms, local_genesis(keys_of("ada"), genesis_ms))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_may_read_is_refused_with_the_command_that_mends_it(mode: int, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / seed_name).chmod(mode)
    with pytest.raises(Refused, match="chmod 600"):
        make(tmp_path)


@pytest.mark.parametrize("content", ["", "xyz", "ab" * 31, "ab" * 33, "zz" * 32, "é" * 64])
def test_damaged_key_is_refused_and_left_as_it_is(content: str, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / seed_name).write_text(content, encoding="utf-8")
    with pytest.raises(Refused, match="64 hex digits"):
        make(tmp_path)
    assert (tmp_path / seed_name).read_text(encoding="utf-8") == content


def test_lost_key_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / seed_name).unlink()
    assert homes.exists(tmp_path)
    with pytest.raises(Refused, match="is missing but the directory was used"):
        make(tmp_path)
    assert not (tmp_path / seed_name).exists()


def test_lost_network_of_a_node_with_a_log_is_not_replaced(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "pg").mkdir()
    (tmp_path / network_name).unlink()
    with pytest.raises(Refused, match="restore the file"):
        make(tmp_path)
    assert not (tmp_path / network_name).exists()


def test_beginning_that_a_crash_cut_is_finished(tmp_path: Path) -> None:
    made = make(tmp_path)
    (tmp_path / network_name).unlink()  # the key was written, the network not yet
    assert make(tmp_path).keys.node_id == made.keys.node_id


def test_damaged_network_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / network_name).write_bytes(b"junk")
    with pytest.raises(Refused, match="is damaged"):
        make(tmp_path)


def test_place_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(Refused, match="cannot be used"):
            make(place)


def test_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    homes.write_whole(path, b"before")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        homes.write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
