"""What is said after the fact: an authority's feedback, and the quorum's word on a reuse (docs/protocol.md §6, §11).

Feedback is about a decision, so it is judged by pass 1's certificate and outlives every closing.
"""

from __future__ import annotations

from wattswarm.kernel import identity
from wattswarm.kernel.payloads.course import ReuseRejectRecorded, TaskFeedbackReported
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.state import Feedback
from wattswarm.kernel.task.turn import Turn
from wattswarm.kernel.task.vote import counts
from wattswarm.kernel.task.wording import moment, short


def feedback_text(task: bytes, epoch: int, outcome: str, reason: str, timestamp: int) -> bytes:
    """What the authority signs, as UTF-8."""
    return f"{task.hex()}|{epoch}|{outcome}|{reason}|{timestamp}".encode()


def report(turn: Turn, payload: TaskFeedbackReported) -> None:
    """The authority says that the epoch's decision was bad. The first such word is kept."""
    epoch = turn.event.epoch
    settlement = turn.pins.contract.acceptance.settlement
    authority = settlement.feedback.authority_pubkey
    if payload.outcome != "BAD":
        raise Refused("feedback_outcome", f"the outcome is {payload.outcome}, expected BAD")
    if not turn.state.decided(epoch):
        raise Refused("not_decided", f"epoch {epoch} has no decision certificate: there is nothing to report on")
    if payload.signed_by != authority:
        raise Refused("feedback_authority", f"signed by {payload.signed_by}, the contract's authority is {authority}")
    latest = turn.pins.contract.expiry_ms + settlement.window_ms
    if payload.timestamp > latest:
        raise Refused(
            "feedback_late",
            f"the timestamp is {moment(payload.timestamp)}; expected at most {moment(latest)} (expiry_ms + window_ms)",
        )
    said = feedback_text(turn.pins.task, epoch, payload.outcome, payload.reason, payload.timestamp)
    key = bytes.fromhex(authority.removeprefix("ed25519:"))
    if not identity.verify(key, said, payload.signature):
        raise Refused("feedback_signature", "the signature is not the authority's over this feedback")
    turn.state.feedback.setdefault(epoch, Feedback(payload.timestamp, turn.at))


def record_reuse_reject(turn: Turn, payload: ReuseRejectRecorded) -> None:
    """A quorum of reveals rejected a reused candidate: its hash is not proposed again in this epoch."""
    work, name = turn.work, payload.candidate_hash
    if name in work.blacklist:
        return
    candidate = work.candidates.get(name)
    if candidate is None:
        raise Refused("candidate_unknown", f"no candidate with hash {short(name)} in epoch {work.number}")
    voters = set()
    for reveal in payload.reject_quorum_proof:
        reject = work.rejects.get(reveal)
        if reject is None or reject.candidate_hash != name:
            raise Refused(
                "reject_unknown", f"{short(reveal)} is no accepted reveal that rejected candidate {short(name)}"
            )
        if counts(turn.pins, reject.voter, candidate.author):
            voters.add(reject.voter)
    quorum = turn.pins.contract.acceptance.quorum_threshold
    if len(voters) < quorum:
        raise Refused("no_reject_quorum", f"{len(voters)} of {quorum} voters rejected candidate {short(name)}")
    work.blacklist.append(name)
