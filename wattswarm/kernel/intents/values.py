"""What a node may be told to do next, what it remembers of its own, and whose turn it is.

``Mine`` holds what no event says (yet): salts, verdicts not published, work under way. Lose it, and what it
guarded is lost too - a vote that cannot be opened ends with its deadline - but nothing is ever done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import lru_cache

from msgspec import Struct, field

from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Draft
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.payloads.fields import ClaimRole, Payload
from wattswarm.kernel.payloads.judge import VerifierResult
from wattswarm.kernel.payloads.work import TaskClaimed, TaskClaimReleased, TaskClaimRenewed
from wattswarm.kernel.task.pins import Pins
from wattswarm.kernel.task.state import Epoch, Lease, TaskState, Tenure
from wattswarm.kernel.task.turn import past, tenures, used_units, used_units_of

turn_ms = 1_000
"""How long each waits for those before it in line."""

late_ms_max = 5_000
"""What hears of things later than this is not slow but was away."""

failures_max = 3
"""After so many failures of its executor in an epoch, a node leaves that work to others."""


class Author(Struct, frozen=True):
    """Author this event. Several in a row belong together: one request, all or none."""

    draft: Draft


class Execute(Struct, frozen=True):
    """Have the executor work out a candidate, then author it, or a TASK_ERROR. ``lease_until`` in unix ms."""

    epoch: int
    attempt: int
    execution_id: str
    candidate_id: str
    lease_until: int


class Verify(Struct, frozen=True):
    """Have the executor verify a candidate, then remember the ``Judgement``, or author a TASK_ERROR."""

    epoch: int
    attempt: int
    candidate_hash: bytes
    execution_id: str
    lease_until: int


class VoteFinality(Struct, frozen=True):
    """Sign the finality statement and author the vote, if the node's own rules let it; else remember why not."""

    epoch: int
    candidate_hash: bytes


class Wait(Struct, frozen=True):
    """Nothing to do before ``until_ms`` (unix ms) or until something arrives. ``why`` is for people."""

    until_ms: int
    why: str


Intent = Author | Execute | Verify | VoteFinality | Wait


class Judgement(Struct, frozen=True):
    """What this node's executor said of a candidate. ``attested``: the digests that could be read.

    ``salt``: for the vote that follows from it, at least 32 random hex digits.
    """

    result: VerifierResult
    attested: tuple[str, ...]
    salt: str


class Failure(Struct, frozen=True):
    """How often the executor failed at a kind of work, and when last (unix ms)."""

    count: int
    at_ms: int


class Mine(Struct, frozen=True):
    """What this node remembers of its own work on one task.

    ``busy``: execution ids being worked on now. ``judgements``: (epoch, attempt, candidate_hash) -> verdict.
    ``failures``: (epoch, ``propose``, ``verify`` or ``finalize``) -> failures. ``withheld``: epoch -> why no finality
    vote is cast. ``unable``: why no executor can be asked now, or empty; what needs none goes on. ``seen_ms``: when
    this node saw the work move last, unix ms.
    """

    busy: Set[str] = frozenset()
    judgements: Mapping[tuple[int, int, bytes], Judgement] = field(default_factory=dict)
    failures: Mapping[tuple[int, str], Failure] = field(default_factory=dict)
    withheld: Mapping[int, str] = field(default_factory=dict)
    unable: str = ""
    seen_ms: int = 0


class Sight(Struct, frozen=True):
    """One look at a task: its state, the epoch's ``work`` that is going on, who looks, and when (unix ms)."""

    state: TaskState
    work: Epoch
    pins: Pins
    me: bytes
    now: int
    mine: Mine

    @property
    def expiry(self) -> int:
        """When the task expires, unix ms: what every wait ends with at the latest."""
        return self.pins.contract.expiry_ms

    def has(self, role: str) -> bool:
        """Whether this node has the role in the membership that the task pins."""
        return self.pins.membership.has(self.me, role)

    def say(self, payload: Payload) -> Author:
        """The intent to author ``payload`` in the epoch that is going on."""
        return Author(Draft(payload, self.pins.task, self.work.number))

    def can_pay(self, stage: str, units: int) -> bool:
        """Whether this node and the epoch have that many units of the stage left."""
        own = used_units_of(self.work, self.me, stage) + units <= self.pins.shares[stage]
        return own and used_units(self.work, stage) + units <= self.pins.buckets[stage]


@lru_cache(maxsize=4_096)
def line(task: bytes, epoch: int, duty: str, nodes: frozenset[bytes]) -> tuple[bytes, ...]:
    """The order in which ``nodes`` have their turn at a duty: the same for everybody, another for every task."""
    said = b"wattswarm/line/v1|" + task + epoch.to_bytes(8, "big") + duty.encode() + b"|"
    return tuple(sorted(nodes, key=lambda node: sha256(said + node)))


