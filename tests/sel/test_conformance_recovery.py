"""Both stores: what a recovered node signed binds it again where it came back, and is fenced off where it may not."""

from __future__ import annotations

from sel.ingest import take_in
from sel.rows import Changes, Fence
from sel.store import Txn
from tests.cast import keys_of
from tests.conformance import Subject
from tests.sel.conftest import NewLog
from tests.sel.test_conformance_authoring import authored, draft, refusal
from tests.sel.test_conformance_succession import opened, signed
from tests.world import World
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import signed_bytes, version_hash
from wattswarm.kernel.payloads.govern import MembershipSigned

me = keys_of("ada")


async def raised(log: Subject, fence: Fence) -> None:
    async def work(txn: Txn) -> None:
        await txn.write(Changes(fence=fence, head=txn.head.copy()))

    await log.store.transact(work)
    log.restart()


async def given_back(log: Subject, *events: Event) -> None:
    """This node's own events, as others bring them."""
    await log.store.transact(lambda txn: take_in(txn, log.knowledge, events, (), log.now_ms, me.node_id))


async def test_no_vote_on_a_task_from_before_the_fence_and_votes_on_later_ones(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    votes = []
    for label in ("old", "new"):
        story = world.task("ben", label)
        candidate = story.propose("ben")
        await log.take(story.creation, candidate)
        votes.append(draft(story.vote_finality("ada", candidate)))
        if label == "old":
            await raised(log, Fence(story.creation.created_at))
    log.now_ms = world.now_ms
    old, new = await log.author(me, [votes[0]], [votes[1]])
    assert refusal(old) == "fenced"
    authored(new)


async def test_a_later_fence_with_an_earlier_time_lets_nothing_through(new_log: NewLog) -> None:
    """A clock may go back between two recoveries."""
    log = await new_log(World.of(1))
    for fence in (Fence(2_000, 3), Fence(1_000, -1)):
        await raised(log, fence)
    assert await log.store.read(lambda txn: txn.fence()) == Fence(2_000, -1)


async def test_no_signature_about_the_successor_of_a_fenced_version(new_log: NewLog) -> None:
    world, log, fay, _ = await opened(new_log)
    await raised(log, Fence(0, -1))
    (free,) = await log.author(me, [signed(world, fay)])
    authored(free)
    await raised(log, Fence(0, 0))
    (held,) = await log.author(me, [signed(world, fay)])
    assert refusal(held) == "fenced"


async def test_a_vote_of_this_node_that_others_bring_back_binds_it(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ben")
    candidates = [story.propose("ben", f"c{n}", output={"answer": str(n)}) for n in range(2)]
    vote = story.vote_finality("ada", candidates[0])
    await log.take(story.creation, *candidates)
    log.now_ms = world.now_ms
    await given_back(
        log, vote, story.vote_finality("ada", candidates[1])
    )  # the second was never to be: the first binds
    (request,) = await log.author(me, [draft(story.vote_finality("ada", candidates[1]))])
    assert refusal(request) == "voted"
    assert list((await log.check()).votes) == [(vote.task, 1)]


async def test_a_signature_about_members_that_others_bring_back_binds_it(new_log: NewLog) -> None:
    world, log, fay, gus = await opened(new_log)
    name = version_hash(fay)
    signature = me.sign(signed_bytes(world.network_id, "prepare", fay.previous, 0, name))
    await given_back(log, world.author("ada", MembershipSigned("prepare", fay.previous, 0, name, signature)))
    log.now_ms = world.now_ms
    (request,) = await log.author(me, [signed(world, gus)])
    assert refusal(request) == "prepare_twice"
