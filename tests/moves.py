"""What may sensibly be said next in a task, and what may not: the moves that drawn histories are made of.

``sensible`` are the moves that honest members would make, the most advanced first, so that following them decides
the task. ``wild`` are things that somebody might say all the same. Both only say; who is right the fold decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from tests.cast import authority, digest_of, hash_of, keys_of, names, proposal
from tests.story import Story
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.task.course import round_goes_on
from wattswarm.kernel.task.state import Epoch, Lease, Tenure
from wattswarm.kernel.task.turn import past, used_units
from wattswarm.kernel.task.vote import tally

EndReason = Literal["BUDGET_EXHAUSTED", "TIMEBOX_REACHED", "FINALIZED"]
Say = Callable[[int], Event]
"""Says it at that time, in unix ms."""


@dataclass
class Play:
    """A task as its teller sees it. ``candidates`` and ``reveals``: what was said in this epoch so far.

    ``proposed`` counts candidates; ``again``: those that were offered once more after they were rejected.
    """

    story: Story
    stance: dict[str, Literal["approve", "reject"]]
    candidates: list[Event] = field(default_factory=list)
    reveals: list[Event] = field(default_factory=list)
    proposed: int = 0
    again: set[bytes] = field(default_factory=set)

    @property
    def work(self) -> Epoch:
        """The work of the epoch that is spoken of, as far as it was told."""
        held = self.story.state.work
        return held if held.number == self.story.epoch else Epoch(self.story.epoch, self.story.world.now_ms)

    def having(self, role: str) -> list[str]:
        """Who has a role in the version that the task pins."""
        world, membership = self.story.world, self.story.pins.membership
        return [name for name in world.members if membership.has(world.node(name), role)]

    def accepted(self) -> list[Event]:
        """The candidates that the fold accepted."""
        return [candidate for candidate in self.candidates if hash_of(candidate) in self.work.candidates]

    def spent_up(self) -> bool:
        """Whether a stage's bucket is empty."""
        return any(used_units(self.work, stage) >= bucket for stage, bucket in self.story.pins.buckets.items())

    def next_epoch(self) -> None:
        """Speak of the next epoch from here on."""
        self.story.epoch += 1
        self.candidates.clear()
        self.reveals.clear()


def _can_pay(play: Play, node: bytes, stage: str) -> bool:
    """Whether ``node`` has units of the stage left."""
    spent = play.work.spent.get(node)
    return (0 if spent is None else getattr(spent, stage)) < play.story.pins.shares[stage]


def _free(play: Play, role: str) -> bool:
    """Whether there is a slot for another lease, and time in the epoch."""
    now_ms, terms = play.story.world.now_ms, play.story.pins
    in_time = now_ms <= play.work.started_at + terms.contract.budget.time_ms
    return in_time and len(live_leases(play, role)) < terms.lease_slots[role]


def live_leases(play: Play, role: str) -> list[str]:
    """Who holds a live lease of ``propose`` or ``verify``."""
    tenures = play.work.propose if role == "propose" else play.work.verify
    now_ms = play.story.world.now_ms
    return [name for name in names if _lease(tenures.get(keys_of(name).node_id), now_ms) is not None]


def _lease(tenure: Tenure | None, now_ms: int) -> Lease | None:
    live = [lease for lease in tenure.leases if not past(lease.until, now_ms)] if tenure is not None else []
    return live[0] if live else None


# -- sensible ------------------------------------------------------------------------------------------------------


def _to(say: Callable[..., Event], *words: Any, **more: Any) -> Say:
    """To say that, once it is known when."""
    return lambda at_ms: say(*words, at_ms=at_ms, **more)


def sensible(play: Play) -> Iterator[tuple[str, Say]]:
    """(who, what) of the moves that an honest member would make now; the most advanced come first."""
    story, work, now_ms = play.story, play.work, play.story.world.now_ms
    if story.state.closing != "OPEN" or work.finalized or work.ended_at is not None:
        yield from _after(play)
        return
    yield from _timely(play, now_ms)
    yield from _endings(play)
    for candidate in play.accepted():
        yield from _judging(play, candidate, now_ms)
    for name in play.having("proposer"):
        lease = _lease(work.propose.get(story.world.node(name)), now_ms)
        if lease is None:
            if _free(play, "propose"):
                yield name, _to(story.claim, name)
        elif len(play.candidates) < 3 and _can_pay(play, story.world.node(name), "explore"):
            output = {"question": play.proposed} if play.proposed % 7 == 6 else None
            yield name, partial(_propose, play, name, output=output)


