"""What a verifier does next: claim, verify, seal its vote, and open it when the others are sealed too.

Where several vote, a result is published with the reveal and not before, or nobody's vote would be secret. A slot
that others need is given back in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Literal

from msgspec.structs import replace

from wattswarm.kernel.intents.values import (
    Author,
    Intent,
    Judgement,
    Sight,
    Verify,
    Wait,
    at_work,
    claim,
    hold,
    live_leases,
    own_leases,
    wait_after_failures,
    wait_for_executor,
    wait_for_turn,
)
from wattswarm.kernel.payloads.judge import VerifierResultSubmitted, VoteCommit, VoteReveal
from wattswarm.kernel.payloads.work import EvidenceAvailable, TaskClaimReleased
from wattswarm.kernel.task.state import Vote
from wattswarm.kernel.task.turn import past
from wattswarm.kernel.task.vote import Ballot, quorum_candidate
from wattswarm.kernel.task.wording import moment

_VOTE_UNITS = 3
"""A result, a commit and a reveal."""


def verifying(sight: Sight) -> Iterator[Intent]:
    """Claims, verifications, votes and waits of this node as a verifier."""
    work = sight.work
    if not sight.has("verifier"):
        return
    vote = work.votes.get(sight.me)
    if vote is not None and vote.approves is None:
        yield from _reveal(sight, vote)
    elif (winner := work.committed or quorum_candidate(sight.pins, work)) is not None:
        yield from _attest(sight, winner)
    elif vote is not None:
        yield from _make_room(sight, vote.candidate_hash)
    elif sight.now < work.run_at:
        yield Wait(work.run_at, f"round {work.attempt} begins at {moment(work.run_at)}")
    else:
        yield from _vote(sight)


# -- whom the round wants to hear ------------------------------------------------------------------------------------


def _quorums(sight: Sight, name: bytes) -> int:
    """How many verifiers a candidate needs: for its votes, and for its evidence."""
    terms = sight.pins.contract.acceptance
    return max(terms.quorum_threshold, terms.da_quorum_threshold if sight.work.candidates[name].proposed else 0)


def _judges(sight: Sight, name: bytes) -> frozenset[bytes]:
    """The verifiers that may judge a candidate: its proposer only where the others are too few."""
    verifiers = sight.pins.membership.having("verifier")
    others = verifiers - {sight.work.candidates[name].author}
    return others if len(others) >= _quorums(sight, name) else verifiers


def spoken(sight: Sight) -> frozenset[bytes]:
    """Verifiers that have sealed a vote in this round, or said that they cannot decide."""
    work = sight.work
    undecided = {
        result.verifier for result in work.results if result.attempt == work.attempt and result.status == "inconclusive"
    }
    return frozenset(undecided | work.votes.keys())


def _backers(sight: Sight, name: bytes) -> set[bytes]:
    """Voters of this round that approve the candidate, or may: what they sealed is about it."""
    votes = sight.work.votes.items()
    return {voter for voter, vote in votes if vote.candidate_hash == name and vote.approves is not False}


def _wanted(sight: Sight, name: bytes) -> int:
    """How many verifiers should speak in this round: one more for each that spoke and does not back ``name``."""
    lost = spoken(sight) - _backers(sight, name)
    return min(len(_judges(sight, name) | lost), _quorums(sight, name) + len(lost))


def untapped(sight: Sight) -> frozenset[bytes]:
    """Verifiers that may still speak in this round."""
    judges = [_judges(sight, name) for name in sight.work.candidates]
    return frozenset().union(*judges) - spoken(sight)


# -- from no lease to a sealed vote ----------------------------------------------------------------------------------


def _vote(sight: Sight) -> Iterator[Intent]:
    mine = _candidates_in_order(sight)
    if not mine:
        yield Wait(sight.expiry, "waiting for a candidate")
        return
    name, judgement = _choose(sight, mine)
    lease = next(iter(own_leases(sight, "verify")), None)
    if name is None:
        yield Wait(sight.expiry, "this node's verdicts are inconclusive: waiting for other verifiers, or another round")
    elif at_work(sight, "verify"):
        yield hold(sight, "verify", lease)
    elif judgement is None and (nobody := wait_for_executor(sight)):
        yield nobody
    elif lease is None:
        yield _claim(sight, name)
    elif judgement is None:
        round_ = sight.work.number, sight.work.attempt
        yield wait_after_failures(sight, "verify") or Verify(*round_, name, lease.execution_id, lease.until)
    else:
        yield from _publish(sight, name, judgement, lease.execution_id)


def _candidates_in_order(sight: Sight) -> list[bytes]:
    """The candidates this node may judge, in the order that all take them: those that pass, those with votes."""
    work = sight.work
    ordered = [
        (not candidate.passes, -len(_backers(sight, name)), candidate.created_at, name)
        for name, candidate in work.candidates.items()
        if name not in work.blacklist and sight.me in _judges(sight, name)
    ]
    return [name for _, _, _, name in sorted(ordered)]


def _choose(sight: Sight, ordered: list[bytes]) -> tuple[bytes | None, Judgement | None]:
    """The candidate to work on: the first that is not judged yet or passed; else one that failed, to reject it.

    Of those that failed, one whose failure this node has not published yet. An inconclusive verdict is worked on
    until it is published. (None, None): there is nothing left to say in this round.
    """
    failed: list[tuple[bool, bytes, Judgement]] = []
    unsaid: list[tuple[bytes, Judgement]] = []
    for name in ordered:
        judgement = _judgement(sight, name)
        if judgement is None or judgement.result.verification_status == "passed":
            return name, judgement
        if judgement.result.verification_status == "failed":
            failed.append((_said_before(sight, judgement), name, judgement))
        elif not _published(sight, judgement):
            unsaid.append((name, judgement))
    if failed:
        _, name, judgement = min(failed, key=lambda entry: entry[0])
        return name, judgement
    return unsaid[0] if unsaid else (None, None)


def _judgement(sight: Sight, name: bytes) -> Judgement | None:
    return sight.mine.judgements.get((sight.work.number, sight.work.attempt, name))


def _said_before(sight: Sight, judgement: Judgement) -> bool:
    name = judgement.result.candidate_id
    return any(result.verifier == sight.me and result.candidate_id == name for result in sight.work.results)


def _published(sight: Sight, judgement: Judgement) -> bool:
    said = judgement.result
    return any(
        result.verifier == sight.me
        and result.candidate_id == said.candidate_id
        and result.result_hash == said.verifier_result_hash
        for result in sight.work.results
    )


def _claim(sight: Sight, name: bytes) -> Intent:
    heard = spoken(sight)
    missing = _wanted(sight, name) - len(heard)
    if missing <= 0:
        return Wait(sight.expiry, f"{len(heard)} verifiers have spoken: waiting for them to reveal")
    return _claim_in_turn(sight, name, untapped(sight), missing, _VOTE_UNITS)


def _claim_in_turn(sight: Sight, name: bytes, others: Set[bytes], missing: int, units: int) -> Intent:
    """Claim a verify lease when it is this node's turn among ``others``; ``units``: what the work costs at least."""
    work, candidate = sight.work, sight.work.candidates[name]
    if sight.now > work.started_at + sight.pins.contract.budget.time_ms:
        return Wait(sight.expiry, "time_ms of the epoch ran out: no new claims")
    if not sight.can_pay("verify", units + len(candidate.proposed)):
        return Wait(sight.expiry, "the verify units that this node may use are spent")
    since = max(candidate.created_at, work.moved_at, work.run_at)
    return (
        wait_after_failures(sight, "verify")
        or wait_for_turn(sight, "verify", others | {sight.me}, since, missing)
        or claim(sight, "verify")
    )