def wait_for_turn(
    sight: Sight,
    duty: str,
    nodes: Set[bytes],
    since: int,
    at_once: int = 1,
    later: Callable[[bytes], int] = lambda _node: 0,
) -> Wait | None:
    """None if it is this node's turn. The first ``at_once`` in line act at once, each other a turn later.

    Turns are reckoned from when this node saw the work move, and are longer by as much as it heard of it late: so late
    it hears of the others' answers too, and a node that was away does not take over from those who went on.
    ``later``: nodes for which it gives more come after those for which it gives less.
    """
    order = sorted(line(sight.pins.task, sight.work.number, duty, frozenset(nodes)), key=later)
    place = order.index(sight.me)
    before = max(0, place - max(at_once, 1) + 1)
    late_ms = max(0, sight.mine.seen_ms - since)
    due = since + late_ms + before * (turn_ms + min(late_ms, late_ms_max)) if before else since
    if sight.now >= due:
        return None
    return Wait(due, f"{place} of {len(nodes)} members come first to {duty}")


# -- leases ------------------------------------------------------------------------------------------------------------


def own_leases(sight: Sight, role: str) -> list[Lease]:
    """This node's leases of the role that have not run out by its own clock."""
    tenure = tenures(sight.work, role).get(sight.me)
    return [] if tenure is None else [lease for lease in tenure.leases if lease.until > sight.now]


def live_leases(sight: Sight, role: str) -> list[tuple[bytes, Lease]]:
    """(holder, lease) of every live lease of the role."""
    return [
        (holder, lease)
        for holder, tenure in tenures(sight.work, role).items()
        for lease in tenure.leases
        if not past(lease.until, sight.now)
    ]


def claim(sight: Sight, role: ClaimRole) -> Author | Wait:
    """Claim a lease, or give back an old one first, or wait: for a slot, or to the end if this node had its share."""
    pins, work = sight.pins, sight.work
    tenure = tenures(work, role).get(sight.me)
    left = pins.lease_total_ms - (0 if tenure is None else tenure.held_ms)
    if left <= 0:
        return Wait(sight.expiry, f"this node has held {role} leases for the {pins.lease_total_ms} ms an epoch allows")
    live, slots = live_leases(sight, role), pins.lease_slots[role]
    if len(live) >= slots:
        for holder, lease in live:
            if holder == sight.me:
                return sight.say(TaskClaimReleased(role, lease.execution_id))
        free_at = min(lease.until for _, lease in live) + clock_skew_tolerance_ms + 1
        return Wait(free_at, f"{len(live)} of {slots} {role} leases are held by others")
    lease_ms = min(pins.contract.assignment.claim.lease_ms, left)
    return sight.say(TaskClaimed(role, _new_execution(sight, role, tenure), sight.now + lease_ms))


def _new_execution(sight: Sight, role: ClaimRole, tenure: Tenure | None) -> str:
    """An execution id that this node did not use before in this epoch."""
    work = sight.work
    used = {candidate.execution_id for candidate in work.candidates.values() if candidate.author == sight.me}
    if tenure is not None:
        used |= {tenure.released, *(lease.execution_id for lease in tenure.leases)}
    first = f"{role}-{work.number}-{work.attempt}-{sight.now:x}"
    return next(name for name in (first, *(f"{first}-{n}" for n in range(len(used)))) if name not in used)


def at_work(sight: Sight, role: str) -> bool:
    """Whether this node's executor works at the role now, under whatever lease."""
    return any(execution.startswith(role + "-") for execution in sight.mine.busy)


def hold(sight: Sight, role: ClaimRole, lease: Lease | None) -> Author | Wait:
    """Keep the lease of work under way: renew it in its last third, else wait until then."""
    pins = sight.pins
    if lease is None:
        return Wait(sight.expiry, f"the executor still works to {role}, though the lease has run out")
    lease_ms = pins.contract.assignment.claim.lease_ms
    renew_at = lease.until - lease_ms // 3
    left = pins.lease_total_ms - tenures(sight.work, role)[sight.me].held_ms
    until = min(sight.now + lease_ms, lease.until + left)
    if sight.now < renew_at or until <= lease.until:
        due = renew_at if sight.now < renew_at else lease.until
        return Wait(due, f"the executor works on {lease.execution_id}")
    return sight.say(TaskClaimRenewed(role, lease.execution_id, until))


def wait_for_executor(sight: Sight) -> Wait | None:
    """None if an executor can be asked; whoever finds one asks again."""
    return Wait(sight.expiry, sight.mine.unable) if sight.mine.unable else None


def wait_after_failures(sight: Sight, role: str) -> Wait | None:
    """None if this node may try again: it waits longer after each failure, and gives up in the end."""
    failure = sight.mine.failures.get((sight.work.number, role))
    if failure is None:
        return None
    if failure.count >= failures_max:
        return Wait(sight.expiry, f"the executor failed {failure.count} times to {role}: left to others")
    due = failure.at_ms + (turn_ms << failure.count)
    return None if sight.now >= due else Wait(due, f"the executor failed to {role}; trying again")