def _after(play: Play) -> Iterator[tuple[str, Say]]:
    story = play.story
    if story.state.decided(story.epoch) and story.epoch not in story.state.feedback:
        for name in story.world.members:
            yield name, _to(story.feedback, name)


def _timely(play: Play, now_ms: int) -> Iterator[tuple[str, Say]]:
    """What falls due: the end of the task, or of an epoch."""
    story = play.story
    if now_ms >= story.pins.contract.expiry_ms:
        for name in story.world.members:
            yield name, _to(story.expire, name)
    over = now_ms >= play.work.started_at + story.pins.contract.budget.time_ms
    reason: EndReason = "TIMEBOX_REACHED" if over else "BUDGET_EXHAUSTED"
    if story.pins.continuous and (over or play.spent_up()):
        for name in play.having("finalizer"):
            yield name, _to(story.end_epoch, name, reason)


def _endings(play: Play) -> Iterator[tuple[str, Say]]:
    """The decision, the votes on it, the proof; or another round where the votes failed."""
    story, work = play.story, play.work
    finalizers = play.having("finalizer")
    for candidate in play.accepted():
        name_of = hash_of(candidate)
        approvals, rejects = tally(story.pins, work, name_of)
        if work.committed == name_of:
            voted = [name for name in finalizers if story.world.node(name) in work.finality_votes]
            if len(voted) >= story.pins.membership.finality_threshold:
                yield voted[0], _to(story.finalize, voted[0], candidate, signers=voted)
            for name in finalizers:
                if name not in voted:
                    yield name, _to(story.vote_finality, name, candidate)
        elif work.committed is None and approvals >= story.pins.contract.acceptance.quorum_threshold and finalizers:
            yield finalizers[0], _to(story.decide, finalizers[0], candidate)
        if rejects >= story.pins.contract.acceptance.quorum_threshold:
            yield from _rejected(play, candidate)
    if work.committed is None and round_goes_on(story.pins, work, story.world.now_ms) is None:
        for name in play.having("committer"):
            if story.world.node(name) not in work.retries:
                yield name, _to(story.retry, name, work.attempt + 1)


def _rejected(play: Play, candidate: Event) -> Iterator[tuple[str, Say]]:
    """The quorum's word on a reuse; and its author offers the same again."""
    story, work = play.story, play.work
    if hash_of(candidate) in work.blacklist:
        author = next(name for name in names if story.world.node(name) == candidate.author)
        if candidate.id not in play.again:
            yield author, partial(_offer_again, play, author, candidate)
        return
    reveals = [key for key, reject in work.rejects.items() if reject.candidate_hash == hash_of(candidate)]
    for name in play.having("committer"):
        yield name, _to(story.reject_reuse, name, candidate, reveals)


def _judging(play: Play, candidate: Event, now_ms: int) -> Iterator[tuple[str, Say]]:
    """One verifier after the other: reveal, commit, result, evidence, claim."""
    story, work = play.story, play.work
    digests = [ref.digest for ref in proposal(candidate).evidence_refs]
    for name in play.having("verifier"):
        node = story.world.node(name)
        stance = play.stance[name] if work.candidates[hash_of(candidate)].passes else "reject"
        if node == candidate.author and story.pins.sole_verifier != node:
            continue
        if not _can_pay(play, node, "verify"):
            continue
        if _lease(work.verify.get(node), now_ms) is None:
            if _free(play, "verify"):
                yield name, _to(story.claim, name, "verify")
            continue
        vote = work.votes.get(node)
        if vote is not None:
            if vote.approves is None and vote.candidate_hash == hash_of(candidate):
                yield name, partial(_reveal, play, name, candidate, stance)
            continue
        if any(result.verifier == node and result.attempt == work.attempt for result in work.results):
            yield name, _to(story.commit, name, candidate, stance, attempt=work.attempt)
            continue
        status = "passed" if stance == "approve" else "failed"
        yield name, _to(story.result, name, candidate, status)
        for digest in digests:
            if node not in work.attested.get(digest, ()):
                yield name, _to(story.available, name, candidate, digest)
    author = next(name for name in names if story.world.node(name) == candidate.author)
    leased = _lease(work.propose.get(candidate.author), now_ms) is not None
    if leased and not work.candidates[hash_of(candidate)].added and _can_pay(play, candidate.author, "explore"):
        more = [digest_of(f"more of {author}")]
        yield author, _to(story.add_evidence, author, proposal(candidate).candidate_id, digests=more)


