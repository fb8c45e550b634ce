"""Which epoch an event's work belongs to, and how a CONTINUOUS task's epochs end (docs/protocol.md §6 "Epochs").

Canonical order is by epoch first, so one epoch's work is held at a time and the next begins empty. Epoch e + 1 is
open iff e has a certificate or a valid EPOCH_ENDED.
"""

from __future__ import annotations

from wattswarm.kernel.event import Event
from wattswarm.kernel.payloads.course import EpochEnded
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.pins import Pins
from wattswarm.kernel.task.state import Epoch, TaskState
from wattswarm.kernel.task.turn import Turn, used_units
from wattswarm.kernel.task.wording import moment


def opened(state: TaskState, pins: Pins, event: Event) -> Epoch:
    """The work of the open epoch that ``event`` names: the state's, or the empty beginning of the next.

    Raises ``Refused`` if that epoch is not open yet. A beginning is no part of the state before an event of it is
    accepted.
    """
    work = state.work
    assert event.epoch >= work.number, "canonical order is by epoch first"
    if event.epoch == work.number:
        return work
    before = event.epoch - 1
    ended_here = before == work.number and work.ended_at is not None
    if not pins.continuous:
        raise Refused("epoch_not_open", f"epoch {event.epoch} does not exist: the task is ONE_SHOT")
    if not (ended_here or state.decided(before)):
        raise Refused(
            "epoch_not_open",
            f"epoch {event.epoch} is not open: epoch {before} neither ended nor has a decision certificate",
        )
    return _beginning(work, event)


def going(state: TaskState, pins: Pins, event: Event) -> Epoch:
    """The work of the open epoch that ``event`` names, while it takes work. Raises ``Refused``."""
    work = opened(state, pins, event)
    if work.ended_at is not None:
        raise Refused("epoch_over", f"epoch {work.number} ended at {moment(work.ended_at)}")
    if work.finalized:
        raise Refused("epoch_over", f"epoch {work.number} is decided and final")
    return work


def certified(state: TaskState, _pins: Pins, event: Event) -> Epoch:
    """The work of the epoch that ``event`` names; that it may name it is for pass 1 to say."""
    return state.work if event.epoch == state.work.number else _beginning(state.work, event)


def untouched(state: TaskState, _pins: Pins, _event: Event) -> Epoch:
    """The work as it stands: the event is about a decision, not about an epoch's work."""
    return state.work


def _beginning(work: Epoch, event: Event) -> Epoch:
    """Empty work of the event's epoch. Its time runs from the EPOCH_ENDED before it, or else from this event."""
    ended = work.ended_at if work.number == event.epoch - 1 else None
    return Epoch(event.epoch, event.created_at if ended is None else ended)


def check_time_box(turn: Turn) -> None:
    """Whether ``time_ms`` of the epoch still runs. Raises ``Refused``."""
    end = turn.work.started_at + turn.pins.contract.budget.time_ms
    if turn.at > end:
        raise Refused(
            "time_box_over",
            f"time_ms of epoch {turn.work.number} ran out at {moment(end)}; the event is from {moment(turn.at)}",
        )


def end(turn: Turn, payload: EpochEnded) -> None:
    """A CONTINUOUS task's epoch is over, for a reason that holds."""
    if not turn.pins.continuous:
        raise Refused("not_continuous", "the task is ONE_SHOT: its epoch does not end before the task")
    if not _reasons[payload.reason](turn):
        raise Refused(
            "epoch_reason",
            f"epoch {turn.work.number} cannot end with {payload.reason}: {_why_not[payload.reason]}",
        )
    if turn.work.ended_at is None:
        turn.work.ended_at = turn.at


def budget_used_up(turn: Turn) -> bool:
    """Whether a stage's bucket is empty."""
    return any(used_units(turn.work, stage) >= bucket for stage, bucket in turn.pins.buckets.items())


def _time_passed(turn: Turn) -> bool:
    return turn.at >= turn.work.started_at + turn.pins.contract.budget.time_ms


def _certified(turn: Turn) -> bool:
    return turn.state.decided(turn.work.number)


_reasons = {"BUDGET_EXHAUSTED": budget_used_up, "TIMEBOX_REACHED": _time_passed, "FINALIZED": _certified}
_why_not = {
    "BUDGET_EXHAUSTED": "no stage's bucket is used up",
    "TIMEBOX_REACHED": "its time_ms still runs",
    "FINALIZED": "it has no decision certificate",
}
