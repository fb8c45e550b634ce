"""One event before the rules: what a rule may look at, and the checks that several rules share.

Rules check first and change last, so a refusal - an exception here, a verdict in ``fold`` - leaves the state as
it was. ``pay`` is therefore the last check and the first change. Keeps the skew and the stage budgets of
docs/protocol.md §6.
"""

from __future__ import annotations

from msgspec import Struct

from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.pins import Pins
from wattswarm.kernel.task.state import Candidate, Epoch, Lease, Spent, TaskState, Tenure
from wattswarm.kernel.task.wording import moment, short


class Turn(Struct, gc=False):
    """``event``'s turn: it was created ``at`` (unix ms), and ``work`` is the epoch that it names."""

    state: TaskState
    pins: Pins
    event: Event
    work: Epoch
    author: bytes
    at: int


def past(deadline_ms: int, at: int) -> bool:
    """Whether a lease's or a reveal's deadline is over for an event of ``at``: the clock skew is allowed."""
    return deadline_ms + clock_skew_tolerance_ms < at


def tenures(work: Epoch, role: str) -> dict[bytes, Tenure]:
    """Author -> its leases of the role ``propose`` or ``verify``."""
    return work.propose if role == "propose" else work.verify


def need_lease(turn: Turn, role: str, execution_id: str) -> Lease:
    """The author's live lease of the role with that execution. Raises ``Refused`` if there is none."""
    tenure = tenures(turn.work, role).get(turn.author)
    for lease in tenure.leases if tenure is not None else ():
        if lease.execution_id == execution_id:
            if past(lease.until, turn.at):
                raise Refused(
                    "lease_expired",
                    f"the {role} lease of execution {execution_id} expired at {moment(lease.until)}; "
                    f"the event is from {moment(turn.at)}, more than {clock_skew_tolerance_ms} ms later",
                )
            return lease
    raise Refused("no_lease", f"{short(turn.author)} holds no {role} lease with execution {execution_id}")


def need_candidate(turn: Turn, candidate_hash: bytes, candidate_id: str) -> Candidate:
    """The epoch's candidate with that hash. Raises ``Refused`` if there is none, or if its id is another."""
    candidate = turn.work.candidates.get(candidate_hash)
    if candidate is None:
        raise Refused(
            "candidate_unknown", f"no candidate with hash {short(candidate_hash)} in epoch {turn.work.number}"
        )
    if candidate.candidate_id != candidate_id:
        raise Refused(
            "candidate_id_wrong",
            f"candidate {short(candidate_hash)} has the id {candidate.candidate_id}, the event says {candidate_id}",
        )
    return candidate


def need_named(turn: Turn, candidate_id: str) -> list[Candidate]:
    """The epoch's candidates with that id, in the order of hashes: proposers may choose alike. Raises ``Refused``."""
    held = turn.work.candidates
    named = [held[name] for name in sorted(held) if held[name].candidate_id == candidate_id]
    if not named:
        raise Refused("candidate_unknown", f"no candidate with id {candidate_id} in epoch {turn.work.number}")
    return named


def pay(turn: Turn, stage: str) -> None:
    """Charge one cost unit of the stage to the author; the event counts from here on.

    Raises ``Refused`` if the epoch's bucket or the author's share of it is used up.
    """
    bucket, share = turn.pins.buckets[stage], turn.pins.shares[stage]
    used = used_units_of(turn.work, turn.author, stage)
    if used >= share:
        raise Refused(
            "budget_share",
            f"{short(turn.author)} used {used} of its {share} {stage} units in epoch {turn.work.number}",
        )
    whole = used_units(turn.work, stage)
    if whole >= bucket:
        raise Refused("budget_spent", f"all {bucket} {stage} units of epoch {turn.work.number} are used")
    setattr(turn.work.spent.setdefault(turn.author, Spent()), stage, used + 1)
    turn.work.moved_at = turn.at


def used_units_of(work: Epoch, author: bytes, stage: str) -> int:
    """Cost units of the stage that one author used in this epoch."""
    spent = work.spent.get(author)
    return 0 if spent is None else int(getattr(spent, stage))


def used_units(work: Epoch, stage: str) -> int:
    """Cost units of the stage that all authors used in this epoch."""
    return sum(getattr(spent, stage) for spent in work.spent.values())
