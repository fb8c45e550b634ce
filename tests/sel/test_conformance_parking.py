"""Both stores let the same events and certificates wait, and drop the oldest first when too many do."""

from __future__ import annotations

import pytest

from sel.rows import Waiting
from tests.cast import everything
from tests.conformance import Subject
from tests.sel.conftest import NewLog
from tests.world import World
from wattswarm.kernel import limits
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course

some_task = b"\x77" * 32
nothing = course.TaskExpired()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test can reach."""
    monkeypatch.setattr(limits, "parked_per_author_max", 3)
    monkeypatch.setattr(limits, "parked_certificates_max", 2)
    bounds = {"orphan": 4, "early": 4, "stranger": 2}
    monkeypatch.setattr("sel.memory.parked_max", bounds)
    monkeypatch.setattr("sel.postgres.parked_max", tuple(bounds.items()))


def orphans(world: World, name: str, count: int) -> list[Event]:
    """Events of a chain whose first is missing."""
    return [world.author(name, nothing, task=some_task) for _ in range(count + 1)][1:]


async def waiting(log: Subject) -> list[bytes]:
    return [entry.event.id for entry in (await log.check()).parked]


def ids(*events: Event) -> list[bytes]:
    return [said.id for said in events]


@pytest.mark.usefixtures("few")
async def test_of_one_author_the_newest_arrivals_wait(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    one, two, three, four, five = orphans(world, "ada", 5)
    for said in (five, one, two, three):
        await log.take(said)
    assert await waiting(log) == ids(one, two, three)
    await log.take(four, five)
    assert await waiting(log) == ids(three, four, five)


async def test_what_comes_at_once_waits_for_nothing_in_it(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    said = [world.author(name, nothing, task=some_task) for _ in range(4) for name in ("ada", "ben")]
    taken = await log.take_quietly(*reversed(said))
    assert taken.stored == len(said)
    assert await waiting(log) == []


@pytest.mark.usefixtures("few")
async def test_an_event_that_comes_again_while_it_waits_keeps_its_place(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    events = orphans(world, "ada", 4)
    await log.take(*events[:3])
    await log.take(events[0])
    await log.take(events[3])
    assert await waiting(log) == ids(*events[1:])


@pytest.mark.usefixtures("few")
async def test_orphans_and_early_events_are_bounded_each_by_itself(new_log: NewLog) -> None:
    world = World.of(4)
    log = await new_log(world)
    lost = [orphans(world, name, 3) for name in ("ada", "ben")]
    await log.take(*lost[0], *lost[1])
    at_ms = log.now_ms + 60_000
    early = [world.author(name, nothing, task=some_task, at_ms=at_ms) for name in ("cy", "dee") for _ in range(3)]
    await log.take(*early)
    assert await waiting(log) == ids(*lost[0][2:], *lost[1], *early[2:])
    log.now_ms = at_ms
    await log.take()
    assert (await log.check()).parked != []


@pytest.mark.usefixtures("few")
async def test_strangers_are_bounded(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    said = [world.author(name, nothing, task=some_task) for name in ("x", "y", "z")]
    for one in said:
        assert await log.outcome(one) == Waiting("stranger")
    assert await waiting(log) == ids(*said[1:])


async def test_the_protocols_own_bounds_hold(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    strangers = [world.author(f"s{n}", nothing, task=some_task) for n in range(limits.parked_unknown_authors_max + 1)]
    events = orphans(world, "ada", limits.parked_per_author_max + 1)
    await log.take(*strangers, *events)
    assert await waiting(log) == ids(*strangers[1:], *events[1:])


@pytest.mark.usefixtures("few")
async def test_certificates_that_wait_are_bounded(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    versions = [world.next_version(dict.fromkeys(("ada", *"wxyz"[: n + 1]), everything)) for n in range(4)]
    for version in versions[1:]:
        await log.take(version)
    assert (await log.check()).parked_certificates == [version.wire() for version in versions[2:]]
    await log.take(versions[0])
    assert (await log.check()).parked_certificates == [version.wire() for version in versions[2:]]
    await log.take(versions[1])
    contents = await log.check()
    assert contents.parked_certificates == []
    assert contents.head.memberships == 4


async def test_certificates_that_wait_have_so_many_bytes_and_no_more(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.of(1)
    log = await new_log(world)
    versions = [world.next_version(dict.fromkeys(("ada", *"wxyz"[: n + 1]), everything)) for n in range(4)]
    sizes = [len(version.wire()) for version in versions]
    monkeypatch.setattr(limits, "parked_certificates_bytes_max", sizes[2] + sizes[3])
    for version in versions[1:]:
        await log.take(version)
    assert (await log.check()).parked_certificates == [version.wire() for version in versions[2:]]
