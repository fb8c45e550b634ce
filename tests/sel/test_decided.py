"""What was decided stays decided, whatever comes later and says that it was earlier (docs/protocol.md §4, §7)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sel.rows import Stored, Void
from tests.cast import everything, fork_of, hash_of
from tests.conformance import Contents, Subject
from tests.sel.conftest import NewLog
from tests.story import Story
from tests.world import World
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.event import Event
from wattswarm.kernel.task.fold import decode_state
from wattswarm.kernel.task.state import Decision
from wattswarm.kernel.verdict import ACCEPTED

label = "the-task"
work_ms = 2_000


@dataclass(frozen=True)
class Known:
    """What people are told of a decided task."""

    status: str
    label: str
    creator: bytes
    decisions: list[Decision]


class Decided:
    """A task of ada's that ben won, with cy's and dee's votes, in a log that holds all of it.

    ``eli``, ``fay``, ``gus``, ``hal`` and ``ivy`` have not spoken yet: they may say that they spoke before all that.
    """

    def __init__(self) -> None:
        self.world = World(
            {"ada": everything - {"verifier"}}
            | dict.fromkeys(("ben", "cy", "dee", "hal"), everything)
            | dict.fromkeys(("eli", "fay", "gus", "ivy"), everything - {"finalizer"})
        )
        self.story: Story = self.world.task("ada", label)
        self.began_ms = self.world.tick()
        self.world.tick(work_ms)
        self.events = [self.story.creation, *self.story.finish(proposer="ben")]
        self.candidate = self.said("CANDIDATE_PROPOSED")

    def said(self, kind: str) -> Event:
        """The first event of a kind."""
        return next(event for event in self.events if event.kind == kind)

    async def in_log(self, new_log: NewLog) -> Subject:
        """A log that took all of it, and agrees that it is decided."""
        log = await new_log(self.world)
        await log.take(*self.events)
        known = self.known(await log.contents())
        assert (known.status, known.label, known.creator) == ("FINALIZED", label, self.world.node("ada"))
        assert [decision.candidate_hash for decision in known.decisions] == [hash_of(self.candidate)]
        assert [decision.final_commit_hash for decision in known.decisions] == [
            self.story.certificate(self.candidate).id
        ]
        return log

    def known(self, contents: Contents) -> Known:
        """What a log holds of it."""
        row = contents.streams[self.story.task]
        assert row.state is not None
        assert row.facts is not None
        state = decode_state(row.state)
        return Known(row.facts.status, row.facts.label, row.facts.creator, state.decisions)

    def fork(self, kind: str) -> Certificate:
        """The author of the first event of ``kind`` signed another one in its place."""
        said = self.said(kind)
        return fork_of(said, self.world.rival(said))

    def others_work(self) -> list[Event]:
        """What four others say that they did before ben began: a candidate, its approval, and its decision."""
        self.world.now_ms = self.began_ms
        claimed, candidate = self.story.claim("eli"), self.story.propose("eli")
        voters = ("fay", "gus")
        judged = [said for name in voters for said in self.story.judge(name, candidate)]
        revealed = [self.story.reveal(name, candidate) for name in voters]
        return [claimed, candidate, *judged, *revealed, self.story.decide("hal", candidate)]


async def test_a_decided_task_survives_a_back_dated_creation_of_its_label(new_log: NewLog) -> None:
    decided = Decided()
    log = await decided.in_log(new_log)
    before = decided.known(await log.contents())
    earlier = decided.world.create_task("eli", label, at_ms=decided.story.creation.created_at - 1)
    assert earlier.sort_key < decided.story.creation.sort_key
    assert await log.outcome(earlier) == Stored(ACCEPTED)
    contents = await log.contents()
    assert decided.known(contents) == before
    other = contents.streams[earlier.id].facts
    assert other is not None
    assert (other.label, other.status, other.creator) == (label, "OPEN", decided.world.node("eli"))


@pytest.mark.parametrize(
    "kind", ["TASK_CREATED", "CANDIDATE_PROPOSED", "VERIFIER_RESULT_SUBMITTED", "VOTE_REVEAL", "FINALITY_VOTE"]
)
async def test_a_decided_task_survives_a_fork_of_its(new_log: NewLog, kind: str) -> None:
    decided = Decided()
    log = await decided.in_log(new_log)
    before = await log.contents()
    said = decided.said(kind)
    await log.take(decided.fork(kind))
    after = await log.contents()
    assert said in before.live()
    assert said not in after.live()
    assert await log.outcome(said) == Void(said.author_seq)
    assert decided.known(after) == decided.known(before)


async def test_a_decided_task_survives_late_events_that_sort_before_its_decision(new_log: NewLog) -> None:
    decided = Decided()
    log = await decided.in_log(new_log)
    before = decided.known(await log.contents())
    late = decided.others_work()
    assert max(said.sort_key for said in late) < decided.said("TASK_CLAIMED").sort_key
    taken = await log.take(*late)
    assert {taken.outcomes[said.id] for said in late} == {Stored(ACCEPTED)}
    contents = await log.contents()
    _, verdict = contents.verdicts[decided.said("DECISION_COMMITTED").id]
    assert verdict.reason == "decision_committed"
    assert decided.known(contents) == before


async def test_a_decided_task_survives_all_of_it_in_any_order(new_log: NewLog) -> None:
    decided = Decided()
    log = await decided.in_log(new_log)
    before = decided.known(await log.contents())
    for item in troubles(decided):
        await log.take(item)
        assert decided.known(await log.contents()) == before
    assert (await log.contents()).live() == []


def troubles(decided: Decided) -> Iterator[Event | Certificate]:
    """Late work, each author's last event first; its label again; then forks of everybody from the beginning."""
    late = decided.others_work()
    again = decided.world.create_task("ivy", label, at_ms=decided.story.creation.created_at - 1)
    yield from reversed(late)
    yield again
    for said in [*reversed(decided.events), *late, again]:
        if said.author_seq == 0:
            yield fork_of(said, decided.world.rival(said))
