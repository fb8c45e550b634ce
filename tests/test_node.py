"""The composition root: what a node is made of, whom its database belongs to, and what it says when it cannot open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from sel.errors import StoreUnavailable
from tests.sel.stores import fresh_database
from tests.world import World
from wattswarm.config import Config, load
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.refusal import Refused
from wattswarm.node import Node, open_node
from wattswarm.tasks import submit


@pytest.fixture
async def empty_url(postgres_dsn: str) -> AsyncIterator[str]:
    """The URL of a database that no node has used."""
    async with fresh_database(postgres_dsn) as database:
        yield database.dsn


def config(path: Path, url: str) -> Config:
    return load({"state_dir": str(path), "pg_url": url}, {})


async def create(node: Node, label: str) -> None:
    contract = World.of(1).contract(label)
    contract["expiry_ms"] = node.log.clock() + 3_600_000
    await node.log.author(Draft(TaskCreated(contract, node.log.network.current.hash), None, 1))


async def test_node_that_is_closed_is_found_again_with_its_log(tmp_path: Path, empty_url: str) -> None:
    async with open_node(config(tmp_path, empty_url)) as node:
        await create(node, "a")
        first = node.home.keys.node_id, await node.log.head()
    async with open_node(config(tmp_path, empty_url), make=False) as node:
        assert (node.home.keys.node_id, await node.log.head()) == first


async def test_place_without_a_node_is_left_as_it_is_by_those_who_only_look(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no node lives in"):
        async with open_node(load({"state_dir": str(tmp_path / "none")}, {}), make=False):
            pass
    assert not (tmp_path / "none").exists()


async def test_database_of_one_node_is_refused_to_another(tmp_path: Path, empty_url: str) -> None:
    async with open_node(config(tmp_path / "one", empty_url)):
        pass
    with pytest.raises(StoreUnavailable, match="give each node a database of its own"):
        async with open_node(config(tmp_path / "two", empty_url)):
            pass


async def test_two_that_open_an_empty_database_at_once_do_not_both_get_it(tmp_path: Path, empty_url: str) -> None:
    opened: list[str] = []
    refused: list[str] = []

    async def try_it(name: str) -> None:
        try:
            async with open_node(config(tmp_path / name, empty_url)):
                opened.append(name)
        except StoreUnavailable as error:
            refused.append(str(error))

    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            nursery.start_soon(try_it, name)
    assert (len(opened), len(refused)) == (1, 1)


async def test_server_that_does_not_answer_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        async with open_node(config(tmp_path, "postgresql://nobody@127.0.0.1:1/none")):
            pass


async def test_two_processes_of_a_node_author_one_chain(tmp_path: Path, empty_url: str) -> None:
    async with open_node(config(tmp_path, empty_url)) as one, open_node(config(tmp_path, empty_url)) as two:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(create, (one, two)[number % 2], f"t-{number}")
        assert (await one.log.head()).events == (await two.log.head()).events == 10
        assert not (await one.log.head()).parked


async def test_contract_under_a_policy_hash_that_is_nobodys_is_not_created(tmp_path: Path, empty_url: str) -> None:
    async with open_node(config(tmp_path, empty_url)) as node:
        contract = World.of(1).contract("a", {"acceptance.verifier_policy.policy_hash": "00" * 32})
        with pytest.raises(Refused, match="policy_hash"):
            await submit(node.log, contract)
        assert (await node.log.head()).events == 0
