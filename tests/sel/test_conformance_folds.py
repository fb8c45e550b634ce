"""Both stores fold alike: late events, void events, creations that are late, void, refused, or not understood."""

from __future__ import annotations

import pytest

from sel.rows import Stored
from tests.cast import everything, fork_of, genesis_ms
from tests.conformance import Subject
from tests.foreign import foreign
from tests.sel.conftest import NewLog
from tests.world import World
from wattswarm.kernel import hlc
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course, govern, work
from wattswarm.kernel.refusal import Malformed
from wattswarm.kernel.stream import before_creation, unknown_task
from wattswarm.kernel.verdict import ACCEPTED, UNSUPPORTED, Verdict

nothing = course.TaskExpired()


async def verdict_of(log: Subject, said: Event) -> Verdict:
    contents = await log.check()
    return contents.verdicts.get(said.id, (b"", ACCEPTED))[1]


async def test_an_event_that_sorts_earlier_folds_its_task_again(new_log: NewLog) -> None:
    """Of two claims for one slot the first in canonical order holds, whichever came first."""
    world = World.of(2)
    log = await new_log(world)
    story = world.task(changes={"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}})
    earlier = story.claim("ben", at_ms=world.tick())
    later = story.claim("ada", at_ms=world.tick())
    await log.take(story.creation, later)
    assert await verdict_of(log, later) == ACCEPTED
    outcome = await log.outcome(earlier)
    assert outcome == Stored(ACCEPTED)
    assert (await verdict_of(log, later)).reason == "claim_conflict"


async def test_a_verdict_is_replaced_when_its_cause_becomes_void(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task(changes={"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}})
    first, second = story.claim("ben"), story.claim("ada")
    await log.take(story.creation, first, second)
    assert (await verdict_of(log, second)).reason == "claim_conflict"
    await log.take(world.rival(first, nothing, task=story.task))
    assert await verdict_of(log, second) == ACCEPTED
    assert first.id not in (await log.check()).verdicts


async def test_a_creation_that_comes_last_brings_its_task_to_life(new_log: NewLog) -> None:
    world = World.of(4)
    log = await new_log(world)
    story = world.task("ada")
    events = story.finish(proposer="ben")
    by_others = [said for said in events if said.author != world.node("ada")]
    await log.take(*by_others)
    assert {verdict for _, verdict in (await log.check()).verdicts.values()} == {unknown_task}
    await log.take(story.creation, *events)
    contents = await log.check()
    assert contents.verdicts == {}
    facts = contents.streams[story.task].facts
    assert facts is not None
    assert facts.status == "FINALIZED"


async def test_what_sorts_before_its_creation_is_refused(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    creation = world.create_task("ada")
    early = world.author("ben", nothing, task=creation.id, clock=hlc.pack(genesis_ms))
    await log.take(early)
    assert await verdict_of(log, early) == unknown_task
    await log.take(creation)
    assert await verdict_of(log, early) == before_creation


async def test_a_void_creation_leaves_its_task_outside_the_root(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ada")
    claim = story.claim("ben")
    await log.take(story.creation, claim)
    assert (await log.check()).head.state_root != 0
    await log.take(world.rival(story.creation, nothing, task=story.task))
    contents = await log.check()
    assert contents.head.state_root == 0
    assert contents.streams[story.task].facts is None
    assert contents.verdicts == {claim.id: (story.task, unknown_task)}


async def test_a_refused_creation_is_kept_with_its_reason_outside_the_root(new_log: NewLog) -> None:
    world = World({"ada": everything, "ben": frozenset({"verifier"})})
    log = await new_log(world)
    creation = world.create_task("ben")
    outcome = await log.outcome(creation)
    assert isinstance(outcome, Stored)
    assert outcome.verdict.reason == "role"
    assert (await log.check()).head.state_root == 0


async def test_a_creation_waits_for_the_version_that_it_pins(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    version = world.next_version(dict.fromkeys(("ada", "ben"), everything))
    story = world.task("ada")
    outcome = await log.outcome(story.creation)
    assert isinstance(outcome, Stored)
    assert outcome.verdict.reason == "membership_unknown"
    assert (await log.check()).streams[story.task].awaits == version.id
    log.restart()
    await log.take(version)
    assert await verdict_of(log, story.creation) == ACCEPTED
    assert (await log.check()).streams[story.task].awaits is None


# -- what this version does not understand -------------------------------------------------------------------------


async def test_another_kind_or_version_is_stored_as_unsupported(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    creation = world.create_task("ada")
    events = [
        foreign(world, "ben"),
        foreign(world, "ben", task=creation.id),
        foreign(world, "ben", task=creation.id, epoch=7),
        foreign(world, "ben", "TASK_CLAIMED", version="0.2.0", task=creation.id, epoch=1),
        foreign(world, "ben", "ADVISORY_CREATED", version="0.2.0"),
    ]
    await log.take(*events)
    await log.take(creation)
    assert {verdict for _, verdict in (await log.check()).verdicts.values()} == {UNSUPPORTED}
    assert await verdict_of(log, creation) == ACCEPTED


async def test_a_task_created_in_another_version_is_outside_the_root(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    creation = foreign(world, "ada", "TASK_CREATED", version="0.2.0", epoch=1)
    claim = world.author("ben", work.TaskClaimed("propose", "x", world.now_ms + 1000), task=creation.id)
    await log.take(creation, claim)
    assert await verdict_of(log, creation) == UNSUPPORTED
    assert await verdict_of(log, claim) == unknown_task
    assert (await log.check()).head.state_root == 0


@pytest.mark.parametrize("kind", ["TASK_CLAIMED", "TASK_DREAMT_OF"])
async def test_no_task_goes_by_the_networks_name(kind: str) -> None:
    """Its events would be folded as governance."""
    world = World.of(1)
    payload = {"role": "propose", "execution_id": "x", "lease_until": 1}
    with pytest.raises(Malformed, match="task"):
        foreign(world, "ada", kind, task=world.network_id, epoch=1, payload=payload)


async def test_an_event_that_names_another_kind_of_event_as_its_task_is_refused(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    story = world.task("ada")
    claim = story.claim("ben")
    about_claim = world.author("ben", nothing, task=claim.id)
    await log.take(story.creation, claim, about_claim)
    assert await verdict_of(log, about_claim) == unknown_task


# -- texts that a database cannot hold ------------------------------------------------------------------------------


async def test_a_kind_with_a_nul_is_malformed() -> None:
    with pytest.raises(Malformed, match="kind"):
        foreign(World.of(1), "ada", "A\0B")


async def test_texts_with_a_nul_cost_no_log_its_life(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    story = world.task("ada")
    events = [
        story.creation,
        story.error("ada", codes=[999], custom_reason_namespace="\0", custom_reason_code="\0"),
        story.claim("ada"),
        candidate := story.propose("ada", output={"answer": "\0", "\0": "\0"}, digests=["sha256:\0"]),
        story.available("ada", candidate, "no such\0"),
        world.create_task("ada", changes={"task_type": "a\0b"}),
    ]
    assert (await log.take(*events)).stored == 6


# -- governance -------------------------------------------------------------------------------------------------


def advisory(world: World, name: str, text: str = "a") -> Event:
    return world.author(
        name,
        govern.AdvisoryCreated(world.network.current.hash, text, "vp.schema_only.v1", "11" * 32, "because"),
    )


async def test_a_governance_stream_whose_events_are_all_void_is_outside_the_root(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    said = advisory(world, "ada")
    await log.take(said)
    assert (await log.check()).head.state_root != 0
    await log.take(world.rival(said))
    assert (await log.check()).head.state_root == 0


async def test_a_version_alone_puts_the_governance_stream_into_the_root(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    await log.take(world.next_version(dict.fromkeys(("ada", "ben"), everything)))
    assert (await log.check()).head.state_root != 0


async def test_governance_that_names_an_unknown_version_is_judged_again_when_it_comes(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    version = world.next_version(dict.fromkeys(("ada", "ben"), everything))
    said = advisory(world, "ada")
    await log.take(said)
    assert (await verdict_of(log, said)).reason == "membership_unknown"
    await log.take(version)
    assert await verdict_of(log, said) == ACCEPTED


async def test_void_events_leave_fingerprint_and_root_as_if_they_had_never_been(new_log: NewLog) -> None:
    world = World.of(3)
    log = await new_log(world)
    story = world.task("ada")
    kept = [story.creation, story.claim("ada"), advisory(world, "ada")]
    await log.take(*kept)
    before = (await log.check()).head
    gone = [story.claim("ben"), advisory(world, "ben", "b"), world.create_task("ben")]
    await log.take(*gone)
    await log.take(fork_of(gone[0], world.rival(gone[0], nothing, task=story.task)))
    after = (await log.check()).head
    assert (after.events, after.events_sum, after.state_root) == (before.events, before.events_sum, before.state_root)