def _propose(
    play: Play,
    name: str,
    at_ms: int,
    output: object = None,
    candidate_id: str | None = None,
    execution: str | None = None,
) -> Event:
    play.proposed += 1
    digests = [digest_of(f"{name} {play.proposed}")] if play.proposed % 3 else []
    candidate_id = candidate_id or f"{name}-{play.proposed}"
    candidate = play.story.propose(name, candidate_id, execution=execution, output=output, digests=digests, at_ms=at_ms)
    play.candidates.append(candidate)
    return candidate


def _offer_again(play: Play, name: str, candidate: Event, at_ms: int) -> Event:
    play.again.add(candidate.id)
    return play.story.say(name, work.CandidateProposed(proposal(candidate)), at_ms)


def twins(play: Play, name: str) -> tuple[Say, ...]:
    """Two candidates of one id and output, evidence for one of them, and another output after all."""
    story, other = play.story, {"answer": "other"}
    return (
        _to(story.claim, name, execution="twin"),
        partial(_twin, play, name, "first"),
        partial(_twin, play, name, "second"),
        _to(story.add_evidence, name, "twin", execution="twin", digests=[digest_of("more")]),
        _to(story.propose, name, "third", execution="twin", output=other, digests=[digest_of("third")]),
    )


def _twin(play: Play, name: str, which: str, at_ms: int) -> Event:
    digests = [digest_of(f"{which} of {play.story.task.hex()}")]
    candidate = play.story.propose(
        name, "twin", execution="twin", output={"answer": "twin"}, digests=digests, at_ms=at_ms
    )
    play.candidates.append(candidate)
    return candidate


def _reveal(play: Play, name: str, candidate: Event, vote: Literal["approve", "reject"], at_ms: int) -> Event:
    said = play.story.reveal(name, candidate, vote, at_ms=at_ms)
    play.reveals.append(said)
    return said


# -- wild -----------------------------------------------------------------------------------------------------------

Wild = Callable[[Play, str, int, Event], Event]
"""Says something about a play: who, when, and a candidate to talk about."""

_over_32 = "ab" * 16


def wild_moves() -> tuple[Wild, ...]:
    """Everything that somebody might say and should not, or not now, or why not."""
    return (*_of_leases, *_of_candidates, *_of_results, *_of_votes, *_of_endings, *_of_courses)


