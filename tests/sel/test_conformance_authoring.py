"""Both stores author alike: a request stands or falls by itself, and nothing is signed twice (docs/protocol.md §7)."""

from __future__ import annotations

import msgspec
import pytest

from sel.authoring import ClockBehind, Request
from tests.cast import everything, fork_of, keys_of
from tests.conformance import Subject
from tests.sel.conftest import NewLog
from tests.world import World
from wattswarm.kernel import limits
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.payloads import course, govern, work
from wattswarm.kernel.refusal import Refused

me = keys_of("ada")
nothing = course.TaskExpired()


def draft(said: Event) -> Draft:
    """What an event says, to be said anew."""
    assert said.payload is not None
    return Draft(said.payload, said.task, said.epoch)


def creation(world: World, label: str) -> Draft:
    return Draft(work.TaskCreated(world.contract(label), world.network.current.hash), None, 1)


def advisory(world: World, text: str) -> Draft:
    policy = "vp.schema_only.v1"
    return Draft(govern.AdvisoryCreated(world.network.current.hash, text, policy, "11" * 32, "because"))


def authored(request: Request) -> list[Event]:
    assert isinstance(request.result, list), request.result
    return request.result


def refusal(request: Request) -> str:
    assert isinstance(request.result, Refused), request.result
    return request.result.reason


