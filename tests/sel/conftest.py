"""Logs for tests: a fresh, empty log of either store for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import pytest

from tests.conformance import Subject
from tests.sel.stores import fresh_database, memory_subject, postgres_subject
from tests.world import World
from wattswarm.kernel.membership import Network


class NewLog(Protocol):
    """Makes an empty log of a world's network, whose clock shows the world's time."""

    async def __call__(self, world: World) -> Subject: ...


@pytest.fixture(params=["memory", "postgres"])
async def new_log(request: pytest.FixtureRequest) -> AsyncIterator[NewLog]:
    """A maker of an empty log, one a test; every test that asks for it runs on both stores."""
    if request.param == "memory":

        async def in_memory(world: World) -> Subject:
            return memory_subject(Network.of(world.genesis), world.now_ms)

        yield in_memory
        return
    async with fresh_database(request.getfixturevalue("postgres_dsn")) as database:

        async def in_postgres(world: World) -> Subject:
            return postgres_subject(database, Network.of(world.genesis), world.now_ms)

        yield in_postgres
