"""Both stores keep what this node signed about membership versions, and it binds for ever (docs/protocol.md §9)."""

from __future__ import annotations

from tests.cast import everything, keys_of
from tests.conformance import Subject
from tests.sel.conftest import NewLog
from tests.sel.test_conformance_authoring import authored, refusal
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.membership import Phase, next_version, signed_bytes, version_hash
from wattswarm.kernel.payloads.govern import MembershipProposed, MembershipSigned, VersionBody
from wattswarm.kernel.rounds import Stored

me = keys_of("ada")
names = ("ada", "ben", "cy", "dee")


def version(world: World, added: str) -> VersionBody:
    members = {**world.network.current.members, keys_of(added).node_id: frozenset({"verifier"})}
    return next_version(world.network, world.network.current, members, {})


def signed(world: World, body: VersionBody, phase: Phase = "prepare", round_: int = 0) -> Draft:
    name = version_hash(body)
    signature = me.sign(signed_bytes(world.network_id, phase, body.previous, round_, name))
    return Draft(MembershipSigned(phase, body.previous, round_, name, signature))


async def kept(log: Subject, world: World) -> list[Stored]:
    return await log.store.read(lambda txn: txn.membership_signatures(world.network_id))


async def opened(new_log: NewLog) -> tuple[World, Subject, VersionBody, VersionBody]:
    """A log in which ben proposed one version and cy another."""
    world = World(dict.fromkeys(names, everything))
    fay, gus = version(world, "fay"), version(world, "gus")
    log = await new_log(world)
    proposals = [(name, MembershipProposed(body.previous, 0, body)) for name, body in (("ben", fay), ("cy", gus))]
    await log.take(*(world.author(name, said) for name, said in proposals))
    log.now_ms = world.now_ms
    return world, log, fay, gus


async def test_a_signature_is_given_once_for_each_phase_and_round(new_log: NewLog) -> None:
    world, log, fay, gus = await opened(new_log)
    first, second = await log.author(me, [signed(world, fay)], [signed(world, gus)])
    assert refusal(second) == "prepare_twice"
    log.restart()
    (third,) = await log.author(me, [signed(world, gus)])
    assert refusal(third) == "prepare_twice"
    (given,) = authored(first)
    assert isinstance(given.payload, MembershipSigned)
    assert await kept(log, world) == [Stored("prepare", 0, version_hash(fay), given.payload.signature)]


async def test_a_signature_in_a_refused_request_was_not_given(new_log: NewLog) -> None:
    world, log, fay, gus = await opened(new_log)
    half, whole = await log.author(me, [signed(world, fay), signed(world, fay, "commit")], [signed(world, gus)])
    assert refusal(half) == "no_prepare_quorum"
    assert len(authored(whole)) == 1
    assert [one.membership_hash for one in await kept(log, world)] == [version_hash(gus)]


async def test_a_signature_binds_also_where_the_stream_does_not_count_it(new_log: NewLog) -> None:
    """Ben forked where he proposed: nobody proposed fay, so the stream refuses ada's signature. She gave it all the
    same."""
    world, log, fay, gus = await opened(new_log)
    authored((await log.author(me, [signed(world, fay)]))[0])
    head = world.heads[keys_of("ben").node_id]
    await log.take(world.rival(head))
    assert "not_proposed" in {verdict.reason for _, verdict in (await log.check()).verdicts.values()}
    (other,) = await log.author(me, [signed(world, gus)])
    assert refusal(other) == "prepare_twice"


async def test_a_signature_that_a_crash_left_sealed_was_given(new_log: NewLog) -> None:
    world, log, fay, gus = await opened(new_log)
    draft = signed(world, fay)
    assert draft.payload is not None
    said = world.author("ada", draft.payload)
    log.now_ms = world.now_ms
    log.guard.unfinished = [(said.body, said.signature)]
    (other,) = await log.author(me, [signed(world, gus)])
    assert refusal(other) == "prepare_twice"
    assert [one.membership_hash for one in await kept(log, world)] == [version_hash(fay)]


async def test_who_is_no_member_authors_nothing(new_log: NewLog) -> None:
    world = World(dict.fromkeys(names, everything))
    log = await new_log(world)
    (request,) = await log.author(keys_of("eve"), [signed(world, version(world, "fay"))])
    assert refusal(request) == "not_a_member"
    assert (await log.check()).events == []
