"""Founding a network, joining one, and leaving a log behind without losing it or signing a second chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from sel.guard import AuthorGuard
from sel.guard import file_name as guard_name
from tests.cast import genesis_ms, keys_of
from tests.daemons import on_node, place, wattswarm
from tests.sel.stores import fresh_database
from wattswarm.checkpoint import author_checkpoint
from wattswarm.config import Config, load
from wattswarm.home import network_name, open_home
from wattswarm.kernel.genesis import Genesis, all_roles, local_genesis
from wattswarm.kernel.refusal import Refused
from wattswarm.networks import enter, founding, remember_addresses
from wattswarm.node import Node, open_node
from wattswarm.presence import presence

theirs = local_genesis(keys_of("ada"), genesis_ms)


def at(path: Path, url: str | None = None) -> Config:
    return load({"state_dir": str(path), "pg_url": url}, {})


async def join(config: Config, genesis: Genesis = theirs, *, fresh: bool = False) -> bytes:
    return (await enter(config, lambda _: genesis, fresh)).home.genesis.network_id


async def author(config: Config) -> bytes:
    async with open_node(config) as node:
        return (await author_checkpoint(node.log)).id


async def test_a_new_directory_becomes_an_observer_of_the_network_it_joins(tmp_path: Path) -> None:
    entered = await enter(at(tmp_path / "new"), lambda _: theirs, False)
    assert entered.home.genesis.network_id == theirs.network_id
    assert entered.home.keys.node_id not in theirs.members
    assert not (tmp_path / "new" / "pg").exists(), "no server is started to find out that there is no log"


async def test_founders_and_the_node_itself_are_the_first_members(tmp_path: Path) -> None:
    ben = keys_of("ben").node_id
    make = founding("ours", "crash", {ben: frozenset({"finalizer"})})
    home = (await enter(at(tmp_path), make, False)).home
    assert home.genesis.members == {home.keys.node_id: all_roles, ben: frozenset({"finalizer"})}
    assert (home.genesis.said.name, home.genesis.said.fault_model) == ("ours", "crash")
    assert list(home.genesis.signatures) == [home.keys.node_id]


async def test_a_network_of_ones_own_that_was_not_used_gives_way(tmp_path: Path, postgres_dsn: str) -> None:
    async with fresh_database(postgres_dsn) as database:
        config = at(tmp_path, database.dsn)
        async with open_node(config) as node:
            key = node.home.keys.node_id
        assert await join(config) == theirs.network_id
        async with open_node(config) as node:
            assert (node.home.keys.node_id, node.log.network.network_id) == (key, theirs.network_id)


async def test_a_log_that_holds_something_is_not_left_unasked(tmp_path: Path, postgres_dsn: str) -> None:
    async with fresh_database(postgres_dsn) as database:
        config = at(tmp_path, database.dsn)
        before = await author(config)
        with pytest.raises(Refused, match=r"holds the log of network .* \(local\).*--fresh"):
            await join(config)
        with pytest.raises(Refused, match=r"keeps the log of network.*--pg-url"):
            await join(config, fresh=True)
        async with open_node(config) as node:
            assert (await node.log.read(lambda txn: txn.events([before]))).keys() == {before}


async def test_another_database_is_for_another_network(tmp_path: Path, postgres_dsn: str) -> None:
    async with fresh_database(postgres_dsn) as first, fresh_database(postgres_dsn) as second:
        await author(at(tmp_path, first.dsn))
        with pytest.raises(Refused, match="--fresh"):
            await join(at(tmp_path, second.dsn))
        assert await join(at(tmp_path, second.dsn), fresh=True) == theirs.network_id
        async with open_node(at(tmp_path, second.dsn)) as node:
            assert (await node.log.head()).events == 0


async def test_joining_the_network_that_one_is_on_changes_nothing(tmp_path: Path) -> None:
    await join(at(tmp_path))
    guard = (tmp_path / guard_name).stat().st_ino
    for fresh in (False, True):
        assert (await enter(at(tmp_path), lambda _: theirs, fresh)).already
    assert (tmp_path / guard_name).stat().st_ino == guard


async def test_nobody_changes_the_network_of_a_running_daemon(tmp_path: Path) -> None:
    home = open_home(tmp_path, genesis_ms)
    with presence(tmp_path), pytest.raises(Refused, match=r"a daemon of .* runs already"):
        await join(at(tmp_path))
    assert open_home(tmp_path, genesis_ms).genesis.network_id == home.genesis.network_id


def test_a_log_that_was_put_aside_is_found_again_and_its_chain_goes_on() -> None:
    """A second chain of one key on one network would be a fork: the way back must lead to the first."""
    with place() as state_dir:

        async def checkpoint(node: Node) -> tuple[int, bytes]:
            return (await author_checkpoint(node.log)).author_seq, node.log.network.network_id

        first, own = on_node(state_dir, checkpoint)
        own_genesis = (state_dir / network_name).read_bytes()
        theirs_file = state_dir.parent / "theirs"
        wattswarm(state_dir.parent / "b", "network", "init", "--name", "b")
        theirs_file.write_text(wattswarm(state_dir.parent / "b", "network", "invite")["invite"])
        put_aside = Path(wattswarm(state_dir, "network", "join", str(theirs_file), "--fresh")["put_aside"])
        assert put_aside.name == own.hex()
        assert (put_aside / network_name).read_bytes() == own_genesis
        with AuthorGuard(put_aside) as guard:
            slot = guard.newest()
        assert slot is not None
        assert slot.end[0] == first
        assert wattswarm(state_dir, "log", "head")["events"] == 0
        back = _invite_of(own_genesis)
        assert wattswarm(state_dir, "network", "join", back)["network_id"] == own.hex()
        assert on_node(state_dir, checkpoint) == (first + 1, own)
        assert not put_aside.exists()
        assert wattswarm(state_dir, "log", "verify")["ok"]


def _invite_of(wire: bytes) -> str:
    from wattswarm.invites import write_invite
    from wattswarm.kernel.genesis import parse_genesis

    return write_invite(parse_genesis(wire), [])


async def test_what_is_aside_already_is_not_overwritten(tmp_path: Path) -> None:
    own = open_home(tmp_path, genesis_ms).genesis
    with AuthorGuard(tmp_path) as guard:
        guard.create(3, b"\1" * 32)
    taken = tmp_path / "aside" / own.network_id.hex()
    taken.mkdir(parents=True)
    (taken / guard_name).write_text("mine")
    with pytest.raises(Refused, match="is there already"):
        await join(at(tmp_path), fresh=True)
    assert (taken / guard_name).read_text() == "mine"
    assert open_home(tmp_path, genesis_ms).genesis.network_id == own.network_id


async def test_addresses_of_invites_are_where_the_daemon_begins(tmp_path: Path) -> None:
    await join(at(tmp_path))
    remember_addresses(tmp_path, ["a:1", "b:2"])
    remember_addresses(tmp_path, ["c:3", "a:1"])
    assert at(tmp_path).bootstrap == ("c:3", "a:1", "b:2")
    config = load({"state_dir": str(tmp_path), "bootstrap": "z:9,a:1"}, {})
    assert config.bootstrap == ("z:9", "a:1", "c:3", "b:2")
    assert config.settings["bootstrap"].origin == f"flag, {tmp_path / 'bootstrap'}"
    (tmp_path / "bootstrap").write_text("no address")
    with pytest.raises(Refused, match="bootstrap"):
        at(tmp_path)
