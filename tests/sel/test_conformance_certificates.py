"""Both stores take certificates alike: on their own, out of events, waiting for what they need, and refused."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import pytest

from sel.rows import Stored, Void
from tests.cast import everything, fork_of
from tests.conformance import Contents, Subject
from tests.sel.conftest import NewLog
from tests.story import Story
from tests.world import World
from wattswarm.kernel.certificate import DecisionCertificate, MembershipCertificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.stream import unknown_task

nothing = course.TaskExpired()
two = ("ada", "ben")
orders = list(itertools.permutations(range(3)))


def status(contents: Contents, task: bytes) -> str | None:
    facts = contents.streams[task].facts
    return None if facts is None else facts.status


class Decided:
    """A decided task: ``ada`` created it, ``ben`` proposed, ``cy`` announced the proof; ``dee`` is the rest."""

    def __init__(self) -> None:
        self.world = World.of(4)
        self.story: Story = self.world.task("ada")
        self.claim = self.story.claim("ben")
        self.candidate = self.story.propose("ben")
        self.proof = self.story.finalize("cy", self.candidate)
        self.certificate: DecisionCertificate = self.story.certificate(self.candidate)

    @property
    def parts(self) -> tuple[Event, Event, Event]:
        return self.story.creation, self.candidate, self.proof

    def fork(self, said: Event) -> Event:
        return self.world.rival(said, nothing, task=self.story.task)


async def expect_decided(log: Subject, decided: Decided) -> Contents:
    contents = await log.check()
    assert decided.certificate.id in contents.certificates
    assert status(contents, decided.story.task) == "FINALIZED"
    return contents


# -- decisions ----------------------------------------------------------------------------------------------------


async def test_a_decision_certificate_alone_makes_a_finalized_task(new_log: NewLog) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    assert (await log.take(decided.certificate)).certificates == 1
    contents = await expect_decided(log, decided)
    assert contents.head.state_root != 0
    log.restart()
    await log.take(decided.claim)
    await log.take(*decided.parts)
    assert (await log.check()).head.certificates == 1


async def test_one_certificate_is_kept_per_id_whoever_signed_it(new_log: NewLog) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    other = decided.story.certificate(decided.candidate, ["ben", "cy", "dee"])
    assert other.wire() != decided.certificate.wire()
    await log.take(decided.certificate)
    before = await log.check()
    assert (await log.take(other, other, decided.certificate)).certificates == 0
    assert await log.check() == before


@pytest.mark.parametrize("order", orders)
@pytest.mark.parametrize("batched", [False, True])
async def test_creation_candidate_and_proof_make_the_certificate_in_every_order(
    new_log: NewLog, order: Sequence[int], batched: bool
) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    await log.take(decided.claim)
    parts = [decided.parts[place] for place in order]
    if batched:
        await log.take(*parts)
    else:
        for part in parts:
            log.restart()
            await log.take(part)
    await log.take(*decided.parts)
    contents = await expect_decided(log, decided)
    assert contents.verdicts == {}


@pytest.mark.parametrize("order", orders)
async def test_a_void_part_that_comes_last_still_proves(new_log: NewLog, order: Sequence[int]) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    parts = [decided.parts[place] for place in order]
    forked = decided.claim if parts[2] is decided.candidate else parts[2]
    await log.take(decided.claim, fork_of(forked, decided.fork(forked)))
    for part in parts:
        await log.take(part)
    await expect_decided(log, decided)


@pytest.mark.parametrize("void", [0, 1])
@pytest.mark.parametrize("order", orders)
async def test_a_part_that_became_void_in_the_log_still_proves(
    new_log: NewLog, void: int, order: Sequence[int]
) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    await log.take(decided.claim)
    for place in order:
        await log.take(decided.parts[place])
        if place == void:
            await log.take(decided.fork(decided.parts[void]))
    await expect_decided(log, decided)


async def test_a_decision_whose_creator_forked_keeps_its_state(new_log: NewLog) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    await log.take(*decided.parts[:1], decided.claim, *decided.parts[1:])
    before = (await expect_decided(log, decided)).streams[decided.story.task]
    await log.take(decided.fork(decided.story.creation))
    after = (await expect_decided(log, decided)).streams[decided.story.task]
    assert after.state == before.state
    log.restart()
    await log.take(decided.story.error("dee"))
    await expect_decided(log, decided)


async def test_a_wrong_proof_leaves_the_task_open_and_a_right_one_later_decides_it(new_log: NewLog) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    wrong = decided.story.finalize("dee", decided.candidate, signers=["ada", "ben"])
    outcome = (await log.take(decided.story.creation, decided.claim, decided.candidate, wrong)).outcomes[wrong.id]
    assert isinstance(outcome, Stored)
    assert outcome.verdict.reason == "no_certificate"
    assert status(await log.check(), decided.story.task) == "OPEN"
    await log.take(decided.proof)
    await expect_decided(log, decided)


# -- what does not hold, or not yet ---------------------------------------------------------------------------------


async def test_a_certificate_that_does_not_hold_is_refused_with_a_reason(new_log: NewLog) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    few = decided.story.certificate(decided.candidate, ["ada", "ben"])
    unsigned = DecisionCertificate(
        decided.story.creation, msgspec.structs.replace(decided.candidate, signature=bytes(64)), 1, few.proof
    )
    lone = decided.world.next_version(dict.fromkeys(two, everything), {"cy": 9, "dee": 9})
    forged = MembershipCertificate(msgspec.structs.replace(lone.update, signatures=lone.update.signatures[:1]))
    assert {key: refusal.reason for key, refusal in (await log.take(few, forged)).refusals.items()} == {
        few.id: "too_few_signers",
        forged.id: "too_few_signers",
    }
    assert list((await log.take(unsigned)).refusals) == [few.id]
    assert (await log.check()).certificates == {}


async def test_a_decision_waits_for_the_version_that_it_pins(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    version = world.next_version(dict.fromkeys(two, everything))
    story = world.task("ada")
    certificate = story.certificate(story.propose("ada"))
    refusals = (await log.take(certificate)).refusals
    assert refusals[certificate.id].reason == "membership_unknown"
    assert (await log.check()).parked_certificates == [certificate.wire()]
    log.restart()
    await log.take(version)
    contents = await log.check()
    assert contents.parked_certificates == []
    assert status(contents, story.task) == "FINALIZED"


async def test_a_proof_in_events_waits_for_the_version_that_its_task_pins(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    version = world.next_version(dict.fromkeys(two, everything))
    chain = world.full_chain("ada")
    await log.take(*chain)
    assert {verdict.reason for _, verdict in (await log.check()).verdicts.values()} == {
        "membership_unknown",
        unknown_task.reason,
    }
    await log.take(version)
    contents = await log.check()
    assert contents.verdicts == {}
    assert status(contents, chain[0].id) == "FINALIZED"


async def test_versions_that_come_backwards_wait_for_their_predecessors(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    versions = [world.next_version(dict.fromkeys(("ada", *names), everything)) for names in ("b", "bc", "bcd", "bcde")]
    for version in reversed(versions):
        await log.take(version)
        log.restart()
    contents = await log.check()
    assert contents.parked_certificates == []
    assert contents.head.memberships == 4


async def test_a_strangers_fork_waits_until_the_stranger_is_a_member(new_log: NewLog) -> None:
    world = World.of(1)
    log = await new_log(world)
    said = world.author("gus", nothing, task=b"\x77" * 32)
    fork = fork_of(said, world.rival(said))
    assert (await log.take(fork, said)).refusals[fork.id].reason == "author_unknown"
    await log.take(world.next_version(dict.fromkeys(("ada", "gus"), everything)))
    contents = await log.check()
    assert list(contents.certificates) == [world.network.current.hash, fork.id]
    assert contents.live() == []
    assert await log.outcome(said) == Void(0)


async def test_a_version_in_a_void_event_counts(new_log: NewLog) -> None:
    world = World.of(4)
    log = await new_log(world)
    said = world.author("dee", nothing, task=b"\x77" * 32)
    update = world.author("dee", world.next_version(dict.fromkeys(world.members, everything)).update)
    await log.take(fork_of(said, world.rival(said)))
    assert await log.outcome(update) == Void(0)
    assert (await log.check()).head.memberships == 1


async def test_a_version_that_removes_its_announcer_counts(new_log: NewLog) -> None:
    world = World.of(4)
    log = await new_log(world)
    said = world.author("dee", nothing, task=b"\x77" * 32)
    left = world.next_version(dict.fromkeys(("ada", "ben", "cy"), everything), {"dee": 0})
    update = world.author("dee", left.update)
    after = world.author("dee", nothing, task=b"\x77" * 32)
    taken = await log.take(said, update, after)
    assert taken.outcomes[update.id] == taken.outcomes[after.id] == Void(1)
    contents = await log.check()
    assert contents.live() == [said]
    assert contents.head.memberships == 1


async def test_a_proof_that_its_announcers_removal_voids_still_counts(new_log: NewLog) -> None:
    decided = Decided()
    log = await new_log(decided.world)
    assert isinstance(decided.proof.payload, DecisionFinalized)
    left = decided.world.next_version(dict.fromkeys(("ada", "ben", "dee"), everything), {"cy": 0})
    fork = decided.fork(decided.proof)
    await log.take(left, fork, decided.proof, decided.candidate, decided.claim, decided.story.creation)
    await expect_decided(log, decided)


# -- forks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", orders)
async def test_of_an_authors_forks_the_least_counts(new_log: NewLog, order: tuple[int, ...]) -> None:
    world = World.of(2)
    log = await new_log(world)
    chain = [world.author("ben", nothing, task=b"\x77" * 32) for _ in range(4)]
    forks = [fork_of(said, world.rival(said, nothing, task=b"\x78" * 32)) for said in chain[1:]]
    await log.take(*chain)
    for place in order:
        await log.take(forks[place])
    contents = await log.check()
    assert contents.counted() == [forks[0].id]
    assert (contents.head.certificates, contents.live()) == (1, chain[:1])


async def test_a_forked_key_cannot_fill_the_log_with_forks(new_log: NewLog) -> None:
    world = World.of(2)
    log = await new_log(world)
    chain = [world.author("ben", nothing, task=b"\x77" * 32) for _ in range(9)]
    await log.take(*[fork_of(said, world.rival(said, nothing, task=b"\x78" * 32)) for said in chain])
    assert len((await log.check()).certificates) == 1


@pytest.mark.parametrize("first", ["fork", "removal"])
@pytest.mark.parametrize(("until", "counted"), [(1, 1), (0, 0)])
async def test_a_fork_past_the_end_of_a_membership_does_not_count(
    new_log: NewLog, first: str, until: int, counted: int
) -> None:
    world = World.of(2)
    log = await new_log(world)
    chain = [world.author("ben", nothing, task=b"\x77" * 32) for _ in range(3)]
    fork = fork_of(chain[1], world.rival(chain[1], nothing, task=b"\x78" * 32))
    removal = world.next_version({"ada": everything}, {"ben": until})
    await log.take(*chain)
    for item in (fork, removal) if first == "fork" else (removal, fork):
        await log.take(item)
    contents = await log.check()
    assert (fork.id in contents.counted()) == bool(counted)
    assert contents.head.certificates == 1 + counted
