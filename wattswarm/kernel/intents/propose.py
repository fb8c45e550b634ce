"""What a proposer does next: claim, execute, and another candidate when those at hand are lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from wattswarm.kernel.intents.values import (
    Execute,
    Intent,
    Sight,
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
from wattswarm.kernel.task.state import Candidate, Epoch
from wattswarm.kernel.task.vote import quorum_candidate


def proposing(sight: Sight) -> Iterator[Intent]:
    """Claims, executions and waits of this node as a proposer."""
    work = sight.work
    if not sight.has("proposer") or work.committed is not None or quorum_candidate(sight.pins, work) is not None:
        return
    if at_work(sight, "propose"):
        busy = [lease for lease in own_leases(sight, "propose") if lease.execution_id in sight.mine.busy]
        yield hold(sight, "propose", busy[0] if busy else None)
        return
    given = {candidate.execution_id for candidate in work.candidates.values() if candidate.author == sight.me}
    for lease in own_leases(sight, "propose"):
        if lease.execution_id not in given:
            name = f"{sight.me.hex()[:8]}-{lease.execution_id}"
            act = Execute(work.number, work.attempt, lease.execution_id, name, lease.until)
            yield wait_for_executor(sight) or act
            return
    missing = _missing(sight)
    if missing <= 0 or any(candidate.author == sight.me for candidate in hopeful(work)):
        return
    end = work.started_at + sight.pins.contract.budget.time_ms
    if sight.now > end:
        yield Wait(sight.expiry, "time_ms of the epoch ran out: no new candidates")
    elif not sight.can_pay("explore", 1):
        yield Wait(sight.expiry, "the explore units that this node may use are spent")
    else:
        since = max(work.started_at, work.moved_at, work.run_at)
        others = sight.pins.membership.having("proposer") - _proposed_or_at_it(sight)
        yield (
            wait_after_failures(sight, "propose")
            or wait_for_executor(sight)
            or wait_for_turn(sight, "propose", others | {sight.me}, since, missing, later=_given_by(work))
            or claim(sight, "propose")
        )


def _missing(sight: Sight) -> int:
    """How many more candidates the epoch wants: as many as there are slots at first, later one that may win."""
    work, explore = sight.work, sight.pins.contract.assignment.explore
    if len(work.candidates) >= explore.topk and any(result.status == "passed" for result in work.results):
        return 0
    given = {(candidate.author, candidate.execution_id) for candidate in work.candidates.values()}
    under_way = [
        holder
        for holder, lease in live_leases(sight, "propose")
        if holder != sight.me and (holder, lease.execution_id) not in given
    ]
    proposers = len(sight.pins.membership.having("proposer"))
    first_round = work.attempt == 1 and not work.votes
    wanted = min(sight.pins.lease_slots["propose"], explore.topk, proposers) if first_round else 1
    return wanted - len(hopeful(work)) - len(under_way)


def _given_by(work: Epoch) -> Callable[[bytes], int]:
    """How many candidates a proposer gave in this epoch: those that gave fewer are asked first."""
    given = Counter(candidate.author for candidate in work.candidates.values())
    return lambda node: given[node]


def _proposed_or_at_it(sight: Sight) -> set[bytes]:
    holders = {holder for holder, _ in live_leases(sight, "propose")}
    return holders | {candidate.author for candidate in hopeful(sight.work)}


def hopeful(work: Epoch) -> list[Candidate]:
    """Candidates that may still win: not blacklisted, and not judged failed more often than passed."""
    found = []
    for name, candidate in work.candidates.items():
        said = [result.status for result in work.results if result.candidate_id == candidate.candidate_id]
        if name not in work.blacklist and said.count("failed") <= said.count("passed"):
            found.append(candidate)
    return found
