"""A task's course: errors, new rounds, expiry, and the stops that people ask for (docs/protocol.md §6).

One creator may end its own task; others need ⌊n/3⌋ + 1 of their role, so that no single liar steers a task.
"""

from __future__ import annotations

from typing import Literal

from wattswarm.kernel.limits import error_namespace_bytes_max, retry_horizon_ms_max
from wattswarm.kernel.payloads.course import (
    TaskError,
    TaskExpired,
    TaskKilled,
    TaskRetryScheduled,
    TaskStopped,
    TaskSuspended,
)
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.lease import give_back
from wattswarm.kernel.task.pins import Pins
from wattswarm.kernel.task.state import Epoch
from wattswarm.kernel.task.turn import Turn, past
from wattswarm.kernel.task.vote import tally
from wattswarm.kernel.task.wording import moment, short


def error(turn: Turn, payload: TaskError) -> None:
    """A record that an attempt failed; its author's leases with that execution end."""
    if not payload.reason_codes:
        raise Refused("reason_codes_empty", "reason_codes is empty; expected at least one code")
    if Reason.CUSTOM_ERROR in payload.reason_codes:
        for name, text in (
            ("custom_reason_namespace", payload.custom_reason_namespace),
            ("custom_reason_code", payload.custom_reason_code),
        ):
            size = len((text or "").encode())
            if not 1 <= size <= error_namespace_bytes_max:
                raise Refused(
                    "custom_reason",
                    f"{name} has {size} bytes; code 999 needs 1 to {error_namespace_bytes_max}",
                )
    for role in ("propose", "verify"):
        give_back(turn, role, payload.execution_id)


def schedule_retry(turn: Turn, payload: TaskRetryScheduled) -> None:
    """A committer's call for the next round; ⌊n/3⌋ + 1 of them open it."""
    work = turn.work
    if payload.attempt == work.attempt and work.attempt > 1:
        return
    steps = turn.pins.contract.budget.max_steps
    if payload.attempt != work.attempt + 1:
        raise Refused(
            "attempt_order",
            f"attempt {payload.attempt} cannot follow round {work.attempt}; expected {work.attempt + 1}",
        )
    if payload.attempt > steps:
        raise Refused("attempts_over", f"attempt {payload.attempt} is beyond max_steps {steps}")
    if payload.run_at > turn.at + retry_horizon_ms_max:
        raise Refused(
            "retry_horizon",
            f"run_at {moment(payload.run_at)} is more than {retry_horizon_ms_max} ms after the event's own time "
            f"{moment(turn.at)}",
        )
    if turn.author in work.retries:
        return
    why_not = round_goes_on(turn.pins, work, turn.at)
    if why_not is not None:
        raise Refused("retry_not_due", f"round {work.attempt} goes on: {why_not}")
    work.retries[turn.author] = payload.run_at
    work.moved_at = turn.at
    if len(work.retries) >= turn.pins.membership.third("committer"):
        work.attempt = payload.attempt
        work.run_at = min(work.retries.values())
        work.retries.clear()
        work.votes.clear()


def round_goes_on(pins: Pins, work: Epoch, at: int) -> str | None:
    """Why the round is not over and lost, or None: it has commits, none can still be opened, and no quorum."""
    vote_terms = pins.contract.acceptance
    if not work.votes:
        return "nobody has committed a vote"
    for voter, vote in sorted(work.votes.items(), key=lambda entry: entry[0]):
        deadline = vote.committed_at + vote_terms.vote.reveal_deadline_ms
        if vote.approves is None and not past(deadline, at):
            return f"{short(voter)} may reveal until {moment(deadline)}"
    for candidate in sorted({vote.candidate_hash for vote in work.votes.values()}):
        approvals, _ = tally(pins, work, candidate)
        if approvals >= vote_terms.quorum_threshold:
            return f"candidate {short(candidate)} has the quorum of {vote_terms.quorum_threshold} approvals"
    return None


def expire(turn: Turn, _payload: TaskExpired) -> None:
    """The contract's ``expiry_ms`` has passed: no skew."""
    expiry = turn.pins.contract.expiry_ms
    if turn.at < expiry:
        raise Refused("not_expired", f"the task expires at {moment(expiry)}; the event is from {moment(turn.at)}")
    turn.state.closing = "EXPIRED"


def stop(turn: Turn, _payload: TaskStopped) -> None:
    """No more work is wanted."""
    _halt(turn, "STOPPED")


def suspend(turn: Turn, _payload: TaskSuspended) -> None:
    """Nothing is accepted any more, until the task expires."""
    _halt(turn, "SUSPENDED")


def kill(turn: Turn, _payload: TaskKilled) -> None:
    """The task was harmful or mistaken."""
    _halt(turn, "KILLED")


def _halt(turn: Turn, closing: Literal["STOPPED", "SUSPENDED", "KILLED"]) -> None:
    """At once from the creator; from finalizers when ⌊n/3⌋ + 1 of them asked for the same."""
    state = turn.state
    if state.closing == closing:
        return
    if turn.author != turn.pins.creation.author:
        asked = state.halts.setdefault(closing, [])
        if turn.author not in asked:
            asked.append(turn.author)
        if len(asked) < turn.pins.membership.third("finalizer"):
            return
    state.closing = closing
