"""The decision, the finalizers' votes on it, and its end in a proof (docs/protocol.md §6 "Decision committed", §7).

A FINALITY_VOTE is judged by its signature alone: whatever late events do to the candidate's standing in this fold,
what a finalizer signed stays signed, and may complete a proof. DECISION_FINALIZED is judged by pass 1 alone.
"""

from __future__ import annotations

from wattswarm.kernel import finality
from wattswarm.kernel.payloads.judge import DecisionCommitted, DecisionFinalized, FinalityVote
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task import state
from wattswarm.kernel.task.turn import Turn, need_candidate, pay
from wattswarm.kernel.task.vote import tally
from wattswarm.kernel.task.wording import short


def commit_decision(turn: Turn, payload: DecisionCommitted) -> None:
    """The approval quorum is reached; the first such event of an epoch counts."""
    need_candidate(turn, payload.candidate_hash, payload.candidate_id)
    committed = turn.work.committed
    if committed == payload.candidate_hash:
        return
    if committed is not None:
        raise Refused(
            "decision_committed",
            f"epoch {turn.work.number} already committed to candidate {short(committed)}, the first one counts",
        )
    approvals, rejects = tally(turn.pins, turn.work, payload.candidate_hash)
    quorum = turn.pins.contract.acceptance.quorum_threshold
    if approvals < quorum:
        raise Refused(
            "no_quorum",
            f"candidate {payload.candidate_id} has {approvals} of {quorum} approvals ({rejects} rejects) in round "
            f"{turn.work.attempt}",
        )
    pay(turn, "finalize")
    turn.work.committed = payload.candidate_hash


def vote_finality(turn: Turn, payload: FinalityVote) -> None:
    """A finalizer's signature over the finality statement: one an author and epoch."""
    held = turn.work.finality_votes.get(turn.author)
    if held is not None and held.candidate_hash != payload.candidate_hash:
        raise Refused(
            "finality_voted",
            f"{short(turn.author)} voted for candidate {short(held.candidate_hash)} in epoch {turn.work.number}: "
            "a finalizer signs once",
        )
    pins = turn.pins
    said = finality.statement(
        pins.network_id, pins.membership.hash, pins.task, turn.work.number, payload.candidate_hash
    )
    if not finality.vote_holds(turn.author, said, payload.signature):
        raise Refused(
            "finality_signature",
            f"the signature is not {short(turn.author)}'s over the finality statement of candidate "
            f"{short(payload.candidate_hash)}, epoch {turn.work.number}",
        )
    if held is None:
        turn.work.finality_votes[turn.author] = state.FinalityVote(payload.candidate_hash, payload.signature)
        turn.work.moved_at = turn.at


def finalize(turn: Turn, payload: DecisionFinalized) -> None:
    """The proof is public: closes the epoch, and a task that has only one. What only open work needs is dropped."""
    certified = any(
        decision.epoch == turn.work.number and decision.candidate_hash == payload.winning_candidate_hash
        for decision in turn.state.decisions
    )
    if not certified:
        raise Refused(
            "no_certificate",
            f"no valid decision certificate for candidate {short(payload.winning_candidate_hash)} in epoch "
            f"{turn.work.number} is here",
        )
    work = turn.work
    work.finalized = True
    for open_work in (work.propose, work.verify, work.retries, work.finality_votes):
        open_work.clear()
    if not turn.pins.continuous:
        turn.state.closing = "FINALIZED"