def _publish(sight: Sight, name: bytes, judgement: Judgement, execution_id: str) -> Iterator[Intent]:
    """Evidence and a sealed vote; where nobody else votes, the result and the opened vote as well."""
    work, candidate = sight.work, sight.work.candidates[name]
    held = candidate.evidence()
    for digest in judgement.attested:
        if digest in held and sight.me not in work.attested.get(digest, ()):
            yield sight.say(EvidenceAvailable(candidate.candidate_id, execution_id, digest))
    if judgement.result.verification_status == "inconclusive":
        yield _result(sight, judgement, execution_id)
        yield sight.say(TaskClaimReleased("verify", execution_id))
        return
    alone = _wanted(sight, name) <= 1
    if alone and not _published(sight, judgement):
        yield _result(sight, judgement, execution_id)
    ballot = _ballot(sight, name, judgement)
    sealed = ballot.commit_hash()
    yield sight.say(VoteCommit(candidate.candidate_id, name, execution_id, ballot.verifier_result_hash, sealed))
    if alone:
        yield _opened(sight, ballot, execution_id)


def _result(sight: Sight, judgement: Judgement, execution_id: str) -> Author:
    said = judgement.result
    assert said.execution_id, "an executor's verdict is under an execution"
    return sight.say(VerifierResultSubmitted(replace(said, execution_id=execution_id)))


