"""The task fold: a table of rules, and one event applied to a state (docs/protocol.md §4, §6, §7).

The order of checks is the same for every kind: is the task open, is the epoch, has the author the role, is it in
time, then the kind's own rule, then the stage budget. The first that fails names the refusal, and the state is as
it was. Pass 1 comes in as ``decisions`` and is read by DECISION_FINALIZED, EPOCH_ENDED, feedback, and the question
whether an epoch is open: by nothing else, so a certificate never changes what the events before it meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.codec import encode, sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads import course as of_course
from wattswarm.kernel.payloads import judge as of_judgement
from wattswarm.kernel.payloads import kind_names, kinds
from wattswarm.kernel.payloads import work as of_work
from wattswarm.kernel.payloads.fields import Payload
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task import candidate, course, decide, feedback, lease, verify, vote
from wattswarm.kernel.task.epoch import certified, check_time_box, end, going, opened, untouched
from wattswarm.kernel.task.pins import Pins, open_task, pin_task
from wattswarm.kernel.task.state import Decision, Epoch, TaskState, decode_state, encode_state, status
from wattswarm.kernel.task.turn import Turn
from wattswarm.kernel.task.wording import moment, short
from wattswarm.kernel.verdict import ACCEPTED, UNSUPPORTED, Verdict, refused

__all__ = [
    "Decision",
    "Pins",
    "TaskState",
    "apply",
    "decision_of",
    "decode_state",
    "encode_state",
    "fold",
    "new_state",
    "open_task",
    "pin_task",
    "status",
]


class Rule(Struct, frozen=True):
    """What one kind of event must be, before its own rule is asked.

    ``handle``: the kind's own rule; checks, then changes. ``roles``: of these the author must have one; none: the
    rule itself decides. ``claimed``: the role is the one that the payload claims. ``creator``: the task's creator
    needs no role. ``timed``: refused from expiry_ms on. ``boxed``: refused after the epoch's time_ms. ``closings``:
    accepted in these closings of the task. ``epoch``: which epoch's work it is about.
    """

    handle: Callable[[Turn, Any], None]
    roles: frozenset[str]
    claimed: bool = False
    creator: bool = False
    timed: bool = False
    boxed: bool = False
    closings: frozenset[str] = frozenset()
    epoch: Callable[[TaskState, Pins, Event], Epoch] = going


_any_closing = frozenset({"FINALIZED", "EXPIRED", "STOPPED", "SUSPENDED", "KILLED"})
_claimed_roles = {"propose": frozenset({"proposer"}), "verify": frozenset({"verifier"})}


def _rule(kind: type[Payload], handle: Callable[[Turn, Any], None], **columns: Any) -> tuple[type[Payload], Rule]:
    return kind, Rule(handle, **{"roles": kinds[kind_names[kind]].roles, **columns})


def _halt(kind: type[Payload], handle: Callable[[Turn, Any], None], closing: str) -> tuple[type[Payload], Rule]:
    return _rule(kind, handle, roles=frozenset({"finalizer"}), creator=True, closings=frozenset({closing}))


rules: dict[type[Payload], Rule] = dict(
    (
        _rule(of_work.TaskClaimed, lease.claim, claimed=True, timed=True, boxed=True),
        _rule(of_work.TaskClaimRenewed, lease.renew, claimed=True, timed=True),
        _rule(of_work.TaskClaimReleased, lease.release, claimed=True),
        _rule(of_work.CandidateProposed, candidate.propose, timed=True, boxed=True),
        _rule(of_work.EvidenceAdded, candidate.add_evidence, timed=True, boxed=True),
        _rule(of_work.EvidenceAvailable, verify.evidence_available, timed=True),
        _rule(of_judgement.VerifierResultSubmitted, verify.submit, timed=True),
        _rule(of_judgement.VoteCommit, vote.commit, timed=True),
        _rule(of_judgement.VoteReveal, vote.reveal, timed=True),
        _rule(of_judgement.DecisionCommitted, decide.commit_decision, timed=True),
        _rule(of_judgement.FinalityVote, decide.vote_finality),
        _rule(of_judgement.DecisionFinalized, decide.finalize, closings=_any_closing, epoch=certified),
        _rule(of_course.TaskError, course.error),
        _rule(of_course.TaskRetryScheduled, course.schedule_retry, timed=True),
        _rule(of_course.TaskExpired, course.expire, closings=frozenset({"SUSPENDED", "EXPIRED"})),
        _rule(of_course.EpochEnded, end, epoch=opened),
        _halt(of_course.TaskStopped, course.stop, "STOPPED"),
        _halt(of_course.TaskSuspended, course.suspend, "SUSPENDED"),
        _halt(of_course.TaskKilled, course.kill, "KILLED"),
        _rule(of_course.TaskFeedbackReported, feedback.report, closings=_any_closing, epoch=untouched),
        _rule(of_course.ReuseRejectRecorded, feedback.record_reuse_reject),
    )
)


def new_state(pins: Pins, decisions: Iterable[Decision]) -> TaskState:
    """A task that just began, with pass 1's facts in any order; one that is told twice is one."""
    facts = {(decision.epoch, decision.candidate_hash): decision for decision in decisions}
    return TaskState([facts[place] for place in sorted(facts)], pins.continuous, Epoch(1, pins.creation.created_at))


