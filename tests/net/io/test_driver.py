"""The driver: machines over real logs on a real Postgres, joined by connections in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from net.io.driver import Driver, open_driver
from net.proto.handshake import Me
from net.proto.machine import Ways
from sel.guard import AuthorGuard
from sel.signatures import open_checker
from tests.net.io.lines import Nowhere, line_pair
from wattswarm.config import load
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft
from wattswarm.kernel.genesis import make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.node import Node, now_ms, open_node
from wattswarm.shared_log import SharedLog

authority = "ed25519:" + "ab" * 32
everything = frozenset({"proposer", "verifier", "committer", "finalizer"})


@dataclass
class Host:
    """A node with its driver."""

    node: Node
    driver: Driver

    async def create(self, label: str, count: int = 1) -> None:
        for number in range(count):
            contract = contract_from_json(sample_contract(f"{label}-{number}", now_ms() + 3_600_000, authority))
            await self.node.log.author(Draft(TaskCreated(contract, self.node.log.network.current.hash), None, 1))


@asynccontextmanager
async def hosts(tmp_path: Path, count: int) -> AsyncIterator[list[Host]]:
    """Nodes of one network, each with a server of its own, not connected yet."""
    keys = [Keypair(bytes([number + 1]) * 32) for number in range(count)]
    members = {key.node_id: everything for key in keys}
    genesis = make_genesis(
        name="test", created_at=now_ms() - 1_000, fault_model="byzantine", members=members, signers=keys[:1]
    )
    async with AsyncExitStack() as stack:
        opened = []
        for number, key in enumerate(keys):
            place = tmp_path / f"n{number}"
            place.mkdir()
            seed = place / "node_seed.hex"
            seed.write_text((bytes([number + 1]) * 32).hex())
            seed.chmod(0o600)
            AuthorGuard(place).create()
            node = await stack.enter_async_context(open_node(load({"state_dir": str(place)}, {}), genesis=genesis))
            me = Me(key, genesis.network_id, number + 1)
            draw = random.Random(number)
            shared = SharedLog(node, await stack.enter_async_context(open_checker()))
            ways = Ways(me, shared.is_member)
            driver = await stack.enter_async_context(open_driver(shared, Nowhere(), ways, draw, now_ms))
            opened.append(Host(node, driver))
        yield opened


def connect(nursery: trio.Nursery, one: Host, other: Host) -> None:
    """``one`` dials ``other``."""
    client, server = line_pair("one", "other", other.node.home.keys.node_id)
    nursery.start_soon(other.driver.serve, server)
    nursery.start_soon(one.driver.serve, client)


async def all_equal(them: list[Host], events: int) -> None:
    """Wait until everybody holds the same ``events``."""
    with trio.fail_after(60):
        while True:
            heads = [await host.node.log.head() for host in them]
            same = {(head.events, head.events_sum, head.certificates_sum, head.state_root) for head in heads}
            if len(same) == 1 and heads[0].events == events:
                return
            await trio.sleep(0.02)


@pytest.mark.timeout(120)
async def test_what_one_writes_is_soon_in_the_others_log(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as them, trio.open_nursery() as nursery:
        one, other = them
        await one.create("before", 40)
        connect(nursery, other, one)
        await all_equal(them, 40)
        await one.create("after")
        await other.create("back", 3)
        await all_equal(them, 44)
        nursery.cancel_scope.cancel()
