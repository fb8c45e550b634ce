"""News of a log: which tasks something arrived for, whoever wrote it, and nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from sel import news as news_module
from sel.log import Log, open_log
from sel.memory import MemoryGuard
from sel.news import Mark, News
from sel.pool import Database
from sel.postgres import PostgresStore
from tests.cast import fork_of, keys_of
from tests.sel.stores import fresh_database
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import course, work


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    async with fresh_database(postgres_dsn) as fresh:
        yield fresh


@pytest.fixture
def world() -> World:
    return World.of(2)


@pytest.fixture
async def log(database: Database, world: World) -> AsyncIterator[Log]:
    store = PostgresStore(database, world.network_id, keys_of("ada").node_id)
    async with open_log(store, world.network, keys_of("ada"), MemoryGuard(), lambda: world.now_ms + 1_000) as opened:
        yield opened


async def create(log: Log, world: World, label: str) -> bytes:
    draft = Draft(work.TaskCreated(world.contract(label), log.network.current.hash), None, 1)
    return (await log.author(draft))[0].id


async def test_open_tasks_are_listed_oldest_first_and_closed_ones_are_not(
    database: Database, log: Log, world: World
) -> None:
    tasks = []
    for label in ("c", "a", "b"):
        tasks.append(await create(log, world, label))
        world.tick(10)
    await log.author(Draft(course.TaskStopped("enough"), tasks[0], 1))
    await log.author(Draft(course.TaskSuspended("wait"), tasks[1], 1))
    mark, lines = await News(database).open_tasks()
    assert [(line.task, line.task_id, line.status) for line in lines] == [
        (tasks[1], "a", "SUSPENDED"),
        (tasks[2], "b", "OPEN"),
    ]
    assert lines[0].membership == world.network.current.hash
    assert mark == Mark(5, 0)


async def test_what_arrived_is_told_once_by_task_with_the_ids(database: Database, log: Log, world: World) -> None:
    news = News(database)
    task = await create(log, world, "t-1")
    first = await news.changed(Mark())
    assert first.events == {task: frozenset({task})}
    assert [line.status for line in first.tasks] == ["OPEN"]
    (stopped,) = await log.author(Draft(course.TaskStopped("enough"), task, 1))
    second = await news.changed(first.mark)
    assert second.events == {task: frozenset({stopped.id})}
    assert [line.status for line in second.tasks] == ["STOPPED"]
    third = await news.changed(second.mark)
    assert (third.mark, third.tasks, third.events, third.more) == (second.mark, [], {}, False)


async def test_certificate_alone_is_news_of_its_task(database: Database, log: Log, world: World) -> None:
    news = News(database)
    story = world.task()
    *most, _ = story.finish()
    await log.ingest([story.creation, *most])
    mark = (await news.changed(Mark())).mark
    proposed = next(event for event in most if event.kind == "CANDIDATE_PROPOSED")
    await log.ingest([], [story.certificate(proposed)])
    found = await news.changed(mark)
    assert [(line.task, line.status) for line in found.tasks] == [(story.task, "FINALIZED")]
    assert found.events == {}, "its events are not all there is"


async def test_fork_may_have_changed_everything(database: Database, log: Log, world: World) -> None:
    news = News(database)
    one = world.create_task("ben")
    await log.ingest([one])
    mark = (await news.changed(Mark())).mark
    await log.ingest([], [fork_of(one, world.rival(one))])
    assert (await news.changed(mark)).everything


async def test_long_absence_is_read_in_pages(
    database: Database, log: Log, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news_module, "arrivals_rows_max", 2)
    tasks = {await create(log, world, f"t-{number}") for number in range(5)}
    news, mark, seen = News(database), Mark(), set[bytes]()
    while True:
        found = await news.changed(mark)
        seen |= set(found.events)
        mark = found.mark
        if not found.more:
            break
    assert seen == tasks


async def test_writing_gives_notice(database: Database, log: Log, world: World) -> None:
    async with News(database).listen() as notices:
        await create(log, world, "t-1")
        with trio.fail_after(10):
            await notices.receive()
