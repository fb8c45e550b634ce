"""Both stores admit alike: next, duplicate, orphan, early, stranger, fork, removed, and what a chain rules out."""

from __future__ import annotations

import pytest

from sel.rows import Duplicate, NotAdmitted, Stored, Void, Waiting
from tests.cast import everything, fork_of, genesis_ms
from tests.sel.conftest import NewLog
from tests.world import World
from wattswarm.kernel import hlc, limits
from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import Quotas
from wattswarm.kernel.payloads import course
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.verdict import ACCEPTED

some_task = b"\x77" * 32
nothing = course.TaskExpired()


def chatter(world: World, name: str, count: int) -> list[Event]:
    """Events that are about a task nobody knows: enough to make a chain."""
    return [world.author(name, nothing, task=some_task) for _ in range(count)]


def members(*names: str) -> dict[str, frozenset[str]]:
    return dict.fromkeys(names, everything)


async def test_an_event_next_in_line_is_stored_and_its_verdict_told(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    created = world.create_task()
    assert await log.outcome(created) == Stored(ACCEPTED)
    refused = world.author("ada", nothing, task=created.id)
    outcome = await log.outcome(refused)
    assert isinstance(outcome, Stored)
    assert outcome.verdict.reason == "not_expired"
    contents = await log.check()
    assert [said.id for said in contents.events] == [created.id, refused.id]
    assert contents.verdicts == {refused.id: (created.id, outcome.verdict)}


async def test_an_event_that_comes_again_is_a_duplicate_and_changes_nothing(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    created, said = world.create_task(), *chatter(world, "ada", 1)
    await log.take(created, said)
    before = await log.check()
    taken = await log.take(said, created, said)
    assert taken.outcomes == {said.id: Duplicate(), created.id: Duplicate()}
    assert taken.stored == 0
    assert await log.check() == before


async def test_twice_in_one_batch_is_once_stored(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    created = world.create_task()
    taken = await log.take(created, created)
    assert taken.outcomes == {created.id: Stored(ACCEPTED)}
    assert taken.stored == 1


async def test_an_orphan_waits_until_the_gap_is_filled(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one, two, three = chatter(world, "ada", 4)
    assert await log.outcome(two) == Waiting("orphan", 0)
    assert await log.outcome(zero) != Waiting("orphan", 0)
    assert await log.outcome(three) == Waiting("orphan", 1)
    taken = await log.take(one)
    assert taken.stored == 3
    assert set(map(type, taken.outcomes.values())) == {Stored}
    assert (await log.check()).parked == []


async def test_a_chain_in_one_batch_may_come_in_any_order(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    events = [said for _ in range(4) for name in ("ada", "ben") for said in chatter(world, name, 1)]
    taken = await log.take(*reversed(events))
    assert taken.stored == 8
    assert (await log.check()).parked == []


async def test_an_orphan_that_comes_again_with_what_it_missed_does_not_stay_parked(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one = chatter(world, "ada", 2)
    await log.take(one)
    assert (await log.take(one, zero)).stored == 2
    assert (await log.check()).parked == []


async def test_an_early_event_waits_until_it_is_due(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    at_ms = log.now_ms + limits.clock_skew_tolerance_ms + 1
    early = world.author("ada", nothing, task=some_task, at_ms=at_ms)
    after = world.author("ada", nothing, task=some_task)
    assert await log.outcome(early) == Waiting("early")
    assert await log.outcome(after) == Waiting("early")
    await log.take()
    log.now_ms += 1
    taken = await log.take()
    assert isinstance(taken.outcomes[early.id], Stored)
    log.now_ms = after.created_at
    await log.take()
    assert (await log.check()).parked == []


async def test_an_event_within_the_clock_skew_is_not_early(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    at_ms = log.now_ms + limits.clock_skew_tolerance_ms
    assert isinstance(await log.outcome(world.author("ada", nothing, task=some_task, at_ms=at_ms)), Stored)


async def test_an_early_event_with_a_gap_before_it_becomes_an_orphan_when_due(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero = chatter(world, "ada", 1)[0]
    late_ms = log.now_ms + 60_000
    early = world.author("ada", nothing, task=some_task, at_ms=late_ms)
    assert await log.outcome(early) == Waiting("early")
    log.now_ms = late_ms
    assert (await log.take()).outcomes == {early.id: Waiting("orphan", 0)}
    assert (await log.take(zero)).stored == 2


async def test_a_stranger_waits_and_is_heard_once_a_member(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one = chatter(world, "gus", 2)
    assert await log.outcome(one) == Waiting("stranger")
    assert await log.outcome(zero) == Waiting("stranger")
    version = world.next_version(members("ada", "gus"))
    taken = await log.take(version)
    assert taken.stored == 2
    assert (await log.check()).parked == []


async def test_a_stranger_is_heard_when_the_version_comes_inside_an_event_of_the_same_batch(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one = chatter(world, "gus", 2)
    update = world.author("ada", world.next_version(members("ada", "gus")).update)
    await log.take(one)
    assert (await log.take(zero, update)).stored == 3
    assert (await log.check()).parked == []


# -- forks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_fork_voids_from_its_seq_on_and_keeps_what_is_below(new_log: NewLog, place: int) -> None:
    world = World.of(2)
    log = await new_log(world)
    events = chatter(world, "ada", 3)
    others = chatter(world, "ben", 2)
    await log.take(*events, *others)
    rival = world.rival(events[place], course.TaskStopped("no"), task=some_task)
    assert await log.outcome(rival) == Void(place)
    contents = await log.check()
    assert contents.live() == events[:place] + others
    assert contents.certificates.keys() == {fork_of(events[place], rival).id}
    assert await log.outcome(events[2]) == Void(place)
    assert await log.outcome(world.author("ada", nothing, task=some_task)) == Void(place)


async def test_a_fork_in_one_batch_stores_neither_branch(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one, two = chatter(world, "ada", 3)
    rival = world.rival(one, course.TaskStopped("no"), task=some_task)
    taken = await log.take(zero, one, rival, two)
    assert {key: type(outcome) for key, outcome in taken.outcomes.items()} == {
        zero.id: Stored,
        one.id: Void,
        rival.id: Void,
        two.id: Void,
    }
    assert [said.id for said in (await log.check()).events] == [zero.id]


async def test_two_forks_in_one_batch_leave_the_lower_and_no_event_without_an_outcome(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    events = chatter(world, "ada", 4)
    rivals = [world.rival(events[place], course.TaskStopped("no"), task=some_task) for place in (1, 3)]
    taken = await log.take(*events, *rivals)
    assert {taken.outcomes[rival.id] for rival in rivals} == {Void(1)}
    assert (await log.check()).live() == events[:1]


async def test_a_lower_fork_that_comes_later_voids_more(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    events = chatter(world, "ada", 4)
    rivals = [world.rival(events[place], course.TaskStopped("no"), task=some_task) for place in (3, 1)]
    await log.take(*events)
    assert await log.outcome(rivals[0]) == Void(3)
    assert await log.outcome(rivals[1]) == Void(1)
    assert (await log.check()).live() == events[:1]
    log.restart()
    assert await log.outcome(events[1]) == Void(1)


async def test_a_rival_that_waited_proves_the_fork_when_its_place_is_taken(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one, two = chatter(world, "ada", 3)
    rival = world.rival(two, course.TaskStopped("no"), task=some_task)
    await log.take(zero, rival, two)
    assert len((await log.check()).parked) == 2
    await log.take(one)
    contents = await log.check()
    assert contents.live() == [zero, one]
    assert contents.parked == []
    assert len(contents.certificates) == 1


async def test_the_followers_of_a_parked_rival_are_dropped_with_it(new_log: NewLog) -> None:
    """A branch that waits for its time forks the chain when it is due: all of it goes."""
    world = World.of(1)
    log = await new_log(world)
    zero = chatter(world, "ada", 1)[0]
    one = chatter(world, "ada", 1)[0]
    world.heads[zero.author] = zero
    late_ms = log.now_ms + 60_000
    branch = [world.author("ada", nothing, task=some_task, at_ms=late_ms) for _ in range(2)]
    await log.take(zero, one, *branch)
    assert [entry.why for entry in (await log.check()).parked] == ["early", "early"]
    log.now_ms = late_ms
    await log.take()
    contents = await log.check()
    assert contents.parked == []
    assert contents.live() == [zero]


async def test_a_fork_certificate_that_comes_first_voids_what_follows(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero, one, two = chatter(world, "ada", 3)
    rival = world.rival(one, course.TaskStopped("no"), task=some_task)
    await log.take(fork_of(one, rival))
    taken = await log.take(two, one, zero)
    assert (taken.outcomes[one.id], taken.outcomes[two.id]) == (Void(1), Void(1))
    assert (await log.check()).live() == [zero]


async def test_an_orphan_of_an_author_who_turns_out_void_is_dropped(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    events = chatter(world, "ada", 5)
    rival = world.rival(events[1], course.TaskStopped("no"), task=some_task)
    await log.take(events[4])
    await log.take(fork_of(events[1], rival))
    assert (await log.check()).parked == []


# -- removal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", [0, 1, 5])
async def test_a_removed_member_counts_until_its_last_seq(new_log: NewLog, until: int) -> None:
    world = World.of(2)
    log = await new_log(world)
    events = chatter(world, "ben", 3)
    await log.take(*events[:2])
    version = world.next_version(members("ada"), {"ben": until})
    await log.take(version)
    expected = [said for said in events if said.author_seq <= until]
    await log.take(events[2])
    assert (await log.check()).live() == expected
    assert await log.outcome(events[2]) == (Duplicate() if until >= 2 else Void(until + 1))


async def test_an_orphan_past_its_authors_removal_is_dropped(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    zero, one, two = chatter(world, "ben", 3)
    await log.take(one, two)
    await log.take(world.next_version(members("ada"), {"ben": 1}))
    assert [entry.event.id for entry in (await log.check()).parked] == [one.id]
    await log.take(zero)
    assert (await log.check()).live() == [zero, one]


async def test_removal_of_what_a_fork_voided_already_changes_only_what_is_lower(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    events = chatter(world, "ben", 4)
    await log.take(*events)
    await log.take(world.rival(events[2], course.TaskStopped("no"), task=some_task))
    await log.take(world.next_version(members("ada"), {"ben": 3}))
    assert (await log.check()).live() == events[:2]
    log.restart()
    await log.take(fork_of(events[1], world.rival(events[1], course.TaskStopped("no"), task=some_task)))
    assert (await log.check()).live() == events[:1]


# -- what the chain rules out ------------------------------------------------------------------------------------


async def test_a_clock_that_goes_back_is_not_admitted(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    zero = chatter(world, "ada", 1)[0]
    back = world.author("ada", nothing, task=some_task, clock=zero.hlc)
    after = world.author("ada", nothing, task=some_task)
    taken = await log.take(after, back, zero)
    outcome = taken.outcomes[back.id]
    assert isinstance(outcome, NotAdmitted)
    assert outcome.reason == "clock_back"
    assert taken.outcomes[after.id] == Waiting("orphan", 1)
    assert [entry.event.id for entry in (await log.check()).parked] == [after.id]


async def test_an_event_from_before_the_network_is_not_admitted(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    outcome = await log.outcome(world.author("ada", nothing, task=some_task, clock=hlc.pack(genesis_ms - 1)))
    assert isinstance(outcome, NotAdmitted)
    assert outcome.reason == "before_genesis"


@pytest.mark.parametrize(
    ("quotas", "reason"), [(Quotas(2, 1 << 30), "quota_events"), (Quotas(100, 600), "quota_bytes")]
)
async def test_an_authors_day_has_a_quota_and_the_next_day_another(
    new_log: NewLog, quotas: Quotas, reason: str
) -> None:
    world = World(members("ada"), quotas=quotas)
    log = await new_log(world)
    allowed = chatter(world, "ada", 2)
    head = world.heads[allowed[0].author]
    too_many = chatter(world, "ada", 1)[0]
    taken = await log.take(*allowed, too_many)
    outcome = taken.outcomes[too_many.id]
    assert isinstance(outcome, NotAdmitted)
    assert outcome.reason == reason
    world.heads[head.author] = head
    tomorrow = world.author("ada", nothing, task=some_task, at_ms=genesis_ms + 86_400_000)
    log.now_ms = tomorrow.created_at
    assert isinstance(await log.outcome(tomorrow), Stored)


async def test_a_days_quota_is_counted_over_restarts(new_log: NewLog) -> None:
    world = World(members("ada"), quotas=Quotas(2, 1 << 30))
    log = await new_log(world)
    for said in chatter(world, "ada", 3):
        outcome = await log.outcome(said)
        log.restart()
    assert isinstance(outcome, NotAdmitted)


async def test_a_last_seq_is_one_that_a_chain_can_have(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    with pytest.raises(Refused, match="until"):
        world.next_version(members("ada"), {"ben": limits.counter_max})
    await log.take(world.next_version(members("ada"), {"ben": limits.counter_max - 1}))
    said = chatter(world, "ben", 2)
    assert (await log.take(*said)).stored == 2
