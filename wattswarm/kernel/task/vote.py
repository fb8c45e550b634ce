"""Commit and reveal, and how votes are counted (docs/protocol.md §5 ``commit_hash``, §6 "Vote commit", "Counting").

A sealed vote names its voter, task, epoch and round, so it opens for nobody else and nowhere else.
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from wattswarm.kernel.codec import sha256
from wattswarm.kernel.limits import salt_hex_chars_min
from wattswarm.kernel.payloads.judge import VoteCommit, VoteReveal
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.pins import Pins
from wattswarm.kernel.task.state import Epoch, Reject, Vote
from wattswarm.kernel.task.turn import Turn, need_candidate, need_lease, past, pay
from wattswarm.kernel.task.wording import moment, short

_salt = re.compile(rf"[0-9a-fA-F]{{{salt_hex_chars_min},}}")


class Ballot(Struct, frozen=True):
    """All that a vote is. ``attempt``: the round; ``salt``: at least 32 random hex digits."""

    task: bytes
    epoch: int
    attempt: int
    voter: bytes
    candidate_hash: bytes
    vote: Literal["approve", "reject"]
    salt: str
    verifier_result_hash: str

    def commit_hash(self) -> bytes:
        """What a VOTE_COMMIT says in place of the vote."""
        text = (
            f"wattswarm/vote/v1|{self.task.hex()}|{self.epoch}|{self.attempt}|{self.voter.hex()}"
            f"|{self.candidate_hash.hex()}|{self.vote}|{self.salt}|{self.verifier_result_hash}"
        )
        return sha256(text.encode())


def commit(turn: Turn, payload: VoteCommit) -> None:
    """A sealed vote: one a voter and round."""
    need_candidate(turn, payload.candidate_hash, payload.candidate_id)
    held = turn.work.votes.get(turn.author)
    if held is not None:
        if held.commit_hash == payload.commit_hash and held.candidate_hash == payload.candidate_hash:
            return
        raise Refused(
            "vote_committed",
            f"{short(turn.author)} committed a vote at {moment(held.committed_at)}: one a voter in a round, "
            f"this is round {turn.work.attempt}",
        )
    need_lease(turn, "verify", payload.execution_id)
    pay(turn, "verify")
    turn.work.votes[turn.author] = Vote(
        payload.commit_hash, turn.at, payload.candidate_hash, payload.verifier_result_hash
    )


def reveal(turn: Turn, payload: VoteReveal) -> None:
    """The opened vote, in time, and in agreement with the voter's own result."""
    candidate = need_candidate(turn, payload.candidate_hash, payload.candidate_id)
    approves = payload.vote == "approve"
    vote = turn.work.votes.get(turn.author)
    if vote is None:
        raise Refused(
            "no_commit", f"{short(turn.author)} committed no vote in round {turn.work.attempt}: nothing to open"
        )
    _check_opens(turn, payload, vote)
    if vote.approves is not None:
        return
    deadline = vote.committed_at + turn.pins.contract.acceptance.vote.reveal_deadline_ms
    if past(deadline, turn.at):
        raise Refused(
            "reveal_late",
            f"the vote was committed at {moment(vote.committed_at)} and could be revealed until {moment(deadline)}; "
            f"the event is from {moment(turn.at)}",
        )
    needed = "passed" if approves else "failed"
    said = [
        result.status
        for result in turn.work.results
        if result.verifier == turn.author
        and result.candidate_id == candidate.candidate_id
        and result.result_hash == payload.verifier_result_hash
    ]
    if needed not in said:
        found = f"is {said[0]}" if said else "does not exist"
        raise Refused(
            "result_disagrees",
            f"to {payload.vote} needs the voter's own {needed} result for candidate {candidate.candidate_id}; "
            f"its result with that verifier_result_hash {found}",
        )
    if approves and not candidate.passes:
        raise Refused(
            "passed_contradicted",
            f"candidate {candidate.candidate_id} does not pass {turn.pins.policy.policy_id}: it cannot be approved",
        )
    pay(turn, "verify")
    vote.approves = approves
    vote.result_hash = ""
    if not approves:
        turn.work.rejects[turn.event.id] = Reject(turn.author, payload.candidate_hash)


def _check_opens(turn: Turn, payload: VoteReveal, vote: Vote) -> None:
    """Whether the reveal says what the voter's commit of this round sealed."""
    if _salt.fullmatch(payload.salt) is None:
        raise Refused("salt_form", f"the salt must be at least {salt_hex_chars_min} hex digits")
    ballot = Ballot(
        turn.pins.task,
        turn.work.number,
        turn.work.attempt,
        turn.author,
        payload.candidate_hash,
        payload.vote,
        payload.salt,
        payload.verifier_result_hash,
    )
    sealed_result = vote.result_hash or payload.verifier_result_hash
    if (
        ballot.commit_hash() != vote.commit_hash
        or payload.candidate_hash != vote.candidate_hash
        or payload.verifier_result_hash != sealed_result
    ):
        raise Refused(
            "commit_mismatch",
            f"the reveal does not open the voter's commit {short(vote.commit_hash)} of round {turn.work.attempt}",
        )


def counts(pins: Pins, voter: bytes, candidate_author: bytes) -> bool:
    """Whether a vote counts: a proposer's on its own candidate only if it is the membership's only verifier."""
    return voter != candidate_author or pins.sole_verifier == voter


def tally(pins: Pins, work: Epoch, candidate_hash: bytes) -> tuple[int, int]:
    """(approvals, rejects) that count for one of the epoch's candidates in this round."""
    author = work.candidates[candidate_hash].author
    said = [
        vote.approves
        for voter, vote in work.votes.items()
        if vote.candidate_hash == candidate_hash and counts(pins, voter, author)
    ]
    return said.count(True), said.count(False)


def quorum_candidate(pins: Pins, work: Epoch) -> bytes | None:
    """The candidate that has the approval quorum in this round: of several the earliest, or None."""
    quorum = pins.contract.acceptance.quorum_threshold
    won = [
        (work.candidates[name].created_at, name)
        for name in {vote.candidate_hash for vote in work.votes.values()}
        if tally(pins, work, name)[0] >= quorum
    ]
    return min(won)[1] if won else None