def _ballot(sight: Sight, name: bytes, judgement: Judgement) -> Ballot:
    work, said = sight.work, judgement.result
    vote: Literal["approve", "reject"] = "approve" if said.passed else "reject"
    return Ballot(
        sight.pins.task, work.number, work.attempt, sight.me, name, vote, judgement.salt, said.verifier_result_hash
    )


def _opened(sight: Sight, ballot: Ballot, execution_id: str) -> Author:
    name = ballot.candidate_hash
    candidate_id = sight.work.candidates[name].candidate_id
    return sight.say(
        VoteReveal(candidate_id, name, execution_id, ballot.verifier_result_hash, ballot.vote, ballot.salt)
    )


# -- from the sealed vote to the opened one --------------------------------------------------------------------------


def _reveal(sight: Sight, vote: Vote) -> Iterator[Intent]:
    """Open the vote when all that are wanted are sealed, or half the deadline has passed."""
    name = vote.candidate_hash
    terms = sight.pins.contract.acceptance.vote
    deadline, halfway = (vote.committed_at + ms for ms in (terms.reveal_deadline_ms, terms.reveal_deadline_ms // 2))
    judgement = _judgement(sight, name)
    if judgement is None or past(deadline, sight.now):
        yield Wait(sight.expiry, "this node's sealed vote cannot be opened any more: waiting for another round")
        return
    heard, wanted = len(spoken(sight)), _wanted(sight, name)
    if heard < wanted and sight.now < halfway:
        yield from _make_room(sight, name)
        yield Wait(halfway, f"{heard} of {wanted} verifiers have spoken: votes stay sealed until all have")
        return
    lease = next(iter(own_leases(sight, "verify")), None)
    if not _published(sight, judgement):
        if lease is None:
            yield claim(sight, "verify")
            return
        yield _result(sight, judgement, lease.execution_id)
    yield _opened(sight, _ballot(sight, name, judgement), judgement.result.execution_id)


def _make_room(sight: Sight, name: bytes) -> Iterator[Author]:
    """Give back this node's verify lease if all slots are taken and somebody who needs one has none."""
    live = live_leases(sight, "verify")
    if len(live) < sight.pins.lease_slots["verify"]:
        return
    holders = {holder for holder, _ in live}
    sealed = {voter for voter, vote in sight.work.votes.items() if vote.approves is None and voter != sight.me}
    more = untapped(sight) if len(spoken(sight)) < _wanted(sight, name) else frozenset()
    if (sealed | more) - holders:
        for lease in own_leases(sight, "verify"):
            yield sight.say(TaskClaimReleased("verify", lease.execution_id))


# -- evidence for a decision that has its votes ----------------------------------------------------------------------


def _attest(sight: Sight, winner: bytes) -> Iterator[Intent]:
    """Confirm that the winner's evidence can be read, where too few verifiers have."""
    work, candidate = sight.work, sight.work.candidates[winner]
    enough = sight.pins.contract.acceptance.da_quorum_threshold
    readers = {digest: work.attested.get(digest, []) for digest in candidate.proposed}
    missing = [digest for digest, said in readers.items() if len(said) < enough and sight.me not in said]
    if not missing:
        return
    judgement = _judgement(sight, winner)
    lease = next(iter(own_leases(sight, "verify")), None)
    readable = [digest for digest in missing if judgement is None or digest in judgement.attested]
    if not readable:
        yield Wait(sight.expiry, f"this node could not read evidence {missing[0]}: waiting for other verifiers")
    elif at_work(sight, "verify"):
        yield hold(sight, "verify", lease)
    elif judgement is None and (nobody := wait_for_executor(sight)):
        yield nobody
    elif lease is None:
        others = sight.pins.membership.having("verifier") - set(readers[readable[0]])
        yield _claim_in_turn(sight, winner, others, enough - len(readers[readable[0]]), 0)
    elif judgement is None:
        round_ = work.number, work.attempt
        yield wait_after_failures(sight, "verify") or Verify(*round_, winner, lease.execution_id, lease.until)
    else:
        for digest in readable:
            yield sight.say(EvidenceAvailable(candidate.candidate_id, lease.execution_id, digest))
