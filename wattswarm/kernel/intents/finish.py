"""How a task ends, or goes on: the decision, its finality, another round, the epoch's end, expiry.

Finality votes are cast by all who may; what one node's word is enough for is done by the first in line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from wattswarm.kernel.finality import make_proof
from wattswarm.kernel.intents.propose import hopeful
from wattswarm.kernel.intents.values import (
    Intent,
    Sight,
    VoteFinality,
    Wait,
    turn_ms,
    wait_after_failures,
    wait_for_turn,
)
from wattswarm.kernel.intents.verify import untapped
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.payloads.course import EpochEnded, TaskExpired, TaskRetryScheduled
from wattswarm.kernel.payloads.judge import DecisionCommitted, DecisionFinalized
from wattswarm.kernel.task.course import round_goes_on
from wattswarm.kernel.task.turn import used_units
from wattswarm.kernel.task.vote import quorum_candidate
from wattswarm.kernel.task.wording import moment

_RETRY_DELAY_MS_MAX = 60_000
_PATIENCE_MS = 5 * turn_ms
"""How long a lost round waits for verifiers that have not spoken."""


def deciding(sight: Sight) -> Iterator[Intent]:
    """A finalizer commits the decision that has the quorum."""
    pins, work = sight.pins, sight.work
    winner = quorum_candidate(pins, work)
    if not sight.has("finalizer") or work.committed is not None or winner is None:
        return
    finalizers = pins.membership.having("finalizer")
    wait = wait_for_turn(sight, "commit the decision", finalizers, work.moved_at)
    yield wait or sight.say(DecisionCommitted(work.candidates[winner].candidate_id, winner))


def voting_finality(sight: Sight) -> Iterator[Intent]:
    """A finalizer votes once, when its own state shows decision, quorum and evidence (docs/protocol.md §7).

    A committed decision has its quorum: approvals are not taken back, and no round begins after it.
    """
    pins, work = sight.pins, sight.work
    committed = work.committed
    if not sight.has("finalizer") or committed is None or sight.me in work.finality_votes:
        return
    withheld = sight.mine.withheld.get(work.number)
    candidate = work.candidates[committed]
    terms = pins.contract.acceptance
    missing = [d for d in candidate.proposed if len(work.attested.get(d, ())) < terms.da_quorum_threshold]
    if withheld is not None:
        yield Wait(sight.expiry, f"this node withholds its finality vote: {withheld}")
    elif missing:
        attested = len(work.attested.get(missing[0], ()))
        yield Wait(
            sight.expiry,
            f"waiting for {attested} of {terms.da_quorum_threshold} confirmations that evidence {missing[0]} can be "
            "read",
        )
    else:
        yield wait_after_failures(sight, "finalize") or VoteFinality(work.number, committed)


def finalizing(sight: Sight) -> Iterator[Intent]:
    """A finalizer publishes the proof when the votes for one candidate are enough."""
    pins, work = sight.pins, sight.work
    if not sight.has("finalizer"):
        return
    finalizers = pins.membership.having("finalizer")
    for name in sorted({vote.candidate_hash for vote in work.finality_votes.values()} & work.candidates.keys()):
        votes = {voter: vote.signature for voter, vote in work.finality_votes.items() if vote.candidate_hash == name}
        proof = make_proof(pins.membership, votes)
        if proof is not None:
            wait = wait_for_turn(sight, "publish the proof", finalizers, work.moved_at)
            yield wait or sight.say(DecisionFinalized(work.candidates[name].candidate_id, name, proof))
            return
    if sight.me in work.finality_votes:
        enough = pins.membership.finality_threshold
        yield Wait(sight.expiry, f"waiting for finality votes: {len(work.finality_votes)} of {enough} are here")


def retrying(sight: Sight) -> Iterator[Intent]:
    """A committer calls for another round when this one is lost and nobody is left to save it."""
    pins, work = sight.pins, sight.work
    if not sight.has("committer") or work.committed is not None or not work.votes:
        return
    goes_on = round_goes_on(pins, work, sight.now)
    if goes_on is not None:
        yield Wait(_next_deadline(sight), f"round {work.attempt} goes on: {goes_on}")
    elif work.attempt >= pins.contract.budget.max_steps:
        yield Wait(sight.expiry, f"round {work.attempt} found no quorum and is the last that max_steps allows")
    elif sight.me in work.retries:
        enough = pins.membership.third("committer")
        yield Wait(sight.expiry, f"waiting for committers to call another round: {len(work.retries)} of {enough} have")
    elif untapped(sight) and sight.now < work.moved_at + _PATIENCE_MS:
        yield Wait(work.moved_at + _PATIENCE_MS, f"round {work.attempt} found no quorum yet: others may still vote")
    else:
        others = pins.membership.having("committer") - work.retries.keys()
        missing = pins.membership.third("committer") - len(work.retries)
        delay = min(turn_ms << (work.attempt - 1), _RETRY_DELAY_MS_MAX)
        wait = wait_for_turn(sight, "call another round", others, work.moved_at, missing)
        yield wait or sight.say(TaskRetryScheduled(work.attempt + 1, sight.now + delay))


def _next_deadline(sight: Sight) -> int:
    """When the last vote that is still sealed cannot be opened any more."""
    reveal_ms = sight.pins.contract.acceptance.vote.reveal_deadline_ms
    sealed = [vote.committed_at + reveal_ms for vote in sight.work.votes.values() if vote.approves is None]
    return max(sealed) + clock_skew_tolerance_ms + 1 if sealed else sight.expiry


def ending_epoch(sight: Sight) -> Iterator[Intent]:
    """A finalizer ends a CONTINUOUS task's epoch that is decided, out of time, or cannot pay for more."""
    pins, work = sight.pins, sight.work
    if not pins.continuous or not sight.has("finalizer"):
        return
    reason = _why_over(sight)
    if reason is None:
        yield Wait(_latest_end(sight), f"epoch {work.number} ends at {moment(_latest_end(sight))} if it is not decided")
        return
    since = max(work.moved_at, _latest_end(sight)) if reason == "TIMEBOX_REACHED" else work.moved_at
    wait = wait_for_turn(sight, "end the epoch", pins.membership.having("finalizer"), since)
    yield wait or sight.say(EpochEnded(reason))