_of_leases: tuple[Wild, ...] = (
    lambda p, who, at, c: p.story.claim(who, at_ms=at),
    lambda p, who, at, c: p.story.claim(who, "verify", at_ms=at),
    lambda p, who, at, c: p.story.claim(who, execution="another", at_ms=at),
    lambda p, who, at, c: p.story.claim(who, execution="another", lease_ms=1, at_ms=at),
    lambda p, who, at, c: p.story.claim(who, lease_ms=0, at_ms=at),
    lambda p, who, at, c: p.story.claim(who, lease_ms=3_600_000, at_ms=at),
    lambda p, who, at, c: p.story.renew(who, at_ms=at),
    lambda p, who, at, c: p.story.renew(who, "verify", lease_ms=7_000, at_ms=at),
    lambda p, who, at, c: p.story.release(who, at_ms=at),
    lambda p, who, at, c: p.story.release(who, "verify", at_ms=at),
)
_of_candidates: tuple[Wild, ...] = (
    lambda p, who, at, c: _propose(p, who, at),
    lambda p, who, at, c: _propose(p, who, at, {"answer": "namesake"}, "namesake"),
    lambda p, who, at, c: _propose(p, who, at, {"answer": "unsure", "confidence": 0.1}),
    lambda p, who, at, c: _propose(p, who, at, {"question": 1}, execution="another"),
    lambda p, who, at, c: _propose(p, who, at, {"answer": "again"}, execution="another"),
    lambda p, who, at, c: _propose(p, who, at, {"answer": "x" * 66_000}, execution="another"),
    lambda p, who, at, c: p.story.propose(who, "bare", execution="another", at_ms=at),
    lambda p, who, at, c: p.story.propose(who, "bare", at_ms=at),
    lambda p, who, at, c: p.story.propose(who, inline=[("image/png", "x")], at_ms=at),
    lambda p, who, at, c: p.story.propose(who, inline=[("application/json", "{")], at_ms=at),
    lambda p, who, at, c: p.story.say(who, work.CandidateProposed(proposal(c)), at),
    lambda p, who, at, c: p.story.add_evidence(
        who, proposal(c).candidate_id, digests=[digest_of(f"more of {at}")], at_ms=at
    ),
    lambda p, who, at, c: p.story.add_evidence(who, "namesake", digests=[digest_of("more")], at_ms=at),
    lambda p, who, at, c: p.story.available(who, c, digest_of("more"), at_ms=at),
    lambda p, who, at, c: p.story.available(who, c, "no such digest", at_ms=at),
)
_of_results: tuple[Wild, ...] = (
    lambda p, who, at, c: p.story.result(who, c, at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, "failed", at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, "inconclusive", at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, "inconclusive", reason_codes=[100], at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, score=2.0, at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, passed=False, at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, reason_codes=[], at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, reason_codes=[302], at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, policy_hash="00", at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, model_id="", at_ms=at),
    lambda p, who, at, c: p.story.result(who, c, candidate_id="nobody", at_ms=at),
)
_of_votes: tuple[Wild, ...] = (
    lambda p, who, at, c: p.story.commit(who, c, p.stance.get(who, "approve"), attempt=p.work.attempt, at_ms=at),
    lambda p, who, at, c: p.story.commit(who, c, "reject", at_ms=at),
    lambda p, who, at, c: p.story.commit(who, c, voter="ada", at_ms=at),
    lambda p, who, at, c: p.story.say(
        who, judge.VoteCommit(proposal(c).candidate_id, bytes(32), f"{who}-verify", "x", bytes(32)), at
    ),
    lambda p, who, at, c: _reveal(p, who, c, p.stance.get(who, "approve"), at),
    lambda p, who, at, c: _reveal(p, who, c, "reject", at),
    lambda p, who, at, c: p.story.reveal(who, c, salt="short", at_ms=at),
    lambda p, who, at, c: p.story.reveal(who, c, salt=_over_32, at_ms=at),
    lambda p, who, at, c: p.story.reveal(who, c, candidate_id="nobody", at_ms=at),
)
_of_endings: tuple[Wild, ...] = (
    lambda p, who, at, c: p.story.decide(who, c, at_ms=at),
    lambda p, who, at, c: p.story.decide(who, c, candidate_id="nobody", at_ms=at),
    lambda p, who, at, c: p.story.vote_finality(who, c, at_ms=at),
    lambda p, who, at, c: p.story.vote_finality(who, c, signature=bytes(64), at_ms=at),
    lambda p, who, at, c: p.story.finalize(who, c, signers=[who], at_ms=at),
    lambda p, who, at, c: p.story.finalize(who, c, signers=[who, who], at_ms=at),
    lambda p, who, at, c: p.story.feedback(who, at_ms=at),
    lambda p, who, at, c: p.story.feedback(who, outcome="GOOD", at_ms=at),
    lambda p, who, at, c: p.story.feedback(who, signer=keys_of(who), at_ms=at),
    lambda p, who, at, c: p.story.feedback(
        who, signer=keys_of(who), signed_by="ed25519:" + authority.node_id.hex(), at_ms=at
    ),
    lambda p, who, at, c: p.story.feedback(who, timestamp=1 << 60, at_ms=at),
)
_of_courses: tuple[Wild, ...] = (
    lambda p, who, at, c: p.story.error(who, at_ms=at),
    lambda p, who, at, c: p.story.error(who, codes=[], at_ms=at),
    lambda p, who, at, c: p.story.error(who, codes=[999], at_ms=at),
    lambda p, who, at, c: p.story.retry(who, p.work.attempt + 1, at_ms=at),
    lambda p, who, at, c: p.story.retry(who, 7, at_ms=at),
    lambda p, who, at, c: p.story.retry(who, 99, at_ms=at),
    lambda p, who, at, c: p.story.retry(who, p.work.attempt + 1, run_at=at + 3_600_001, at_ms=at),
    lambda p, who, at, c: p.story.expire(who, at_ms=at),
    lambda p, who, at, c: p.story.end_epoch(who, "TIMEBOX_REACHED", at_ms=at),
    lambda p, who, at, c: p.story.end_epoch(who, "BUDGET_EXHAUSTED", at_ms=at),
    lambda p, who, at, c: p.story.end_epoch(who, "FINALIZED", at_ms=at),
    lambda p, who, at, c: p.story.stop(who, at_ms=at),
    lambda p, who, at, c: p.story.suspend(who, at_ms=at),
    lambda p, who, at, c: p.story.kill(who, at_ms=at),
    lambda p, who, at, c: p.story.reject_reuse(who, c, [said.id for said in p.reveals], at_ms=at),
    lambda p, who, at, c: p.story.reject_reuse(who, c, [bytes(32)], at_ms=at),
    lambda p, who, at, c: p.story.say(who, course.TaskRetryScheduled(1, at), at),
)
