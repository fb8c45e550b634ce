"""Another release opens the log: every stream is folded by its rules, and an older one does not write on."""

from __future__ import annotations

import pytest

from sel.errors import StoreCorrupt
from sel.pool import Database
from sel.replay import upgrade
from tests.foreign import foreign
from tests.sel.stores import fresh_database, postgres_subject
from tests.world import World
from wattswarm.kernel import limits
from wattswarm.kernel.membership import Network


def becomes(release: tuple[str, ...], patch: pytest.MonkeyPatch) -> None:
    """From now on the program is one that knows these protocol versions, the last of which is its own."""
    patch.setattr(limits, "LOCAL_PROTOCOL_VERSION", release[-1])
    patch.setattr(limits, "protocol_versions", release)


async def verdicts(database: Database, world: World) -> set[str]:
    log = postgres_subject(database, Network.of(world.genesis), world.now_ms)
    return {verdict.status for _, verdict in (await log.contents()).verdicts.values()}


async def test_what_was_not_understood_is_folded_once_it_is(postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World.of(2)
    network = Network.of(world.genesis)
    told = {"reason": "OTHER", "execution_id": "one", "reason_codes": [0], "message": "a note"}
    creation = world.create_task("ada")
    note = foreign(world, "ben", "TASK_ERROR", version="0.2.0", task=creation.id, epoch=1, payload=told)
    dream = foreign(world, "ben", "TASK_ERROR", version="0.2.0", task=creation.id, epoch=1, payload={"no": 1})
    async with fresh_database(postgres_dsn) as database:
        log = postgres_subject(database, network, world.now_ms)
        await log.take(creation, note, dream)
        before = await log.contents()
        assert set(before.verdicts) == {note.id, dream.id}
        assert not await upgrade(database, network)

        becomes(("0.1.0", "0.2.0"), monkeypatch)
        with pytest.raises(StoreCorrupt, match=r"folded by protocol version 0\.1\.0, this program by 0\.2\.0"):
            await log.take_quietly(world.create_task("ada"))
        assert await upgrade(database, network)
        assert not await upgrade(database, network)
        after = await postgres_subject(database, network, world.now_ms).contents()
        assert set(after.verdicts) == {dream.id}
        assert (after.head.events_sum, after.head.seq) == (before.head.events_sum, before.head.seq)

        becomes(("0.1.0",), monkeypatch)
        with pytest.raises(StoreCorrupt, match=r"newer wattswarm, of protocol version 0\.2\.0"):
            await upgrade(database, network)