def _why_over(sight: Sight) -> Literal["BUDGET_EXHAUSTED", "TIMEBOX_REACHED", "FINALIZED"] | None:
    pins, work = sight.pins, sight.work
    if sight.state.decided(work.number):
        return "FINALIZED"
    if sight.now >= _latest_end(sight):
        return "TIMEBOX_REACHED"
    spent = {stage for stage, bucket in pins.buckets.items() if used_units(work, stage) >= bucket}
    stuck = "verify" in spent or ("explore" in spent and not hopeful(work))
    return "BUDGET_EXHAUSTED" if stuck and not _nearly_decided(sight) else None


def _latest_end(sight: Sight) -> int:
    """When time is up: with time_ms, or a little later for a decision that still gathers votes."""
    work = sight.work
    end = work.started_at + sight.pins.contract.budget.time_ms
    return max(end, work.moved_at + _PATIENCE_MS) if _nearly_decided(sight) else end


def _nearly_decided(sight: Sight) -> bool:
    return sight.work.committed is not None or quorum_candidate(sight.pins, sight.work) is not None


def expiring(sight: Sight) -> Iterator[Intent]:
    """Any member says that the task has expired."""
    expiry, members = sight.pins.contract.expiry_ms, frozenset(sight.pins.membership.members)
    if sight.me in members and sight.now >= expiry:
        yield wait_for_turn(sight, "declare the task expired", members, expiry) or sight.say(TaskExpired())
