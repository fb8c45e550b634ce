"""What a task waits for, and for whom, in words: the same look at the state that decides whose turn it is.

Pure, and said from nobody's place: what a node remembers of its own is not asked, so whoever holds the log can tell.
Knows no rule of its own; the rules are the fold's (docs/protocol.md §6, §7).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from wattswarm.kernel.intents.values import Mine, Sight, line, live_leases
from wattswarm.kernel.intents.verify import untapped
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.task.course import round_goes_on
from wattswarm.kernel.task.fold import Pins, TaskState, status
from wattswarm.kernel.task.state import Epoch
from wattswarm.kernel.task.turn import past
from wattswarm.kernel.task.vote import counts, quorum_candidate, tally

named_max = 4
"""How many members are named before the rest is counted."""


def outlook(state: TaskState, pins: Pins, now_ms: int, away: Mapping[bytes, int] | None = None) -> str:
    """One sentence: what the task waits for, and for whom; empty if it is over.

    "1 of 2 approvals": one more is needed, of two. ``away``: members that cannot be reached -> since when (unix ms);
    that is said of those who still owe something, and whoever comes next in line is named behind them.
    """
    reported = status(state)
    if reported not in ("OPEN", "SUSPENDED"):
        return ""
    work = state.work
    if work.ended_at is not None:
        work = Epoch(work.number + 1, work.ended_at)
    sight = Sight(state, work, pins, b"", now_ms, Mine())
    wanted, whom = _wanted(sight, reported)
    said = "; ".join(_bounded(_with_absence(whom, now_ms, away or {})))
    return f"waiting for {wanted}: {said}" if said else f"waiting for {wanted}"


class Said(NamedTuple):
    """What is said of a member; None: of nobody in particular.

    ``part``: it owes something, has done its part, or stands in a line, of which the first that is there is meant.
    """

    node: bytes | None
    text: str
    part: Literal["owes", "done", "in line"] = "owes"


Whom = Iterable[Said]


def _wanted(sight: Sight, reported: str) -> tuple[str, Whom]:
    """The next thing that must happen, and who can see to it."""
    pins, work, now = sight.pins, sight.work, sight.now
    if now >= sight.expiry:
        return "a member to declare it expired", ()
    if reported == "SUSPENDED":
        return f"its expiry in {_duration(sight.expiry - now)}: it is suspended", ()
    if work.finalized or sight.state.decided(work.number):
        finalizers = pins.membership.having("finalizer")
        return f"the end of epoch {work.number}, which is decided", _in_line(sight, "end the epoch", finalizers)
    if work.committed is not None:
        return _proof(sight, work.committed)
    winner = quorum_candidate(pins, work)
    if winner is not None:
        finalizers = pins.membership.having("finalizer")
        return "the decision to be committed", _in_line(sight, "commit the decision", finalizers)
    if work.candidates:
        return _approvals(sight)
    return _candidate(sight)


def _proof(sight: Sight, committed: bytes) -> tuple[str, Whom]:
    pins, work = sight.pins, sight.work
    readers_wanted = pins.contract.acceptance.da_quorum_threshold
    for digest in work.candidates[committed].proposed:
        readers = work.attested.get(digest, [])
        if len(readers) < readers_wanted:
            missing = readers_wanted - len(readers)
            verifiers = pins.membership.having("verifier") - set(readers)
            said = f"{missing} of {readers_wanted} confirmations that evidence {digest[:19]}… can be read"
            return said, [Said(node, "has not confirmed") for node in sorted(verifiers)]
    enough = pins.membership.finality_threshold
    missing = enough - len(work.finality_votes)
    finalizers = pins.membership.having("finalizer")
    if missing <= 0:
        return "the proof to be published", _in_line(sight, "publish the proof", finalizers)
    silent = sorted(finalizers - work.finality_votes.keys())
    return f"{missing} of {enough} finality votes", [Said(node, "has not voted") for node in silent]


def _candidate(sight: Sight) -> tuple[str, Whom]:
    pins, work = sight.pins, sight.work
    at_work = list(_holders(sight, "propose", "works on it"))
    if at_work:
        return "a candidate", at_work
    if sight.now > work.started_at + pins.contract.budget.time_ms:
        return f"its expiry in {_duration(sight.expiry - sight.now)}: time_ms ran out without a candidate", ()
    return "a candidate", _in_line(sight, "propose", pins.membership.having("proposer"))


def _approvals(sight: Sight) -> tuple[str, Whom]:
    pins, work = sight.pins, sight.work
    quorum = pins.contract.acceptance.quorum_threshold
    if work.votes and round_goes_on(pins, work, sight.now) is None and not untapped(sight):
        return _another_round(sight)
    best = max(work.candidates, key=lambda name: (tally(pins, work, name)[0], name))
    missing = quorum - tally(pins, work, best)[0]
    return f"{missing} of {quorum} approvals", [*_voters(sight), *_verifiers(sight)]


def _voters(sight: Sight) -> Iterator[Said]:
    """Those that voted in this round, sealed votes first."""
    pins, work, now = sight.pins, sight.work, sight.now
    reveal_ms = pins.contract.acceptance.vote.reveal_deadline_ms
    for voter, vote in sorted(work.votes.items(), key=lambda entry: (entry[1].approves is not None, entry[0])):
        due = vote.committed_at + reveal_ms
        if vote.approves is None and past(due, now):
            yield Said(voter, "committed and did not reveal in time", "done")
        elif vote.approves is None:
            yield Said(voter, f"committed, reveal due in {_duration(max(0, due - now))}")
        elif not vote.approves:
            yield Said(voter, "rejected", "done")
        elif counts(pins, voter, work.candidates[vote.candidate_hash].author):
            yield Said(voter, "approved", "done")
        else:
            yield Said(voter, "approved its own candidate, which does not count", "done")


def _verifiers(sight: Sight) -> Iterator[Said]:
    """Those that may still vote in this round: at work, or next in line."""
    work = sight.work
    left = untapped(sight)
    at_work = [said for said in _holders(sight, "verify", "verifies") if said.node in left]
    yield from at_work
    undecided = {result.verifier for result in work.results if result.attempt == work.attempt} - work.votes.keys()
    yield from (Said(node, "could not decide", "done") for node in sorted(undecided - left))
    if not at_work:
        yield from _in_line(sight, "verify", left)


def _another_round(sight: Sight) -> tuple[str, Whom]:
    pins, work = sight.pins, sight.work
    lost = f"round {work.attempt} found no quorum"
    if work.attempt >= pins.contract.budget.max_steps:
        return (
            f"its expiry in {_duration(sight.expiry - sight.now)}: {lost} and was the last that max_steps allows",
            (),
        )
    committers, enough = pins.membership.having("committer"), pins.membership.third("committer")
    silent = sorted(committers - work.retries.keys())
    called = f"{enough - len(work.retries)} of {enough} calls for another round, as {lost}"
    return called, [Said(node, "has not called") for node in silent]


def _holders(sight: Sight, role: str, does: str) -> Iterator[Said]:
    for node, lease in sorted(live_leases(sight, role), key=lambda held: (held[1].until, held[0])):
        left_ms = lease.until + clock_skew_tolerance_ms - sight.now
        yield Said(node, f"{does}, its lease runs for {_duration(left_ms)}")


def _in_line(sight: Sight, duty: str, nodes: Collection[bytes]) -> Whom:
    """Who comes first, as all members reckon it."""
    order = line(sight.pins.task, sight.work.number, duty, frozenset(nodes))
    if not order:
        return [Said(None, "no member has the role")]
    behind = (Said(node, "is next in line", "in line") for node in order[1:])
    return [Said(order[0], f"is the first of {len(order)} in line", "in line"), *behind]


def _with_absence(whom: Whom, now_ms: int, away: Mapping[bytes, int]) -> Iterator[str]:
    for node, text, part in whom:
        if node is None:
            yield text
            continue
        gone = node in away and part != "done"
        yield f"node {node.hex()[:4]}… {f'offline for {_duration(max(0, now_ms - away[node]))}' if gone else text}"
        if part == "in line" and not gone:
            return


def _bounded(said: Iterable[str]) -> list[str]:
    every = list(said)
    more = len(every) - named_max
    return every if more <= 0 else [*every[:named_max], f"and {more} more"]


_units = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def _duration(ms: int) -> str:
    """A length of time in the largest unit of which it has two, rounded up: it is not over before it is said to be."""
    for size, unit in _units:
        if ms >= 2 * size or unit == "s":
            return f"{-(-ms // size)} {unit}"
    raise AssertionError("seconds are the last unit")