async def test_what_is_authored_is_one_chain_and_sealed_before_it_is_stored(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    one, two = await log.author(me, [creation(world, "a")], [creation(world, "b"), creation(world, "c")])
    events = [*authored(one), *authored(two)]
    assert (await log.check()).events == events
    assert log.guard.sealed == [(-1, None, events)]
    assert one.sealed
    assert two.sealed
    (three,) = await log.author(me, [creation(world, "d")])
    assert log.guard.sealed[1:] == [(2, events[-1].id, authored(three))]


async def test_an_authored_event_is_later_than_all_that_the_log_holds(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    ahead = world.author("ben", nothing, task=b"\x77" * 32, at_ms=log.now_ms + limits.author_ahead_ms_max)
    await log.take(ahead)
    (request,) = await log.author(me, [creation(world, "a")])
    assert authored(request)[0].hlc == ahead.hlc + 1
    assert authored(request)[0].created_at <= log.now_ms + limits.author_ahead_ms_max


async def test_a_clock_behind_the_log_authors_nothing(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    await log.take(world.author("ben", nothing, task=b"\x77" * 32, at_ms=log.now_ms + limits.clock_skew_tolerance_ms))
    log.now_ms -= 1
    before = await log.check()
    (request,) = await log.author(me, [creation(world, "a")])
    assert isinstance(request.result, ClockBehind)
    assert request.result.ahead_ms == limits.clock_skew_tolerance_ms + 1
    assert await log.check() == before


async def test_one_refused_request_leaves_the_others_standing(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ben")
    await log.take(story.creation)
    good, bad, half, late = await log.author(
        me,
        [draft(story.claim("ada"))],
        [Draft(nothing, story.task, 1)],
        [draft(story.claim("ada", "verify")), Draft(nothing, story.task, 1)],
        [draft(story.propose("ada"))],
    )
    assert refusal(bad) == refusal(half) == "not_expired"
    events = (await log.check()).events
    assert events == [story.creation, *authored(good), *authored(late)]
    assert (await log.check()).verdicts == {}
    assert [sealed[2] for sealed in log.guard.sealed] == [events[1:]]


@pytest.mark.parametrize("known", [False, True])
async def test_a_refused_request_leaves_no_trace(new_log: NewLog, known: bool) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ben")
    if known:
        await log.take(story.creation, world.author("ben", advisory(world, "x").payload))
    before = await log.check()
    requests = await log.author(
        me,
        [creation(world, "a"), Draft(nothing, story.task, 1)],
        [advisory(world, "b"), Draft(govern.AdvisoryApproved(world.network_id, "no such", me.node_id))],
        [Draft(nothing, story.task, 1)],
        [advisory(world, "c")] * 17,
    )
    assert [refusal(request) for request in requests] == [
        "not_expired" if known else "unknown_task",
        "advisory_unknown",
        "not_expired" if known else "unknown_task",
        "too_many_drafts",
    ]
    assert log.guard.sealed == []
    after = await log.check()
    assert (after.events, after.streams, after.verdicts) == (before.events, before.streams, before.verdicts)
    assert after.head.state_root == before.head.state_root


async def test_a_request_may_speak_of_the_task_that_it_creates(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    claim = work.TaskClaimed("propose", "x", log.now_ms + 1000)
    (request,) = await log.author(me, [creation(world, "a"), Draft(claim, epoch=1, about_first=True)])
    created, claimed = authored(request)
    assert claimed.task == created.id


# -- labels -------------------------------------------------------------------------------------------------------


async def test_a_label_is_created_once(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    await log.take(world.create_task("ben", "theirs"))
    log.restart()
    taken, twice, first, second, fresh = await log.author(
        me,
        [creation(world, "theirs")],
        [creation(world, "twin"), creation(world, "twin")],
        [creation(world, "twin")],
        [creation(world, "twin")],
        [creation(world, "other")],
    )
    assert refusal(taken) == refusal(twice) == refusal(second) == "label_taken"
    assert len(authored(first)) == len(authored(fresh)) == 1
    (again,) = await log.author(me, [creation(world, "twin")])
    assert refusal(again) == "label_taken"


async def test_the_label_of_a_void_or_refused_task_is_free(new_log: NewLog) -> None:
    world = World({"ada": everything, "ben": everything, "cy": frozenset({"verifier"})})
    log = await new_log(world)
    gone = world.create_task("ben", "gone")
    await log.take(gone, world.create_task("cy", "wrong"), world.rival(gone))
    for label in ("gone", "wrong"):
        (request,) = await log.author(me, [creation(world, label)])
        authored(request)


# -- finality votes ---------------------------------------------------------------------------------------------------


async def voting(new_log: NewLog) -> tuple[Subject, list[Draft], Event]:
    """A log, this node's finality votes for two candidates, and the first candidate."""
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ben")
    candidates = [story.propose("ben", f"c{n}", output={"answer": str(n)}) for n in range(2)]
    await log.take(story.creation, *candidates)
    log.now_ms = world.now_ms
    return log, [draft(story.vote_finality("ada", candidate)) for candidate in candidates], candidates[0]


async def test_a_finality_vote_is_cast_once_for_ever(new_log: NewLog) -> None:
    log, (vote, other), _ = await voting(new_log)
    first, second = await log.author(me, [vote], [other])
    assert refusal(second) == "voted"
    log.restart()
    for again in (vote, other):
        (request,) = await log.author(me, [again])
        assert refusal(request) == "voted"
    cast = authored(first)[0]
    assert list((await log.check()).votes) == [(cast.task, 1)]


async def test_a_vote_in_a_refused_request_was_not_cast(new_log: NewLog) -> None:
    log, (vote, other), candidate = await voting(new_log)
    half, whole = await log.author(me, [vote, Draft(nothing, candidate.task, 1)], [other])
    assert refusal(half) == "not_expired"
    assert len(authored(whole)) == 1
    assert len((await log.check()).votes) == 1


async def test_a_vote_that_a_crash_left_sealed_was_cast(new_log: NewLog) -> None:
    """Or this node could sign for another candidate after every crash at the wrong moment."""
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ben")
    candidates = [story.propose("ben", f"c{n}", output={"answer": str(n)}) for n in range(2)]
    vote, other = (story.vote_finality("ada", candidate) for candidate in candidates)
    await log.take(story.creation, *candidates)
    log.now_ms = world.now_ms
    log.guard.unfinished = [(vote.body, vote.signature)]
    (request,) = await log.author(me, [draft(other)])
    assert refusal(request) == "voted"
    assert len((await log.check()).votes) == 1


# -- the guard --------------------------------------------------------------------------------------------------------


async def test_what_a_crash_left_sealed_goes_in_first(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    left = [world.create_task("ada"), world.create_task("ada")]
    log.guard.unfinished = [(said.body, said.signature) for said in left]
    (request,) = await log.author(me, [creation(world, "new")])
    assert (await log.check()).events == [*left, *authored(request)]
    assert log.guard.sealed == [(-1, None, [*left, *authored(request)])]


async def test_what_a_crash_left_sealed_is_stored_also_when_nothing_new_is_accepted(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    left = world.create_task("ada", "left")
    log.guard.unfinished = [(left.body, left.signature)]
    (request,) = await log.author(me, [creation(world, "left")])
    assert refusal(request) == "label_taken"
    assert (await log.check()).events == [left]
    assert log.guard.sealed == []


async def test_a_guard_that_says_no_ends_the_batch_before_anything_is_written(
    new_log: NewLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.of(1)
    log = await new_log(world)

    def no(*_: object) -> None:
        raise Refused("guard_mismatch", "no")

    for step in ("confirm", "seal"):
        with monkeypatch.context() as patched:
            patched.setattr(log.guard, step, no)
            with pytest.raises(Refused):
                await log.author(me, [creation(world, "a")])
        assert (await log.check()).events == []
    (request,) = await log.author(me, [creation(world, "a")])
    assert len(authored(request)) == 1


@pytest.mark.parametrize("removed", [False, True])
async def test_a_key_that_is_void_authors_nothing(new_log: NewLog, removed: bool) -> None:
    world = World.of(4)
    log = await new_log(world)
    said = world.create_task("ada")
    others = dict.fromkeys(("ben", "cy", "dee"), everything)
    mark = world.next_version(others, {"ada": 0}) if removed else fork_of(said, world.rival(said))
    await log.take(said, mark)
    with pytest.raises(Refused, match="new key"):
        await log.author(me, [creation(world, "a")])


# -- certificates in what is authored ---------------------------------------------------------------------------------


async def test_an_authored_proof_is_a_certificate(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ben")
    claim, candidate = story.claim("ben"), story.propose("ben")
    await log.take(story.creation, claim, candidate)
    log.now_ms = world.now_ms
    wrong, right = await log.author(
        me,
        [draft(story.finalize("ada", candidate, signers=["ada"]))],
        [draft(story.finalize("ada", candidate))],
    )
    assert refusal(wrong) == "no_certificate"
    assert len(authored(right)) == 1
    contents = await log.check()
    assert contents.verdicts == {}
    assert list(contents.certificates) == [story.certificate(candidate).id]


async def test_an_authored_version_counts_at_once(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    stranger = world.author("gus", nothing, task=b"\x77" * 32)
    await log.take(stranger)
    version = world.next_version(dict.fromkeys(("ada", "gus"), everything))
    pinned = creation(world, "new")
    update, created = await log.author(me, [Draft(version.update)], [pinned])
    assert len(authored(update)) == len(authored(created)) == 1
    contents = await log.check()
    assert list(contents.certificates) == [version.id]
    assert contents.verdicts == {stranger.id: (stranger.stream, contents.verdicts[stranger.id][1])}
    assert contents.parked == []
    (forged,) = await log.author(me, [Draft(msgspec.structs.replace(version.update, round=3))])
    assert refusal(forged) == "bad_signature"


async def test_a_node_does_not_announce_its_own_removal(new_log: NewLog) -> None:
    """Its announcement would be void; whoever stays announces it."""
    world = World.of(4)
    log = await new_log(world)
    left = world.next_version(dict.fromkeys(("ben", "cy", "dee"), everything), {"ada": 5})
    own, other = await log.author(me, [Draft(left.update)], [Draft(advisory(World.of(4), "a").payload)])
    assert refusal(own) == "author_removed"
    assert len(authored(other)) == 1
    assert (await log.check()).certificates == {}
