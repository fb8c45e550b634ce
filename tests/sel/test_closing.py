"""A log that is closed while somebody waits for it: he is told that what became of his words is not known."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from sel.errors import StoreUnavailable
from sel.log import Log, open_log
from sel.memory import MemoryGuard, MemoryStore
from sel.store import Txn
from tests.cast import keys_of
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads.work import TaskCreated

T = TypeVar("T")


class Stuck(MemoryStore):
    """A store that answers nobody who writes."""

    async def transact(self, work: Callable[[Txn], Awaitable[T]]) -> T:
        await trio.sleep_forever()
        raise AssertionError

    recalled = transact


async def test_who_waits_for_a_log_that_is_closed_is_told_so() -> None:
    world = World.of(1)
    told: list[StoreUnavailable] = []

    async def create(log: Log) -> None:
        draft = Draft(TaskCreated(world.contract("one"), log.network.current.hash), None, 1)
        with pytest.raises(StoreUnavailable, match="the log was closed") as error:
            await log.author(draft)
        told.append(error.value)

    with trio.fail_after(10):
        async with (
            trio.open_nursery() as outside,
            open_log(Stuck(), world.network, keys_of("ada"), MemoryGuard(), lambda: world.now_ms + 1_000) as log,
        ):
            outside.start_soon(create, log)
            await wait_all_tasks_blocked()
    assert len(told) == 1
