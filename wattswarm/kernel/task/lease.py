"""Claims: leases on the right to propose or to verify (docs/protocol.md §6 "Claim").

The claim that holds is the first in canonical order, so two nodes that claim at once agree, without a word, on
who won. Time that is given back - by a release, or an error - is taken off what an author held in all.
"""

from __future__ import annotations

from wattswarm.kernel.payloads.work import TaskClaimed, TaskClaimReleased, TaskClaimRenewed
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.pins import lease_ms_longest
from wattswarm.kernel.task.state import Lease, Tenure
from wattswarm.kernel.task.turn import Turn, need_lease, past, tenures
from wattswarm.kernel.task.wording import moment, short


def claim(turn: Turn, payload: TaskClaimed) -> None:
    """A new lease, if the role has a free slot and the author time left to hold one."""
    _check_window(turn, payload)
    held = tenures(turn.work, payload.role)
    tenure = held.get(turn.author) or Tenure()
    for lease in tenure.leases:
        if lease.execution_id == payload.execution_id and not past(lease.until, turn.at):
            if payload.lease_until <= lease.until:
                return
            raise Refused(
                "lease_live",
                f"execution {payload.execution_id} has a {payload.role} lease until {moment(lease.until)}: renew it",
            )
    live = [
        (author, lease) for author, other in held.items() for lease in other.leases if not past(lease.until, turn.at)
    ]
    slots = turn.pins.lease_slots[payload.role]
    if len(live) >= slots:
        author, first = min(live, key=lambda entry: (entry[1].until, entry[0]))
        raise Refused(
            "claim_conflict",
            f"{len(live)} of {slots} {payload.role} leases are held; the next to end is {short(author)}'s, "
            f"at {moment(first.until)}",
        )
    _check_total(turn, payload, tenure, payload.lease_until - turn.at)
    for other in held.values():
        other.leases = [lease for lease in other.leases if not past(lease.until, turn.at)]
    tenure.held_ms += payload.lease_until - turn.at
    tenure.leases.append(Lease(payload.execution_id, turn.at, payload.lease_until))
    held[turn.author] = tenure
    turn.work.moved_at = turn.at


def renew(turn: Turn, payload: TaskClaimRenewed) -> None:
    """The author's live lease, until later."""
    _check_window(turn, payload)
    lease = need_lease(turn, payload.role, payload.execution_id)
    if payload.lease_until <= lease.until:
        return
    tenure = tenures(turn.work, payload.role)[turn.author]
    _check_total(turn, payload, tenure, payload.lease_until - lease.until)
    tenure.held_ms += payload.lease_until - lease.until
    lease.until = payload.lease_until


def release(turn: Turn, payload: TaskClaimReleased) -> None:
    """The author's live lease ends now."""
    if _released(tenures(turn.work, payload.role).get(turn.author), payload.execution_id):
        return
    need_lease(turn, payload.role, payload.execution_id)
    give_back(turn, payload.role, payload.execution_id)


def _released(tenure: Tenure | None, execution_id: str) -> bool:
    if tenure is None or tenure.released != execution_id:
        return False
    return all(lease.execution_id != execution_id for lease in tenure.leases)


def give_back(turn: Turn, role: str, execution_id: str) -> None:
    """End the author's leases with that execution, if it has any that are live; the rest of their time is free."""
    tenure = tenures(turn.work, role).get(turn.author)
    for lease in tenure.leases if tenure is not None else ():
        if lease.execution_id == execution_id and not past(lease.until, turn.at):
            assert tenure is not None
            tenure.held_ms -= max(0, lease.until - turn.at)
            tenure.leases.remove(lease)
            tenure.released = execution_id
            turn.work.moved_at = turn.at
            return


def _check_window(turn: Turn, payload: TaskClaimed | TaskClaimRenewed) -> None:
    if payload.lease_until <= turn.at:
        raise Refused(
            "lease_window",
            f"lease_until {moment(payload.lease_until)} is not after the event's own time {moment(turn.at)}",
        )
    longest = lease_ms_longest(turn.pins)
    if payload.lease_until > turn.at + longest:
        raise Refused(
            "lease_window",
            f"lease_until {moment(payload.lease_until)} is more than {longest} ms (lease_ms and clock skew) after "
            f"the event's own time {moment(turn.at)}",
        )


def _check_total(turn: Turn, payload: TaskClaimed | TaskClaimRenewed, tenure: Tenure, more_ms: int) -> None:
    allowed = turn.pins.lease_total_ms
    if tenure.held_ms + more_ms > allowed:
        raise Refused(
            "lease_total",
            f"{short(turn.author)} would hold {payload.role} leases of {tenure.held_ms + more_ms} ms in epoch "
            f"{turn.work.number}; an author may hold {allowed} ms",
        )