def decision_of(certificate: DecisionCertificate) -> Decision:
    """Pass 1's fact of a certificate: only what its id binds."""
    proposed = certificate.candidate.payload
    assert isinstance(proposed, of_work.CandidateProposed)
    return Decision(
        certificate.epoch,
        certificate.candidate_hash,
        proposed.candidate.candidate_id,
        certificate.candidate.author,
        certificate.id,
        sha256(encode(proposed.candidate.output)),
    )


def apply(state: TaskState, pins: Pins, event: Event) -> Verdict:
    """Judge an event that sorts after all that the state holds; the state changes only if it is accepted."""
    payload = event.payload
    if payload is None:
        return UNSUPPORTED
    if isinstance(payload, of_work.TaskCreated):
        assert event.id == pins.task, "a creation is an event of its own stream"
        return ACCEPTED
    try:
        _judge(state, pins, event, payload)
    except Refused as refusal:
        return refused(refusal.reason, str(refusal))
    return ACCEPTED


def fold(pins: Pins, decisions: Iterable[Decision], events: Sequence[Event]) -> tuple[TaskState, list[Verdict]]:
    """The state that ``events``, in canonical order, make of a task, and the verdict on each of them."""
    state = new_state(pins, decisions)
    return state, [apply(state, pins, event) for event in events]


def _judge(state: TaskState, pins: Pins, event: Event, payload: Payload) -> None:
    rule = rules[type(payload)]
    if state.closing != "OPEN" and state.closing not in rule.closings:
        raise Refused("task_closed", f"the task is {state.closing}: it accepts only feedback")
    work = rule.epoch(state, pins, event)
    _check_role(rule, pins, event, payload)
    turn = Turn(state, pins, event, work, event.author, event.created_at)
    if rule.timed and turn.at >= pins.contract.expiry_ms:
        raise Refused(
            "task_past_expiry",
            f"the task expired at {moment(pins.contract.expiry_ms)}; the event is from {moment(turn.at)}",
        )
    if rule.boxed:
        check_time_box(turn)
    rule.handle(turn, payload)
    state.work = work


def _check_role(rule: Rule, pins: Pins, event: Event, payload: Any) -> None:
    roles = _claimed_roles[payload.role] if rule.claimed else rule.roles
    if not roles or not roles.isdisjoint(pins.membership.members.get(event.author, ())):
        return
    if rule.creator and event.author == pins.creation.author:
        return
    wanted = " or ".join(sorted(roles)) + (", or the task's creator" if rule.creator else "")
    raise Refused(
        "role",
        f"{event.kind} is for a {wanted}; {short(event.author)} is none in membership version "
        f"{pins.membership.number}, which the task pins",
    )
